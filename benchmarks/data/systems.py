"""Series whose causes are known: dynamical systems that the field tests discovery of graphs on.

A graph is target-row: ``graph[i, j]`` is the edge from source ``j`` to target ``i``. Each generator is a function of a
seed, from which the graph, the weights and the noise are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

STEPS = 2000
_WARM_UP = 500
#: Largest spectral radius of a linear system: weights beyond it are drawn again.
MAX_RADIUS = 0.97


@dataclass(frozen=True)
class System:
    """Series of a system, with what is known of it.

    Args:
        series: Readings ``[T, N]``.
        graph: True edges between different nodes ``[N, N]``, target-row.
        optimal: The best forecast of each reading from those before ``[T, N]``; ``None`` where it has no closed form.
        further: Pairs ``[N, N]`` that are no edges and whose source the equation of the target reads all the same;
            ``None`` where there are none.
    """

    series: FloatArray
    graph: NDArray[np.bool_]
    optimal: FloatArray | None = None
    further: NDArray[np.bool_] | None = None


def linear_var(
    seed: int,
    nodes: int = 50,
    parents: int = 2,
    steps: int = STEPS,
    own: float = 0.3,
    noise: float = 1.0,
    squash: Callable[[FloatArray], FloatArray] | None = None,
) -> System:
    r"""Linear or squashed autoregression of order 1.

    .. math::
        \mathbf{x}_t = f(\mathbf{A} \mathbf{x}_{t-1}) + \sigma \boldsymbol{\epsilon}_t, \qquad
        A_{ii} = \mathrm{own}, \qquad |A_{ij}| \sim U(0.3, 0.6)

    for the ``parents`` sources :math:`j` of each target :math:`i`, with either sign. Weights are drawn again while the
    spectral radius of :math:`\mathbf{A}` is above :data:`MAX_RADIUS`.

    Args:
        seed: Seed of all random numbers.
        nodes: Number of series.
        parents: Sources of each target, without itself.
        steps: Number of steps.
        own: What a series keeps of itself.
        noise: Standard deviation :math:`\sigma` of the noise.
        squash: :math:`f`; ``None`` is the identity.
    """
    rng = np.random.default_rng(seed)
    weights = draw_weights(rng, nodes, parents, own)
    x, optimal = np.zeros((2, _WARM_UP + steps, nodes))
    shocks = noise * rng.standard_normal(x.shape)
    for t in range(1, len(x)):
        mean = weights @ x[t - 1]
        optimal[t] = mean if squash is None else squash(mean)
        x[t] = optimal[t] + shocks[t]
    graph = (weights != 0) & ~np.eye(nodes, dtype=bool)
    return System(x[_WARM_UP:], graph, optimal[_WARM_UP:])


def draw_weights(rng: np.random.Generator, nodes: int, parents: int, own: float) -> FloatArray:
    """Weights ``[N, N]`` of :func:`linear_var`.

    Raises:
        ValueError: If there are fewer other nodes than ``parents``, or no draw of 100 is stationary.
    """
    if not 0 <= parents < nodes:
        raise ValueError(
            f"'parents' must be from 0 to {nodes - 1}, the number of other nodes (got {parents})."
        )
    for _ in range(100):
        weights = own * np.eye(nodes)
        for i in range(nodes):
            sources = rng.choice(np.delete(np.arange(nodes), i), parents, replace=False)
            weights[i, sources] = rng.uniform(0.3, 0.6, parents) * rng.choice([-1, 1], parents)
        if np.abs(np.linalg.eigvals(weights)).max() <= MAX_RADIUS:
            return weights
    raise ValueError(
        f"'own' and 'parents' must leave a stationary system (got {own} and {parents}, whose spectral radius "
        f"was above {MAX_RADIUS} in 100 draws)."
    )


def tanh_var(seed: int, nodes: int = 50, steps: int = STEPS) -> System:
    """As :func:`linear_var`, through ``tanh(2 *)`` and with noise of standard deviation 0.3."""
    return linear_var(seed, nodes, steps=steps, noise=0.3, squash=lambda x: np.tanh(2 * x))


def lorenz96(
    seed: int,
    nodes: int = 20,
    force: float = 10.0,
    steps: int = STEPS,
    interval: float = 0.05,
    noise: float = 0.1,
    substeps: int = 5,
) -> System:
    r"""A quantity around a circle of latitude, measured with noise: Lorenz-96 (E. N. Lorenz, *Predictability: a problem
    partly solved*, ECMWF, 1996).

    .. math::
        \dot{x}_i = (x_{i+1} - x_{i-2}) \, x_{i-1} - x_i + F

    It is integrated by the classical Runge-Kutta method in ``substeps`` steps between two readings, from
    :math:`F + 0.01 \, \mathcal{N}(0, 1)`.

    Args:
        seed: Seed of the start and of the noise.
        nodes: Number of series, around the circle.
        force: :math:`F`; 10 is chaotic, 40 turbulent.
        steps: Number of readings.
        interval: Time between two readings.
        noise: Standard deviation of the noise of a reading; it does not enter the motion.
        substeps: Steps of the integration between two readings.
    """
    rng = np.random.default_rng(seed)
    x = force + 0.01 * rng.standard_normal(nodes)
    found = np.empty((_WARM_UP + steps, nodes))
    for t in range(len(found)):
        for _ in range(substeps):
            x = runge_kutta(partial(lorenz96_motion, force=force), x, interval / substeps)
        found[t] = x
    graph = np.zeros((nodes, nodes), dtype=bool)
    for away in (-2, -1, 1):
        graph[np.arange(nodes), (np.arange(nodes) + away) % nodes] = True
    readings = found[_WARM_UP:] + noise * rng.standard_normal((steps, nodes))
    return System(readings, graph)


def lorenz96_motion(x: FloatArray, force: float) -> FloatArray:
    """Time derivative of :func:`lorenz96`."""
    return (np.roll(x, -1) - np.roll(x, 2)) * np.roll(x, 1) - x + force


def kuramoto(
    seed: int,
    nodes: int = 20,
    density: float = 0.1,
    steps: int = STEPS,
    coupling: float = 1.0,
    interval: float = 0.1,
    noise: float = 0.2,
    substeps: int = 5,
) -> System:
    r"""Coupled oscillators of `Kuramoto (1975) <https://doi.org/10.1007/BFb0013365>`_ with phase noise; a reading is
    :math:`\sin \theta_i`.

    .. math::
        d\theta_i = \Big(\omega_i + K \sum_j A_{ij} \sin(\theta_j - \theta_i)\Big) \, dt + \sigma \, dW_i, \qquad
        \omega_i \sim U(1, 3)

    Every pair of different nodes is an edge with probability ``density``. Between two readings there are ``substeps``
    steps of Runge-Kutta for the motion, each with a Gaussian step of the noise.

    Args:
        seed: Seed of the graph, of frequencies, start and noise.
        nodes: Number of oscillators.
        density: Chance of an edge.
        steps: Number of readings.
        coupling: :math:`K`, of each edge.
        interval: Time between two readings.
        noise: :math:`\sigma`, in radians by root of time.
        substeps: Steps of the integration between two readings.
    """
    rng = np.random.default_rng(seed)
    graph = (rng.random((nodes, nodes)) < density) & ~np.eye(nodes, dtype=bool)
    speed = rng.uniform(1.0, 3.0, nodes)
    phase = rng.uniform(0.0, 2 * np.pi, nodes)
    motion = partial(kuramoto_motion, speed=speed, weights=coupling * graph.astype(np.float64))
    size = interval / substeps
    found = np.empty((_WARM_UP + steps, nodes))
    for t in range(len(found)):
        for _ in range(substeps):
            phase = runge_kutta(motion, phase, size)
            phase = phase + noise * np.sqrt(size) * rng.standard_normal(nodes)
        found[t] = np.sin(phase)
    return System(found[_WARM_UP:], graph)


def kuramoto_motion(phase: FloatArray, speed: FloatArray, weights: FloatArray) -> FloatArray:
    """Time derivative of :func:`kuramoto`, without the noise."""
    return speed + (weights * np.sin(phase[None, :] - phase[:, None])).sum(1)


def runge_kutta(
    motion: Callable[[FloatArray], FloatArray], x: FloatArray, size: float
) -> FloatArray:
    """One step of the classical Runge-Kutta method of order 4."""
    first = motion(x)
    second = motion(x + size / 2 * first)
    third = motion(x + size / 2 * second)
    fourth = motion(x + size * third)
    return x + size / 6 * (first + 2 * second + 2 * third + fourth)


def gpvar(
    seed: int, communities: int = 5, steps: int = 30_000, directed: bool = False, noise: float = 0.4
) -> System:
    r"""Filter, graph and noise of GPVAR-AZ (`Zambon and Alippi, 2022 <https://arxiv.org/abs/2204.11135>`_), as
    :mod:`benchmarks.data.gpvar` has them, with a seed of its own.

    .. math::
        \mathbf{x}_t = \tanh \sum_{l=0}^{2} \mathbf{S}^l (\Theta_{l1} \mathbf{x}_{t-2} + \Theta_{l2} \mathbf{x}_{t-1})
        + \sigma \boldsymbol{\epsilon}_t, \qquad
        \boldsymbol{\Theta} = \begin{pmatrix} 5 & 2 \\ -4 & 6 \\ -1 & 0 \end{pmatrix}

    :math:`\mathbf{S}` is the adjacency of communities of 6 nodes, with self-loops. Its square is that of two hops: a
    node reads the neighbors of its neighbors, too, which are no edges of the graph.

    Args:
        seed: Seed of the noise, and of the directions of the edges.
        communities: Number of communities.
        steps: Number of steps.
        directed: Whether one direction of each pair is kept, drawn at random.
        noise: :math:`\sigma`.
    """
    import torch
    from tsl.ops.graph_generators import build_tri_community_graph

    from benchmarks.data.gpvar import keep_one_direction

    names, edges, _ = build_tri_community_graph(num_communities=communities)
    edge_index = torch.as_tensor(edges)
    if directed:
        edge_index = keep_one_direction(edge_index, seed)
    nodes = len(names)
    graph = np.zeros((nodes, nodes), dtype=bool)
    graph[edge_index[1].numpy(), edge_index[0].numpy()] = True
    filters = gpvar_filters(graph)
    rng = np.random.default_rng(seed)
    x = noise * rng.standard_normal((2 + steps, nodes))
    optimal = np.zeros(x.shape)
    for t in range(2, len(x)):
        optimal[t] = np.tanh(filters[0] @ x[t - 2] + filters[1] @ x[t - 1])
        x[t] += optimal[t]
    others = ~np.eye(nodes, dtype=bool)
    read = ((filters[0] != 0) | (filters[1] != 0)) & others
    return System(x[2:], graph & others, optimal[2:], read & ~graph)


def gpvar_filters(graph: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """What :func:`gpvar` multiplies the readings of two steps and of one step before by."""
    one = np.eye(len(graph))
    shift = graph | one.astype(bool)
    shift = shift.astype(np.float64)
    return 5 * one - 4 * shift - shift @ shift, 2 * one + 6 * shift


#: The systems of the benchmark by their names.
SYSTEMS: dict[str, Callable[[int], System]] = {
    "var50": linear_var,
    "var500": partial(linear_var, nodes=500),
    "tanh50": tanh_var,
    "lorenz20_f10": lorenz96,
    "lorenz20_f40": partial(lorenz96, force=40.0),
    "lorenz128_f10": partial(lorenz96, nodes=128),
    "lorenz128_f40": partial(lorenz96, nodes=128, force=40.0),
    "kuramoto20": kuramoto,
    "gpvar": gpvar,
    "gpvar120": partial(gpvar, communities=20, steps=10_000),
    "gpvar120_directed": partial(gpvar, communities=20, steps=10_000, directed=True),
    "empty50": partial(linear_var, parents=0),
}
#: Linear systems of growing size, beside those above.
GROWTH: dict[str, Callable[[int], System]] = {
    f"var{nodes}": partial(linear_var, nodes=nodes) for nodes in (30, 100, 300, 1000)
}
