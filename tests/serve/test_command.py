"""``tsl-latentgnn serve``: what keeps it from starting is said in a line."""

from __future__ import annotations

import socket
import sys

from tsl_latentgnn.__main__ import main

import pytest


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["serve", *map(str, arguments)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_a_port_that_is_taken(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = said(capsys, folder, "--port", port)
    assert "'--host' and '--port' must be an address of this machine that is free" in error


@pytest.mark.parametrize("options", [("--port", "70000"), ("--host", "nowhere.invalid")])
def test_an_address_that_is_none(folder, capsys, options):
    assert "'--host' and '--port'" in said(capsys, folder, *options)


def test_no_model(tmp_path, capsys):
    pytest.importorskip("fastapi")
    assert "'folder' must hold card.json" in said(capsys, tmp_path)


def test_an_empty_token(folder, capsys, monkeypatch):
    monkeypatch.setenv("TSL_LATENTGNN_TOKEN", "")
    assert "TSL_LATENTGNN_TOKEN must not be empty" in said(capsys, folder)


def test_without_the_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "fastapi must be installed (got none): pip install 'tsl-latentgnn[serve]'" in said(
        capsys, folder
    )
