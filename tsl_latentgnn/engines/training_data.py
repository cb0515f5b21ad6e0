"""What a training is fed, looked at before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import timezone, tzinfo
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..models import LatentGNNModel
from .checkpoint import read_checkpoint
from .clock import CLOCK, usual_step
from .data_card import DATA_CARD, INPUTS, Card, check_channels
from .usual import UsualReadings

#: Where more gaps than this are crossed by more than this share of the windows, they are the rule, such as nights.
_FEW_GAPS = 2
_CROSSED = 0.1

_ROWS = 4096  # that are looked at in one go

_WITHOUT = "Leave the callback DataCard out to train without forecasts from raw readings."


def check_scaling(datamodule: Any, model: Any, sensors: Sequence[str] | None = None) -> None:
    """Say of a tsl data module what makes a training fail, or forecast worse, without a word.

    Args:
        datamodule: Any data module; only one of tsl's is looked at.
        model: What is trained on it.
        sensors: Names of the nodes, for the messages. (default: their numbers)

    Raises:
        ValueError: If the scaler of the target is not finite, or has a scale of 0 or less.

    Warns:
        UserWarning: If readings of a sensor are constant, or ``residual=True`` adds the forecast to another series than
            the target.
    """
    windows = getattr(datamodule, "torch_dataset", None)
    if windows is None:
        return
    names = sensors or [str(node) for node in range(windows.n_nodes)]
    scaler = windows.scalers.get("target")
    if scaler is not None:
        wrong = ~(scaler.bias.isfinite() & scaler.scale.isfinite() & (scaler.scale > 0))
        wrong = wrong.any(0) if wrong.dim() > 2 else wrong
        wrong = wrong.expand(windows.n_nodes, windows.n_channels).any(-1)
        if bool(wrong.any()):
            raise ValueError(
                "'scalers' must give the target a finite bias and a scale > 0 (got another for the sensors "
                f"{_few(names, wrong)}). Mark what is missing in the mask of the dataset, and leave out a sensor "
                "without readings in the training part."
            )
    still = _constant(windows, datamodule)
    if bool(still.any()):
        warnings.warn(
            f"The sensors {_few(names, still)} have no reading, or the same one, in all rows of the training part: "
            "nothing can be learned of them, and what a scaler of their own leaves is rounding. Leave them out, or "
            "mask them.",
            stacklevel=2,
        )
    every = _training_windows(windows, datamodule)
    # A trend is taken off x and y alike.
    if getattr(model, "residual", False) and windows.trend is None and every.size > 0:
        chosen = [int(every[0]), int(every[-1])]
        rows = windows.get_window_indices(chosen)
        target, there = windows.target[rows], _mask(windows)[rows]
        target = target if scaler is None else scaler.transform(target)
        first = windows[chosen].input["x"][..., : target.size(-1)]
        if first.shape == target.shape and bool((_differ(first, target) & there).any()):
            warnings.warn(
                "'x' has not the target, in the scale of the target, as its first channels, but with residual=True the "
                "forecast is a difference to the last reading of them. Put the target first, or take residual=False.",
                stacklevel=2,
            )


def make_card(
    datamodule: Any,
    module: LightningModule,
    sensors: Sequence[str],
    encoded: Sequence[str],
    missing: float | None,
) -> Card:
    """Return the card of a training, if forecasts from raw readings get the inputs that the training gets.

    Raw rows of training windows go through :meth:`Card.make_inputs`, and what comes out is compared with what the data
    module makes of the same windows.

    Args:
        datamodule: The tsl data module, set up.
        module: The Lightning module with the model.
        sensors: Name of each node, in the order of the data.
        encoded: Names of the covariates ``u``.
        missing: Reading that stands for a missing one.

    Raises:
        ValueError: If they differ, or forecasts from raw readings are not possible for another reason.

    Warns:
        UserWarning: If a few of the windows cross a gap of the clock, or the value of a missing reading is not said.
    """
    windows = datamodule.torch_dataset
    _check_module(module)
    model: Any = module.model
    if windows.trend is not None:
        raise ValueError(
            "'trend' must be None, for what the trend will be is not known when there is a reading to forecast from. "
            f"Take it off the readings themselves. {_WITHOUT}"
        )
    check_channels(model)
    if windows.n_channels != 1:
        raise ValueError(
            f"'target' must have one channel of each sensor (got {windows.n_channels}). {_WITHOUT}"
        )
    step, there = usual_step(windows.index, _WITHOUT), _mask(windows)
    regular = _regular_windows(windows, _training_windows(windows, datamodule), step)
    chosen = _pick(windows, regular, there)
    batch = windows[chosen]
    if "later" in windows.covariates and isinstance(windows.transform, UsualReadings):
        raise ValueError(
            "'future' of add_profile must be True for forecasts from raw readings (got False): the model takes "
            f"'u_future'. {_WITHOUT}"
        )
    told = windows.transform if isinstance(windows.transform, UsualReadings) else None
    fed = {*windows.input_map, *(() if told is None else ("u", "u_future"))}
    inputs = [name for name in INPUTS if name in fed]
    if encoded and not {"u", "u_future"} & set(inputs):
        raise ValueError(
            f"'encoded' must be empty for a training without the covariate 'u' (got {list(encoded)})."
        )
    scalers = {}
    for name in {"u", "u_future"} & set(inputs):
        scaler = batch.transform.get(name)
        if scaler is not None and name in windows.input_map and windows.input_map[name].preprocess:
            scalers[name] = scaler.bias.flatten(), scaler.scale.flatten()
    scaler = batch.transform.get("y")
    card = Card(
        sensors=sensors,
        encoded=encoded,
        step_seconds=step.total_seconds(),
        window=windows.window,
        inputs=inputs,
        bias=torch.zeros(1) if scaler is None else scaler.bias,
        scale=torch.ones(1) if scaler is None else scaler.scale,
        horizon=windows.get_horizon_indices(chosen).size(-1),
        delay=windows.delay,
        window_lag=windows.window_lag,
        horizon_lag=windows.horizon_lag,
        zone=_zone_name(windows.index.tz),
        missing=missing,
        covariate_scalers=scalers,
        profile=None if told is None else told.entries(),
    )
    card.check_model(model)
    _check_missing(windows.target, there, missing)
    _compare(windows, chosen, batch, there, card)
    _check_readable(module, card)
    return card


def _check_module(module: LightningModule) -> None:
    """Raise unless ``tsl-latentgnn predict`` can make the model of a module anew from a checkpoint."""
    found = dict(module.hparams).get("model_class")
    if not (isinstance(found, type) and issubclass(found, LatentGNNModel)):
        raise ValueError(
            "'model_class' must be LatentGNNModel, with 'model_kwargs', so that a checkpoint says how the model is "
            f"made (got {getattr(found, '__name__', found)} with a {type(getattr(module, 'model', None)).__name__}): "
            f"Predictor(model_class=LatentGNNModel, model_kwargs=...), not Predictor(model=...). {_WITHOUT}"
        )


def _check_readable(module: LightningModule, card: Card) -> None:
    """Raise if what a checkpoint is to say of the model and its data is not read back as nothing but data."""
    memory = BytesIO()
    torch.save({"hyper_parameters": dict(module.hparams), DATA_CARD: card.to_dict()}, memory)
    memory.seek(0)
    try:
        read_checkpoint(memory, "checkpoint")
    except ValueError as error:
        raise ValueError(
            "'hparams' of the module must be nothing but data, metrics and optimizers of torch, tsl and this package, "
            f"or its checkpoints cannot be read by tsl-latentgnn predict: {error} {_WITHOUT}"
        ) from error


def _regular_windows(windows: Any, every: np.ndarray, step: pd.Timedelta) -> np.ndarray:
    """Those of the windows in which each row comes one step after the one before."""
    index = windows.index
    gaps = np.diff(index.as_unit("ns").asi8) != step.value
    crossed = _count(gaps, _starts(windows, every), windows.sample_span - 1) > 0
    share = crossed.mean() if crossed.size else 1.0
    if gaps.any() and share > 0:
        at = int(gaps.argmax())
        words = (
            f"{share:.0%} of the windows of the training cross one of {int(gaps.sum())} gaps, the first from "
            f"{index[at]} to {index[at + 1]}"
        )
        advice = (
            "Put in the rows that are left out, frame.reindex(pandas.date_range(frame.index[0], frame.index[-1], "
            f"freq='{step.total_seconds():g}s')), with a mask of what is there."
        )
        if share > _CROSSED and gaps.sum() > _FEW_GAPS:
            raise ValueError(
                f"'index' must have rows one step apart, which is {step} (got others: {words}, and forecasts would "
                f"have the time stamps of another step). {advice} {_WITHOUT}"
            )
        warnings.warn(f"The rows are not all {step} apart: {words}. {advice}", stacklevel=2)
    if crossed.all():
        raise ValueError(f"'splitter' must leave windows in the training part (got {every.size}).")
    return every[~crossed]


def _pick(windows: Any, regular: np.ndarray, there: Tensor) -> list[int]:
    """The first and the last of the windows, and the first with a missing reading and without."""
    missing = (~there).flatten(1).any(1).numpy()
    gaps = _count(missing, _starts(windows, regular), windows.window) > 0
    places = {0, len(regular) - 1, int(gaps.argmax()), int((~gaps).argmax())}
    return [int(regular[place]) for place in sorted(places)]


def _compare(windows: Any, chosen: list[int], batch: Any, there: Tensor, card: Card) -> None:
    """Raise unless raw rows and their time stamps give what the training is fed, and is to forecast."""
    rows = torch.as_tensor(_starts(windows, np.array(chosen)))[:, None] + torch.arange(card.window)
    raw, there_then = windows.target[rows], there[rows]
    if "input_mask" in card.inputs:
        raw = raw.masked_fill(~there_then, torch.nan)
    issued = list(windows.index[rows[:, -1].numpy()])
    ahead = windows.get_horizon_indices(chosen)
    _check_same("y", batch.target["y"], windows.target[ahead], there[ahead], card)
    seen = there_then[:, :: card.window_lag]
    usual = None
    if card.profile is not None:  # of which the training part leaves out the own day
        known = windows.covariates["profile"].numpy()

        def usual(times: pd.DatetimeIndex) -> np.ndarray:
            return known[windows.index.get_indexer(times)]

    for name, got in card.make_inputs(raw.squeeze(-1).float(), issued, usual).items():
        _check_same(name, batch.input[name], got, seen if name == "x" else None, card)
    stamps = windows.index[ahead.flatten().numpy()].as_unit("ns")
    times = card.times(issued, card.forecast_steps())
    other = stamps.asi8 != times.asi8
    if other.any():
        at = int(other.argmax())
        raise ValueError(
            f"'horizon' must be of the time stamps that forecasts would carry (got {stamps[at]} in the training, where "
            f"forecasts have {times[at]}). {_WITHOUT}"
        )


def _check_same(name: str, fed: Tensor, got: Tensor, where: Tensor | None, card: Card) -> None:
    """Raise unless what is fed to the training is what was got from readings, but for rounding."""
    fed, got = fed.float(), got.float()
    if fed.dim() == got.dim() + 1:  # the same for all sensors
        got = got.unsqueeze(-2).expand_as(fed) if fed.size(-1) == got.size(-1) else got
    if fed.shape == got.shape:
        differ = _differ(fed, got)
        differ = differ if where is None else differ & where
        if not bool(differ.any()):
            return
        place = tuple(int(i) for i in differ.nonzero()[0])
        came = f"{fed[place]:g} at {list(place)}, where raw readings give {got[place]:g}"
    else:
        came = f"shape {list(fed.shape)}, where raw readings give {list(got.shape)}"
    raise ValueError(f"{_ADVICE[name].format(list(card.encoded))} (got {came}). {_WITHOUT}")


_ADVICE = {
    "x": "'x' must be the readings of the target, scaled as the target is",
    "y": "'y' must be the readings of the target",
    "input_mask": "'input_mask' must be the mask of the target in the window",
    "u": f"'u' must be what 'encoded' says, {{}}, of {', '.join(CLOCK)}, in the order of its columns; tsl encodes an "
    "index as nanoseconds, whose as_unit('ns') it is to be",
    "u_future": "'u_future' must be what 'encoded' says, {}, at the steps to forecast",
}


def _check_missing(target: Tensor, there: Tensor, missing: float | None) -> None:
    """Raise if readings that are there have the value of a missing one; warn if it seems to have been forgotten."""
    if missing is not None:
        count = int(((target == missing) & there).sum())
        if count > 0:
            raise ValueError(
                f"'missing' must be a value that no reading of the training has (got {missing:g}, which {count} of "
                "them have). Mask them, or leave it out."
            )
        return
    held = target[~there]
    held = held[held.isfinite()]
    if (
        held.numel() < 2
        or bool((held != held[0]).any())
        or bool(((target == held[0]) & there).any())
    ):
        return
    warnings.warn(
        f"What the mask leaves out is {held[0]:g} everywhere. If that is how missing readings are written, say "
        f"DataCard(..., missing={held[0]:g}), or they are taken for readings when forecasts are made.",
        stacklevel=2,
    )


def _constant(windows: Any, datamodule: Any) -> Tensor:
    """Which sensors have one reading, or none, in all rows of the training part."""
    rows = getattr(datamodule, "train_slice", None)
    rows = torch.arange(windows.n_steps) if rows is None else torch.as_tensor(rows)
    there = _mask(windows)
    low = torch.full(windows.target.shape[1:], torch.inf)
    high = -low
    for part in rows.split(_ROWS):
        values, known = windows.target[part].float(), there[part]
        low = low.minimum(values.masked_fill(~known, torch.inf).amin(0))
        high = high.maximum(values.masked_fill(~known, -torch.inf).amax(0))
    return (low >= high).any(-1)


def _training_windows(windows: Any, datamodule: Any) -> np.ndarray:
    """Numbers of the windows of the training part; of all, where the data is not split."""
    chosen = getattr(getattr(datamodule, "trainset", None), "indices", None)
    return np.arange(len(windows)) if chosen is None else np.asarray(chosen, dtype=np.int64)


def _starts(windows: Any, chosen: np.ndarray) -> np.ndarray:
    """First row of each window."""
    return windows.indices[torch.as_tensor(chosen)].numpy()


def _count(flags: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """How many flags are set from each start on."""
    total = np.concatenate([[0], np.cumsum(flags)])
    return total[starts + length] - total[starts]


def _mask(windows: Any) -> Tensor:
    return windows.get_mask(dtype=bool).expand_as(windows.target)


def _differ(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors are apart by more than the rounding of the less exact one; NaN is like NaN."""
    dtype = min(one.dtype, other.dtype, key=lambda dtype: torch.finfo(dtype).bits)
    near = torch.finfo(dtype).eps ** 0.5
    return ~torch.isclose(one.float(), other.float(), rtol=near, atol=near, equal_nan=True)


def _zone_name(zone: tzinfo | None) -> str | None:
    """A name by which pandas finds a time zone again."""
    if zone is None:
        return None
    fixed = zone.utcoffset(None)
    return str(zone) if fixed is None else str(timezone(fixed))


def _few(names: Sequence[str], chosen: Tensor) -> str:
    found = [name for name, is_meant in zip(names, chosen.tolist(), strict=True) if is_meant]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
