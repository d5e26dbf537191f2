"""A network path with a round trip time: a TCP proxy that holds everything back for half of it, in both directions.

    python -m benchmarks.delay --round-trip 40ms 127.0.0.1:6000 127.0.0.1:5432
    python -m benchmarks.delay --round-trip 0 127.0.0.1:6000 /run/postgresql/.s.PGSQL.5432

It limits nothing but time: what comes in a moment goes out in a moment, half a round trip later, and as much may be on
its way as `HELD` says (at 40 ms, 3.3 GB/s). The kernel accepts a connection at once, where a client far away would wait
for a round trip; that one is added to what the client says first. A connection that is closed or reset is seen as late
as any byte. Losses, bandwidth and the growth of TCP's windows are not modelled.

One process, one thread, asleep until something arrives or is due.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from typing import Final, NamedTuple, NoReturn

import click

HELD: Final = 64 * 1024**2
"""Bytes per direction that are on their way at most; beyond that, the sender is not read."""

_READ: Final = 256 * 1024
_BACKLOG: Final = 512
_UNITS: Final = {"ms": 1e-3, "s": 1.0}


class _Piece(NamedTuple):
    """Bytes under way; none is the end of the stream."""

    due: float
    data: bytes


class _Half:
    """One direction of a connection.

    Attributes:
        source: what it reads.
        sink: what it writes.
        back: the other direction.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, ready_from: float) -> None:
        self.source = source
        self.sink = sink
        self.back: _Half
        self._ready_from = ready_from
        self._under_way: deque[_Piece] = deque()
        self._held = 0
        self._rest = memoryview(b"")
        self._ended = False
        self.blocked = False
        self.over = False

    @property
    def due(self) -> float:
        """When something is to be written next; infinite when nothing is, or when the sink takes nothing now."""
        if self.blocked or self.over:
            return float("inf")
        return 0.0 if self._rest else self._under_way[0].due if self._under_way else float("inf")

    def read(self, now: float, delay: float) -> None:
        """Take in all that is there."""
        while not self._ended and self._held < HELD:
            try:
                data = self.source.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._ended = not data
            self._held += len(data)
            self._under_way.append(_Piece(max(now, self._ready_from) + delay, data))

    def write(self, now: float) -> None:
        """Write what is due, as far as the sink takes it."""
        while self._rest or (self._under_way and self._under_way[0].due <= now):
            if not self._rest:
                data = self._under_way.popleft().data
                if not data:
                    self._finish()
                    return
                self._rest = memoryview(data)
            try:
                sent = self.sink.send(self._rest)
            except BlockingIOError:
                self.blocked = True
                return
            except OSError:
                self._finish()
                self.back.give_up()
                return
            self._held -= sent
            self._rest = self._rest[sent:]

    def _finish(self) -> None:
        self.over = self._ended = True
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

    def give_up(self) -> None:
        """Nobody is there any more who could say anything: what is under way still arrives, then the end."""
        if not self._ended:
            self._ended = True
            self._under_way.append(_Piece(0.0, b""))


class DelayProxy:
    """Listens, connects on to a target for everybody who comes, and passes everything on late.

    Args:
        listen: host and port.
        target: where to connect to: host and port, or the path of a Unix socket.
        round_trip: seconds.
    """

    def __init__(self, listen: tuple[str, int], target: tuple[str, int] | str, round_trip: float) -> None:
        self._target = target
        self._round_trip = round_trip
        self._poll = select.epoll()
        self._listener = socket.create_server(listen, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        self._halves: dict[int, _Half] = {}

    def run(self) -> NoReturn:
        """Serve until the process ends."""
        while True:
            due = min((half.due for half in self._halves.values()), default=float("inf"))
            pause = None if due == float("inf") else max(due - time.monotonic(), 0.0)
            # Finer than epoll, which counts in milliseconds.
            select.select([self._poll], [], [], pause)
            self._turn(time.monotonic())

    def _turn(self, now: float) -> None:
        for number, events in self._poll.poll(0):
            half = self._halves.get(number)
            if half is None:
                self._accept(now)
                continue
            if events & ~select.EPOLLOUT:
                half.read(now, self._round_trip / 2)
            if events & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
                half.back.blocked = False
        for number, half in list(self._halves.items()):
            if half.due <= now:
                half.write(now)
                half.read(now, self._round_trip / 2)  # Where it had to stop for want of room.
            if half.over and half.back.over and self._halves.pop(number, None) is not None:
                del self._halves[half.back.source.fileno()]
                half.source.close()
                half.sink.close()

    def _accept(self, now: float) -> None:
        near, _ = self._listener.accept()
        far = self._connect()
        if far is None:
            near.close()
            return
        for sock in (near, far):
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # A Unix socket has no such option.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = _Half(near, far, now + self._round_trip)
        back = _Half(far, near, now + self._round_trip)
        there.back, back.back = back, there
        for half in (there, back):
            self._halves[half.source.fileno()] = half
            self._poll.register(
                half.source, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
            )

    def _connect(self) -> socket.socket | None:
        """Connect to the target, which is near: this is not what is delayed."""
        try:
            if isinstance(self._target, str):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(self._target)
                return sock
            return socket.create_connection(self._target, timeout=5)
        except OSError:
            return None


def seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    """Read a time as options give it, ``40ms`` or ``0.04``, in seconds."""
    unit = next((name for name in _UNITS if value.endswith(name)), "s")
    try:
        return float(value.removesuffix(unit)) * _UNITS[unit]
    except ValueError:
        raise click.BadParameter("a time is needed, as in 40ms") from None


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int] | str:
    if value.startswith("/"):
        return value
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter("HOST:PORT is needed")
    return host, int(port)


@click.command()
@click.option("--round-trip", default="40ms", callback=seconds, help="The time to add, as in 40ms.")
@click.argument("listen", callback=_address)
@click.argument("target", callback=_address)
def main(round_trip: float, listen: tuple[str, int], target: tuple[str, int] | str) -> None:
    """Pass TCP connections on from LISTEN to TARGET, later by half a round trip in each direction."""
    DelayProxy(listen, target, round_trip).run()


if __name__ == "__main__":
    main()
