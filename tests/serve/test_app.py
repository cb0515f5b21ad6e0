"""The routes, in this process."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time

import numpy as np
import pandas as pd
import pytest
from small_forecaster import fit_small, small_table

testclient = pytest.importorskip("fastapi.testclient")

from tsl_latentgnn.serve import Limits, create_app  # noqa: E402
from tsl_latentgnn.serve import app as serving  # noqa: E402
from tsl_latentgnn.serve.bodies import read_body  # noqa: E402
from tsl_latentgnn.serve.worker import BusyError, Worker  # noqa: E402

from fastapi import HTTPException, Request  # noqa: E402

CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def client(forecaster):
    with testclient.TestClient(create_app(forecaster)) as client:
        yield client


def csv(table):
    return table.rename_axis("time").to_csv().encode()


def rows_of(table):
    return json.loads(
        table.rename_axis("time").reset_index().to_json(orient="records", date_format="iso")
    )


def check_forecast(answer, expected):
    assert answer.status_code == 200, answer.text
    rows = pd.DataFrame(answer.json()["rows"])
    rows["time"] = pd.to_datetime(rows["time"])
    pd.testing.assert_frame_equal(rows, expected, check_dtype=False, rtol=1e-5)


def test_json_csv_wide_and_long_say_the_same(client, forecaster):
    table = small_table().tail(14)
    long = table.rename_axis("ds").melt(ignore_index=False, var_name="unique_id", value_name="y")
    long = long.reset_index()
    expected = forecaster.predict(table)
    check_forecast(client.post("/forecast", json=rows_of(table)), expected)
    check_forecast(client.post("/forecast", json={"readings": rows_of(table)}), expected)
    check_forecast(
        client.post("/forecast", content=long.to_csv(index=False), headers=CSV), expected
    )
    answer = client.post("/forecast", content=csv(table), headers={**CSV, "Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    read = pd.read_csv(pd.io.common.StringIO(answer.text), parse_dates=["time", "issued_at"])
    assert (read.pop("issued_at") == table.index[-1]).all()
    pd.testing.assert_frame_equal(read, expected, check_dtype=False, rtol=1e-5)


def test_quantiles_of_the_query_and_of_the_body(client, forecaster):
    table = small_table().tail(12)
    expected = forecaster.predict(table, quantiles=[0.1, 0.975])
    query = "/forecast?quantiles=0.1&quantiles=0.975"
    check_forecast(client.post(query, content=csv(table), headers=CSV), expected)
    body = {"readings": rows_of(table), "quantiles": [0.1, 0.975]}
    check_forecast(client.post("/forecast", json=body), expected)
    assert "(got both)" in client.post(query, json=body).json()["detail"]


def test_what_was_found_in_the_readings_is_said(client):
    table = small_table().tail(12).drop(columns="s2").assign(other=1.0)
    answer = client.post("/forecast", content=csv(table), headers=CSV)
    notes = " ".join(answer.json()["notes"])
    assert "1 sensor" in notes
    assert "s2" in notes
    assert "other" in notes


WINDOW = rows_of(small_table().tail(12))


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"", "application/json", 400, "must be JSON in UTF-8"),
        (b"{", "application/json", 400, "must be JSON in UTF-8"),
        (b"\xff\xfe", "text/csv", 400, "must be CSV in UTF-8"),
        (b"", "text/csv", 400, "must be CSV in UTF-8"),
        (b"a,b\n1\n1,2,3,4\n", "text/csv", 400, "must be CSV in UTF-8"),
        (b"[" * 100_000, "application/json", 400, "must be JSON in UTF-8"),
        (b'[{"time": NaN}]', "application/json", 400, "NaN is no JSON"),
        (b"[]", "application/json", 422, "'readings' must have rows and columns"),
        (b"[1]", "application/json", 422, "'readings' must be a list of rows"),
        (b"3", "application/json", 422, "must be a list of rows, or an object"),
        (b'{"rows": []}', "application/json", 422, "(got rows)"),
        (
            b'{"readings": "/etc/passwd"}',
            "application/json",
            422,
            "'readings' must be a list of rows",
        ),
        (b'[{"time": {"a": 1}}]', "application/json", 422, "(got {'a': 1} in 'time')"),
        (
            b'[{"time": "yesterday", "s0": 1}]',
            "application/json",
            422,
            "must have time stamps such as",
        ),
        (b"time,s0\n2024-01-01 00:00,1\n", "text/csv", 422, "at least 12 rows, the window (got 1)"),
        (b"time,x\n2024-01-01 00:00,1\n", "text/csv", 422, "must hold sensors of the model"),
        (b"time,s0\n2024-01-01 00:00,many\n", "text/csv", 422, "(got 'many' of sensor s0"),
        (b"time,s0\n2024-01-01,1\n2124-01-01,1\n", "text/csv", 413, "at most 20,000 steps of h"),
        (b"x", "text/html", 415, "(got 'text/html')"),
        (json.dumps({"readings": WINDOW, "quantiles": [2]}), "application/json", 422, "(got [2])"),
        (
            json.dumps({"readings": WINDOW, "quantiles": 2}),
            "application/json",
            422,
            "a sequence of levels",
        ),
        (
            json.dumps({"readings": WINDOW, "past": WINDOW}),
            "application/json",
            422,
            "'past' must be given if and only if",
        ),
    ],
)
def test_bad_bodies(client, content, kind, status, message):
    answer = client.post("/forecast", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "route", "status", "message"),
    [
        (
            "GET",
            "/forecast?quantiles=2",
            409,
            "There must be 12 steps of readings, the window (got 0)",
        ),
        ("GET", "/forecast?quantiles=x", 422, "'quantiles.0': Input should be a valid number"),
        (
            "GET",
            "/graph?top=0",
            422,
            "'top': Input should be greater than or equal to 1 (got \"0\")",
        ),
        ("GET", "/nothing", 404, "Not Found"),
        ("PUT", "/forecast", 405, "Method Not Allowed"),
    ],
)
def test_bad_requests(client, method, route, status, message):
    answer = client.request(method, route)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_limits_of_bodies_and_tables(forecaster):
    table = small_table()
    app = create_app(forecaster, limits=Limits(body=3000, rows=20))
    with testclient.TestClient(app) as client:

        def post(content, **headers):
            return client.post("/forecast", content=content, headers={**CSV, **headers}).status_code

        assert post(csv(table.tail(20))) == 200
        assert post(csv(table.tail(21))) == 413  # rows
        assert post(csv(table.tail(100))) == 413  # bytes that are announced
        assert post(iter([csv(table.tail(20)), b"\n" * 3000])) == 413  # and bytes that are not
        assert post(b"time" + b",a" * 20 + b"\n2024-01-01" + b",1" * 20) == 413  # columns
        assert post(csv(table.tail(12)), **{"Content-Encoding": "gzip"}) == 415
        many = [{"time": "2024-01-01", f"s{i}": i} for i in range(20)]
        assert client.post("/forecast", json=many).status_code == 413


def test_a_body_that_does_not_come():
    async def receive():
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"text/csv")]}
    with pytest.raises(HTTPException) as error:
        asyncio.run(read_body(Request(scope, receive), Limits(seconds=0.05)))
    assert error.value.status_code == 408


def test_readings_come_bit_by_bit(client, forecaster):
    table = small_table()
    assert client.get("/forecast").status_code == 409
    for start, end in ((200, 205), (203, 209), (209, 210)):
        answer = client.post("/readings", content=csv(table.iloc[start:end]), headers=CSV)
    assert answer.json()["steps"] == 10
    assert "(got 10)" in client.get("/forecast").json()["detail"]
    # Sensors one after the other, a row twice and one out of order.
    client.post("/readings", content=csv(table.iloc[212:214]), headers=CSV)
    for sensor in table:
        answer = client.post("/readings", json=rows_of(table.iloc[210:212][[sensor]]))
    said = answer.json()
    window = table.iloc[202:214]
    assert said["last"] == str(window.index[-1])
    assert (said["steps"], said["window"], said["too_old"]) == (12, 12, 0)
    assert said["missing"] == pytest.approx(window.isna().to_numpy().mean())
    check_forecast(client.get("/forecast"), forecaster.predict(window))
    # What is older than the window is left out, and said; a reading that comes again counts.
    answer = client.post("/readings", content=csv(table.iloc[195:204]), headers=CSV)
    assert answer.json()["too_old"] == 7
    mended = window.copy()
    mended.iloc[-1] = 70.0
    client.post("/readings", content=csv(mended.tail(1)), headers=CSV)
    check_forecast(client.get("/forecast"), forecaster.predict(mended))
    # A gap is missing readings.
    later = table.iloc[202:218].copy()
    later.iloc[11] = 70.0
    later.iloc[12:15] = np.nan
    client.post("/readings", content=csv(table.iloc[217:218]), headers=CSV)
    check_forecast(client.get("/forecast"), forecaster.predict(later))


def test_readings_off_the_clock_change_nothing(client, forecaster):
    window = small_table().tail(12)
    client.post("/readings", content=csv(window), headers=CSV)
    off = window.tail(1).shift(freq="90min")
    answer = client.post("/readings", content=csv(off), headers=CSV)
    assert answer.status_code == 422
    assert "must be on a regular clock" in answer.json()["detail"]
    check_forecast(client.get("/forecast"), forecaster.predict(window))


def test_readings_after_a_long_gap_begin_anew(client):
    client.post("/readings", content=csv(small_table()), headers=CSV)
    answer = client.post("/readings", json=[{"time": "2031-05-06 07:00", "s1": 4.0}])
    assert (answer.json()["steps"], answer.json()["last"]) == (1, "2031-05-06 07:00:00")
    assert client.get("/forecast").status_code == 409


def test_a_zone_with_summer_time():
    table = small_table(rows=24 * 95, tz="Europe/Berlin")  # over 31 March 2024
    forecaster = fit_small(table)
    end = table.index.get_loc(pd.Timestamp("2024-03-31 08:00", tz="Europe/Berlin"))
    window = table.iloc[end - 12 : end]
    with testclient.TestClient(create_app(forecaster)) as client:
        for part in (window[:5], window[5:]):
            assert client.post("/readings", content=csv(part), headers=CSV).status_code == 200
        rows = pd.DataFrame(client.get("/forecast").json()["rows"])
    expected = forecaster.predict(window)
    assert list(rows["time"]) == [str(at) for at in expected["time"]]
    np.testing.assert_allclose(rows["mean"], expected["mean"], rtol=1e-5)


def test_graph_and_card(client, forecaster):
    edges = forecaster.graph()
    pd.testing.assert_frame_equal(
        pd.DataFrame(client.get("/graph").json()["rows"]), edges, check_dtype=False
    )
    assert len(client.get("/graph?top=2").json()["rows"]) == 2
    card = client.get("/card").json()
    assert card["sensors"] == ["s0", "s1", "s2"]
    assert (card["window"], card["horizon"], card["freq"]) == (12, 3, "h")
    assert card["scores"]["latentgnn"]["mae"] == pytest.approx(forecaster.scores_["mae"].iloc[0])


def test_metrics_count_by_route(client):
    client.post("/forecast", content=csv(small_table().tail(12)), headers=CSV)
    for path in ("/a", "/b", "/c"):
        client.get(path)
    client.request("BREW", "/forecast")
    text = client.get("/metrics").text
    requests = dict(re.findall(r"^tsl_latentgnn_requests_total\{(.+)\} (.+)$", text, re.MULTILINE))
    assert requests == {
        'method="POST",route="/forecast",status="200"': "1.0",
        'method="GET",route="other",status="404"': "3.0",
        'method="other",route="/forecast",status="405"': "1.0",
    }
    assert "tsl_latentgnn_pending 0.0" in text


def test_the_page_needs_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f" {path}</code>" in page
    assert "//" not in page
    assert "<script" not in page


def test_a_busy_server_says_so(forecaster, monkeypatch):
    def answer(self, *_):
        time.sleep(0.3)

    monkeypatch.setattr(serving.Service, "answer", answer)
    app = create_app(forecaster, limits=Limits(seconds=0.1))
    with testclient.TestClient(app) as client:
        came = client.post("/forecast", content=b"x", headers=CSV)
    assert (came.status_code, came.headers["retry-after"]) == (503, "1")
    assert came.json()["detail"] == "It was not done in 0.1 s. Try again later."


def test_a_worker_takes_one_at_a_time_and_no_more_than_may_wait():
    async def ask():
        worker = Worker(waiting=1, seconds=0.2)
        gate, order = threading.Event(), []
        first = asyncio.create_task(worker.run(gate.wait))
        second = asyncio.create_task(worker.run(order.append, 2))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="2 requests are being worked on or wait"):
            await worker.run(order.append, 3)
        for late in (first, second):
            with pytest.raises(BusyError, match=r"not done in 0.2 s"):
                await late
        gate.set()
        worker.close()
        assert (order, worker.pending) == ([], 0)  # what nobody waits for any more is not begun

    asyncio.run(ask())


def test_a_fault_of_the_server_is_not_told(forecaster, monkeypatch):
    def answer(self, *_):
        raise RuntimeError("a secret")

    monkeypatch.setattr(serving.Service, "answer", answer)
    app = create_app(forecaster)
    with testclient.TestClient(app, raise_server_exceptions=False) as client:
        came = client.post("/forecast", content=b"x", headers=CSV)
    assert came.status_code == 500
    assert "secret" not in came.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": 0}, "'body'"),
        ({"rows": 0}, "'rows'"),
        ({"seconds": 0.0}, "'seconds'"),
        ({"waiting": -1}, "'waiting'"),
    ],
)
def test_limits_that_are_none(change, message):
    with pytest.raises(ValueError, match=message):
        Limits(**change)


def test_an_empty_token(forecaster):
    with pytest.raises(ValueError, match="'token' must not be empty"):
        create_app(forecaster, token=" ")
