"""What each sensor usually reads at that time, as an input of any model that tsl trains."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._checks import check_bool
from .._tsl import BatchMapItem, SynchMode
from ..nn.recurrent import last_reading
from ..profile import Clock, Profile
from .clock import usual_step

#: What the windows hold of the profile, until :class:`UsualReadings` puts it among the covariates.
NAMES = ("profile", "profile_ahead", "later")


def add_profile(datamodule: Any, future: bool = True) -> tuple[int, int]:
    r"""Let the covariates of a tsl data module tell what is usual at that time.

    .. code-block:: python

        dm.setup()
        exog_size, future_exog_size = add_profile(dm)
        model_kwargs |= {"exog_size": exog_size, "future_exog_size": future_exog_size}

    A :class:`~tsl_latentgnn.engines.DataCard` then has the profile, too.

    With the :class:`~tsl_latentgnn.profile.Profile` :math:`p` of the training part, in which the own day is left out,
    ``u`` gets :math:`x_t - p_t`, 0 where a reading is missing by ``input_mask``, and ``u_future`` gets :math:`p_{T + h}
    - x_T`, with :math:`x_T` the last reading that is there. Both stand behind the covariates that are there already,
    and are scaled as ``x`` is.

    Args:
        datamodule (tsl.data.SpatioTemporalDataModule): The data, set up, with time stamps.
        future (bool): Whether the model takes ``u_future``. One that does not gets :math:`p_{t + \mathrm{horizon}} -
            x_t` in ``u`` as well, of which a window as long as the horizon shows all that is to come.
            (default: ``True``)

    Returns:
        tuple: Sizes of ``u`` and ``u_future``, which are the model's ``exog_size`` and ``future_exog_size``.

    Raises:
        TypeError: If it is no data module.
        ValueError: If the data is not set up, has no clock, a trend, another transform, further channels in ``x``, a
            covariate named ``profile``, ``profile_ahead`` or ``later``, a ``u`` or ``u_future`` of other steps than
            those of the window and the horizon, or a training part that has not seen a season longer than its step, a
            day, a week or a year, twice.
    """
    check_bool("future", future)
    windows, _ = _set_up(datamodule)
    found = {"a trend": windows.trend is not None, "a transform": windows.transform is not None}
    for name in NAMES:
        found[f"a covariate '{name}'"] = name in windows.covariates or name in windows.input_map
    if any(found.values()):
        raise ValueError(
            f"'datamodule' must have no trend, no transform of its windows and no covariate {', '.join(NAMES)} (got "
            f"{' and '.join(name for name, is_there in found.items() if is_there)}): what is usual is put between the "
            "readings and the model."
        )
    first = windows[[0]].input
    channels = first["x"].size(-1)
    if channels != windows.n_channels:
        raise ValueError(
            f"'datamodule' must have the readings alone as 'x', of {windows.n_channels} channels (got {channels}): "
            "what is usual is told of the readings. Give what else is known as 'u'."
        )
    for name, steps in (("u", windows.window), ("u_future", windows.horizon)):
        if name in first.keys() and (first[name].dim() < 3 or first[name].size(1) != steps):  # noqa: SIM118
            raise ValueError(
                f"'datamodule' must have {steps} steps of '{name}' in each window, as covariates of time [t f] or "
                f"[t n f] (got {list(first[name].shape[1:])}): what is usual stands behind them."
            )
    profile, usual = usual_readings(datamodule)
    windows.add_covariate("profile", usual, "t n f", add_to_input_map=False)
    windows.update_input_map(profile=BatchMapItem("profile", SynchMode.WINDOW, preprocess=False))
    if future:
        windows.update_input_map(
            profile_ahead=BatchMapItem("profile", SynchMode.HORIZON, preprocess=False)
        )
    else:
        later = usual[np.minimum(np.arange(len(usual)) + windows.horizon, len(usual) - 1)]
        windows.add_covariate("later", later, "t n f", add_to_input_map=False)
        windows.update_input_map(later=BatchMapItem("later", SynchMode.WINDOW, preprocess=False))
    windows.transform = UsualReadings(profile)
    made = windows[[0]].input
    sizes = [made[name].size(-1) if name in made.keys() else 0 for name in ("u", "u_future")]  # noqa: SIM118
    return sizes[0], sizes[1]


def usual_readings(datamodule: Any) -> tuple[Profile, np.ndarray]:
    """Return the profile of the training part, and what it says of each step ``[t n f]``, in the unit of the readings.

    In the training part itself the own day is left out, for otherwise a reading would be part of its own feature.

    Args:
        datamodule (tsl.data.SpatioTemporalDataModule): The data, set up, with time stamps.

    Raises:
        TypeError: If it is no data module.
        ValueError: As :func:`add_profile` says.
    """
    windows, rows = _set_up(datamodule)
    index = windows.index
    step = usual_step(index)
    there = windows.get_mask(dtype=bool).numpy() & np.isfinite(windows.target.numpy())
    readings = np.where(there, windows.target.numpy(), np.nan)
    rows = rows.numpy()
    clock = Clock.of(index[rows], step) if len(rows) > 0 else None
    if clock is None:
        came = "an empty one"
        if len(rows) > 0:
            came = f"{index[rows[0]]} to {index[rows[-1]]} in steps of {step}"
        raise ValueError(
            "'datamodule' must have a training part that has seen a season longer than its step, a day, a week or a "
            f"year, twice (got {came})."
        )
    profile, own = Profile.of(clock, readings[rows], index[rows], step)
    usual = profile.at(index)
    usual[rows] = own
    return profile, usual


def _set_up(datamodule: Any) -> tuple[Any, Any]:
    """Windows and training rows of a data module."""
    if not hasattr(datamodule, "torch_dataset"):
        raise TypeError(
            f"'datamodule' must be a tsl.data.SpatioTemporalDataModule (got {type(datamodule).__name__})."
        )
    rows = getattr(datamodule, "train_slice", None)
    if rows is None:
        raise ValueError("'datamodule' must be set up (got one that is not): call setup() first.")
    return datamodule.torch_dataset, rows


def beside_usual(x: Tensor, present: Tensor, usual: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far readings ``[b t n f]`` are from usual ones, and usual ones ahead from the last reading."""
    apart = (x - usual).masked_fill(~present, 0.0)
    return apart, ahead - last_reading(x, present).unsqueeze(1)


class UsualReadings:
    """Puts what is usual among the covariates of windows, as their ``transform``.

    Args:
        profile: Of the training part; what it says of each step stands beside the windows.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def entries(self) -> dict[str, Any]:
        """The profile as a :class:`~tsl_latentgnn.engines.data_card.Card` keeps it."""
        return {**asdict(self.profile.clock), "values": torch.from_numpy(self.profile.values)}

    def __call__(self, batch: Any) -> Any:
        """Change a batch, or one window."""
        given, scaler = batch.input, batch.transform.get("x")
        taken, names = {}, set(given.keys())  # a view iterates over values
        for name in NAMES:
            if name in names:
                taken[name] = given[name] if scaler is None else scaler.transform(given[name])
                del given[name]
                batch.transform.pop(name, None)
        x = given["x"]
        present = given["input_mask"].bool() if "input_mask" in names else torch.ones_like(x).bool()
        alone = x.dim() == 3
        tensors = [x, present.expand_as(x), taken["profile"], taken.get("profile_ahead", x)]
        apart, ahead = beside_usual(*(t.unsqueeze(0) if alone else t for t in tensors))
        apart, ahead = (apart[0], ahead[0]) if alone else (apart, ahead)
        if "later" in taken:
            _add(batch, "u", [apart, (taken["later"] - x).masked_fill(~tensors[1], 0.0)])
        else:
            _add(batch, "u", [apart])
            _add(batch, "u_future", [ahead])
        return batch


def _add(batch: Any, name: str, features: list[Tensor]) -> None:
    """Put features of each sensor behind a covariate, which may be the same for all."""
    given, like = batch.input, features[0]
    if name in given.keys():  # noqa: SIM118
        known = given[name]
        known = known if known.dim() == like.dim() else known.unsqueeze(-2)
        features = [known.expand(*like.shape[:-1], -1), *features]
    given[name] = torch.cat(features, -1)
    batch.pattern[name] = ("b " if like.dim() == 4 else "") + "t n f"
