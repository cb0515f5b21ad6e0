"""The page in a browser: it loads nothing, raises nothing, and follows its controls."""

from __future__ import annotations

import copy
from dataclasses import replace

from tsl_latentgnn.report import build_report

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from wild_names import SENSORS

pytest.importorskip("plotly")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

SHOWN = "JSON.stringify(document.getElementById({!r}).data.map(t => [t.y, t.z]))"
# Above the weight, and the others of the chosen sensor.
EDGES = "document.getElementById('edges').textContent.match(/[0-9]+(?= edge| more)/g).map(Number)"
# Ends of the lines of the graph: one null after each edge.
DRAWN = "document.getElementById('plot-graph').data.filter(t => t.mode === 'lines')"
DRAWN += ".reduce((n, t) => n + t.x.filter(x => x === null).length, 0)"


@pytest.fixture(scope="module")
def page(fitted, readings, tmp_path_factory):
    """A report, with p-values."""
    model = fitted.model_
    edges = model.edges.assign(p_value=np.full(len(model.edges), 0.0312))
    other = copy.copy(fitted)
    other.model_ = replace(model, edges=edges)
    path = tmp_path_factory.mktemp("report") / "report.html"
    build_report(other, readings, path)
    return path


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    yield browser
    assert browser.problems == []
    assert browser.requests == [page.resolve().as_uri()]


def test_all_figures_are_drawn(opened):
    plots = opened.run(
        "[...document.querySelectorAll('.drawn')].map(p => [p.id, p.querySelectorAll('.main-svg').length > 0])"
    )
    assert [name for name, drawn in plots if not drawn] == []
    assert len(plots) == 9
    assert "windows of 3 steps is" in opened.run("document.getElementById('verdict').textContent")
    assert opened.run("document.querySelector('#sensor').options[1].text") == SENSORS[1]


def test_no_button_sends_a_figure_away(opened):
    names = opened.run("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
    assert names
    assert not [name for name in names if "hare" in name or "loud" in name]


def test_the_chosen_sensor_is_shown_everywhere(opened):
    ids = ["plot-readings", "plot-forecast", "plot-graph"]
    before = [opened.run(SHOWN.format(name)) for name in ids]
    opened.run(
        "(s => { s.value = '1'; s.dispatchEvent(new Event('change')); })(document.getElementById('sensor'))"
    )
    after = [opened.run(SHOWN.format(name)) for name in ids]
    assert all(one != other for one, other in zip(before, after, strict=True))
    names = opened.run("[...document.querySelectorAll('.chosen')].map(e => e.textContent)")
    assert set(names) == {SENSORS[1]}


def test_keys_choose_a_sensor_and_move_the_slider(opened):
    order = []
    for _ in range(12):
        opened.press("Tab", 9)
        order.append(opened.run("document.activeElement.id || document.activeElement.hash"))
    assert order[0] == "#forecasts"  # over the contents to what one came for
    assert order.index("#card") < order.index("sensor") < order.index("next")
    opened.run("document.getElementById('next').focus()")
    opened.press("Enter", 13, "\r")
    assert opened.run("document.getElementById('sensor').value") == "1"

    opened.run("document.getElementById('weight').focus()")
    opened.press("Home", 36)
    (everything,) = opened.run(EDGES)
    assert opened.run(DRAWN) == everything > 6
    for _ in range(40):
        opened.press("ArrowRight", 39)
    assert opened.run(EDGES)[0] < everything
    opened.press("End", 35)
    strongest, its_own = opened.run(EDGES)
    assert strongest == 1
    assert opened.run(DRAWN) == strongest + its_own < everything


def test_an_edge_says_its_names_weight_and_p_value(opened):
    texts = opened.run(
        "document.getElementById('plot-graph').data.flatMap(t => t.text || []).filter(t => t.includes('→'))"
    )
    assert texts
    assert all("weight 0." in text and "p-value 0.0312" in text for text in texts)
    assert "<b>" not in "".join(texts)  # a name is no HTML


def test_a_click_in_the_graph_chooses_the_sensor(opened):
    opened.run("document.getElementById('plot-graph').scrollIntoView({block: 'center'})")
    x, y = opened.run(
        """(p => { const l = p._fullLayout, r = p.getBoundingClientRect(), t = p.data.filter(t => t.customdata)
        .find(t => t.customdata.includes(3)), i = t.customdata.indexOf(3);
        return [r.left + l.xaxis._offset + l.xaxis.d2p(t.x[i]), r.top + l.yaxis._offset + l.yaxis.d2p(t.y[i])]; })
        (document.getElementById('plot-graph'))"""
    )
    opened.click(x, y)
    assert opened.run("document.getElementById('sensor').value") == "3"
    assert opened.run("document.querySelector('#graph .chosen').textContent") == "d"
    sources = opened.run("document.getElementById('sources').rows.length")
    assert sources == 1 + opened.run(
        "JSON.parse(document.getElementById('numbers').textContent).graph.target.filter(t => t === 3).length"
    )


def test_colours_of_the_map_and_the_table_of_all_sensors(opened):
    colours = "JSON.stringify(document.getElementById('plot-map').data[0].marker.color)"
    seen = set()
    for i in range(opened.run("document.getElementById('colour').options.length")):
        opened.run(
            f"(s => {{ s.selectedIndex = {i}; s.dispatchEvent(new Event('change')); }})"
            "(document.getElementById('colour'))"
        )
        seen.add(opened.run(colours))
    assert len(seen) == opened.run("document.getElementById('colour').options.length") > 3
    opened.run("document.querySelector('#all summary').click()")
    rows = "document.querySelectorAll('#all tbody tr').length"
    assert opened.run(f"new Promise(done => setTimeout(() => done({rows}), 100))") == 4


def test_a_phone_scrolls_down_only(browser, page):
    browser.open(page, 390, 844, touch=True)
    assert browser.run("document.documentElement.scrollWidth") == 390
    sizes = browser.run(
        "[...document.querySelectorAll('select, button:not(.link), input')].filter(e => e.offsetParent)"
        ".map(e => e.offsetHeight)"
    )
    assert min(sizes) >= 24
    assert browser.problems == []
