"""The file: what is in it, what is refused at the door, and the commands that write it."""

from __future__ import annotations

import json
import re
import sys

from tsl_latentgnn.__main__ import main
from tsl_latentgnn.report import build_report
from tsl_latentgnn.report.data import report_data

import pytest
from wild_names import SENSORS

pytest.importorskip("plotly")


def test_the_data_are_read_back_whatever_a_sensor_is_called(fitted, readings, tmp_path):
    build_report(fitted, readings, tmp_path / "report.html", windows=4)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="numbers">(.*?)</script>', page)
    assert json.loads(text) == report_data(fitted, readings, windows=4)
    assert SENSORS[1] not in page
    assert page.count("</script>") == 3
    assert not re.search(r"""(src|href)=["'](?!#)""", page.split("<script>")[0])


def test_the_file_must_be_html_in_a_folder(fitted, readings, tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.html \(got 'report\.pdf'\)"):
        build_report(fitted, readings, "report.pdf")
    with pytest.raises(FileNotFoundError, match=r"must be there \(got .*nowhere"):
        build_report(fitted, readings, tmp_path / "nowhere" / "report.html")


def test_without_plotly_the_command_is_named(fitted, readings, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r'pip install "tsl-latentgnn\[report\]"'):
        build_report(fitted, readings, tmp_path / "report.html")
    # Before the training, which would be lost.
    arguments = ["fit", str(tmp_path / "none.csv"), "--out", str(tmp_path / "model")]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--report", str(tmp_path / "report.html")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('not installed: pip install "tsl-latentgnn[report]".')


def test_a_failure_leaves_the_file_as_it_was(fitted, readings, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(ValueError, match="'readings' must have at least"):
        build_report(fitted, readings[:20], path)
    assert path.read_text() == "before"


def test_commands(readings, static, tmp_path, capsys):
    table, places = tmp_path / "readings.csv", tmp_path / "places.csv"
    readings.to_csv(table)
    static.rename_axis("unique_id").to_csv(places)
    model, first, second = (str(tmp_path / name) for name in ("model", "first.html", "second.html"))
    fit = ["fit", str(table), "--out", model, "--static", str(places), "--horizon", "3"]
    main([*fit, "--epochs", "1", "--accelerator", "cpu", "--report", first])
    main(["report", model, str(table), "--out", second])
    assert f"The report is {second}." in capsys.readouterr().out
    pages = [
        (tmp_path / name).read_text(encoding="utf-8") for name in ("first.html", "second.html")
    ]
    assert pages[0] == pages[1]
    main(["report", model, str(table), "--out", second, "--windows", "2"])
    assert "over 2 windows of 3 steps" in (tmp_path / "second.html").read_text(encoding="utf-8")
