from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import solve_discrete_lyapunov

from benchmarks.data import systems
from benchmarks.data.datasets import load_dataset
from benchmarks.studies.learned_graphs import true_graph


@pytest.mark.parametrize("make", [systems.linear_var, systems.tanh_var])
def test_an_autoregression_follows_its_weights(make):
    squash, noise = (math.tanh, 0.3) if make is systems.tanh_var else (None, 1.0)
    system = make(7, nodes=12, steps=300)
    weights = systems.draw_weights(np.random.default_rng(7), 12, 2, 0.3)
    assert np.abs(np.linalg.eigvals(weights)).max() <= systems.MAX_RADIUS
    assert set(weights.diagonal()) == {0.3}
    for t in (1, 150, 299):
        for i in range(12):
            sources = [j for j in range(12) if system.graph[i, j]]
            assert len(sources) == 2
            assert all(0.3 <= abs(weights[i, j]) <= 0.6 for j in sources)
            total = sum(weights[i, j] * system.series[t - 1, j] for j in [i, *sources])
            expected = total if squash is None else squash(2 * total)
            assert system.optimal[t, i] == pytest.approx(expected, abs=1e-12)
    shocks = system.series - system.optimal
    assert shocks.std() == pytest.approx(noise, rel=0.05)
    assert abs(np.corrcoef(shocks[1:, 0], shocks[:-1, 0])[0, 1]) < 0.2


def test_the_linear_system_has_the_covariance_of_its_equation():
    system = systems.linear_var(3, nodes=5, steps=40_000)
    weights = systems.draw_weights(np.random.default_rng(3), 5, 2, 0.3)
    expected = solve_discrete_lyapunov(weights, np.eye(5))  # S = A S A' + I
    np.testing.assert_allclose(np.cov(system.series.T), expected, atol=0.12 * expected.max())


def test_signs_go_both_ways():
    weights = systems.draw_weights(np.random.default_rng(0), 50, 2, 0.0)
    assert 20 < (weights > 0).sum() < 80
    assert (weights != 0).sum() == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 4, "parents": 4}, r"'parents' must be from 0 to 3, .* \(got 4\)"),
        ({"nodes": 4, "own": 1.5}, r"'own' and 'parents' must leave a stationary .*got 1.5 and 2"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        systems.linear_var(0, **changes)


def test_lorenz_moves_as_its_equation():
    x = np.random.default_rng(0).normal(size=7)
    found = systems.lorenz96_motion(x, 8.0)
    for i in range(7):
        expected = (x[(i + 1) % 7] - x[i - 2]) * x[i - 1] - x[i] + 8.0
        assert found[i] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(systems.lorenz96_motion(np.full(7, 8.0), 8.0), 0.0)  # at rest


@pytest.mark.parametrize("force", [10.0, 40.0])
def test_the_steps_of_lorenz_are_fine_enough(force):
    system = systems.lorenz96(1, nodes=8, force=force, steps=12, noise=0.0)
    motion = partial(systems.lorenz96_motion, force=force)
    for t in range(11):  # one interval at a time, for the motion is chaotic
        fine = solve_ivp(
            lambda _, x: motion(x), (0, 0.05), system.series[t], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(system.series[t + 1], fine.y[:, -1], atol=2e-3 * force)
    for i in range(8):
        assert set(np.flatnonzero(system.graph[i])) == {(i + d) % 8 for d in (-2, -1, 1)}


def test_noise_of_lorenz_is_that_of_a_reading():
    clean, noisy = (systems.lorenz96(1, nodes=8, steps=500, noise=sd) for sd in (0.0, 0.1))
    assert (noisy.series - clean.series).std() == pytest.approx(0.1, rel=0.05)


def test_kuramoto_moves_as_its_equation():
    rng = np.random.default_rng(0)
    phase, speed, weights = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(5, 5))
    found = systems.kuramoto_motion(phase, speed, weights)
    for i in range(5):
        pull = sum(weights[i, j] * math.sin(phase[j] - phase[i]) for j in range(5))
        assert found[i] == pytest.approx(speed[i] + pull, abs=1e-12)


def test_two_oscillators_lock_at_the_known_angle():
    speed, weights = np.array([1.0, 1.6]), np.array([[0.0, 0.5], [0.5, 0.0]])
    motion = partial(systems.kuramoto_motion, speed=speed, weights=weights)
    phase = np.zeros(2)
    for _ in range(3000):
        phase = systems.runge_kutta(motion, phase, 0.02)
    assert phase[1] - phase[0] == pytest.approx(math.asin(0.6 / (2 * 0.5)), abs=1e-6)


def test_free_oscillators_have_the_known_autocorrelation():
    system = systems.kuramoto(
        4, nodes=2, density=0.0, steps=20_000, interval=1.0, noise=0.8, substeps=1
    )
    assert not system.graph.any()
    rng = np.random.default_rng(4)
    rng.random((2, 2))
    speed = rng.uniform(1.0, 3.0, 2)
    found = 2 * (system.series[1:] * system.series[:-1]).mean(0)
    np.testing.assert_allclose(found, math.exp(-(0.8**2) / 2) * np.cos(speed), atol=0.04)


@pytest.mark.tsl
def test_gpvar_is_that_of_tsl(small_gpvar120):
    for name, directed in (("gpvar120", False), ("gpvar120_directed", True)):
        dataset = load_dataset(name, small_gpvar120, seed=5)
        true = true_graph(dataset).numpy() > 0
        system = systems.gpvar(5, communities=len(true) // 6, steps=50, directed=directed)
        np.testing.assert_array_equal(system.graph, true)
        # The optimal forecasts that tsl stores beside its own series follow from the same filters.
        filters = systems.gpvar_filters(true)
        x = dataset.numpy()[..., 0].astype(np.float64)
        optimal = np.asarray(dataset.optimal_pred).reshape(x.shape)
        for t in (2, 100):
            expected = np.tanh(filters[0] @ x[t - 2] + filters[1] @ x[t - 1])
            np.testing.assert_allclose(optimal[t], expected, atol=1e-4)
        for t in (2, 49):
            expected = np.tanh(
                filters[0] @ system.series[t - 2] + filters[1] @ system.series[t - 1]
            )
            np.testing.assert_allclose(system.optimal[t], expected, atol=1e-12)
        assert (system.series - system.optimal).std() == pytest.approx(0.4, rel=0.1)
        two_hops = np.zeros_like(true)
        for target, middle, source in itertools.permutations(range(len(true)), 3):
            two_hops[target, source] |= true[target, middle] and true[middle, source]
        np.testing.assert_array_equal(system.further, two_hops & ~true)


@pytest.mark.tsl
def test_the_systems_are_what_their_names_say():
    edges = {name: make(0).graph.sum() for name, make in systems.SYSTEMS.items() if "50" in name}
    assert edges == {"var50": 100, "var500": 1000, "tanh50": 100, "empty50": 0}
    first, again, other = (systems.SYSTEMS["empty50"](seed).series for seed in (0, 0, 1))
    assert first.shape == (2000, 50)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
