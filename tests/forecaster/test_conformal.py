from tsl_latentgnn.forecaster.conformal import GRID, Conformal, check_levels

import numpy as np
import pytest

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def draw(windows, seed):
    """Readings whose spread grows with their center, twice as far above as below."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(1, 10, (windows, 2, 3, 1))
    error = (
        rng.exponential(size=center.shape)
        * center
        * np.where(rng.random(center.shape) < 0.5, -1, 2)
    )
    return center + error, center, center, 3 * center


def test_levels_hold_on_new_readings_and_quantiles_do_not_cross():
    conformal = Conformal.of(*draw(2000, 0))
    y, center, below, above = draw(4000, 1)
    quantiles = conformal.quantiles(LEVELS, center, below, above)
    share = (y[..., None] <= quantiles).mean((0, 2, 3))  # of each step
    np.testing.assert_allclose(share, np.tile(LEVELS, (2, 1)), atol=0.012)
    assert (np.diff(quantiles, axis=-1) >= 0).all()


def test_errors_are_those_of_a_walk_over_the_windows():
    y, center, below, above = draw(50, 2)
    y[3, 0, 1] = np.nan
    conformal = Conformal.of(y, center, below, above)
    for step in range(2):
        ratios = []
        for b in range(50):
            for node in range(3):
                error = (y - center)[b, step, node, 0]
                width = (below if error < 0 else above)[b, step, node, 0]
                ratios.append(error / width)
        ratios = np.sort([ratio for ratio in ratios if np.isfinite(ratio)])
        count = len(ratios)
        place = (0.5 + 0.45 * (1 + 1 / count)) * (count - 1)  # of the level 0.95
        low = int(place)
        expected = ratios[low] + (place - low) * (ratios[low + 1] - ratios[low])
        level = int(np.flatnonzero(np.isclose(GRID, 0.95))[0])
        assert conformal.errors[level, step, 0] == pytest.approx(expected, rel=1e-4)


def test_a_step_without_readings_has_no_width():
    y, center, below, above = draw(20, 3)
    y[:, 1] = np.nan
    conformal = Conformal.of(y, center, below, above)
    quantiles = conformal.quantiles(LEVELS, center, below, above)
    np.testing.assert_array_equal(quantiles[:, 1], np.repeat(center[:, 1, :, :, None], 5, -1))


@pytest.mark.parametrize("levels", [(0.0,), (1.0,), (0.5, 0.5), (np.nan,), ("a",), 0.5, "0.5"])
def test_levels_out_of_range_are_refused_by_name(levels):
    with pytest.raises((TypeError, ValueError), match="'quantiles' must"):
        check_levels("quantiles", levels)
