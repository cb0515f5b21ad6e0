from tsl_latentgnn.forecaster.batches import Series, Windows
from tsl_latentgnn.forecaster.recipe import Scale

import numpy as np
import torch

WINDOW, HORIZON, NODES, SEASON = 4, 3, 2, 2
SCALE = Scale(np.array([[1.0], [-2.0]], np.float32), np.array([[3.0], [0.5]], np.float32))


def scaled(values):
    return torch.from_numpy((values - SCALE.bias) / SCALE.scale)


def make_series(rows=12):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    values = draw(rows, NODES, 1)
    values[5, 0] = values[6, 1] = torch.nan
    return Series(
        values=values.numpy(),
        scale=SCALE,
        known=draw(rows + HORIZON, 2),
        own=draw(rows + HORIZON, NODES, 1),
        past=draw(rows, 3),
        profile=draw(rows + HORIZON, NODES, 1).numpy(),
        static=draw(NODES, 2),
        season=SEASON,
    )


def test_batches_hold_what_a_walk_over_the_rows_finds():
    series = make_series()
    x, profile = scaled(series.values), scaled(series.profile)
    last = np.array([3, 6, 8])
    batch = Windows(series, last, WINDOW, HORIZON)[[0, 1, 2]]
    for b, end in enumerate(last):
        for node in range(NODES):
            there = [t for t in range(end - WINDOW + 1, end + 1) if x[t, node].isfinite()]
            now = x[there[-1], node]
            for w, t in enumerate(range(end - WINDOW + 1, end + 1)):
                present = t in there
                reading = x[t, node] if present else torch.zeros(1)
                usual = reading - profile[t, node] if present else torch.zeros(1)
                u = [
                    series.known[t],
                    series.own[t, node],
                    series.past[t],
                    usual,
                    series.static[node],
                ]
                assert torch.equal(batch.inputs["x"][b, w, node], reading)
                assert bool(batch.inputs["input_mask"][b, w, node]) == present
                assert torch.equal(batch.inputs["u"][b, w, node], torch.cat(u))
            for h in range(HORIZON):
                t = end + 1 + h
                usual = profile[t, node] - now
                before = t - SEASON * (1 + h // SEASON)
                seasonal = x[before, node] - now if before in there else usual
                known = series.known[t], series.own[t, node]
                future = [*known, usual, seasonal, series.static[node]]
                assert torch.equal(batch.inputs["u_future"][b, h, node], torch.cat(future))
                torch.testing.assert_close(batch.y[b, h, node], x[t, node], equal_nan=True)


def test_what_is_yet_to_come_is_missing():
    series = make_series()
    batch = Windows(series, np.array([10]), WINDOW, HORIZON)[[0]]
    torch.testing.assert_close(batch.y[0, 0], scaled(series.values)[11])
    assert batch.y[0, 1:].isnan().all()


def test_a_training_sees_each_window_once_in_an_order_of_its_own():
    series = make_series(40)
    windows = Windows(series, np.arange(3, 36), WINDOW, HORIZON)
    orders = []
    for _ in range(2):
        loader = windows.loader(8, torch.Generator().manual_seed(0))
        seen = torch.cat([batch.inputs["x"][:, -1, 0, 0] for batch in loader])
        assert len(seen) == 32
        assert len(set(seen.tolist())) == 32
        orders.append(seen)
    assert torch.equal(*orders)
    assert not torch.equal(orders[0], scaled(series.values)[3:35, 0, 0])
    in_order = torch.cat([batch.inputs["x"][:, -1, 0, 0] for batch in windows.loader(8)])
    torch.testing.assert_close(
        in_order.nan_to_num(), scaled(series.values)[3:36, 0, 0].nan_to_num()
    )
