"""Options of TCP sockets, and names for addresses."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import cast

import pytest

from hyperpool.config import PoolerSettings
from hyperpool.transport.sockets import TcpOptions, address_name, unacknowledged_for

NUMBERS = {
    "tcp_keepcnt": socket.TCP_KEEPCNT,
    "tcp_keepidle": socket.TCP_KEEPIDLE,
    "tcp_keepintvl": socket.TCP_KEEPINTVL,
    "tcp_user_timeout": socket.TCP_USER_TIMEOUT,
}


def option(sock: socket.socket, name: int) -> int:
    """Read a TCP option."""
    return sock.getsockopt(socket.IPPROTO_TCP, name)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_settings_reach_the_kernel(family: int) -> None:
    """Each ``tcp_*`` setting sets the option of its name."""
    settings = PoolerSettings(
        tcp_keepalive=True, tcp_keepcnt=3, tcp_keepidle=11, tcp_keepintvl=7, tcp_user_timeout=12345
    )
    with socket.socket(family) as sock:
        TcpOptions.of(settings).apply(sock)
        assert [option(sock, name) for name in NUMBERS.values()] == [3, 11, 7, 12345]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option(sock, socket.TCP_NODELAY)


def test_zero_leaves_the_kernels_default() -> None:
    """As in pgbouncer."""
    with socket.socket() as sock, socket.socket() as untouched:
        TcpOptions.of(PoolerSettings()).apply(sock)
        for name in NUMBERS.values():
            assert option(sock, name) == option(untouched, name)


def test_keepalive_can_be_switched_off() -> None:
    """Also on a socket that had it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        TcpOptions.of(PoolerSettings(tcp_keepalive=False)).apply(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_the_size_of_buffers() -> None:
    """Both; the kernel doubles what it is told (socket(7))."""
    with socket.socket() as sock:
        TcpOptions.of(PoolerSettings(tcp_socket_buffer=8192)).apply(sock)
        for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            assert sock.getsockopt(socket.SOL_SOCKET, name) == 2 * 8192


def test_connections_that_say_nothing_can_be_kept_back() -> None:
    """By the kernel, for the time that it has room for; a reload can end that."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        TcpOptions.of(PoolerSettings(tcp_defer_accept=True)).apply_to_listener(sock)
        assert option(sock, socket.TCP_DEFER_ACCEPT) >= 45
        TcpOptions.of(PoolerSettings()).apply_to_listener(sock)
        assert option(sock, socket.TCP_DEFER_ACCEPT) == 0


def test_accepted_sockets_inherit_the_options() -> None:
    """So a listener's options are set once, not once per client."""
    with socket.socket() as listener:
        TcpOptions(keepcnt=3, keepidle=11, keepintvl=7, user_timeout=12345).apply(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert [option(accepted, name) for name in NUMBERS.values()] == [3, 11, 7, 12345]
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert option(accepted, socket.TCP_NODELAY)


def test_a_value_that_the_kernel_refuses_is_an_error() -> None:
    """It is not dropped in silence."""
    with socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
        TcpOptions(keepcnt=128).apply(sock)


@pytest.mark.parametrize(
    ("family", "address", "name"),
    [
        (socket.AF_INET, ("127.0.0.1", 6432), "127.0.0.1:6432"),
        (socket.AF_INET6, ("::1", 6432, 0, 0), "[::1]:6432"),
        (socket.AF_INET6, ("fe80::1%eth0", 6432, 0, 2), "[fe80::1%eth0]:6432"),
        (socket.AF_UNIX, "", "unix"),
        (socket.AF_UNIX, b"", "unix"),
        (socket.AF_UNIX, "/tmp/.s.PGSQL.6432", "unix"),
    ],
)
def test_address_names(family: int, address: object, name: str) -> None:
    """A name can be pasted into a client's command line."""
    assert address_name(family, address) == name


class _Told:
    """A socket of which the kernel tells something."""

    def __init__(self, info: bytes) -> None:
        self._info = info

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        """``TCP_INFO``."""
        return self._info[:size]


def test_what_is_not_acknowledged() -> None:
    """How long it has been silent counts only while something is on its way; a peer that does not read is there."""
    info = bytearray(104)
    info[56:60] = (7500).to_bytes(4, sys.byteorder)
    assert unacknowledged_for(cast("socket.socket", _Told(bytes(info)))) == 0
    info[24:28] = (3).to_bytes(4, sys.byteorder)
    assert unacknowledged_for(cast("socket.socket", _Told(bytes(info)))) == 7.5
    assert unacknowledged_for(cast("socket.socket", _Told(bytes(info[:50])))) == 0
    one, other = socket.socketpair()
    assert unacknowledged_for(one) == 0
    with one, other, socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(bytes(65536))
            assert unacknowledged_for(sock) < 1
        assert unacknowledged_for(sock) == 0
