"""Servers that are replaced while others are being connected to: limits hold, and nobody who waits is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from select import select
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support import rawclient as raw
from tests.support.fakeserver import LOGIN, READY, row
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SIZE: Final = 2
_CLIENTS: Final = 5
_PAUSE: Final = 0.005  # seconds


class _SlowServer:
    """Logs everybody in after a while, answers every query, and counts.

    Args:
        delay: seconds that a login takes.

    Attributes:
        port: on 127.0.0.1.
        delay: as given; counts for the logins to come.
        most: how many connections there have been at a time, at most, of those that their client had not closed.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.most = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._open: dict[socket.socket, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for sock in (self._listener, *self._open):
            sock.close()

    def _run(self) -> None:
        while not self._over.is_set():
            select([self._listener, *self._open], [], [], _PAUSE)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock, _ = self._listener.accept()
                    sock.setblocking(False)
                    self._open[sock] = 0.0
            # Whoever has closed one before connecting has done so by now.
            for sock in list(self._open):
                self._serve(sock)
            self.most = max(self.most, len(self._open))

    def _serve(self, sock: socket.socket) -> None:
        now = time.monotonic()
        if 0.0 < self._open[sock] <= now:
            self._open[sock] = float("inf")
            with contextlib.suppress(OSError):
                sock.sendall(LOGIN)
        try:
            while data := sock.recv(65536):
                if data == raw.SSL_REQUEST:
                    sock.sendall(b"N")
                elif not self._open[sock]:
                    self._open[sock] = now + self.delay
                elif data.startswith(b"Q"):
                    sock.sendall(row("served") + READY)
        except BlockingIOError:
            return
        except OSError:
            pass
        del self._open[sock]
        sock.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["RECONNECT", "RELOAD"])
def test_while_servers_are_connected_to(
    make_pooler: PoolerFactory, pg: PostgresCluster, how: str, workers: int
) -> None:
    """What is under way is given up: it does not come on top of `pool_size`, and who waits gets the next one."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_SlowServer(delay=0.0))
        config = config_for(
            pg,
            pool_mode="transaction",
            session_state="keep",
            default_pool_size=_SIZE,
            admin_users="ann",
            workers=workers,
        )
        config["databases"]["app"]["port"] = server.port
        pooler = make_pooler(config)
        console: psycopg.Connection[Any] = stack.enter_context(
            psycopg.connect(**pooler.conninfo("pgbouncer"), autocommit=True, row_factory=dict_row)
        )
        clients = [stack.enter_context(pooler.raw()) for _ in range(_CLIENTS)]

        def replace(number: int) -> None:
            if how == "RELOAD":
                config["databases"]["app"]["connect_query"] = f"SELECT {number}"
                pooler.write(config)
            console.execute(how.encode())

        def connecting() -> bool:
            return any(row["sv_login"] == _SIZE for row in console.execute("SHOW POOLS"))

        server.delay = 5.0
        replace(0)
        for client in clients:
            client.send(raw.query("SELECT 1"))
        for number in range(1, 11):
            eventually(connecting, what="as many servers are connected to as there may be")
            if number == 10:
                server.delay = 0.1
            replace(number)
        for client in clients:
            assert raw.kinds(client.receive_until()) == b"TDCZ"
        assert server.most == _SIZE
        pooler.stop()
