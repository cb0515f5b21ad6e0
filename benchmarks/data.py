"""From a configuration to windows of a dataset, split, scaled and batched."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.models import (
    BASELINES,
    INDEX_COVARIATES,
    check_name,
    forward_inputs,
    get_model_class,
)
from tsl_latentgnn._compat import mend_tsl
from tsl_latentgnn.engines import DataCard

mend_tsl()

import tsl  # noqa: E402
from tsl.data import (  # noqa: E402
    HORIZON,
    WINDOW,
    BatchMapItem,
    SpatioTemporalDataset,
)
from tsl.data.preprocessing import RobustScaler, StandardScaler  # noqa: E402

from benchmarks.baselines import historical_average, last_valid_reading  # noqa: E402
from benchmarks.corruption import corrupt  # noqa: E402
from benchmarks.processes import SharedDataModule  # noqa: E402

#: Where the tsl class of each dataset is.
DATASETS = {
    "gpvar": ("tsl.datasets", "GPVARDatasetAZ"),
    "la": ("tsl.datasets", "MetrLA"),
    "bay": ("tsl.datasets", "PemsBay"),
    "pems3": ("tsl.datasets", "PeMS03"),
    "pems4": ("tsl.datasets", "PeMS04"),
    "pems7": ("tsl.datasets", "PeMS07"),
    "pems8": ("tsl.datasets", "PeMS08"),
    "largest": ("tsl.datasets", "LargeST"),
    "gpvar120": ("benchmarks.gpvar", "GPVAR120"),
    "gpvar120_directed": ("benchmarks.gpvar", "GPVAR120Directed"),
}

#: What the readings are scaled by: mean and standard deviation, or median and quartiles.
SCALERS = {"standard": StandardScaler, "robust": RobustScaler}

#: Standard deviation of a channel, in parts of its mean, that is nothing but rounding in float32.
_ROUNDING = 1e-6

_MARK_MINUTES = (15, 30, 60)
_MARK_STEPS = (1, 3, 6, 12)  # where there is no clock: the steps of 15, 30 and 60 minutes, and 1


@dataclass(frozen=True)
class ForecastingData:
    """A dataset, cut for forecasting.

    Attributes:
        dataset: The tsl dataset.
        windows: Its windows, a :class:`tsl.data.SpatioTemporalDataset`.
        datamodule: Splits, scales and batches the windows; already set up.
        step_minutes: Minutes from one step to the next; ``None`` where there is no clock.
        slots_per_day: Steps of a day; ``None`` where there is no clock.
        encoded: Units of the encoded time that is the covariate ``u``; empty without.
    """

    dataset: Any
    windows: Any
    datamodule: Any
    step_minutes: float | None
    slots_per_day: int | None
    encoded: tuple[str, ...] = ()

    def card(self) -> DataCard:
        """Return the callback that writes into checkpoints what forecasts from raw readings need."""
        return DataCard(self.dataset.nodes, self.encoded)

    def marks(self) -> dict[str, int]:
        """Return the points of the horizon to report, ``{label: index of the step}``.

        These are 15, 30 and 60 minutes ahead, as far as the horizon holds them. Labels are minutes,
        or ``"step 3"`` where there is no clock.
        """
        steps = range(1, self.windows.horizon + 1)
        if self.step_minutes is None:
            return {f"step {step}": step - 1 for step in _MARK_STEPS if step in steps}
        ahead = {minutes: minutes / self.step_minutes for minutes in _MARK_MINUTES}
        return {str(m): int(step) - 1 for m, step in ahead.items() if step in steps}

    def model_kwargs(self) -> dict[str, Any]:
        """Return what the data tells a model; tsl drops what its class does not take."""
        exog_size = self.windows.covariates["u"].size(-1) if "u" in self.windows.covariates else 0
        tables = [] if self.slots_per_day is None else [self.slots_per_day, 7]
        return {
            "n_nodes": self.windows.n_nodes,
            "input_size": self.windows.n_channels,
            "output_size": self.windows.n_channels,
            "window": self.windows.window,
            "horizon": self.windows.horizon,
            "exog_size": exog_size,
            "future_exog_size": exog_size if "u_future" in self.windows.input_map else 0,
            "n_exog_emb": tables,  # STID; it fails on None, its own default
        }


def load_dataset(name: str, data_dir: str | None = None, **hparams: Any) -> Any:
    """Return the tsl dataset with the short name ``name``.

    Args:
        name: A key of :data:`DATASETS`.
        data_dir: The dataset's own folder, with its raw files or what tsl builds of them; tsl
            builds in place. (default: tsl's storage, to which it downloads what is absent)
        **hparams: Further arguments of the dataset class.

    Raises:
        ValueError: If there is no such dataset, ``data_dir`` lacks its files, or they are damaged or do not fit
            together, or a time stamp comes twice; the message names the file and says what to do.
    """
    module, class_name = DATASETS[check_name("dataset.name", name, DATASETS)]
    dataset_class = getattr(importlib.import_module(module), class_name)
    if data_dir is not None:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
        _check_files(dataset_class, data_dir, hparams)
    elif tsl.config.data_dir is None:
        # tsl's Experiment overwrites its own default by the null of the configuration.
        tsl.config.data_dir = os.path.join(tsl.config.root_dir, ".storage")
    inspect.signature(dataset_class).bind(root=data_dir, **hparams)  # so that no file is to blame
    try:
        dataset = dataset_class(root=data_dir, **hparams)
        _check_content(dataset)
    except Exception as error:  # damaged files fail anywhere
        if "duplicate labels" in str(error):  # where tsl fills up the time stamps
            raise ValueError(
                f"'data_dir' must hold readings of {name} with each time stamp once (got one twice)."
            ) from error
        if data_dir is None:
            raise
        raise ValueError(
            f"'data_dir' must be a folder with whole files of {class_name} (got {data_dir!r}, where "
            f"{_blame(dataset_class, data_dir, hparams, error)}). Put the raw files there anew, and "
            "remove those that tsl built of them."
        ) from error
    return dataset


def load_data(cfg: DictConfig) -> ForecastingData:
    """Return the data of a run: windows with the inputs of ``cfg.model``, split and scaled.

    A reading that is not finite is missing, whatever the mask of the dataset says. With ``dataset.corruption`` (see
    :func:`benchmarks.corruption.corrupt`) the windows of all parts and the targets of the training and validation
    parts are the faulty readings; the targets of the test part stay the true ones. Where one of the two is the case,
    the models are fed the last reading in the place of a missing one, as tsl does for METR-LA.

    Args:
        cfg: The configuration of the run. Read are ``data_dir``, ``dataset``, ``model.name``,
            ``window``, ``horizon``, ``stride``, ``batch_size`` and ``workers``.

    Raises:
        ValueError: If a name is unknown, files are missing, or the series is too short for the
            windows and splits, or no reading of the training part is there.
    """
    inputs = forward_inputs(get_model_class(cfg.model.name))
    options = OmegaConf.to_container(cfg.dataset, resolve=True)
    assert isinstance(options, dict)
    dataset = load_dataset(cfg.dataset.name, cfg.data_dir, **options["hparams"])
    step_minutes = _step_minutes(dataset.index)
    slots_per_day = None if step_minutes is None else round(24 * 60 / step_minutes)

    windows = SpatioTemporalDataset(
        target=dataset.dataframe(),
        mask=None if dataset.mask is None else np.asarray(dataset.mask, dtype=bool),
        connectivity=_connectivity(dataset, options),
        window=cfg.window,
        horizon=cfg.horizon,
        stride=cfg.stride,
    )
    encoded: tuple[str, ...] = ()
    if step_minutes is not None and cfg.dataset.time_of_day:
        if cfg.model.name in INDEX_COVARIATES:
            u = np.stack([_slot_of_day(dataset.index, step_minutes), dataset.index.dayofweek], -1)
            u = u.astype(np.int64)
        else:
            encoded = ("day",)
            u = dataset.datetime_encoded(list(encoded)).values
        windows.add_covariate("u", u, "t f", convert_precision=u.dtype != np.int64)
    if cfg.dataset.future_u and "u_future" in inputs and "u" in windows.covariates:
        windows.update_input_map(u_future=BatchMapItem("u", HORIZON, preprocess=False))

    splitter = dataset.get_splitter(**options["splitting"])
    splitter.split(windows)
    _check_splits(windows, splitter)
    found = _faulty_readings(dataset, windows, options["corruption"])
    if found is not None:
        _feed(windows, splitter, found)
    if cfg.dataset.input_mask and "input_mask" in inputs and windows.mask is not None:
        # Not as "mask": a batch has one entry of a name, and that one is the target's mask.
        key = "mask" if found is None else "found"
        windows.update_input_map(input_mask=BatchMapItem(key, WINDOW, preprocess=False))
    scaler = SCALERS[check_name("dataset.scaler", cfg.dataset.scaler, SCALERS)](axis=(0, 1))
    datamodule = SharedDataModule(
        dataset=windows,
        scalers={} if cfg.model.name in BASELINES else {"target": scaler},
        splitter=splitter,
        batch_size=cfg.batch_size,
        workers=cfg.workers,
    )
    datamodule.setup()
    if "target" in windows.scalers:
        _mend_scaler(windows)
    if cfg.model.name in BASELINES:
        _add_forecast(cfg.model.name, datamodule)
    return ForecastingData(dataset, windows, datamodule, step_minutes, slots_per_day, encoded)


def _check_files(dataset_class: Any, data_dir: str, hparams: Mapping[str, Any]) -> None:
    """Raise where tsl would download: neither the built nor the raw files are all there."""
    raw, built = _file_names(dataset_class, data_dir, hparams)
    missing_raw = [name for name in raw if not os.path.exists(os.path.join(data_dir, name))]
    missing_built = [name for name in built if not os.path.exists(os.path.join(data_dir, name))]
    if missing_raw and missing_built:
        expected = f"the raw files {', '.join(raw)}"
        missing = f"raw {', '.join(missing_raw)}"
        if built != raw:
            expected += f" or those that tsl builds, {', '.join(built)}"
            missing += f", and built {', '.join(missing_built)}"
        raise ValueError(
            f"'data_dir' must be a folder with {expected} "
            f"(got {data_dir!r}, where there is no {missing})."
        )


def _file_names(
    dataset_class: Any, data_dir: str, hparams: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Names of the raw files, and of those that tsl builds of them."""
    # The lists of files are properties of an instance, and to make one is to load it.
    probe = dataset_class.__new__(dataset_class)
    probe.root = data_dir
    if dataset_class.__name__ == "LargeST":
        year = hparams.get("year", 2019)
        years = range(2017, 2022) if year is None else [year] if isinstance(year, int) else year
        probe.years = sorted(years)
    raw = [os.path.relpath(path, data_dir) for path in probe.raw_files_paths_list]
    built = [os.path.relpath(path, data_dir) for path in probe.required_files_paths_list]
    return raw, built


def _check_content(dataset: Any) -> None:
    """Raise where tsl goes on with files that are of different datasets, or of none."""
    # A step without readings is missing; more of them than not are time stamps at other steps than tsl's.
    empty = ~np.isfinite(np.asarray(dataset.target)).reshape(dataset.length, -1).any(1)
    if empty.mean() > 0.5:
        raise ValueError(f"{empty.sum()} of {empty.size} regular steps have no reading")
    dist = getattr(dataset, "dist", None)
    if dist is not None and not np.isfinite(dist).any():
        raise ValueError("the distances are of other sensors")


def _blame(dataset_class: Any, data_dir: str, hparams: Mapping[str, Any], error: Exception) -> str:
    """In words, which file cannot be read; else that they do not fit together."""
    raw, built = _file_names(dataset_class, data_dir, hparams)
    for name in sorted({*raw, *built}):
        path = os.path.join(data_dir, name)
        if os.path.exists(path):
            try:
                _READERS.get(os.path.splitext(name)[1], Path.read_text)(Path(path))
            except Exception as reason:
                return f"{name} cannot be read: {_last_line(reason)}"
    return f"the files do not fit together: {_last_line(error)}"


def _last_line(error: Exception) -> str:
    """What an error comes to; those of HDF5 begin with a trace."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


#: How a file is read, by the end of its name.
_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": pd.read_csv,
    ".h5": pd.read_hdf,
    ".npy": np.load,
    ".npz": lambda path: dict(np.load(path)),
}


def _connectivity(dataset: Any, options: dict[Any, Any]) -> Any:
    """The graph that is given to the models: that of the dataset, or self-loops only where it is to be found."""
    if options["hide_graph"]:
        return torch.arange(dataset.n_nodes).expand(2, -1).clone(), None
    return dataset.get_connectivity(**options["connectivity"])


def _step_minutes(index: Any) -> float | None:
    if not isinstance(index, pd.DatetimeIndex):
        return None
    return (index[1] - index[0]).total_seconds() / 60


def _slot_of_day(index: pd.DatetimeIndex, step_minutes: float) -> np.ndarray:
    return ((index.hour * 60 + index.minute) // step_minutes).to_numpy()


def _check_splits(windows: Any, splitter: Any) -> None:
    parts = {
        "train": splitter.train_idxs,
        "validation": splitter.val_idxs,
        "test": splitter.test_idxs,
    }
    empty = [part for part, indices in parts.items() if len(indices) == 0]
    # Where the series is too short tsl cuts at a negative position, which counts from the end.
    together = np.concatenate(list(parts.values()))
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


def _mend_scaler(windows: Any) -> None:
    """Give a channel that is constant in the training part the scale 1, and the windows the scaler of the target.

    tsl means to do so, but the standard deviation of equal numbers is not 0 in float32.
    """
    scaler = windows.scalers["target"]
    if not bool(torch.isfinite(scaler.bias).all()):
        raise ValueError("'mask' must hold a valid reading in the training part (got none).")
    constant = scaler.scale <= _ROUNDING * scaler.bias.abs()
    scaler.scale = torch.where(constant, torch.ones_like(scaler.scale), scaler.scale)
    if "readings" in windows.covariates:
        windows.add_scaler("readings", scaler)


def _add_forecast(name: str, datamodule: Any) -> None:
    """Add what a baseline forecasts from to the windows, as an input of its model."""
    windows = datamodule.torch_dataset
    target = windows.target.numpy()
    mask = windows.get_mask(dtype=bool).numpy()
    train_steps = datamodule.train_slice.numpy()
    if name == "persistence":
        if "readings" in windows.covariates:  # filled up already
            value = windows.readings.numpy()
        else:
            value = last_valid_reading(target, mask, train_steps)
        windows.add_covariate("last_valid", value, "t n f", synch_mode=WINDOW)
    else:
        value = historical_average(target, mask, train_steps, windows.index)
        windows.add_covariate("average", value, "t n f", synch_mode=HORIZON)
