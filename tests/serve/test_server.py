"""A real server, asked by real clients."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pandas as pd
import psutil
import pytest
from small_forecaster import small_table


@pytest.fixture
def client(server, token):
    headers = {"Authorization": f"Bearer {token}".encode(), "Content-Type": "text/csv"}
    with httpx.Client(base_url=server[0], timeout=60, headers=headers) as client:
        yield client


def csv(table):
    return table.rename_axis("time").to_csv().encode()


def test_clients_at_once_get_what_the_library_gives(client, forecaster):
    table = small_table()
    windows = [table.iloc[end - 12 - end % 3 : end] for end in range(40, 400, 15)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda window: client.post("/forecast", content=csv(window)), windows)
        )
    for window, answer in zip(windows, answers, strict=True):
        assert answer.status_code == 200, answer.text
        came = answer.json()
        assert came["issued_at"] == str(window.index[-1])
        rows = pd.DataFrame(came["rows"]).assign(time=lambda rows: pd.to_datetime(rows["time"]))
        expected = forecaster.predict(window)
        pd.testing.assert_frame_equal(rows, expected, check_dtype=False, rtol=1e-5)


def test_memory_stays(server, client):
    process = psutil.Process(server[1].pid)
    body = csv(small_table().tail(12))

    def ask(times):
        for _ in range(times):
            assert client.post("/forecast", content=body).status_code == 200
            assert client.post("/readings", content=body).status_code == 200
            assert client.get("/forecast").status_code == 200
        return process.memory_info().rss

    before = ask(20)
    assert ask(40) - before < 4 * 2**20


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic {token}", "Bearer"])
def test_a_token_is_asked_for(server, token, given):
    headers = {} if given is None else {"Authorization": given.format(token=token).encode()}
    with httpx.Client(base_url=server[0], headers=headers) as client:
        for route in ("/forecast", "/graph", "/card", "/metrics"):
            answer = client.get(route)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/readings", content=b"").status_code == 401
        assert client.get("/health").json() == {"status": "ok"}


def test_sigterm_ends_it_when_it_has_answered(folder, serve):
    body = csv(small_table())
    with (
        serve(folder) as (url, process),
        httpx.Client(base_url=url, timeout=60, headers={"Content-Type": "text/csv"}) as client,
        ThreadPoolExecutor(1) as beside,
    ):
        assert client.get("/health").status_code == 200

        def slowly():
            yield body[:50]
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            yield body[50:]

        answer = beside.submit(client.post, "/forecast", content=slowly()).result()
        assert answer.status_code == 200
        assert len(answer.json()["rows"]) == 9
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
