from tsl_latentgnn.forecaster.baselines import baselines, season_steps

import numpy as np
import pandas as pd

HOUR = pd.Timedelta("1h")


def test_each_baseline_forecasts_what_its_name_says():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 2, 1))
    values[50, 0] = np.nan
    profile = rng.normal(size=(83, 2, 1))
    found = baselines(values, profile, HOUR, 4, 3, np.arange(3, 45))
    last = np.array([50, 60])
    persistence = found["persistence"](last)
    assert (persistence[0, :, 0] == values[49, 0]).all()  # the last that is there
    assert (persistence[1, :, 1] == values[60, 1]).all()
    seasonal = found["seasonal naive"](last)
    for b, end in enumerate(last):
        for h in range(3):
            np.testing.assert_array_equal(seasonal[b, h], values[end + 1 + h - 24])
            np.testing.assert_array_equal(found["profile"](last)[b, h], profile[end + 1 + h])


def test_the_linear_model_finds_a_linear_series():
    rng = np.random.default_rng(1)
    values = np.zeros((600, 2, 1))
    for t in range(2, 600):
        values[t] = 0.5 * values[t - 1] - 0.3 * values[t - 2] + 0.01 * rng.normal(size=(2, 1))
    last = np.arange(400, 597)
    found = baselines(values, None, HOUR, 4, 1, np.arange(3, 399))
    own = 0.5 * values[last] - 0.3 * values[last - 1]
    assert np.abs(found["linear"](last)[:, 0] - own).max() < 0.01


def test_nothing_behind_an_origin_is_looked_at():
    values = np.random.default_rng(2).normal(size=(120, 2, 1))
    changed = values.copy()
    changed[91:] += 5.0
    last, training = np.array([90]), np.arange(3, 80)
    for name, forecast in baselines(values, None, HOUR, 4, 3, training).items():
        other = baselines(changed, None, HOUR, 4, 3, training)[name]
        np.testing.assert_array_equal(forecast(last), other(last))


def test_seasons_of_steps():
    steps = [
        pd.Timedelta("5min"),
        HOUR,
        pd.Timedelta("1D"),
        pd.Timedelta("30D"),
        pd.Timedelta("90D"),
    ]
    assert [season_steps(step) for step in steps] == [288, 24, 7, 12, None]
