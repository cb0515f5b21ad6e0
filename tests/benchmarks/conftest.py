"""Small stand-ins for the datasets, in the layout that tsl reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_la import write_la

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def la_raw(tmp_path_factory):
    return write_la(tmp_path_factory.mktemp("raw") / "la")


@pytest.fixture
def la_dir(la_raw, tmp_path):
    """A METR-LA folder of one's own: tsl builds in place."""
    return shutil.copytree(la_raw, tmp_path / "la")


@pytest.fixture
def la_days(tmp_path):
    """As ``la_dir``, long enough for a training part of two days."""
    return write_la(tmp_path / "la", steps=1200)


@pytest.fixture(scope="session")
def gpvar_dir(tmp_path_factory):
    """GPVAR-AZ cut to a few steps, as tsl stores it after generating it."""
    folder = tmp_path_factory.mktemp("gpvar")
    series = np.random.default_rng(1).normal(size=(2, 220, 30, 1)).astype(np.float32)
    np.save(folder / "GPVAR_AZ.npy", series)
    return folder


@pytest.fixture
def small_gpvar120(monkeypatch, tmp_path):
    """Cut the large graphs to two communities and a few steps; the folder for their files."""
    from benchmarks.data import gpvar

    monkeypatch.setattr(gpvar.GPVAR120, "NUM_COMMUNITIES", 2)
    monkeypatch.setattr(gpvar.GPVAR120, "NUM_STEPS", 260)
    return str(tmp_path / "data")


@pytest.fixture
def make_cfg(tmp_path):
    """Compose a configuration as the command line does, with the entries tsl's Experiment adds."""
    from hydra import compose, initialize_config_dir
    from omegaconf import open_dict

    from benchmarks.settings import CONFIG_DIR

    def make(*overrides, **values):
        texts = [*overrides, *(f"{key}={value}" for key, value in values.items())]
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            cfg = compose("default", overrides=texts)
        with open_dict(cfg):
            cfg.run = {"dir": str(tmp_path / "run"), "name": "test", "seed": cfg.seed}
            cfg.results_file = str(tmp_path / "results.jsonl")
        return cfg

    return make


@pytest.fixture
def make_settings(make_cfg):
    """The settings of a configuration of :func:`make_cfg`."""
    from benchmarks.settings import Settings

    return lambda *overrides, **values: Settings.resolve(make_cfg(*overrides, **values))


@pytest.fixture
def command(tmp_path):
    """Run the benchmark's command line in an empty folder."""

    def run(*arguments, module="benchmarks.forecasting", check=True):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


QUICK = (
    "epochs=1",
    "batch_size=16",
    "+trainer.limit_train_batches=2",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
    "+trainer.enable_progress_bar=false",
    "+trainer.enable_model_summary=false",
    "trainer.accelerator=cpu",
)


@pytest.fixture
def quick():
    """Overrides that make a run as short as it can be."""
    return QUICK
