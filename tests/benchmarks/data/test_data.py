from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.datasets import load_dataset
from benchmarks.data.windows import load_data
from benchmarks.zoo import DATASETS

pytestmark = pytest.mark.tsl


def test_windows_of_la(make_settings, la_dir, la_raw):
    data = load_data(make_settings(dataset="la", model="rnn", data_dir=la_dir, batch_size=8))
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    filled = raw.where(raw != 0).ffill().to_numpy(np.float32)
    batch = data.windows[torch.arange(5, 8)]
    scaler = data.windows.scalers["target"]
    x = scaler.inverse_transform(batch.input.x)
    assert batch.input.x.shape == (3, 12, 10, 1)
    for i in range(3):
        first = 5 + i
        np.testing.assert_allclose(x[i, ..., 0], filled[first : first + 12], rtol=1e-5)
        np.testing.assert_allclose(batch.y[i, ..., 0], filled[first + 12 : first + 24], rtol=1e-6)
        valid = (raw.to_numpy() != 0)[first + 12 : first + 24]
        np.testing.assert_array_equal(batch.mask[i, ..., 0], valid)
        angle = 2 * np.pi * np.arange(first, first + 12) / 288
        u = np.stack([np.sin(angle), np.cos(angle)], -1)
        np.testing.assert_allclose(batch.input.u[i], u, atol=1e-4)
    train = data.datamodule.train_slice.numpy()
    expected = raw.to_numpy()[train][raw.to_numpy()[train] != 0].mean()
    np.testing.assert_allclose(scaler.bias.item(), expected, rtol=1e-5)


def test_marks(make_settings, la_dir, gpvar_dir):
    def marks(**values):
        return load_data(make_settings(model="ar", batch_size=8, **values)).marks()

    assert marks(dataset="la", data_dir=la_dir) == {"15": 2, "30": 5, "60": 11}
    assert marks(dataset="la", data_dir=la_dir, horizon=6) == {"15": 2, "30": 5}
    assert marks(dataset="gpvar", data_dir=gpvar_dir) == {"step 1": 0}
    assert marks(dataset="gpvar", data_dir=gpvar_dir, horizon=3) == {"step 1": 0, "step 3": 2}


def test_gpvar_is_split_70_10_20(make_settings, gpvar_dir):
    module = load_data(make_settings(dataset="gpvar", model="ar", data_dir=gpvar_dir)).datamodule
    windows = 220 - 4  # of window 4 and horizon 1
    assert module.test_len == int(0.2 * windows)
    # tsl leaves the window's length out between the parts, so that they share no input
    assert module.val_len == int(0.125 * (windows - module.test_len)) - 4
    assert module.train_len == windows - module.test_len - (module.val_len + 4) - 4
    assert (
        load_data(make_settings(dataset="gpvar", model="ar", data_dir=gpvar_dir)).model_kwargs()[
            "exog_size"
        ]
        == 0
    )


def test_index_covariates(make_settings, la_dir):
    data = load_data(make_settings(dataset="la", model="stid", data_dir=la_dir))
    u = data.windows.covariates["u"]
    assert u.dtype == torch.int64
    steps = np.arange(len(u))
    np.testing.assert_array_equal(u[:, 0], steps % 288)
    np.testing.assert_array_equal(u[:, 1], 3 + steps // 288)  # 2012-03-01 was a Thursday
    assert data.model_kwargs()["n_exog_emb"] == [288, 7]


def test_a_day_of_the_week_that_is_not_trained_is_no_covariate(make_settings, la_dir):
    # The training part is of Thursday alone, the test part of Friday.
    short = {"dataset": "la", "model": "stid", "data_dir": la_dir}
    data = load_data(make_settings("dataset.splitting.test_len=0.5", **short))
    u = data.windows.covariates["u"]
    assert u.shape == (len(u), 1)
    np.testing.assert_array_equal(u[:, 0], np.arange(len(u)) % 288)
    assert data.model_kwargs()["n_exog_emb"] == [288]


@pytest.fixture
def taking_all(make_settings):
    """Let a model pass for one whose forward takes a mask and future covariates."""

    def make(*overrides, **values):
        settings = make_settings(*overrides, **values)
        model = replace(settings.model, inputs=("x", "u", "input_mask", "u_future"))
        return replace(settings, model=model)

    return make


def test_mask_and_future_covariates_as_inputs(taking_all, la_dir, la_raw):
    settings = taking_all("dataset.future_u=true", dataset="la", model="rnn", data_dir=la_dir)
    batch = load_data(settings).windows[torch.tensor([4, 40])]
    valid = pd.read_hdf(la_raw / "metr_la.h5").to_numpy() != 0
    for i, first in enumerate((4, 40)):
        window = slice(first, first + 12)
        horizon = slice(first + 12, first + 24)
        np.testing.assert_array_equal(batch.input["input_mask"][i, ..., 0], valid[window])
        np.testing.assert_array_equal(batch.mask[i, ..., 0], valid[horizon])
        assert not np.array_equal(valid[window], valid[horizon])  # else the above shows nothing
        angle = 2 * np.pi * np.arange(first + 12, first + 24) / 288
        np.testing.assert_allclose(batch.input["u_future"][i, :, 0], np.sin(angle), atol=1e-4)
    assert "mask" not in batch.input.keys()  # noqa: SIM118 (a view iterates over values)


def test_input_mask_can_be_left_out(taking_all, la_dir):
    settings = taking_all("dataset.input_mask=false", dataset="la", model="rnn", data_dir=la_dir)
    assert "input_mask" not in load_data(settings).windows.input_map


def test_models_without_them_get_neither(make_settings, la_dir):
    windows = load_data(make_settings(dataset="la", model="rnn", data_dir=la_dir)).windows
    assert set(windows.input_map) == {"x", "u"}


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(
    ("model", "dataset", "possible"),
    [("latentgnn", "la", True), ("latentgnn", "gpvar", False), ("rnn", "la", False)],
)
def test_future_u_where_model_and_dataset_have_it(
    make_settings, la_dir, gpvar_dir, model, dataset, possible, asked
):
    folder = la_dir if dataset == "la" else gpvar_dir
    override = f"dataset.future_u={str(asked).lower()}"
    data = load_data(make_settings(override, dataset=dataset, model=model, data_dir=folder))
    fed = asked and possible
    assert ("u_future" in data.windows.input_map) is fed
    assert data.model_kwargs()["future_exog_size"] == (2 if fed else 0)


@pytest.mark.parametrize("name", [name for name in DATASETS if not name.startswith("gpvar")])
def test_data_dir_without_files(name, tmp_path):
    with pytest.raises(ValueError, match="'data_dir' must be a folder with the raw files") as error:
        load_dataset(name, str(tmp_path / "absent"))
    assert repr(str(tmp_path / "absent")) in str(error.value)
    assert not os.path.exists(tmp_path / "absent")


def test_data_dir_with_some_files(la_dir):
    os.unlink(la_dir / "distances_la.csv")
    with pytest.raises(ValueError, match=r"where there is no raw distances_la.csv, and built") as e:
        load_dataset("la", str(la_dir))
    assert "metr_la_dist.npy, locations.csv" in str(e.value)
    assert "sensor_ids_la.txt" in str(e.value)  # expected, though not missing


def test_data_dir_with_built_files_only(la_dir):
    first = load_dataset("la", str(la_dir))
    assert not os.path.exists(la_dir / "distances_la.csv")  # tsl builds in place
    second = load_dataset("la", str(la_dir))
    np.testing.assert_array_equal(first.numpy(), second.numpy())


def cut(name, share=0.5):
    """Leave only the first part of a file."""

    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return damage


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def series(shape=(480, 10), **index):
    """Readings of another dataset."""

    def damage(folder):
        index.setdefault("freq", "5min")
        dates = pd.date_range("2012-03-01", periods=shape[0], **index)
        pd.DataFrame(np.ones(shape), index=dates).to_hdf(folder / "metr_la.h5", key="df")

    return damage


def cut_built(folder):
    load_dataset("la", str(folder))
    cut("metr_la_dist.npy")(folder)


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (cut("metr_la.h5"), r"metr_la.h5 cannot be read: .*nable to open"),
        (cut("metr_la.h5", 0), "metr_la.h5 cannot be read"),
        (text("metr_la.h5", "<html>"), "metr_la.h5 cannot be read"),
        (cut("distances_la.csv", 0), "distances_la.csv cannot be read: No columns to parse"),
        (text("distances_la.csv", "<html>"), ".*: the distances are of other sensors"),
        (
            text("distances_la.csv", "from,to,cost\n1,2,3\n"),
            ".*: the distances are of other sensors",
        ),
        (text("sensor_ids_la.txt", "<html>"), "the files do not fit together: .*'<html>'"),
        (cut("sensor_ids_la.txt"), "the files do not fit together"),
        (series((480, 7)), "the files do not fit together"),
        (series(freq="7min"), r".*: 575 of 671 regular steps have no reading"),
        (cut_built, "metr_la_dist.npy cannot be read: Failed to read all data|.*cannot reshape"),
    ],
)
def test_files_that_are_damaged_or_of_another_dataset(la_dir, damage, where):
    damage(la_dir)
    message = rf"'data_dir' must be .* whole files of MetrLA \(got .*la', where {where}"
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("la", str(la_dir))
    assert str(error.value).endswith("and remove those that tsl built of them.")


def test_generated_files_that_are_damaged(tmp_path):
    np.save(tmp_path / "GPVAR_AZ.npy", np.ones((3, 20, 30, 1)))
    with pytest.raises(
        ValueError, match=r"whole files of GPVARDatasetAZ .* too many values to unpack"
    ):
        load_dataset("gpvar", str(tmp_path))
    cut("GPVAR_AZ.npy")(tmp_path)
    with pytest.raises(ValueError, match=r"GPVAR_AZ.npy cannot be read"):
        load_dataset("gpvar", str(tmp_path))


@pytest.mark.parametrize("name", ["gpvar", "gpvar120_directed"])
def test_a_kill_while_a_dataset_is_generated_leaves_no_half_file(small_gpvar120, monkeypatch, name):
    monkeypatch.setattr("benchmarks.data.gpvar.GPVARDatasetAZ.NUM_STEPS", 50)
    save = np.save

    def torn(file, values):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(name, small_gpvar120)
    built = [path for path in Path(small_gpvar120).iterdir() if path.suffix == ".npy"]
    assert built == []
    monkeypatch.setattr(np, "save", save)
    found = load_dataset(name, small_gpvar120)
    again = load_dataset(name, small_gpvar120)
    np.testing.assert_array_equal(found.target, again.target)
    # Whoever waited for the other one takes what it left.
    monkeypatch.setattr(np, "save", torn)
    found.build()


def test_a_wrong_option_is_not_blamed_on_the_files(la_dir):
    with pytest.raises(TypeError, match="unexpected keyword argument 'imputation'"):
        load_dataset("la", str(la_dir), imputation=3)


def test_data_dir_of_largest_names_the_years(tmp_path):
    with pytest.raises(ValueError, match=r"2018/data.h5, 2020/data.h5, sensors/metadata.csv"):
        load_dataset("largest", str(tmp_path), year=[2018, 2020])


def test_data_dir_null_means_the_storage_of_tsl(monkeypatch, gpvar_dir):
    import tsl

    monkeypatch.setitem(tsl.config, "data_dir", None)  # what Experiment makes of data_dir=null
    monkeypatch.setattr(type(tsl.config), "root_dir", str(gpvar_dir))
    folder = gpvar_dir / ".storage" / "GPVARDatasetAZ"
    folder.mkdir(parents=True)
    shutil.copy(gpvar_dir / "GPVAR_AZ.npy", folder)
    assert load_dataset("gpvar").length == 220


def test_unknown_dataset(make_settings):
    with pytest.raises(
        ValueError, match=r"'dataset.name' must be one of gpvar, la, .* \(got 'metr'\)"
    ):
        make_settings("dataset.name=metr", dataset="la", model="rnn")


@pytest.mark.parametrize(
    ("span", "found"),
    [
        (200, "none in train, validation"),
        (120, "none in validation"),
        (150, "overlapping parts"),
        (160, "overlapping parts"),
    ],
)
def test_too_short_a_series(make_settings, la_dir, span, found):
    settings = make_settings(dataset="la", model="rnn", data_dir=la_dir, window=span, horizon=span)
    with pytest.raises(ValueError, match=rf"'dataset.splitting' .* \(got {found} from 480 steps"):
        load_data(settings)


def test_los_loop(make_settings, tmp_path):
    source = os.environ.get("LOS_LOOP_DIR")
    if not source:
        pytest.skip("LOS_LOOP_DIR does not name the folder of the Los-loop data")
    folder = tmp_path / "los"
    shutil.copytree(Path(source), folder)
    data = load_data(make_settings(dataset="la", model="ar", data_dir=folder))
    assert data.windows.shape == (2016, 207, 1)
    assert data.windows.edge_index.shape[0] == 2
    assert data.model_kwargs()["exog_size"] == 2
