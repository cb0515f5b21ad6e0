"""What a card may hold, and what is refused when it is read."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

from tsl_latentgnn.engines.data_card import DATA_CARD, Card, _checksum
from tsl_latentgnn.forecaster import CheckpointForecaster
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import torch

pytestmark = pytest.mark.tsl

OLD = {
    "sensors": ["a", "b"],
    "encoded": ["day"],
    "step_seconds": 900.0,
    "window": 4,
    "inputs": ["input_mask", "u", "weather", "x"],
    "bias": torch.zeros(1, 1, 1),
    "scale": torch.ones(1, 2, 1),
}
SCALERS = {"u": (torch.zeros(2), torch.full((2,), 2.0))}


def make_card(**changed):
    known = {name: value for name, value in OLD.items() if name != "inputs"}
    return Card(
        **{**known, "inputs": ["x", "u"], "horizon": 3, "covariate_scalers": SCALERS, **changed}
    )


def make_model(**changed):
    sizes = {"input_size": 1, "output_size": 1, "horizon": 3, "n_nodes": 2, "exog_size": 2}
    return LatentGNNModel(**{**sizes, "hidden_size": 4, "k_neighbors": 2, **changed})


def test_a_card_is_read_as_it_was_written():
    card = make_card(delay=2, window_lag=2, horizon_lag=3, zone="Europe/Berlin", missing=-200.0)
    file = io.BytesIO()
    torch.save({DATA_CARD: card.to_dict()}, file)
    file.seek(0)
    entries = torch.load(file, weights_only=True)[DATA_CARD]
    read = Card.from_dict(entries)
    for name in entries.keys() - {"version", "checksum"}:
        one, other = getattr(card, name), getattr(read, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other)
    assert Card.from_dict(card) is card
    assert entries["version"] == 3


PROFILE = {"season": "day", "slots": 24, "kinds": 1, "values": torch.rand(1, 24, 2, 1)}


def test_a_profile_is_read_as_it_was_written():
    card = make_card(inputs=["x", "u", "u_future"], profile=PROFILE)
    read = Card.from_dict(card.to_dict())
    assert {**read.profile, "values": 0} == {**PROFILE, "values": 0}
    times = pd.date_range("2024-01-01 05:00", periods=2, freq="h")
    np.testing.assert_array_equal(read.usual(times), PROFILE["values"][0, 5:7])
    read.check_model(make_model(exog_size=3, future_exog_size=3))
    with pytest.raises(ValueError, match=r"'model' must have exog_size=3.* a profile"):
        read.check_model(make_model(exog_size=2, future_exog_size=3))


@pytest.mark.parametrize(
    "changed",
    [
        {"season": "month"},
        {"slots": 0},
        {"kinds": 3},
        {"kinds": 2},
        {"values": torch.rand(1, 24, 3, 1)},
        {"values": torch.full((1, 24, 2, 1), math.nan)},
        {"values": torch.zeros(1, 24, 2, 1, dtype=torch.long)},
        {"values": [1.0]},
        {"more": 1},
    ],
)
def test_a_profile_that_no_training_has_is_refused(changed):
    with pytest.raises((TypeError, ValueError), match="'profile"):
        make_card(inputs=["x", "u", "u_future"], profile={**PROFILE, **changed})
    with pytest.raises(ValueError, match="'inputs' must hold 'u' and 'u_future' with a profile"):
        make_card(profile=PROFILE)


def test_a_card_of_the_second_version():
    entries = make_card().to_dict()
    del entries["profile"], entries["checksum"]
    entries["checksum"] = _checksum({n: v for n, v in entries.items() if n != "version"})
    assert Card.from_dict({**entries, "version": 2}).profile is None
    with pytest.raises(ValueError, match="lacking: profile"):
        Card.from_dict(entries)


def test_a_card_before_there_was_a_version():
    card = Card.from_dict(OLD)
    assert card.inputs == ("input_mask", "u", "x")
    assert (card.horizon, card.delay, card.window_lag, card.horizon_lag) == (None, 0, 1, 1)
    assert (card.zone, card.missing, card.covariate_scalers) == (None, None, {})
    assert Card.from_dict({**OLD, "scale": torch.ones(2, 1)}).scale.shape == (2, 1)
    with pytest.raises(ValueError, match=r"others of .*\(got \['x', 'targets'\]\)"):
        make_card(inputs=["x", "targets"])
    forecaster = CheckpointForecaster(make_model(), OLD)
    assert (forecaster.horizon, forecaster.card.horizon, forecaster.missing) == (3, 3, None)


@pytest.mark.parametrize(
    "value", [None, {}, "card", b"card", 7, math.nan, [OLD], {1: 2}, torch.ones(2), Card]
)
def test_no_card_at_all(value):
    with pytest.raises(ValueError, match="'card' must be"):
        Card.from_dict(value)
    with pytest.raises(ValueError, match="'card' must be"):
        CheckpointForecaster(make_model(), value)


WRONG = {
    "version": [0, 4, "2", None, True],
    "sensors": [None, "ab", [], ["a", "a"], ["a", 1], ["a", " "], 3],
    "encoded": [None, "day", ["noon"], ["day", "day"], [None]],
    "step_seconds": [0, -900.0, math.nan, math.inf, "900", None, 1e300, 1e-12, True],
    "window": [0, -1, 4.0, "4", None, True, 10**30],
    "inputs": [None, "x", [], ["u"], ["x", "x"], [3]],
    "bias": [None, "0", [0.0], math.nan, torch.tensor(math.inf), torch.zeros(3)],
    "scale": [0.0, -1.0, torch.tensor([[1.0], [0.0]]), math.inf, torch.ones(2, dtype=torch.int)],
    "horizon": [0, 3.0, "3", True],
    "delay": [-1, None, 0.5],
    "window_lag": [0, None],
    "horizon_lag": [0, "1"],
    "zone": ["Mars/Olympus", "", 3, "../zone"],
    "missing": [math.nan, math.inf, "0", True],
    "covariate_scalers": [
        None,
        {"x": SCALERS["u"]},
        {"u": None},
        {"u": (0.0, 0.0)},
        {"u": (0.0,)},
        {"u": (torch.zeros(3), 1.0)},
    ],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in WRONG for v in WRONG[n]])
def test_what_no_training_writes_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"'card' must be as DataCard wrote it: '{name}"):
        Card.from_dict({**make_card().to_dict(), name: value})
    if name in OLD:
        with pytest.raises(ValueError, match=f"'{name}"):
            Card.from_dict({**OLD, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("window", 5), ("sensors", ["b", "a"]), ("delay", 1), ("scale", torch.full((1, 2, 1), 1.1))],
)
def test_an_entry_that_was_changed_is_refused_though_it_might_be_right(name, value):
    entries = make_card().to_dict()
    with pytest.raises(ValueError, match=r"'checksum' must be that of the entries.*replace\(card"):
        Card.from_dict({**entries, name: value})
    Card.from_dict(replace(make_card(), **{name: value}).to_dict())


@pytest.mark.parametrize("name", ["window", "bias", "checksum", "zone"])
def test_an_entry_that_is_not_there_or_not_known(name):
    entries = make_card().to_dict()
    with pytest.raises(ValueError, match=f"lacking: {name}|'checksum' must be"):
        Card.from_dict({key: entries[key] for key in entries if key != name})
    with pytest.raises(ValueError, match=r"not known: \['more'\]"):
        Card.from_dict({**entries, "more": 1})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_nodes": 3}, r"n_nodes=2, .*\(got n_nodes=3\)"),
        ({"horizon": 4}, r"horizon=3, .*\(got horizon=4\)"),
        ({"exog_size": 0}, r"exog_size=2, by .*encoded=\['day'\].*\(got exog_size=0\)"),
        ({"future_exog_size": 2}, r"future_exog_size=0, .*\(got future_exog_size=2\)"),
        ({"input_size": 2}, r"one channel of each sensor \(got input_size=2\)"),
    ],
)
def test_the_card_of_another_model_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        CheckpointForecaster(make_model(**changed), make_card())


def test_time_stamps_of_the_forecasts():
    card = make_card(delay=2, horizon_lag=2)
    times = card.times([pd.Timestamp("2024-01-01 12:00")], card.forecast_steps())
    assert [f"{time:%H:%M}" for time in times] == ["12:45", "13:15", "13:45"]
    # In summer Berlin is two hours ahead, in winter one.
    card = make_card(zone="Europe/Berlin", step_seconds=3600, horizon=3)
    issued = [pd.Timestamp("2024-10-26T23:00Z"), pd.Timestamp("2024-10-27T04:00+05:00")]
    times = card.times(issued, card.forecast_steps())
    assert [f"{time:%H:%M%z}" for time in times] == [
        *("02:00+0200", "02:00+0100", "03:00+0100"),
        *("02:00+0200", "02:00+0100", "03:00+0100"),
    ]


@pytest.mark.parametrize(
    ("zone", "time", "message"),
    [
        (None, "2024-01-01T00:00Z", r"without a time zone.*\(got 2024-01-01 00:00:00\+00:00\)"),
        ("Europe/Berlin", "2024-01-01", "with a time zone.*Europe/Berlin"),
        (None, "NaT", r"got NaT"),
    ],
)
def test_a_stamp_of_another_clock_is_refused(zone, time, message):
    readings = np.zeros((1, 4, 2))
    with pytest.raises(ValueError, match=message):
        CheckpointForecaster(make_model(), make_card(zone=zone))(readings, [pd.Timestamp(time)])


def test_inputs_by_hand():
    card = make_card(
        inputs=["x", "input_mask", "u"], encoded=["weekday"], window_lag=2, bias=10.0, scale=5.0,
        covariate_scalers={"u": (1.0, 0.5)},
    )  # fmt: skip
    readings = torch.tensor([[[10.0, 20.0], [0.0, 0.0], [math.nan, 5.0], [0.0, math.nan]]])
    made = card.make_inputs(readings, [pd.Timestamp("2024-01-03 00:15")])
    torch.testing.assert_close(
        made["x"], torch.tensor([[[[0.0], [2.0]], [[0.0], [-1.0]]]]), atol=1e-5, rtol=0
    )
    assert made["input_mask"].flatten().tolist() == [True, True, False, True]
    # Tuesday evening, and Tuesday still: 23:30 and 00:00 of Wednesday.
    assert made["u"].flatten().tolist() == pytest.approx([0.0, 2.0], abs=1e-5)
    complete = replace(card, inputs=["x", "u"])
    with pytest.raises(
        ValueError, match=r"must be complete .*\(got 1 missing in the windows up to"
    ):
        complete.make_inputs(readings, [pd.Timestamp("2024-01-03 00:15")])


def test_words_of_a_refusal_stay_short():
    with pytest.raises(ValueError, match="card") as error:
        Card.from_dict({**OLD, "sensors": ["a"] * 10**5})
    assert len(str(error.value)) < 500
    assert re.search("got 'a' twice", str(error.value))
