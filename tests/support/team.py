"""A pooler of two workers, and clients of which it is known where they are."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final, Self

from tests.support.postgres import ANN, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.poolers import Pooler
    from tests.support.rawclient import RawClient

WORKERS: Final = 2


class Team:
    """Both workers of a pooler.

    Args:
        pooler: with ``workers: 2``, and ann among ``admin_users``.
    """

    def __init__(self, pooler: Pooler) -> None:
        self.pooler = pooler
        self._clients = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clients.close()

    def show(self, what: str) -> list[dict[str, Any]]:
        """A table of the console, asked for through any worker."""
        with self.pooler.connect("pgbouncer") as console:
            cursor = console.execute(f"SHOW {what}".encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def command(self, text: str) -> None:
        """Have the console do something, through any worker."""
        with self.pooler.connect("pgbouncer") as console:
            console.execute(text.encode())

    def pids(self) -> dict[int, int]:
        """The process of each worker."""
        return {row["worker"]: row["pid"] for row in self.show("WORKERS")}

    def worker_of(self, client: RawClient) -> int:
        """Where a client is."""
        rows = [row for row in self.show("CLIENTS") if row["port"] == client.port]
        assert len(rows) == 1, rows
        return (int(rows[0]["id"]) - 1) % WORKERS

    def clients(self, database: str = "app", role: Role = ANN, /, **parameters: str) -> list[RawClient]:
        """One client of each worker, in the order of their numbers, until the end."""
        found: dict[int, RawClient] = {}

        def come() -> bool:
            client = self.pooler.raw(database, role, **parameters)
            if found.setdefault(self.worker_of(client), client) is client:
                self._clients.enter_context(client)
            else:
                client.close()
            return len(found) == WORKERS

        eventually(come, within=30, what="a client of each worker")
        return [found[worker] for worker in range(WORKERS)]

    def connection_to(self, worker: int) -> socket.socket:
        """A new connection that a worker accepts: the kernel tells by addresses and ports where one goes."""
        address = self.pooler.host, self.pooler.port
        while True:
            client = self.pooler.raw()
            port, where = client.port, self.worker_of(client)
            client.abort()
            if where == worker:
                # Somebody else may have the port by now.
                with contextlib.suppress(OSError):
                    return socket.create_connection(address, 15, ("127.0.0.1", port))


def config(base: dict[str, dict[str, Any]], **pooler: object) -> dict[str, dict[str, Any]]:
    """Settings of a pooler of two workers."""
    own = {"workers": WORKERS, "pool_mode": "transaction", "admin_users": ANN.name, **pooler}
    return {**base, "pooler": {**base["pooler"], **own}}
