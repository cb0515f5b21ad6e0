"""From settings to windows of a dataset, split, scaled and batched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tsl_latentgnn.engines import DataCard, add_profile
from tsl_latentgnn.engines.processes import SharedDataModule
from tsl_latentgnn.engines.usual import usual_readings
from tsl_latentgnn.forecaster.baselines import season_steps
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import torch
from tsl.data import HORIZON, WINDOW, BatchMapItem, SpatioTemporalDataset
from tsl.datasets import MetrLA

from benchmarks.data.baselines import last_valid_reading, naive_error
from benchmarks.data.corruption import corrupt
from benchmarks.data.datasets import load_dataset
from benchmarks.settings import ModelChoice, Settings
from benchmarks.zoo import SCALER_AXES

#: Standard deviation of a channel, in parts of its mean, that is nothing but rounding in float32.
_ROUNDING = 1e-6

_MARK_MINUTES = (15, 30, 60, 6 * 60, 12 * 60, 24 * 60)
_MARK_STEPS = (1, 3, 6, 12)  # where there is no clock: the steps of 15, 30 and 60 minutes, and 1


@dataclass(frozen=True)
class ForecastingData:
    """A dataset, cut for forecasting.

    Attributes:
        dataset: The tsl dataset.
        windows: Its windows, a :class:`tsl.data.SpatioTemporalDataset`.
        datamodule: Splits, scales and batches the windows; already set up.
        step_minutes: Minutes from one step to the next; ``None`` where there is no clock.
        encoded: Units of the encoded time that is the covariate ``u``; empty without.
        profile_sizes: Sizes of ``u`` and ``u_future`` with the profile, for models that are trained.
    """

    dataset: Any
    windows: Any
    datamodule: Any
    step_minutes: float | None
    encoded: tuple[str, ...] = ()
    profile_sizes: tuple[int, int] | None = None

    def cards(self, model_class: type) -> list[DataCard]:
        """Return the callback that writes into checkpoints what forecasts from raw readings need, where there are any:
        of the package's own model, with a clock, one channel and covariates of the clock alone.
        """
        if (
            model_class is not LatentGNNModel
            or self.step_minutes is None
            or self.windows.n_channels > 1
            or "later" in self.windows.covariates  # of which a card knows nothing
            or "u" in self.dataset.covariates
        ):
            return []
        # tsl masks the zeros of METR-LA in any case; faults may have put others there, which are readings.
        masked = isinstance(self.dataset, MetrLA) or getattr(self.dataset, "mask_zeros", False)
        read = bool(((self.windows.target == 0) & self.windows.get_mask(dtype=bool)).any())
        missing = 0.0 if masked and not read else None
        return [DataCard(self.dataset.nodes, self.encoded, missing)]

    def marks(self) -> dict[str, int]:
        """Return the points of the horizon to report, ``{label: index of the step}``.

        These are 15, 30 and 60 minutes and 6, 12 and 24 hours ahead, as far as the horizon holds them. Labels are
        minutes, or ``"step 3"`` where there is no clock.
        """
        steps = range(1, self.windows.horizon + 1)
        if self.step_minutes is None:
            return {f"step {step}": step - 1 for step in _MARK_STEPS if step in steps}
        ahead = {minutes: minutes / self.step_minutes for minutes in _MARK_MINUTES}
        return {str(m): int(step) - 1 for m, step in ahead.items() if step in steps}

    def naive_error(self) -> np.ndarray:
        """Return what errors of each sensor are scaled by ``[n f]``: the error of its seasonal naive forecast in the
        training part. The season is a day, a week of daily steps, and one step without a clock.
        """
        clock = self.step_minutes
        season = None if clock is None else season_steps(pd.Timedelta(minutes=clock))
        there = self.windows.get_mask(dtype=bool).numpy()
        rows = self.datamodule.train_slice.numpy()
        return naive_error(self.windows.target.numpy(), there, rows, season or 1)

    def model_kwargs(self) -> dict[str, Any]:
        """Return what the data tells a model; tsl drops what its class does not take."""
        exog_size = self.windows.covariates["u"].size(-1) if "u" in self.windows.covariates else 0
        future = "hours" if "hours" in self.windows.covariates else "u"
        future_size = 0
        if "u_future" in self.windows.input_map:
            future_size = self.windows.covariates[future].size(-1)
        if self.profile_sizes is not None:
            exog_size, future_size = self.profile_sizes
        tables = [] if self.step_minutes is None else [round(24 * 60 / self.step_minutes), 7]
        return {
            "n_nodes": self.windows.n_nodes,
            "input_size": self.windows.n_channels,
            "output_size": self.windows.n_channels,
            "window": self.windows.window,
            "horizon": self.windows.horizon,
            "exog_size": exog_size,
            "future_exog_size": future_size,
            "n_exog_emb": tables[:exog_size],  # STID; it fails on None, its own default
        }


def load_data(settings: Settings) -> ForecastingData:
    """Return the data of a run: windows with the inputs of its model, split and scaled.

    A reading that is not finite is missing, whatever the mask of the dataset says. With ``dataset.corruption`` (see
    :func:`benchmarks.data.corruption.corrupt`) the windows of all parts and the targets of the training and validation
    parts are the faulty readings; the targets of the test part stay the true ones. Where one of the two is the case,
    the models are fed the last reading in the place of a missing one, as tsl does for METR-LA.

    Args:
        settings: Those of the run. Read are ``data_dir``, ``dataset``, ``model``, ``window``, ``horizon``,
            ``stride``, ``batch_size`` and ``workers``.

    Raises:
        ValueError: If files are missing, or the series is too short for the windows and splits, or no reading of
            the training part is there.
    """
    options, model = settings.dataset, settings.model
    dataset = load_dataset(options.name, settings.data_dir, **options.hparams)
    index = dataset.index
    clock = isinstance(index, pd.DatetimeIndex)
    step_minutes = (index[1] - index[0]).total_seconds() / 60 if clock else None
    if options.profile:
        without = None if clock else "no clock"
        if model.covariates == "index":
            without = f"model {model.name}, whose covariates are table rows"
        elif model.trained and "u" not in model.inputs:
            without = f"model {model.name}, which takes no covariates"
        if without is not None:
            raise ValueError(f"'dataset.profile' must be false (got {without}).")
    if options.hide_graph:  # it is to be found: self-loops only
        graph = torch.arange(dataset.n_nodes).expand(2, -1).clone(), None
    else:
        graph = dataset.get_connectivity(**options.connectivity)
    windows = SpatioTemporalDataset(
        target=dataset.dataframe(),
        mask=None if dataset.mask is None else np.asarray(dataset.mask, dtype=bool),
        connectivity=graph,
        window=settings.window,
        horizon=settings.horizon,
        stride=settings.stride,
    )
    splitter = dataset.get_splitter(**options.splitting)
    splitter.split(windows)
    _check_splits(windows, splitter)
    rows = windows.expand_indices(splitter.train_idxs, merge=True).numpy()
    encoded: tuple[str, ...] = ()
    hours: np.ndarray | None = None
    if step_minutes is not None and options.time_of_day:
        if model.covariates == "index":
            columns = [(index.hour * 60 + index.minute) // step_minutes]
            # Otherwise rows of the table of days are met untrained.
            if set(index.dayofweek) == set(index.dayofweek[rows]):
                columns.append(index.dayofweek)
            hours = np.stack(columns, axis=-1).astype(np.int64)
        else:
            encoded = ("day",)
            hours = dataset.datetime_encoded(list(encoded)).values
    lagged = None
    if "u" in dataset.covariates:
        lagged = _lagged(dataset.get_frame("u", return_pattern=False), rows, model)
    _add_covariates(windows, hours, lagged, settings)

    found = _faulty_readings(dataset, windows, options.corruption)
    if found is not None:
        _feed(windows, splitter, found)
    if options.input_mask and "input_mask" in model.inputs and windows.mask is not None:
        # Not as "mask": a batch has one entry of a name, and that one is the target's mask.
        key = "mask" if found is None else "found"
        windows.update_input_map(input_mask=BatchMapItem(key, WINDOW, preprocess=False))
    datamodule = SharedDataModule(
        dataset=windows,
        scalers={"target": options.scaler(axis=SCALER_AXES[options.scaler_of])}
        if model.trained
        else {},
        splitter=splitter,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    datamodule.setup()
    sizes = None
    if options.profile and model.trained:
        sizes = add_profile(datamodule, future=options.future_u and "u_future" in model.inputs)
    elif options.profile:
        windows.add_covariate(
            "profile", usual_readings(datamodule)[1], "t n f", add_to_input_map=False
        )
    if model.trained:
        _mend_scaler(windows, datamodule.train_slice)
    else:
        model.cls.prepare(datamodule, **model.hparams)
    return ForecastingData(dataset, windows, datamodule, step_minutes, encoded, sizes)


def _lagged(values: np.ndarray, rows: np.ndarray, model: ModelChoice) -> np.ndarray:
    """Return covariates ``[t n c]`` of which only the past is known, the last one in the place of a missing one, each
    of unit scale at each sensor in the training part, which are the steps ``rows``.
    """
    if model.covariates == "index" or (model.trained and "u" not in model.inputs):
        raise ValueError(
            f"'dataset' must be one without covariates for model {model.name}, which takes none but the time (got "
            f"{values.shape[-1]} for each sensor)."
        )
    filled = last_valid_reading(values, np.isfinite(values), rows)
    spread = filled[rows].std(0)
    scaled: np.ndarray = (filled - filled[rows].mean(0)) / np.where(spread > 0, spread, 1.0)
    return scaled


def _add_covariates(
    windows: Any, clock: np.ndarray | None, lagged: np.ndarray | None, settings: Settings
) -> None:
    """Put the time of day ``[t f]``, and behind it what is known of the past alone ``[t n c]``, into ``u``.

    The covariates of the horizon are the time of day. A peer finds what is known of the past as ``"lagged"``.
    """
    model, ahead = settings.model, "u"
    if not model.trained and lagged is not None:
        windows.add_covariate("lagged", lagged, "t n f", add_to_input_map=False)
        lagged = None
    if clock is not None and lagged is not None:
        ahead = "hours"
        windows.add_covariate(ahead, clock, "t f", add_to_input_map=False)
        clock = np.broadcast_to(clock[:, None], (*lagged.shape[:2], clock.shape[-1]))
        lagged = np.concatenate([clock, lagged], -1)
    if lagged is not None:
        windows.add_covariate("u", lagged, "t n f")
    elif clock is not None:
        windows.add_covariate("u", clock, "t f", convert_precision=clock.dtype != np.int64)
    if settings.dataset.future_u and "u_future" in model.inputs and clock is not None:
        windows.update_input_map(u_future=BatchMapItem(ahead, HORIZON, preprocess=False))


def _check_splits(windows: Any, splitter: Any) -> None:
    parts = (splitter.train_idxs, splitter.val_idxs, splitter.test_idxs)
    names = ("train", "validation", "test")
    empty = [name for name, part in zip(names, parts, strict=True) if len(part) == 0]
    # Where the series is too short tsl cuts at a negative position, which counts from the end.
    together = np.concatenate(parts)
    overlap = np.unique(together).size < together.size
    if empty or overlap:
        found = "overlapping parts" if overlap else f"none in {', '.join(empty)}"
        raise ValueError(
            f"'dataset.splitting' must leave windows in each part (got {found} "
            f"from {windows.n_steps} steps with window {windows.window}, horizon {windows.horizon} "
            f"and stride {windows.stride})."
        )


def _faulty_readings(dataset: Any, windows: Any, fault: Any) -> np.ndarray | None:
    """Readings ``[t n f]``, NaN where there is none; ``None`` for a dataset as it is, if all it holds is finite."""
    target = windows.target.numpy()
    if fault is None and np.isfinite(target).all():
        return None
    there = windows.get_mask(dtype=bool).numpy() & np.isfinite(target)
    readings = np.where(there, target, np.nan)
    if fault is None:
        return readings
    frame = dataset.dataframe()
    flat = pd.DataFrame(readings.reshape(frame.shape), frame.index, frame.columns)
    return corrupt(flat, fault).to_numpy(target.dtype).reshape(target.shape)


def _feed(windows: Any, splitter: Any, readings: np.ndarray) -> None:
    """Let the windows, and all targets before the test part, be ``readings``: NaN where there is none.

    They are ``"readings"`` of the windows, filled up, and ``"found"`` says which of them there were.
    """
    found = ~np.isnan(readings)
    train_steps = windows.expand_indices(splitter.train_idxs, merge=True).numpy()
    filled = last_valid_reading(readings, found, train_steps)
    windows.add_covariate("readings", filled, "t n f", add_to_input_map=False)
    windows.add_covariate("found", found, "t n f", add_to_input_map=False, convert_precision=False)
    windows.update_input_map(x=BatchMapItem("readings", WINDOW))

    target = windows.target.numpy()
    known = windows.get_mask(dtype=bool).numpy() & np.isfinite(target)
    true = np.arange(len(target)) >= int(windows.get_horizon_indices(splitter.test_idxs).min())
    true = true.reshape(-1, 1, 1)
    windows.set_data(np.where(true & known, target, filled))
    windows.set_mask(np.where(true, known, found))


def _mend_scaler(windows: Any, training: Any) -> None:
    """Give a channel that is constant in the rows ``training`` the scale 1, and the windows the scaler of the target.

    tsl means to do so, but the standard deviation of equal numbers is not 0 in float32. A sensor without any reading
    there gets the mean of the others' scalers.
    """
    scaler = windows.scalers["target"]
    if windows.mask is not None and not bool(windows.mask[training].any()):
        raise ValueError("'mask' must hold a valid reading in the training part (got none).")
    known = windows.get_mask(dtype=bool)[training].any(0, keepdim=True)
    for name in ("bias", "scale") if scaler.bias.size(-2) > 1 else ():
        values = getattr(scaler, name)
        mean = values.masked_fill(~known, torch.nan).nanmean(dim=-2, keepdim=True)
        setattr(scaler, name, torch.where(known, values, mean))
    constant = scaler.scale <= _ROUNDING * scaler.bias.abs()
    scaler.scale = torch.where(constant, torch.ones_like(scaler.scale), scaler.scale)
    if "readings" in windows.covariates:
        windows.add_scaler("readings", scaler)
