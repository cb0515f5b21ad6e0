from tsl_latentgnn.profile import SMOOTHING, Clock, Profile

import numpy as np
import pandas as pd
import pytest


def make_readings(days=16, freq="2h", sensors=3, start="2024-03-04", missing=0.2):
    rng = np.random.default_rng(0)
    index = pd.date_range(
        start, periods=days * int(pd.Timedelta("1D") / pd.Timedelta(freq)), freq=freq
    )
    values = rng.normal(size=(len(index), sensors, 1)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    return index, values


def naive(values, index, at, kinds, left_out, freq):
    """Mean of what is within the smoothing at the same time of a day of the same kind."""
    own = index[at]
    chosen = []
    for t, time in enumerate(index):
        if kinds == 2 and (time.dayofweek >= 5) != (own.dayofweek >= 5):
            continue
        if left_out and time.date() == own.date():
            continue
        clock = (time - time.normalize()) - (own - own.normalize())
        if abs(clock) <= SMOOTHING // pd.Timedelta(freq) * pd.Timedelta(freq):
            chosen.append(values[t].astype(np.float64))
    with np.errstate(all="ignore"):
        return np.nanmean(chosen, 0)


@pytest.mark.parametrize(("freq", "days"), [("2h", 16), ("15min", 5)])
def test_profile_is_the_mean_of_other_days_at_that_time(freq, days):
    index, values = make_readings(days, freq)
    step = pd.Timedelta(freq)
    clock = Clock.of(index, step)
    profile, left = Profile.of(clock, values, index, step)
    assert clock.kinds == (2 if days == 16 else 1)
    for at in (0, 7, len(index) // 2, len(index) - 1):
        own = naive(values, index, at, clock.kinds, False, freq)
        np.testing.assert_allclose(profile.at(index[at : at + 1])[0], own, atol=1e-5)
        others = naive(values, index, at, clock.kinds, True, freq)
        np.testing.assert_allclose(left[at], others, atol=1e-5)


def test_a_reading_is_no_part_of_its_own_feature():
    index, values = make_readings(missing=0.0)
    step = pd.Timedelta("2h")
    clock = Clock.of(index, step)
    _, before = Profile.of(clock, values, index, step)
    changed = values.copy()
    changed[30] += 100.0
    _, after = Profile.of(clock, changed, index, step)
    same_day = index.normalize() == index[30].normalize()
    np.testing.assert_allclose(before[same_day], after[same_day], atol=1e-4)
    assert np.abs(before - after).max() > 1.0


def test_a_phase_without_readings_has_the_mean_of_the_sensor():
    index, values = make_readings(missing=0.0)
    values[index.hour == 4, 1] = np.nan
    profile, left = Profile.of(
        Clock.of(index, pd.Timedelta("2h")), values, index, pd.Timedelta("2h")
    )
    at = int(np.flatnonzero(index.hour == 4)[3])
    mean = np.nanmean(values[:, 1])
    assert profile.at(index[at : at + 1])[0, 1, 0] == pytest.approx(mean, abs=1e-5)
    assert left[at, 1, 0] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(
    ("freq", "periods", "season"),
    [
        ("h", 30, None),
        ("h", 48, "day"),
        ("D", 10, None),
        ("D", 14, "week"),
        ("MS", 12, None),
        ("MS", 36, "year"),
        ("YS", 12, None),
    ],
)
def test_the_season_is_one_of_several_steps_that_was_seen_twice(freq, periods, season):
    index = pd.date_range("2021-01-01", periods=periods, freq=freq)
    days = {"h": 1 / 24, "D": 1, "MS": 30.4375, "YS": 365.25}
    step = pd.Timedelta(days=days[freq])
    clock = Clock.of(index, step)
    assert (None if clock is None else clock.season) == season


def test_a_season_follows_the_wall_clock_through_a_change_to_summer_time():
    index = pd.date_range("2024-03-25", periods=24 * 14, freq="h", tz="UTC").tz_convert(
        "Europe/Berlin"
    )
    values = np.asarray(index.hour, np.float32)[:, None, None]  # of the wall clock
    profile, _ = Profile.of(Clock.of(index, pd.Timedelta("1h")), values, index, pd.Timedelta("1h"))
    np.testing.assert_allclose(profile.at(index)[:, 0, 0], values[:, 0, 0], atol=1e-5)
