from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.data.corruption import FAULTS, SPIKE, corrupt
from benchmarks.data.windows import load_data
from benchmarks.run.experiment import build_predictor

STEPS, SENSORS = 400, 10
FEW = {"missing": 0.3, "dead": 0.2, "constant": 0.2, "stuck": 0.2, "spike": 0.01, "zeros": 0.25}
ALL = {**FEW, "outage": 0.25, "duplicated": 0.2, "dropped": 0.2}


@pytest.fixture
def readings():
    """Ten sensors of two channels, some readings of which are missing."""
    rng = np.random.default_rng(0)
    values = 50 + rng.normal(size=(STEPS, 2 * SENSORS))
    values[rng.random(values.shape) < 0.05] = math.nan
    columns = pd.MultiIndex.from_product([range(SENSORS), ["speed", "flow"]])
    return pd.DataFrame(values, pd.date_range("2020", periods=STEPS, freq="5min"), columns)


def test_every_fault_is_tried():
    assert set(ALL) == set(FAULTS)


@pytest.mark.parametrize("kind", ALL)
def test_a_fault_is_that_of_its_seed_and_leaves_the_original(readings, kind):
    before = readings.copy()
    first, second, other = (
        corrupt(readings, {"kind": kind, "share": ALL[kind], "seed": seed}) for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(readings, before)
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(other)
    assert not first.equals(readings)
    assert first.index.equals(readings.index)
    assert first.columns.equals(readings.columns)
    assert first.equals(corrupt(readings, {"kind": kind, "share": ALL[kind], "seed": 3}))


def changed(readings, faulty):
    """Where two frames differ, missing readings being equal."""
    a, b = readings.to_numpy(), faulty.to_numpy()
    return ~((a == b) | (np.isnan(a) & np.isnan(b)))


def struck(where):
    """The sensors that differ anywhere."""
    return set(np.flatnonzero(where.reshape(STEPS, SENSORS, 2).any((0, 2))))


def test_missing_and_spikes_are_single_readings(readings):
    faulty = corrupt(readings, {"kind": "missing", "share": 0.3})
    gone = changed(readings, faulty)
    assert np.isnan(faulty.to_numpy()[gone]).all()
    assert gone.sum() / readings.notna().to_numpy().sum() == pytest.approx(0.3, abs=0.02)
    faulty = corrupt(readings, {"kind": "spike", "share": 0.1})
    where = changed(readings, faulty)
    assert (faulty.to_numpy()[where] == SPIKE).all()
    assert where.sum() / readings.notna().to_numpy().sum() == pytest.approx(0.1, abs=0.02)
    assert (faulty.isna() == readings.isna()).all(axis=None)


def test_faults_of_whole_sensors(readings):
    values = readings.to_numpy()
    dead = corrupt(readings, {"kind": "dead", "share": 0.3})
    gone = struck(changed(readings, dead))
    assert len(gone) == 3
    for sensor in gone:
        assert dead[sensor].isna().all(axis=None)

    constant = corrupt(readings, {"kind": "constant", "share": 0.3}).to_numpy()
    fixed = struck(changed(readings, pd.DataFrame(constant)))
    assert len(fixed) == 3
    for column in (2 * sensor + channel for sensor in fixed for channel in range(2)):
        first = values[~np.isnan(values[:, column]), column][0]
        assert (constant[:, column] == first).all()

    stuck = corrupt(readings, {"kind": "stuck", "share": 0.3}).to_numpy()
    where = changed(readings, pd.DataFrame(stuck))
    assert len(struck(where)) == 3
    for sensor in struck(where):
        start = int(np.flatnonzero(where[:, 2 * sensor : 2 * sensor + 2].any(1))[0]) - 1
        assert start < STEPS // 2
        for column in (2 * sensor, 2 * sensor + 1):
            until = values[: start + 1, column]
            assert (stuck[start + 1 :, column] == until[~np.isnan(until)][-1]).all()
    # A share too small for a sensor still strikes one.
    assert len(struck(changed(readings, corrupt(readings, {"kind": "dead", "share": 0.01})))) == 1


def test_zeros_come_in_every_part_of_the_series(readings):
    faulty = corrupt(readings, {"kind": "zeros", "share": 0.25})
    off = (faulty == 0).all(axis=1).to_numpy().reshape(10, -1)
    np.testing.assert_array_equal(off.sum(1), 10)
    assert (np.abs(np.diff(off.astype(int), axis=1)).sum(1) <= 2).all()  # one stretch each
    assert not changed(readings, faulty)[~off.ravel()].any()
    outage = corrupt(readings, {"kind": "outage", "share": 0.25})
    pd.testing.assert_frame_equal(outage, faulty.replace(0.0, math.nan))


def test_time_stamps(readings):
    dropped = corrupt(readings, {"kind": "dropped", "share": 0.3})
    gone = dropped.isna().all(axis=1).to_numpy()
    assert gone.mean() == pytest.approx(0.3, abs=0.07)
    assert not changed(readings, dropped)[~gone].any()

    twice = corrupt(readings, {"kind": "duplicated", "share": 0.3})
    rows = changed(readings, twice).any(1)
    assert rows.mean() == pytest.approx(0.3, abs=0.07)
    for row in np.flatnonzero(rows):
        pair = readings.iloc[[row - 1, row]].to_numpy()
        expected = np.ma.masked_invalid(pair).mean(0).filled(math.nan)
        np.testing.assert_allclose(twice.iloc[row], expected)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": "missing"}, "'dataset.corruption' must have the keys kind, share .*got .*'kind'"),
        ({"kind": "missing", "share": 0.1, "rate": 1}, "must have the keys .*'rate'"),
        ({"kind": "rust", "share": 0.1}, "corruption.kind' must be one of missing, .*got 'rust'"),
        ({"kind": "missing", "share": 0}, r"corruption.share' must be in \(0, 1\] \(got 0\)"),
        ({"kind": "missing", "share": 1.5}, r"corruption.share' must be in \(0, 1\] \(got 1.5\)"),
    ],
)
def test_bad_faults(readings, fault, message):
    with pytest.raises(ValueError, match=message):
        corrupt(readings, fault)


pytestmark = pytest.mark.tsl


def dirty(make_settings, folder, kind, model="latentgnn", share=None, **values):
    fault = f"dataset.corruption={{kind: {kind}, share: {share or ALL[kind]}}}"
    return load_data(make_settings(fault, dataset="la", model=model, data_dir=folder, **values))


@pytest.mark.parametrize("kind", ALL)
def test_inputs_are_faulty_and_the_test_is_true(make_settings, la_dir, la_raw, kind):
    data = dirty(make_settings, la_dir, kind)
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    known = (raw != 0).to_numpy()
    faulty = corrupt(raw.where(raw != 0), {"kind": kind, "share": ALL[kind]})
    found = faulty.notna().to_numpy()
    windows = data.windows
    scaler = windows.scalers["target"]

    everything = windows[np.arange(len(windows))]
    x = scaler.inverse_transform(everything.input.x.double())[..., 0]
    test = set(np.asarray(data.datamodule.testset.indices).tolist())
    others = np.concatenate([data.datamodule.trainset.indices, data.datamodule.valset.indices])
    assert len(test) > 50
    for sample in [*sorted(test)[::20], *others[::40]]:
        window = slice(sample, sample + 12)
        horizon = slice(sample + 12, sample + 24)
        seen = found[window]
        np.testing.assert_array_equal(everything.input["input_mask"][sample, ..., 0], seen)
        np.testing.assert_allclose(
            x[sample].numpy()[seen],
            faulty.to_numpy()[window][seen],
            rtol=1e-4,
            atol=2e-6 * scaler.scale.item(),
        )
        true, there = (raw, known) if sample in test else (faulty, found)
        mask = everything.mask[sample, ..., 0].numpy()
        np.testing.assert_array_equal(mask, there[horizon])
        y = everything.y[sample, ..., 0].numpy()
        np.testing.assert_allclose(y[mask], true.to_numpy()[horizon][mask], rtol=1e-5)
    assert bool(everything.y.isfinite().all())
    assert bool(everything.input.x.isfinite().all())
    train = data.datamodule.train_slice.numpy()
    fitted = faulty.to_numpy()[train][found[train]]
    assert scaler.bias.item() == pytest.approx(fitted.mean(), rel=1e-4)
    assert scaler.scale.item() == pytest.approx(fitted.std(), rel=1e-3)


def test_missing_readings_are_fed_as_the_last_one(make_settings, la_dir, la_raw):
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    faulty = corrupt(raw.where(raw != 0), {"kind": "missing", "share": 0.3})
    data = dirty(make_settings, la_dir, "missing", model="persistence")
    last = faulty.ffill().to_numpy()
    batch = data.windows[np.arange(30, 33)]
    np.testing.assert_allclose(batch.input.x[..., 0], [last[i : i + 12] for i in (30, 31, 32)])
    assert bool((batch.input.last_valid == batch.input.x).all())


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("model", ["latentgnn", "rnn", "grugcn"])
def test_training_on_a_fault_yields_numbers(make_settings, quick, la_dir, model, kind):
    from benchmarks.run.experiment import fit_and_score

    fault = f"dataset.corruption={{kind: {kind}, share: {ALL[kind]}}}"
    settings = make_settings(
        fault, *quick, dataset="la", model=model, data_dir=la_dir, batch_size=16
    )
    outcome = fit_and_score(settings)
    for split in ("val", "test"):
        assert math.isfinite(outcome.record[split]["mae"])
    assert all(bool(weight.isfinite().all()) for weight in outcome.predictor.parameters())


def test_rows_that_tsl_fills_up_are_missing(make_settings, la_dir, la_raw):
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    raw.drop(raw.index[100:110]).to_hdf(la_dir / "metr_la.h5", key="df")
    data = load_data(make_settings(dataset="la", model="latentgnn", data_dir=la_dir))
    windows = data.windows
    batch = windows[np.arange(80, 110)]
    assert windows.n_steps == len(raw)
    assert not bool(windows.mask[100:110].any())
    assert bool((windows.mask[110:, :, 0].numpy() == (raw != 0).to_numpy()[110:]).all())
    assert not bool(batch.input["input_mask"][batch.input["input_mask"].shape[0] - 10, :2].any())
    for value in (batch.input.x, batch.y, windows.scalers["target"].scale):
        assert bool(value.isfinite().all())


def test_time_stamps_that_come_twice_in_the_files(make_settings, la_dir, la_raw):
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    pd.concat([raw, raw.iloc[50:52]]).sort_index().to_hdf(la_dir / "metr_la.h5", key="df")
    with pytest.raises(ValueError, match=r"'data_dir' must hold readings of la with each time"):
        load_data(make_settings(dataset="la", model="rnn", data_dir=la_dir))


@pytest.mark.parametrize("reading", [55.3, 1e6, 0.1])
def test_a_channel_without_variance_is_not_scaled_up(make_settings, la_dir, la_raw, reading):
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    raw.iloc[:400] = reading
    raw.to_hdf(la_dir / "metr_la.h5", key="df")
    scaler = load_data(make_settings(dataset="la", model="rnn", data_dir=la_dir)).windows.scalers[
        "target"
    ]
    assert scaler.bias.item() == pytest.approx(reading, rel=1e-5)
    assert scaler.scale.item() == 1.0


def test_no_reading_in_the_training_part(make_settings, la_dir, la_raw):
    raw = pd.read_hdf(la_raw / "metr_la.h5")
    raw.iloc[:380] = 0.0
    raw.to_hdf(la_dir / "metr_la.h5", key="df")
    with pytest.raises(ValueError, match="'mask' must hold a valid reading in the training part"):
        load_data(make_settings(dataset="la", model="rnn", data_dir=la_dir))


def test_a_robust_scaler_does_not_see_spikes(make_settings, la_dir):
    clean = load_data(
        make_settings("dataset.scaler=robust", dataset="la", model="rnn", data_dir=la_dir)
    )
    fault = "dataset.corruption={kind: spike, share: 0.001}"
    data = load_data(
        make_settings(fault, "dataset.scaler=robust", dataset="la", model="rnn", data_dir=la_dir)
    )
    standard = load_data(make_settings(fault, dataset="la", model="rnn", data_dir=la_dir))
    expected, found, blown = (d.windows.scalers["target"] for d in (clean, data, standard))
    assert found.scale.item() == pytest.approx(expected.scale.item(), rel=0.02)
    assert blown.scale.item() > 100 * expected.scale.item()
    with pytest.raises(ValueError, match=r"'dataset.scaler' must be one of standard, robust"):
        make_settings("dataset.scaler=max", dataset="la", model="rnn", data_dir=la_dir)


def test_a_dataset_without_a_clock(make_settings, gpvar_dir):
    fault = "dataset.corruption={kind: dropped, share: 0.3}"
    settings = make_settings(fault, dataset="gpvar", model="latentgnn", data_dir=gpvar_dir)
    data = load_data(settings)
    there = data.windows.found[..., 0].any(1).numpy()
    assert there.mean() == pytest.approx(0.7, abs=0.1)
    assert bool(data.windows.mask[-30:].all())


@pytest.mark.filterwarnings("ignore:The sensors:UserWarning")  # of dead and constant ones
@pytest.mark.parametrize("kind", [None, *ALL])
def test_the_card_of_a_run_says_which_readings_are_missing(make_settings, la_dir, kind):
    fault = "dataset.corruption=null"
    if kind is not None:
        fault = f"dataset.corruption={{kind: {kind}, share: {ALL[kind]}}}"
    settings = make_settings(fault, dataset="la", model="latentgnn", data_dir=la_dir)
    data, saved = load_data(settings), {}
    (card,) = data.cards(settings.model.cls)
    trainer = SimpleNamespace(datamodule=data.datamodule)
    card.on_fit_start(trainer, build_predictor(settings, data))  # which compares the inputs
    card.on_save_checkpoint(trainer, None, saved)
    assert saved["data_card"]["missing"] == (None if kind == "zeros" else 0.0)


def test_no_card_where_no_raw_readings_are_forecast_from(make_settings, la_dir, gpvar_dir):
    settings = make_settings(dataset="la", model="rnn", data_dir=la_dir)
    assert load_data(settings).cards(settings.model.cls) == []
    settings = make_settings(dataset="gpvar", model="latentgnn", data_dir=gpvar_dir)
    assert load_data(settings).cards(settings.model.cls) == []
