"""Many clients: idle ones, and all that log in at once."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from benchmarks.client import Client
from benchmarks.measure import cpu_seconds, settled_resident_bytes
from benchmarks.pgbench import quantiles
from benchmarks.processes import BenchError
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario
from benchmarks.scenarios.transactions import LOAD_IS_BOUND, named_quantiles

if TYPE_CHECKING:
    from benchmarks.client import Endpoint
    from benchmarks.stage import Server, Stage

_PATIENCE: Final = 60.0
_READY: Final = b"Z\0\0\0\5I"
_BUSY: Final = 0.9


@frozen(kw_only=True)
class IdleClients(Scenario):
    """Resident memory of a pooler per client that is logged in, has run a query, and now does nothing.

    Attributes:
        clients: how many.
    """

    clients: int

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Open the connections one after the other and look at the pooler's memory before and after."""
        pid = server.child.pid
        memory, cpu = settled_resident_bytes(pid), cpu_seconds(pid)
        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            clients = [stack.enter_context(Client(server.endpoint)) for _ in range(self.clients)]
            taken, cpu = time.monotonic() - started, cpu_seconds(pid) - cpu
            for client in clients:
                client.execute("select 1")
            grown = settled_resident_bytes(pid) - memory
        return Result(
            {
                "bytes_per_client": grown / self.clients,
                "rate": self.clients / taken,
                "cpu_us": cpu / self.clients * 1e6,
            }
        )


@frozen(kw_only=True)
class LoginStorm(Scenario):
    """Clients that all come at the same moment, as when an application starts anew, and log in.

    Attributes:
        clients: how many.
    """

    clients: int

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Open all connections at once, and wait until every client is logged in."""
        cpu, own = cpu_seconds(server.child.pid), time.process_time()
        storm = _Storm(server.endpoint)
        try:
            times = storm.run(self.clients)
        finally:
            storm.close()
        cpu, own = cpu_seconds(server.child.pid) - cpu, time.process_time() - own
        found = quantiles([moment * 1e3 for moment in times])
        figures = {
            "seconds": times[-1],
            "rate": self.clients / times[-1],
            "cpu_us": cpu / self.clients * 1e6,
            "load_share": own / times[-1],
            **named_quantiles(found),
        }
        return Result(figures, found, notes=[LOAD_IS_BOUND] if own > times[-1] * _BUSY else [])


@define(eq=False)
class _Storm:
    """Sockets that do not block, and as little Python for each as can be."""

    endpoint: Endpoint
    _sockets: dict[int, socket.socket] = field(factory=dict, init=False)
    _startup: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        parameters = f"user\0{self.endpoint.user}\0database\0{self.endpoint.database}\0\0".encode()
        self._startup = struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters

    def run(self, count: int) -> list[float]:
        """Log in; returns the seconds from the beginning until each client was logged in, sorted.

        Raises:
            BenchError: a client was refused, or not served in time.
            OSError: a connection was refused.
        """
        began = time.monotonic()
        times: list[float] = []
        with select.epoll() as poll:
            for _ in range(count):
                self._connect(poll)
            while len(times) < count:
                events = poll.poll(_PATIENCE)
                if not events or time.monotonic() - began > _PATIENCE:
                    raise BenchError(
                        f"{count - len(times):,} of {count:,} clients were not logged in in time"
                    )
                for number, event in events:
                    if event & select.EPOLLIN:
                        self._read(self._sockets[number])
                        poll.unregister(number)
                        times.append(time.monotonic() - began)
                    elif event & select.EPOLLOUT:
                        self._sockets[number].sendall(self._startup)
                        poll.modify(number, select.EPOLLIN)
                    else:
                        raise BenchError("a connection was refused")
        return times

    def close(self) -> None:
        """Say goodbye to all."""
        for sock in self._sockets.values():
            with contextlib.suppress(OSError), sock:
                sock.sendall(b"X\0\0\0\4")

    def _connect(self, poll: select.epoll) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        self._sockets[sock.fileno()] = sock
        with contextlib.suppress(BlockingIOError):
            sock.connect((self.endpoint.host, self.endpoint.port))
        poll.register(sock, select.EPOLLOUT)

    @staticmethod
    def _read(sock: socket.socket) -> None:
        """Take what has come: the whole of a login's answer, in one piece or in some that follow at once."""
        answer = b""
        while not answer.endswith(_READY):
            try:
                data = sock.recv(4096)
            except BlockingIOError:
                select.select([sock], [], [], _PATIENCE)
                continue
            answer += data
            if not data or answer.startswith(b"E"):
                raise BenchError(f"a client was refused: {answer[:200]!r}")
