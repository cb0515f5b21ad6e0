"""Lines, band and time axis of the forecast figure."""

from __future__ import annotations

from tsl_latentgnn.visualization import plot_forecast

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

RNG = np.random.default_rng(0)
TRUE = RNG.normal(60.0, 5.0, (12, 5))
PRED = TRUE + RNG.normal(0.0, 1.0, TRUE.shape)
HISTORY = RNG.normal(60.0, 5.0, (6, 5))


def line(ax, label: str) -> np.ndarray:
    """The points [T, 2] of the line with this label."""
    (found,) = [item for item in ax.get_lines() if item.get_label() == label]
    return np.asarray(found.get_xydata())


def test_truth_and_forecast_by_step():
    figure = plot_forecast(TRUE, PRED, node=2)
    (ax,) = figure.axes
    steps = np.arange(1, 13)
    np.testing.assert_array_equal(line(ax, "truth"), np.column_stack([steps, TRUE[:, 2]]))
    np.testing.assert_array_equal(line(ax, "forecast"), np.column_stack([steps, PRED[:, 2]]))
    assert len(ax.get_lines()) == 2
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Step ahead", "reading", "node 2")


def test_history_ends_at_zero_in_minutes():
    figure = plot_forecast(TRUE, PRED, history=HISTORY, step_minutes=5, ylabel="speed (mph)")
    (ax,) = figure.axes
    np.testing.assert_array_equal(line(ax, "history")[:, 0], [-25, -20, -15, -10, -5, 0])
    np.testing.assert_array_equal(line(ax, "history")[:, 1], HISTORY[:, 0])
    np.testing.assert_array_equal(line(ax, "forecast")[:, 0], np.arange(5, 61, 5))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Minutes ahead", "speed (mph)")


def test_band_lies_between_its_limits():
    width = np.linspace(1.0, 3.0, 12)[:, None]
    figure = plot_forecast(
        TRUE, PRED, lower=PRED - width, upper=PRED + 2 * width, interval_label="90% interval"
    )
    (band,) = figure.axes[0].collections
    vertices = band.get_paths()[0].vertices
    for k, step in enumerate(range(1, 13)):
        at_step = vertices[vertices[:, 0] == step, 1]
        assert at_step.min() == PRED[k, 0] - width[k, 0]
        assert at_step.max() == PRED[k, 0] + 2 * width[k, 0]
    assert band.get_label() == "90% interval"


def test_one_panel_per_node_with_one_legend():
    figure = plot_forecast(
        TRUE, PRED, history=HISTORY, node=[4, 0, 2], labels=list("abcde"), title="An hour"
    )
    assert [ax.get_title() for ax in figure.axes] == ["e", "a", "c"]
    for ax, node in zip(figure.axes, [4, 0, 2], strict=True):
        np.testing.assert_array_equal(line(ax, "forecast")[:, 1], PRED[:, node])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["history", "truth", "forecast"]
    assert figure.get_suptitle() == "An hour"


def test_every_column_and_row_of_panels_is_named_and_has_ticks():
    figure = plot_forecast(TRUE, PRED, node=range(5))
    figure.draw_without_rendering()
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, False, False, True, False]
    # Panel 2 is the last of its column: the second row has only two.
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, False, True, True, True]
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            assert any(label.get_text() for label in axis.get_ticklabels())
    assert len(plot_forecast(TRUE, PRED, node=[0, 1, 2, 3]).axes) == 4


@pytest.mark.parametrize(
    "shape", [(12,), (12, 5), (3, 12, 5), (3, 12, 5, 2)], ids=lambda shape: f"{len(shape)}d"
)
def test_every_layout_of_readings(shape):
    true, pred = (RNG.normal(size=shape).astype(np.float32) for _ in range(2))
    chosen = {
        1: lambda y: y,
        2: lambda y: y[:, 3],
        3: lambda y: y[2, :, 3],
        4: lambda y: y[2, :, 3, 1],
    }[len(shape)]
    options = {1: {}, 2: {"node": 3}, 3: {"node": 3, "batch": 2}}
    kwargs = options.get(len(shape), {"node": 3, "batch": -1, "channel": 1})
    history = np.concatenate([true, true], axis=1 if len(shape) > 2 else 0)
    tensor = torch.from_numpy(pred).requires_grad_()
    (ax,) = plot_forecast(true, tensor, history=history, **kwargs).axes
    np.testing.assert_array_equal(line(ax, "truth")[:, 1], chosen(true))
    np.testing.assert_array_equal(line(ax, "forecast")[:, 1], chosen(pred))
    assert len(line(ax, "history")) == 24


def test_missing_readings_leave_a_gap():
    true, history = TRUE.copy(), HISTORY.copy()
    true[3, 0] = history[1, 0] = np.nan
    (ax,) = plot_forecast(true, PRED, history=history).axes
    assert np.isnan(line(ax, "truth")[:, 1]).tolist() == [k == 3 for k in range(12)]
    assert np.isnan(line(ax, "history")[:, 1]).tolist() == [k == 1 for k in range(6)]


def test_given_axes():
    figure = Figure()
    axes = figure.subplots(2, 1)
    assert plot_forecast(TRUE, PRED, node=[0, 1], ax=axes) is figure
    assert [ax.get_ylabel() for ax in axes] == ["reading", "reading"]
    assert axes[0].get_legend() is not None
    assert figure.legends == []

    inner = figure.subfigures(1, 2)[1].add_subplot()
    assert plot_forecast(TRUE, PRED, node=1, ax=inner) is figure
    np.testing.assert_array_equal(line(inner, "truth")[:, 1], TRUE[:, 1])


def test_rejects_shapes_that_do_not_match():
    with pytest.raises(ValueError, match="'y_pred' must have the shape of 'y_true'"):
        plot_forecast(TRUE, PRED[:6])
    with pytest.raises(ValueError, match="'history' must have the shape of 'y_true' in all but"):
        plot_forecast(TRUE, PRED, history=HISTORY[:, :4])
    with pytest.raises(ValueError, match="'history' must have the shape"):
        plot_forecast(TRUE, PRED, history=HISTORY[:, 0])
    with pytest.raises(ValueError, match="'upper' must have the shape"):
        plot_forecast(TRUE, PRED, lower=PRED, upper=PRED[:, :1])
    with pytest.raises(ValueError, match=r"'y_true' must be \[T\]"):
        plot_forecast(np.float64(TRUE)[None, None, None], PRED[None, None, None])
    with pytest.raises(ValueError, match="'y_true' must not be empty"):
        plot_forecast(TRUE[:0], PRED[:0])


def test_rejects_bad_values():
    with_nan = np.where(PRED[0, 0] == PRED, np.nan, PRED)
    with pytest.raises(ValueError, match="'y_pred' must be finite"):
        plot_forecast(TRUE, with_nan)
    with pytest.raises(ValueError, match=r"'y_true' must be finite.* Inf"):
        plot_forecast(np.where(np.isnan(with_nan), np.inf, TRUE), PRED)
    with pytest.raises(ValueError, match="'lower' must be <= 'upper'"):
        plot_forecast(TRUE, PRED, lower=PRED + 1, upper=PRED)
    with pytest.raises(ValueError, match=r"must come together .*no 'upper'"):
        plot_forecast(TRUE, PRED, lower=PRED)
    with pytest.raises(TypeError, match="'y_true' must be a real-valued"):
        plot_forecast(TRUE.tolist(), PRED)
    with pytest.raises(TypeError, match="'y_pred' must be a real-valued"):
        plot_forecast(TRUE, PRED.tolist())


def test_rejects_bad_choices():
    with pytest.raises(ValueError, match=r"'node' must be in .* for 5 nodes"):
        plot_forecast(TRUE, PRED, node=5)
    with pytest.raises(ValueError, match="'node' must name at least one"):
        plot_forecast(TRUE, PRED, node=[])
    with pytest.raises(TypeError, match="'node' must be an int"):
        plot_forecast(TRUE, PRED, node=["a"])
    with pytest.raises(ValueError, match="'batch'"):
        plot_forecast(TRUE, PRED, batch=1)
    with pytest.raises(ValueError, match="'channel'"):
        plot_forecast(TRUE, PRED, channel=1)
    with pytest.raises(ValueError, match="'step_minutes' must be > 0"):
        plot_forecast(TRUE, PRED, step_minutes=0)
    with pytest.raises(ValueError, match="'labels' must name all 5 nodes"):
        plot_forecast(TRUE, PRED, labels=["a"])
    with pytest.raises(ValueError, match="'ax' must be 2 axes"):
        plot_forecast(TRUE, PRED, node=[0, 1], ax=Figure().add_subplot())
    with pytest.raises(TypeError, match="'ax' must be a matplotlib Axes"):
        plot_forecast(TRUE, PRED, ax="axes")
