"""Listening sockets that somebody else has opened."""

from __future__ import annotations

import os
import socket
import tempfile

import pytest

from hyperpool.transport.passed import AGENTS, CLIENTS, PassedSocket, PassedSockets, socket_name
from tests.support.network import has_ipv6

pytestmark = pytest.mark.usefixtures("nothing_left_open")


def test_what_is_taken_is_the_callers() -> None:
    """By role, and by address where that matters; what is left is closed, and told."""
    with (
        socket.create_server(("127.0.0.1", 0)) as fixed,
        socket.create_server(("127.0.0.1", 0)) as bound,
        socket.create_server(("127.0.0.1", 0)) as agents,
    ):
        passed = PassedSockets(
            [PassedSocket(fixed, fixed=True), PassedSocket(bound), PassedSocket(agents, AGENTS)]
        )
        address = bound.getsockname()
        assert passed.bound(CLIENTS, fixed.getsockname()) is None
        assert passed.bound(AGENTS, address) is None
        assert passed.bound(CLIENTS, address) is bound
        assert passed.bound(CLIENTS, address) is None
        assert passed.fixed(AGENTS) == []
        assert passed.fixed(CLIENTS) == [fixed]
        assert passed.fixed(CLIENTS) == []
        assert not bound.getblocking()
        left = f"127.0.0.1:{agents.getsockname()[1]}"
        assert passed
        assert passed.close() == [left]
        assert agents.fileno() == -1
        assert fixed.fileno() >= 0
        assert not passed
        assert passed.close() == []


def test_names_of_sockets() -> None:
    """As the settings write them."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert socket_name(sock) == f"127.0.0.1:{sock.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="hpt-") as directory, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{directory}/s")
        assert socket_name(sock) == f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0hyperpool-{os.getpid()}")
        assert socket_name(sock) == f"@hyperpool-{os.getpid()}"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_names_of_ipv6_sockets() -> None:
    """In brackets."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        assert socket_name(sock) == f"[::1]:{sock.getsockname()[1]}"
