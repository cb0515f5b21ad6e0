"""A trained forecaster in a folder, and servers of it, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from small_forecaster import fit_small

TOKEN = "a token, näher"


@pytest.fixture(scope="session")
def forecaster():
    pytest.importorskip("fastapi")
    return fit_small()


@pytest.fixture(scope="session")
def folder(forecaster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    forecaster.save(folder)
    return folder


@contextmanager
def run_server(folder, *options, token=None):
    """Start a server; yield its address and process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("TSL_LATENTGNN_TOKEN", None)
    if token is not None:
        environment["TSL_LATENTGNN_TOKEN"] = token
    command = [sys.executable, "-m", "tsl_latentgnn", "serve", folder, "--port", "0", "--quiet"]
    with subprocess.Popen(
        [*command, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.stdout.readline()
            assert " on http://127.0.0.1:" in said, said or process.stderr.read()
            yield said.split()[-1], process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server(folder):
    """A server that asks for a token."""
    with run_server(folder, token=TOKEN) as (url, process):
        yield url, process


@pytest.fixture
def serve():
    return run_server


@pytest.fixture
def token():
    return TOKEN
