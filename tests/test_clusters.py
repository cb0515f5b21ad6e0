"""What the guide shows of Dask, Spark, submitit and Ray works, on each that is installed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tsl_latentgnn.models import LatentForecaster

import pandas as pd
import pytest
import torch
from small_forecaster import QUICK, fit_small, small_table

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "clusters.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
REGIONS = ("north", "south")
#: The trainings of the page are of seconds here.
OPTIONS = {key: value for key, value in QUICK.items() if key != "verbose"} | {"horizon": 3}


def run(mark, names):
    """Run the first snippet that has ``mark`` in it."""
    code = next(code for code in SNIPPETS if mark in code)
    exec(code.replace("horizon=12", "**OPTIONS"), names)


def readings_of(region):
    return small_table().add_prefix(f"{region}-") + 10 * REGIONS.index(region)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """A name space like that of a script, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {"__name__": "__main__", "OPTIONS": OPTIONS}


@pytest.mark.parametrize("engine", ["pandas", "dask", "pyspark"])
def test_forecasts_of_the_parts_of_a_frame_are_those_of_its_regions(engine, names):
    pytest.importorskip(engine)
    parts, expected = [], []
    for region in REGIONS:
        readings = readings_of(region)
        forecaster = fit_small(readings)
        forecaster.save(f"models/{region}")
        expected.append(forecaster.predict(readings, quantiles=[]).assign(region=region))
        long = readings.rename_axis("ds").reset_index()
        long = long.melt("ds", var_name="unique_id", value_name="y")
        parts.append(long.assign(region=region))
    names["table"] = pd.concat(parts).sample(frac=1, random_state=0).reset_index(drop=True)
    run("import pandas", names)
    if engine != "pandas":
        del names["forecasts"]
        run({"dask": "import dask", "pyspark": "from pyspark"}[engine], names)
    columns = ["region", "sensor", "time", "mean"]
    found, wanted = (
        table[columns].sort_values(columns[:3]).reset_index(drop=True)
        for table in (names["forecasts"], pd.concat(expected))
    )
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("engine", ["submitit", "ray"])
def test_a_training_as_a_job_is_the_same_training(engine, names):
    pytest.importorskip(engine)
    if engine == "ray" and "TEST_RAY" not in os.environ:
        pytest.skip("its cluster takes a while to start, on a busy machine too long: TEST_RAY=1")
    for region in REGIONS:
        readings_of(region).rename_axis("ds").to_csv(f"{region}.csv")
    run("def fit", names)
    expected = [names["fit"](region, **OPTIONS) for region in REGIONS]
    run(f"import {engine}", names)
    assert names["errors"] == expected


@pytest.mark.skipif("TEST_RAY" not in os.environ, reason="as above: TEST_RAY=1")
def test_workers_that_share_each_batch_learn_what_one_process_learns(names, tmp_path):
    pytest.importorskip("ray")
    torch.manual_seed(1)
    x, y = torch.randn(70, 6, 3, 1), torch.randn(70, 2, 3, 1)
    names |= {"x": x, "y": y, "folder": str(tmp_path)}
    run("TorchTrainer", names)
    torch.manual_seed(0)
    model = LatentForecaster(1, 1, 2, 3, dropout=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for epoch in range(5):
        order = torch.randperm(70, generator=torch.Generator().manual_seed(epoch))
        for batch in (order[:32], order[32:64]):
            optimizer.zero_grad()
            (model(x[batch]) - y[batch]).abs().mean().backward()
            optimizer.step()
    found = torch.load(tmp_path / "weights.pt")
    torch.testing.assert_close(found, dict(model.state_dict()), rtol=1e-4, atol=1e-4)
    moved = max((found[name] - value).abs().max() for name, value in before.items())
    assert moved > 0.01


def test_the_function_of_a_job_keeps_what_it_learned(names):
    readings_of("north").rename_axis("ds").to_csv("north.csv")
    run("def fit", names)
    error = names["fit"]("north", **OPTIONS)
    loaded = names["Forecaster"].load("models/north")
    assert error == pytest.approx(loaded.scores_.loc["latentgnn", "mae"])
