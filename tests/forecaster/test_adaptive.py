from types import SimpleNamespace

from tsl_latentgnn.forecaster.adaptive import RATE, adapt
from tsl_latentgnn.forecaster.conformal import GRID, Conformal
from tsl_latentgnn.forecaster.trained import Forecasts

import numpy as np
import pandas as pd
import pytest
from small_forecaster import fit_small, small_table

LEVELS = (0.95, 0.05, 0.5)  # in an order of the user's


def drawn(origins, spread, seed):
    """Forecasts of 0 with a spread of 1, and readings with another one of each origin."""
    rng = np.random.default_rng(seed)
    shape = (origins, 2, 5, 1)
    y = rng.normal(size=shape) * np.reshape(spread, (-1, 1, 1, 1))
    one = np.ones(shape)
    return y, Forecasts(y, 0 * one, one, one, np.zeros((*shape, 3)), LEVELS)


def widths():
    y, plain = drawn(4000, np.ones(4000), 0)
    return Conformal.of(y, plain.mean, plain.below, plain.above)


def test_levels_move_as_the_formula_says():
    y, plain = drawn(30, np.full(30, 3.0), 1)
    y[4] = np.nan  # an origin that says nothing
    y[7, 0, 2] = np.nan
    conformal, floor = widths(), np.array([-2.5])
    last = np.arange(30) + 100
    adapted = adapt(plain, conformal, last, floor)
    levels = list(LEVELS)
    for t in range(30):
        over = t - 2  # the origin whose two steps have just come
        if over >= 0:
            for i in range(3):
                held = [
                    y[over, h, n, 0] <= adapted.quantiles[over, h, n, 0, i]
                    for h in range(2)
                    for n in range(5)
                    if np.isfinite(y[over, h, n, 0])
                ]
                if held:
                    levels[i] += RATE * (LEVELS[i] - np.mean(held))
                    levels[i] = min(max(levels[i], GRID[0]), GRID[-1])
        ordered = sorted(levels)
        by_rank = dict(zip(sorted(LEVELS), ordered, strict=True))
        for i in range(3):
            error = np.interp(by_rank[LEVELS[i]], GRID, conformal.errors[:, 1, 0])
            expected = max(error, -2.5)
            assert adapted.quantiles[t, 1, 3, 0, i] == pytest.approx(expected, rel=1e-4)


def test_quantiles_hold_where_the_spread_has_grown_and_come_back():
    spread = np.repeat([1.5, 0.5], 1500)
    y, plain = drawn(3000, spread, 2)
    conformal = widths()
    fixed = conformal.quantiles(LEVELS, plain.mean, plain.below, plain.above)
    moving = adapt(plain, conformal, np.arange(3000), np.array([-np.inf])).quantiles

    def coverage(quantiles, part):
        return ((quantiles[part][..., 1] <= y[part]) & (y[part] <= quantiles[part][..., 0])).mean()

    assert coverage(fixed, slice(200, 1500)) < 0.76
    assert coverage(fixed, slice(1700, 3000)) > 0.99
    for part in (slice(200, 1500), slice(1700, 3000)):
        assert coverage(moving, part) == pytest.approx(0.9, abs=0.03)
    assert (np.diff(moving[..., [1, 2, 0]], axis=-1) >= 0).all()


@pytest.fixture(scope="module")
def later():
    """A forecaster of hours, and readings of which the last third, after its training, swing thrice as much."""
    readings = small_table(600)
    forecaster = fit_small(readings.iloc[:400])
    middle = readings.iloc[400:].rolling(24, min_periods=1, center=True).mean()
    wild = middle + 3 * (readings.iloc[400:] - middle)
    return SimpleNamespace(forecaster=forecaster, table=pd.concat([readings.iloc[:400], wild]))


def test_predict_widens_where_readings_left_the_intervals(later):
    plain = later.forecaster.predict(later.table)
    adapted = later.forecaster.predict(later.table, adaptive=True)
    pd.testing.assert_frame_equal(
        plain[["sensor", "time", "mean"]], adapted[["sensor", "time", "mean"]]
    )
    assert ((adapted.q95 - adapted.q05) > (plain.q95 - plain.q05)).all()


def test_predict_learns_from_what_came_after_the_training_alone(later):
    known = later.table.iloc[:400]
    pd.testing.assert_frame_equal(
        later.forecaster.predict(known), later.forecaster.predict(known, adaptive=True)
    )


def test_each_origin_of_a_table_is_adapted_as_if_it_were_the_last(later):
    every = later.forecaster.predict(later.table, adaptive=True, step=1)
    for rows in (500, 600):
        now = later.forecaster.predict(later.table.iloc[:rows], adaptive=True)
        issued = later.table.index[rows - 1]
        same = every[every.issued_at == issued].drop(columns="issued_at").reset_index(drop=True)
        pd.testing.assert_frame_equal(same, now, rtol=1e-4)


def test_backtest_learns_from_the_origins_before_the_first(later):
    one = later.forecaster.backtest(later.table, windows=1, step=1, adaptive=True).forecasts
    every = later.forecaster.predict(later.table, adaptive=True, step=1)
    same = every[every.issued_at == one.issued_at.iloc[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, one.drop(columns="y"), rtol=1e-4)
