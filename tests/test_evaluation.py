"""The metrics against sums written out by hand, numerical integration and pair counting."""

from __future__ import annotations

import math
import subprocess
import sys

from tsl_latentgnn.evaluation import crps_gaussian, interval_coverage, metrics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

TRUE = np.array([[1.0, -2.0], [4.0, 5.0]])
PRED = np.array([[2.0, -2.0], [2.0, 10.0]])


class TestMetrics:
    def test_values_by_hand(self):
        # Errors 1, 0, 2, 5; relative 1/1, 0/2, 2/4, 5/5.
        expected = {"MSE": 7.5, "RMSE": math.sqrt(7.5), "MAE": 2.0, "MAPE": 62.5}
        assert metrics(TRUE, PRED) == pytest.approx(expected, rel=1e-15)

    def test_keys_and_python_floats(self):
        result = metrics(TRUE, PRED)
        assert list(result) == ["MSE", "RMSE", "MAE", "MAPE"]
        assert all(type(value) is float for value in result.values())

    def test_perfect_forecast_has_no_error(self):
        assert metrics(TRUE, TRUE) == {"MSE": 0.0, "RMSE": 0.0, "MAE": 0.0, "MAPE": 0.0}

    def test_eps_bounds_the_divisor_of_small_readings_of_either_sign(self):
        y_true = np.array([0.0, -0.1, 4.0])
        y_pred = np.array([1.0, 0.9, 2.0])
        # Divisors 0.5, 0.5 and 4.
        assert metrics(y_true, y_pred, eps=0.5)["MAPE"] == pytest.approx(100 * (2 + 2 + 0.5) / 3)
        assert metrics(np.zeros(1), np.ones(1))["MAPE"] == pytest.approx(1e10)

    def test_tensors_arrays_and_a_mix_agree(self):
        expected = metrics(TRUE, PRED)
        pred = torch.from_numpy(PRED).requires_grad_()
        assert metrics(torch.from_numpy(TRUE), pred) == expected
        assert metrics(TRUE, pred) == expected
        assert pred.grad is None

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_low_precision_is_computed_in_float64(self, dtype):
        # In half precision the squares (9e6) would overflow to inf.
        y_true = torch.full((2000,), 3000.0, dtype=dtype)
        result = metrics(y_true, torch.zeros_like(y_true))
        assert result["MSE"] == float(y_true[0]) ** 2
        assert result["MAPE"] == 100.0

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
    def test_inequalities_between_the_errors(self, pairs):
        y_true, y_pred = np.array(pairs, dtype=np.float64).T
        result = metrics(y_true, y_pred)
        assert result["RMSE"] ** 2 == pytest.approx(result["MSE"], rel=1e-12, abs=1e-300)
        # The absolute term is for errors whose squares underflow to 0.
        assert result["MAE"] <= result["RMSE"] * (1 + 1e-12) + 1e-150
        assert result == metrics(-y_true, -y_pred)

    def test_nothing_is_broadcast(self):
        with pytest.raises(ValueError, match=r"'y_pred' must have the shape of 'y_true', \[2, 2\]"):
            metrics(TRUE, PRED[:1])
        with pytest.raises(ValueError, match="shape"):
            metrics(np.ones((3, 1)), np.ones(3))

    @pytest.mark.parametrize(
        "bad", [[1.0], (1.0,), 1.0, None, np.array([1]), np.array([True]), np.array([1j])]
    )
    def test_rejects_what_is_no_float_array(self, bad):
        with pytest.raises(TypeError, match="'y_true' must be a floating point"):
            metrics(bad, np.ones(1))
        with pytest.raises(TypeError, match="'y_pred' must be a floating point"):
            metrics(np.ones(1), bad)

    def test_rejects_integer_tensors_and_masked_arrays(self):
        with pytest.raises(TypeError, match=r"got torch\.int64"):
            metrics(torch.ones(2, dtype=torch.long), torch.ones(2))
        # Its mask would be dropped in silence.
        with pytest.raises(TypeError, match="MaskedArray"):
            metrics(np.ma.masked_invalid(np.array([1.0, np.nan])), np.ones(2))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_rejects_nan_and_inf(self, bad):
        values = np.array([1.0, bad])
        with pytest.raises(ValueError, match=r"'y_true' must be finite.*got 1 NaN or Inf of 2"):
            metrics(values, np.ones(2))
        with pytest.raises(ValueError, match="'y_pred' must be finite"):
            metrics(torch.ones(2), torch.from_numpy(values))

    def test_rejects_empty(self):
        with pytest.raises(ValueError, match=r"'y_true' must not be empty \(got shape \[0, 3\]\)"):
            metrics(np.empty((0, 3)), np.empty((0, 3)))

    @pytest.mark.parametrize("eps", [0.0, -1e-8, math.nan, math.inf])
    def test_rejects_eps_that_is_not_positive(self, eps):
        with pytest.raises(ValueError, match="'eps'"):
            metrics(TRUE, PRED, eps=eps)

    def test_rejects_eps_that_is_no_number(self):
        with pytest.raises(TypeError, match="'eps'"):
            metrics(TRUE, PRED, eps="1e-8")


class TestIntervalCoverage:
    def test_limits_count_as_inside(self):
        y_true = np.array([0.0, 1.0, 2.0, 3.0, -0.1])
        lower, upper = np.zeros(5), np.full(5, 2.0)
        assert interval_coverage(y_true, lower, upper) == 0.6

    def test_gaussian_interval_covers_its_level(self):
        y_true = torch.from_numpy(np.random.default_rng(0).standard_normal(100_000))
        limit = torch.full_like(y_true, norm.ppf(0.95))
        assert interval_coverage(y_true, -limit, limit) == pytest.approx(0.9, abs=0.005)

    def test_rejects_crossed_limits_and_shapes(self):
        with pytest.raises(ValueError, match=r"'lower' must be <= 'upper'.*1 of 2"):
            interval_coverage(np.zeros(2), np.array([0.0, 2.0]), np.ones(2))
        with pytest.raises(ValueError, match="'upper' must have the shape"):
            interval_coverage(np.zeros(2), np.zeros(2), np.ones(1))


class TestCRPSGaussian:
    @pytest.mark.parametrize(
        ("y", "mean", "scale"),
        [(0.0, 0.0, 1.0), (1.3, -0.4, 0.7), (-5.0, 2.0, 3.0), (10.0, 9.9, 0.05)],
    )
    def test_matches_the_integral_of_its_definition(self, y, mean, scale):
        # CRPS = integral of (F(x) - 1[x >= y])^2, split where the step is.
        below, _ = quad(lambda x: norm.cdf(x, mean, scale) ** 2, mean - 40 * scale, y, limit=200)
        above, _ = quad(lambda x: norm.sf(x, mean, scale) ** 2, y, mean + 40 * scale, limit=200)
        result = crps_gaussian(np.array([y]), np.array([mean]), np.array([scale]))
        assert result == pytest.approx(below + above, rel=1e-6)

    def test_is_the_mean_over_all_readings(self):
        rng = np.random.default_rng(1)
        y, mean = rng.standard_normal((2, 3, 4))
        scale = rng.uniform(0.1, 2.0, (3, 4))
        parts = [
            crps_gaussian(y[i : i + 1], mean[i : i + 1], scale[i : i + 1]) for i in range(len(y))
        ]
        assert crps_gaussian(torch.from_numpy(y), mean, scale) == pytest.approx(np.mean(parts))

    def test_tends_to_the_absolute_error_for_a_sure_forecast(self):
        y, mean = np.array([3.0, -1.0]), np.array([1.0, 0.0])
        result = crps_gaussian(y, mean, np.full(2, 1e-9))
        assert result == pytest.approx(metrics(y, mean)["MAE"], rel=1e-6)

    def test_is_proper_the_true_scale_scores_best(self):
        y = np.random.default_rng(2).normal(0.0, 2.0, 20_000)
        by_scale = {
            scale: crps_gaussian(y, np.zeros_like(y), np.full_like(y, scale))
            for scale in (1.0, 1.5, 2.0, 2.5, 4.0)
        }
        assert min(by_scale, key=by_scale.__getitem__) == 2.0

    def test_accepts_a_zero_dimensional_array(self):
        expected = (math.sqrt(2) - 1) / math.sqrt(math.pi)
        assert crps_gaussian(np.array(0.0), np.array(0.0), np.array(1.0)) == pytest.approx(expected)

    @pytest.mark.parametrize("scale", [0.0, -1.0])
    def test_rejects_a_scale_that_is_not_positive(self, scale):
        with pytest.raises(ValueError, match="'scale' must be > 0"):
            crps_gaussian(np.zeros(2), np.zeros(2), np.array([1.0, scale]))


def test_importing_it_loads_neither_tsl_nor_sklearn():
    code = (
        "import sys, tsl_latentgnn.evaluation\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'tsl', 'sklearn', 'torch_geometric', 'matplotlib', 'pandas'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
