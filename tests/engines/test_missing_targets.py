"""A target that is NaN is missing, mask or not: in loss, gradient, metrics and scaler; and no 64 bits on the way.

Met in WenjieDu/PyPOTS#708 and GestaltCogTeam/BasicTS#138 (NaN in targets), and in unit8co/darts#2477 (Apple GPUs, which
have no float64).
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from small import make, make_batch, make_data
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tsl.data.preprocessing import MinMaxScaler, RobustScaler, StandardScaler  # isort: skip
from tsl.metrics.torch import MaskedMAE, MaskedMSE  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore::UserWarning")]
STEPS = ("training_step", "validation_step", "test_step")


def predictor_and_batch(likelihood, masked=False, mask_nans=False):
    losses = {"mae": MaskedMAE(mask_nans=mask_nans), "mse": MaskedMSE(mask_nans=mask_nans)}
    loss_fn = None if likelihood else losses["mse"]
    predictor = make(
        model={"preset": "state", "node_emb_size": 2, "dropout": 0.0, "likelihood": likelihood},
        loss_fn=loss_fn,
        metrics=losses,
        scale_target=True,
    )
    predictor.log = predictor.log_metrics = predictor.log_loss = lambda *args, **kwargs: None
    return predictor, make_batch(make_data(masked=masked))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mask_nans", [False, True])
@pytest.mark.parametrize("likelihood", [None, "gaussian"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_missing_target_is_a_masked_one(likelihood, mask_nans, masked, step):
    predictor, batch = predictor_and_batch(likelihood, masked, mask_nans)
    missing = torch.rand(batch.y.shape) < 0.3
    marked, expected = copy.deepcopy(batch), copy.deepcopy(predictor)
    marked.mask = ~missing if batch.get("mask") is None else batch.mask & ~missing
    batch.y = batch.y.masked_fill(missing, math.nan)
    results = []
    for each, data in ((predictor, batch), (expected, marked)):
        each.log = each.log_metrics = each.log_loss = lambda *args, **kwargs: None
        loss = getattr(each, step)(data, 0)
        loss.backward()
        metrics = getattr(each, {"tr": "train", "va": "val", "te": "test"}[step[:2]] + "_metrics")
        results.append((loss, metrics.compute(), [p.grad for p in each.parameters()]))
    assert results[0][0].isfinite()
    torch.testing.assert_close(results[0], results[1])


def test_metrics_of_a_batch_leave_a_missing_target_out():
    predictor, batch = predictor_and_batch(None)
    missing = torch.rand(batch.y.shape) < 0.3
    y_hat = predictor.eval().predict_batch(batch, postprocess=True).detach()
    expected = (y_hat - batch.y)[~missing].abs().mean()
    batch.y = batch.y.masked_fill(missing, math.nan)
    metrics, _ = predictor.compute_metrics(batch, postprocess=True)
    torch.testing.assert_close(metrics["test_mae"], expected)


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor])
def test_a_scaler_leaves_missing_readings_out(to):
    values = np.random.default_rng(0).normal(5, 2, (50, 3, 1)).astype(np.float32)
    values[:20, 1], values[:, 2] = np.nan, np.nan
    seen = values[:, :2].astype(float)
    quarters = np.nanpercentile(seen, (25, 75), axis=0)
    expected = {
        StandardScaler: (np.nanmean(seen, 0), np.nanstd(seen, 0)),
        MinMaxScaler: (np.nanmin(seen, 0), np.nanmax(seen, 0) - np.nanmin(seen, 0)),
        RobustScaler: (np.nanmedian(seen, 0), quarters[1] - quarters[0]),
    }
    for kind, (bias, scale) in expected.items():
        for mask in (None, ~np.isnan(values)):
            with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):  # of a series without any
                scaler = kind(axis=0).fit(to(values), mask=mask)
            np.testing.assert_allclose(np.asarray(scaler.bias)[0, :2], bias, rtol=1e-5)
            np.testing.assert_allclose(np.asarray(scaler.scale)[0, :2], scale, rtol=1e-5)
            assert scaler.bias[0, 2].item() == 0
            assert scaler.scale[0, 2].item() == 1


class NoDoubles(TorchDispatchMode):
    """A device without float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            double = isinstance(value, torch.Tensor) and value.dtype in (
                torch.float64,
                torch.complex128,
            )
            assert not double, func
        return out


@pytest.mark.parametrize("likelihood", [None, "gaussian"])
def test_no_step_makes_a_number_of_64_bits(likelihood):
    predictor, batch = predictor_and_batch(likelihood, masked=True)
    with NoDoubles():
        for step in STEPS:
            getattr(predictor, step)(copy.deepcopy(batch), 0).backward()
        predictor.eval().predict_step(batch, 0)
        predictor.latent_graph(batch)
        if likelihood:
            predictor.calibrate([batch], level=0.5)
