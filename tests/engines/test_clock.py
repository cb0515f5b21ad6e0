"""Features of the clock against the calendar of the standard library, and against tsl's."""

from __future__ import annotations

import math
from datetime import datetime, timezone

from tsl_latentgnn.engines.clock import CLOCK, clock_features, clock_size

import numpy as np
import pandas as pd
import pytest

from tsl.datasets.prototypes import DatetimeDataset  # isort: skip

PERIODS = {"day": 86400, "week": 7 * 86400}


def by_hand(feature, time):
    if feature in PERIODS:
        utc = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
        angle = 2 * math.pi * utc.timestamp() / PERIODS[feature]
        return [math.sin(angle), math.cos(angle)]
    if feature == "share_of_day":
        return [(time.hour * 3600 + time.minute * 60 + time.second) / 86400]
    if feature == "weekday":
        return [time.weekday()]
    return [float(day == time.weekday()) for day in range(7)]


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("unit", ["ns", "s"])
def test_features_are_those_of_the_calendar(zone, unit):
    # Over the end of summer time in Berlin.
    times = pd.date_range("2024-10-26 21:00", periods=40, freq="47min", tz=zone).as_unit(unit)
    names = ["weekday_onehot", "day", "share_of_day", "week", "weekday"]
    found = clock_features(names, times)
    assert (found.dtype, found.shape) == (np.float32, (40, clock_size(names)))
    for row, time in zip(found, times, strict=True):
        plain = datetime.fromisoformat(time.isoformat())
        expected = np.concatenate([by_hand(name, plain) for name in names])
        np.testing.assert_allclose(row, expected, atol=2e-4)  # tsl's angles are large


@pytest.mark.tsl
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_periods_are_those_of_tsl(zone):
    index = pd.date_range("1969-12-30", periods=50, freq="90min", tz=zone)
    data = DatetimeDataset(pd.DataFrame({"a": 1.0}, index=index), similarity_score="correntropy")
    units = [name for name in CLOCK if CLOCK[name] == 2]
    np.testing.assert_array_equal(
        clock_features(units, index), data.datetime_encoded(units).to_numpy()
    )
