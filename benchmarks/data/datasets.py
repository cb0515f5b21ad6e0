"""The datasets of the benchmark by their short names, from files that are whole and fit together."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tsl

from benchmarks.zoo import DATASETS, find_class


def load_dataset(name: str, data_dir: str | None = None, **hparams: Any) -> Any:
    """Return the tsl dataset with the short name ``name``.

    Args:
        name: A key of :data:`benchmarks.zoo.DATASETS`.
        data_dir: The dataset's own folder, with its raw files or what tsl builds of them; tsl
            builds in place. (default: tsl's storage, to which it downloads what is absent)
        **hparams: Further arguments of the dataset class.

    Raises:
        ValueError: If there is no such dataset, ``data_dir`` lacks its files, or they are damaged or do not fit
            together, or a time stamp comes twice; the message names the file and says what to do.
    """
    dataset_class = find_class("dataset.name", name, DATASETS)
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
            f"'data_dir' must be a folder with whole files of {dataset_class.__name__} (got {data_dir!r}, where "
            f"{_blame(dataset_class, data_dir, hparams, error)}). Put the raw files there anew, and "
            "remove those that tsl built of them."
        ) from error
    return dataset


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
    probe.__dict__.update(root=data_dir, **hparams)
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
    ".gz": pd.read_csv,
    ".h5": pd.read_hdf,
    ".npy": np.load,
    ".npz": lambda path: dict(np.load(path)),
}
