"""What each sensor usually reads at a time of day, as an input of the models."""

from __future__ import annotations

from typing import Any

from tsl_latentgnn.forecaster.profile import Clock, Profile

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tsl.data import HORIZON, WINDOW, BatchMapItem


def usual_readings(windows: Any, rows: np.ndarray, step: pd.Timedelta) -> np.ndarray:
    """Return the profile of a training part at each step ``[t n f]``, in the unit of the readings.

    It is :class:`tsl_latentgnn.forecaster.profile.Profile`: the mean of what a sensor read in the training part within
    30 minutes of a time of day, workdays and weekends apart where there are two of each. In the training part itself
    the own day is left out, for otherwise a reading would be part of its own feature.

    Args:
        windows: Windows of tsl, whose index has time stamps.
        rows: Steps of the training part, ascending.
        step: Time from one step to the next.

    Raises:
        ValueError: If the training part has not seen a season twice.
    """
    index = windows.index
    there = windows.get_mask(dtype=bool).numpy() & np.isfinite(windows.target.numpy())
    readings = np.where(there, windows.target.numpy(), np.nan)
    clock = Clock.of(index[rows], step)
    if clock is None:
        raise ValueError(
            "'dataset.profile' must be false for a training part that has not seen a day, a week or a year twice (got "
            f"{index[rows[0]]} to {index[rows[-1]]})."
        )
    profile, own = Profile.of(clock, readings[rows], index[rows], step)
    usual = profile.at(index)
    usual[rows] = own
    return usual


def feed_profile(windows: Any, usual: np.ndarray, inputs: tuple[str, ...]) -> None:
    """Let the covariates of a model tell what is usual.

    ``u`` gets the difference of the readings from the profile. A model that takes ``u_future`` gets in it the
    difference of the profile from the last reading; another one gets that of the profile one horizon later in ``u``,
    of which a window as long as the horizon shows all.

    Args:
        windows: Windows of tsl, which are scaled like the target when they are asked for.
        usual: The profile at each step ``[t n f]``.
        inputs: Named arguments of the model.

    Raises:
        ValueError: If the model takes no covariates.
    """
    if "u" not in inputs:
        raise ValueError(
            f"'dataset.profile' must be false for a model without covariates (it takes {', '.join(inputs)})."
        )
    windows.add_covariate("profile", usual, "t n f")
    if "u_future" in inputs:
        windows.update_input_map(profile_ahead=BatchMapItem("profile", HORIZON))
    else:
        later = np.minimum(np.arange(len(usual)) + windows.horizon, len(usual) - 1)
        windows.add_covariate("later", usual[later], "t n f", synch_mode=WINDOW)
    windows.transform = _tell


def profile_sizes(windows: Any) -> tuple[int, int]:
    """How many covariates of the window, and of the horizon, :func:`feed_profile` adds."""
    if windows.transform is not _tell:
        return 0, 0
    channels = windows.n_channels
    return (channels, channels) if "profile_ahead" in windows.input_map else (2 * channels, 0)


def _tell(batch: Any) -> Any:
    """Put what is usual among the covariates of a batch, or of one window."""
    given = batch.input
    x, now = given["x"], given["x"][..., -1:, :, :]
    u = [x - given["profile"]]
    if "later" in given.keys():  # noqa: SIM118 (a view iterates over values)
        u.append(given["later"] - x)
    else:
        _add(batch, "u_future", [given["profile_ahead"] - now])
    _add(batch, "u", u)
    for name in ("profile", "profile_ahead", "later"):
        if name in given.keys():  # noqa: SIM118
            del given[name]
            batch.transform.pop(name, None)
    return batch


def _add(batch: Any, name: str, features: list[Tensor]) -> None:
    given, like = batch.input, features[0]
    if name in given.keys():  # noqa: SIM118
        known = given[name]
        known = known if known.dim() == like.dim() else known.unsqueeze(-2)
        features = [known.expand(*like.shape[:-1], -1), *features]
    given[name] = torch.cat(features, -1)
    batch.pattern[name] = ("b " if like.dim() == 4 else "") + "t n f"
