"""How calibration widens the intervals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from small import HORIZON, NODES, make, make_batch, make_data, make_gaussian

pytestmark = [
    pytest.mark.tsl,
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_calibration_is_that_of_the_ordered_errors(level):
    data, predictor = make_data(channels=2), None
    predictor = make(
        model={"input_size": 2, "output_size": 2, "likelihood": "gaussian"}, loss_fn=None
    ).eval()
    batches = [make_batch(data), data.torch_dataset[torch.arange(20, 33)]]
    with torch.no_grad():
        before = [predictor.predict_distribution(batch) for batch in batches]
    factors = predictor.calibrate(batches, level)
    assert factors.shape == (HORIZON, 2)
    for step in range(HORIZON):
        for channel in range(2):
            errors = []
            for batch, normal in zip(batches, before, strict=True):
                for b in range(len(batch.y)):
                    for n in range(NODES):
                        at = (b, step, n, channel)
                        if batch.mask[at]:
                            gap = abs(float(batch.y[at]) - float(normal.loc[at]))
                            errors.append(gap / float(normal.scale[at]))
            rank = math.ceil((len(errors) + 1) * level)
            expected = sorted(errors)[rank - 1] / stats.norm.ppf((1 + level) / 2)
            assert float(factors[step, channel]) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        after = predictor.predict_distribution(batches[0])
    torch.testing.assert_close(after.loc, before[0].loc)
    expected = before[0].scale * factors[:, None]
    torch.testing.assert_close(after.scale, expected, rtol=1e-5, atol=0)
    # A further call does not start from what the one before found.
    torch.testing.assert_close(predictor.calibrate(batches, level), factors)


def test_the_rank_of_a_calibration_is_exact():
    batch = make_batch(make_data(masked=False))  # 6 windows of 4 nodes
    predictor = make_gaussian()
    with torch.no_grad():
        normal = predictor.predict_distribution(batch)
    errors = ((batch.y - normal.loc).abs() / normal.scale).permute(1, 3, 0, 2).flatten(2)
    factors = predictor.calibrate([batch], 0.6)  # 25 * 0.6 is 15, which float32 raises
    expected = errors.sort(-1).values[..., 14] / stats.norm.ppf(0.8)
    torch.testing.assert_close(factors, expected.to(factors))


def test_calibration_without_any_error_can_be_made_again():
    batch = make_batch(make_data(masked=False))
    predictor = make_gaussian()
    with torch.no_grad():
        batch.y = predictor.predict_distribution(batch).loc
    assert (predictor.calibrate([batch], 0.5) > 0).all()
    assert (predictor.calibrate([make_batch(make_data())], 0.5) > 1e-3).all()


def test_calibration_leaves_the_mode_where_it_fails():
    predictor = make_gaussian().train()
    with pytest.raises(AttributeError):
        predictor.calibrate([None], 0.5)
    assert predictor.training


def test_calibration_leaves_the_mode_and_and_is_kept_in_the_state(tmp_path):
    predictor = make_gaussian().train()
    factors = predictor.calibrate([make_batch(make_data())], 0.5)
    assert predictor.training
    other = make_gaussian(seed=1)
    other.load_state_dict(predictor.state_dict())
    torch.testing.assert_close(other.model.scale_factor, factors)
    other.model.reset_parameters()
    assert torch.equal(other.model.scale_factor, torch.ones(HORIZON, 1))


def test_calibration_does_not_read_what_is_missing():
    data = make_data()
    batch, spoiled = make_batch(data), make_batch(data)
    spoiled.y[~spoiled.mask.bool()] = math.nan
    predictor = make_gaussian()
    torch.testing.assert_close(
        predictor.calibrate([batch], 0.5), predictor.calibrate([spoiled], 0.5)
    )


@pytest.mark.parametrize(
    ("level", "batches", "message"),
    [
        (1.0, None, r"'level' must be in \(0, 1\)"),
        (0.0, None, r"'level' must be in \(0, 1\)"),
        (0.5, [], "'batches' must hold at least one batch"),
        (0.99, None, "'batches' must hold at least 99 readings of every step"),
    ],
)
def test_calibration_refuses(level, batches, message):
    given = [make_batch(make_data())] if batches is None else batches
    with pytest.raises(ValueError, match=message):
        make_gaussian().calibrate(given, level)


def test_calibration_needs_a_gaussian_head():
    with pytest.raises(ValueError, match="'model' must have likelihood='gaussian'"):
        make().calibrate([make_batch(make_data())])
