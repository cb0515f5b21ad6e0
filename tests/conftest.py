"""No test reaches the network, or hangs on what another has drawn.

``--hypothesis-profile=long`` runs twenty times the examples and more; ``--draw=1`` and so on make other random numbers
of those that a test does not seed itself.
"""

from __future__ import annotations

import ipaddress
import socket

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None)
settings.register_profile(
    "long",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def pytest_addoption(parser):
    parser.addoption("--draw", type=int, default=0, help="seed of every test's random numbers")


@pytest.fixture(autouse=True)
def seeded(request):
    """Start every test from the same random numbers, whichever ran before it in this process.

    But for Python's own, from which PyG takes the names of the modules that it writes: no two may have the same.
    """
    for seed in (np.random.seed, torch.manual_seed):
        seed(request.config.getoption("draw"))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Refuse connections of Python's sockets to anything but this machine."""

    def guard(connect):
        def guarded(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
                raise RuntimeError(f"A test tried to reach the network: {address}.")
            return connect(self, address)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guard(getattr(socket.socket, name)))
        yield
