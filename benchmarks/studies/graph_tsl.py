"""Who leads whom, by tsl's models that learn a graph: each of its edges is tested by the idea of our own test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tsl_latentgnn.graphs.edge_test import BEST_SHARE, MARGIN, discoveries, p_values
from tsl_latentgnn.graphs.moments import RunningMeans

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.nn import Module
from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
from tsl.data.datamodule.splitters import FixedIndicesSplitter
from tsl.data.preprocessing import StandardScaler
from tsl.engines import Predictor
from tsl.metrics.torch import MaskedMSE
from tsl.nn.layers.graph_convs.adaptive_graph_conv import AdaptiveGraphConv
from tsl.nn.models import AGCRNModel, GraphWaveNetModel

from benchmarks.settings import CONFIG_DIR
from benchmarks.studies.graph_peers import LEVEL, VALIDATION, Found
from benchmarks.studies.learned_graphs import learned_adjacency

#: Each with the values of its file in ``config/model``, which are those of tsl's traffic example.
MODELS = {"gwnet": GraphWaveNetModel, "agcrn": AGCRNModel}
#: What the receptive field of Graph WaveNet holds, but for one step.
WINDOW = 12
EPOCHS, PATIENCE, BATCH = 100, 15, 32
#: Largest lag of the autocovariances, as :func:`~tsl_latentgnn.graphs.edge_test` has it one step ahead.
_LAG = 2


def learn(method: str, series: np.ndarray, start: int, seed: int = 0) -> tuple[Found, np.ndarray]:
    """Train one of :data:`MODELS` on the steps before ``start``, and test its edges on the last steps.

    As in :mod:`~benchmarks.studies.graph_ours`, the last eighth of the steps before ``start`` chooses the epoch, and
    the edges are tested on it and on what comes from ``start`` on.

    Args:
        method: A key of :data:`MODELS`.
        series: Readings ``[T, N]``.
        start: First step of the test part.
        seed: Of the training.

    Returns:
        What was found, and the forecasts ``[T - start, N]`` of the test part, each from the steps before it.
    """
    nodes = series.shape[1]
    loops = torch.arange(nodes).repeat(2, 1)  # Graph WaveNet must be given a graph: of nobody else
    windows = SpatioTemporalDataset(series, connectivity=(loops, None), window=WINDOW, horizon=1)
    goal = np.arange(len(windows)) + WINDOW  # the step that each window forecasts
    unseen = start - round(VALIDATION * start)
    parts = (goal < unseen, (goal >= unseen) & (goal < start), goal >= start)
    data = SpatioTemporalDataModule(
        windows,
        scalers={"target": StandardScaler(axis=0)},
        splitter=FixedIndicesSplitter(*(np.nonzero(part)[0] for part in parts)),
        batch_size=BATCH,
    )
    data.setup()
    predictor = _train(method, data, seed)
    batch = windows[np.nonzero(goal >= unseen)[0]]

    def forecast(adjacency: Tensor) -> NDArray[np.float64]:
        with torch.no_grad(), graph_of(predictor.model, adjacency):
            mean = predictor.predict_batch(batch, preprocess=False, postprocess=True)
        return mean[:, 0, :, 0].double().numpy()

    with torch.no_grad():
        adjacency = learned_adjacency(predictor.model)
    scores, kept = needed_edges(forecast, adjacency, series[unseen:])
    return Found(scores, kept, WINDOW), forecast(adjacency)[start - unseen :]


def _train(method: str, data: SpatioTemporalDataModule, seed: int) -> Predictor:
    seed_everything(seed, verbose=False)
    own, rest = (
        OmegaConf.load(CONFIG_DIR / name) for name in (f"model/{method}.yaml", "default.yaml")
    )
    optimizer = OmegaConf.to_container(OmegaConf.merge(rest, own).optimizer.hparams)
    kwargs: Any = OmegaConf.to_container(own.model.hparams)
    kwargs |= {
        "input_size": 1,
        "output_size": 1,
        "horizon": 1,
        "n_nodes": data.torch_dataset.n_nodes,
    }
    predictor = Predictor(
        model_class=MODELS[method],
        model_kwargs=kwargs,
        optim_class=torch.optim.Adam,
        optim_kwargs=optimizer,
        loss_fn=MaskedMSE(),
    )
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val_loss")
        trainer = Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=5,
            callbacks=[EarlyStopping("val_loss", patience=PATIENCE), best],
        )
        trainer.fit(predictor, datamodule=data)
        predictor.load_model(best.best_model_path)
    return predictor.eval()


@contextmanager
def graph_of(model: Module, adjacency: Tensor) -> Iterator[None]:
    """Let one of :data:`MODELS` pass its messages along another graph."""
    owner, name = (
        (model, "get_learned_adj")
        if isinstance(model, GraphWaveNetModel)
        else (AdaptiveGraphConv, "compute_adj")
    )
    with patch.object(owner, name, lambda *_: adjacency):
        yield


def needed_edges(
    forecast: Callable[[Tensor], np.ndarray], adjacency: Tensor, y: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Test each edge of a graph as :func:`~tsl_latentgnn.graphs.edge_test` tests those of ours.

    An edge is muted in all layers at once, at the price of a forward pass, and only its target is looked at. What it
    says is what the forecast changes by, less the mean of that, which a target could say itself.

    Args:
        forecast: The forecasts ``[T, N]`` along a graph.
        adjacency: The learned graph ``[N, N]``, target-row.
        y: What is forecast ``[T, N]``.

    Returns:
        Scores ``[N, N]``, minus the p-values, and which pairs are kept.
    """
    nodes = len(adjacency)
    whole = forecast(adjacency)
    loss = np.abs(whole - y)
    growth = np.zeros((len(y), nodes, nodes))
    for target, source in itertools.permutations(range(nodes), 2):
        muted = adjacency.clone()
        muted[target, source] = 0.0
        change = forecast(muted)[:, target] - whole[:, target]
        twice = whole[:, target] + 2 * (change - change.mean())
        growth[:, target, source] = (np.abs(twice - y[:, target]) - loss[:, target]) / 4
    sums = RunningMeans(nodes, _LAG)
    values = growth.reshape(len(y), -1)
    pairs = np.arange(nodes**2)[None]
    sums.add(np.ones(y.shape, bool), [(pairs, values, np.ones(pairs.shape))])
    mean, variance, count = sums.moments()
    best = mean.reshape(nodes, nodes).max(1)
    least = np.maximum(MARGIN * loss.mean(0), BEST_SHARE * best)
    p_value = p_values(mean - least.repeat(nodes), variance, count, _LAG)
    kept = discoveries(p_value, nodes * (nodes - 1), LEVEL)
    return -p_value.reshape(nodes, nodes), kept.reshape(nodes, nodes)
