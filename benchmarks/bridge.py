"""What a bridge costs: the same messages over a plain socket, through a bridge, and through a socketpair.

python -m benchmarks.bridge

A loop like the relay's (one Trio task, an epoll object of its own) sends a small message and waits for the answer,
again and again; and it reads a large answer. The peer is a process of its own. Prints what one exchange takes, how much
processor time of this process goes into it, and how many bytes per second come.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import nullcontext
from multiprocessing import Process
from select import EPOLLET, EPOLLIN, epoll
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from hyperpool.transport.bridge import Bridges
from hyperpool.transport.plain import PlainStream

if TYPE_CHECKING:
    from collections.abc import Callable

_EXCHANGES: Final = 5_000
_BULK: Final = 512 * 1024**2
_ROUNDS: Final = 5
_SMALL: Final = 60
_BUFFER: Final = 256 * 1024


class Opaque(trio.abc.HalfCloseableStream):
    """A stream that cannot be taken apart: all that is known of it is that it is one."""

    def __init__(self, below: PlainStream) -> None:
        self._below = below

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive."""
        return await self._below.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Send nothing more."""
        await self._below.send_eof()

    async def aclose(self) -> None:
        """Close."""
        await self._below.aclose()


def plain(sock: socket.socket, _nursery: trio.Nursery) -> socket.socket:
    """The socket itself, as the relay has it."""
    return sock


def bridged(sock: socket.socket, nursery: trio.Nursery) -> socket.socket:
    """Through the bridge."""
    return Bridges(nursery, nullcontext).endpoint(Opaque(PlainStream(sock)))


def paired(sock: socket.socket, nursery: trio.Nursery) -> socket.socket:
    """Through a socketpair and two tasks: what the bridge would be without its endpoint in memory."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    inner, outer = PlainStream(theirs), PlainStream(sock)

    async def move(source: PlainStream, sink: PlainStream) -> None:
        while data := await source.receive_some(_BUFFER):
            await sink.send_all(data)
        await sink.send_eof()

    nursery.start_soon(move, inner, outer)
    nursery.start_soon(move, outer, inner)
    return ours


async def exchange(end: socket.socket, count: int) -> None:
    """Send and receive small messages, one at a time."""
    poll, view, message = epoll(), memoryview(bytearray(_BUFFER)), bytes(_SMALL)
    with poll:
        poll.register(end.fileno(), EPOLLIN | EPOLLET)
        for _ in range(count):
            end.send(message)
            got = 0
            while got < _SMALL:
                await trio.lowlevel.wait_readable(poll.fileno())
                poll.poll(0)
                try:
                    got += end.recv_into(view)
                except BlockingIOError:
                    continue


async def drink(end: socket.socket, size: int) -> None:
    """Ask for bytes, and read them all."""
    poll, view = epoll(), memoryview(bytearray(_BUFFER))
    with poll:
        poll.register(end.fileno(), EPOLLIN | EPOLLET)
        end.send(b"!" + size.to_bytes(8, "big"))
        got = 0
        while got < size:
            await trio.lowlevel.wait_readable(poll.fileno())
            poll.poll(0)
            try:
                while got < size:
                    got += end.recv_into(view)
            except BlockingIOError:
                continue


def answer(listener: socket.socket) -> None:
    """The peer: sends back what comes, or as many bytes as it is asked for."""
    while True:
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(_BUFFER):
                if data[:1] != b"!":
                    sock.sendall(data)
                    continue
                left, piece = int.from_bytes(data[1:9], "big"), bytes(_BUFFER)
                while left:
                    left -= sock.send(piece[: min(left, _BUFFER)])


async def measure(
    port: int, kind: Callable[[socket.socket, trio.Nursery], socket.socket]
) -> tuple[float, float, float]:
    """One round.

    Returns:
        Microseconds per exchange, of them microseconds of this process's processor time, and MB/s.
    """
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    async with trio.open_nursery() as nursery:
        end = kind(sock, nursery)
        await exchange(end, _EXCHANGES // 10)
        began, used = time.perf_counter(), time.process_time()
        await exchange(end, _EXCHANGES)
        took, used = time.perf_counter() - began, time.process_time() - used
        began = time.perf_counter()
        await drink(end, _BULK)
        bulk = time.perf_counter() - began
        end.close()
        nursery.cancel_scope.cancel()
    return took / _EXCHANGES * 1e6, used / _EXCHANGES * 1e6, _BULK / bulk / 1e6


def main() -> None:
    """Measure all kinds, in turns, and print medians."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = Process(target=answer, args=(listener,), daemon=True)
    peer.start()
    port = listener.getsockname()[1]
    found: dict[str, deque[tuple[float, float, float]]] = {}
    for _ in range(_ROUNDS):
        for kind in (plain, bridged, paired):
            found.setdefault(kind.__name__, deque()).append(trio.run(measure, port, kind))
    peer.terminate()
    print(f"{'':8} {'us/exchange':>12} {'CPU us':>8} {'MB/s':>8}   ({_ROUNDS} rounds, medians)")
    for name, rounds in found.items():
        latency, used, bulk = (median(column) for column in zip(*rounds, strict=True))
        print(f"{name:8} {latency:12.1f} {used:8.1f} {bulk:8.0f}")


if __name__ == "__main__":
    main()
