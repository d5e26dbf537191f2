"""Ports and the kernel's view of TCP connections.

The table of the kernel answers what no client can see: whether the pooler has read what was sent to it.
Tests use it to put clients into a queue in a known order without guessing at delays.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

ESTABLISHED = 0x01  # include/net/tcp_states.h of Linux
CLOSE_WAIT = 0x08
KEEPALIVE_TIMER = 0x02


@attrs.frozen
class TcpSocket:
    """One line of the kernel's socket table.

    Attributes:
        local_port: the port at this end.
        remote_port: the port at the other end.
        state: the TCP state as the kernel numbers it.
        unread: bytes that arrived and that the owner of this end has not read yet.
        timer: which timer runs, as the kernel numbers it.
    """

    local_port: int
    remote_port: int
    state: int
    unread: int
    timer: int


def tcp_sockets(local_port: int | None = None, remote_port: int | None = None) -> list[TcpSocket]:
    """Return the TCP sockets of this machine, IPv4 and IPv6, as the kernel sees them.

    Args:
        local_port: only those with this port at their own end.
        remote_port: only those with this port at their far end.
    """
    near, far = (b"%04X" % port if port is not None else b"[0-9A-F]{4}" for port in (local_port, remote_port))
    line = rb"^ *\d+: [0-9A-F]+:(%s) [0-9A-F]+:(%s) ([0-9A-F]{2}) [0-9A-F]{8}:([0-9A-F]{8}) ([0-9A-F]{2})" % (
        near,
        far,
    )
    found = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            # One search over the bytes: with many sockets in TIME_WAIT these files are long.
            found += re.findall(line, table.read_bytes(), re.MULTILINE)
    return [TcpSocket(*(int(field, 16) for field in fields)) for fields in found]


def all_read_by(owner_port: int, peer_port: int) -> bool:
    """Tell whether the owner of one end has read all that its peer sent over loopback TCP."""
    ends = tcp_sockets(owner_port, peer_port)
    return bool(ends) and all(end.unread == 0 for end in ends)


def half_closed_towards(remote_port: int) -> int:
    """Count connections to a port whose far end is closed while the near end has not reacted yet."""
    return sum(1 for s in tcp_sockets(remote_port=remote_port) if s.state == CLOSE_WAIT)


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1 and on ::1 at this moment.

    It is none of those that the kernel gives to connections, and no other process that asks here gets it.

    Raises:
        RuntimeError: all of this process's ports are in use.
    """
    for port in itertools.islice(_ports, _BLOCK):
        if _is_free(port):
            return port
    raise RuntimeError("all ports of this process are in use")


def _own_ports(first: int = 10000, last: int = 32768) -> Iterator[int]:
    """Ports of this process alone, again and again, for as long as it lives: it holds a name that tells so.

    Args:
        first: the first port.
        last: where those begin that Linux gives to connections, unless it is told otherwise.
    """
    blocks = range(first, last - _BLOCK + 1, _BLOCK)
    for begin in random.SystemRandom().sample(blocks, len(blocks)):
        try:
            _claim.bind(f"\0hyperpool tests have ports from {begin} on")
        except OSError:
            continue  # Another process has them, perhaps of another test run.
        return itertools.cycle(range(begin, begin + _BLOCK))
    raise RuntimeError("there are as many processes with tests as there are blocks of ports")


_BLOCK = 300
_claim = socket.socket(socket.AF_UNIX)
_ports = _own_ports()


def _is_free(port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET) as probe:
            probe.bind(("127.0.0.1", port))
        if has_ipv6():
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", port))
    except OSError:
        return False
    return True


@functools.cache
def has_ipv6() -> bool:
    """Tell whether this machine has the IPv6 loopback address."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True
