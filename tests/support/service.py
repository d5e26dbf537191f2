"""A pooler that runs within the test's own Trio run."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import structlog
import trio
import yaml

from hyperpool.config import load
from hyperpool.service import run as run_module
from hyperpool.service.run import Pooler
from tests.support.checkpoints import no_descriptor_left
from tests.support.logbook import LogBook
from tests.support.network import free_port
from tests.support.triopostgres import TrioClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tests.support.triopostgres import TrioPostgres

    Document = dict[str, dict[str, Any]]


@contextlib.contextmanager
def pooler_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogBook]:
    """Let this process be one that a pooler can have for itself.

    The log is a book, whatever the settings say. Sweeps come ten times as often as in earnest, because most tests
    wait for one. A signal that no pooler is there for is an error, and not the end of all tests. In the end no
    descriptor may be open that was not open before.
    """

    def stray(number: int, frame: object) -> None:
        raise AssertionError(f"signal {number} while no pooler was running")

    book = LogBook()
    log = structlog.get_config()
    structlog.configure(processors=[book])
    monkeypatch.setattr(run_module, "configure_logging", lambda settings: None)
    monkeypatch.setattr(run_module, "_SWEEP", 0.01)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.signal(number, stray) for number in numbers}
    try:
        with no_descriptor_left():
            yield book
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        structlog.configure(**log)


def end_at_once() -> None:
    """Ask a pooler to end, and insist: with another signal, since two of a kind may count as one."""
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)


class Service:
    """A pooler that runs in a nursery, in front of a server.

    Attributes:
        server: behind database `app`.
        port: where the pooler listens.
        pooler: once it has been started.
        code: its exit code, once it has ended.
        path: the settings file.
    """

    def __init__(self, nursery: trio.Nursery, book: LogBook, server: TrioPostgres, path: Path) -> None:
        self._nursery = nursery
        self._book = book
        self.server = server
        self.path = path
        self.port = free_port()
        self.pooler: Pooler
        self.code: int | None = None
        self._ended = trio.Event()

    def document(self, **pooler: Any) -> Document:
        """The settings, as they stand in the file."""
        return {
            "pooler": {
                "listen_addr": "127.0.0.1",
                "listen_port": self.port,
                "auth_type": "trust",
                "pool_mode": "transaction",
                # The server that stands for PostgreSQL here knows no catalog.
                "session_state": "keep",
                **pooler,
            },
            "databases": {"app": {"host": "127.0.0.1", "port": self.server.port}},
            "users": {"ann": {}},
        }

    def write(self, document: Document) -> None:
        """Write the settings file."""
        self.path.write_text(yaml.safe_dump(document))

    async def start(self, document: Document | None = None, **pooler: Any) -> None:
        """Start, and wait until it listens."""
        self.write(document or self.document(**pooler))
        self.pooler = Pooler(load(self.path, {}), self.path)
        self._nursery.start_soon(self._run)
        await self._book.wait_for("listening")

    async def _run(self) -> None:
        self.code = await self.pooler.run()
        self._ended.set()

    async def reload(self, document: Document) -> None:
        """Change the settings file, and say so."""
        self.write(document)
        signal.raise_signal(signal.SIGHUP)
        await self._book.wait_for("reload")

    async def wait_ended(self) -> None:
        """Wait until the pooler has ended, in good order."""
        with trio.fail_after(10):
            await self._ended.wait()
        assert self.code == 0
        assert self._book.entries[-1]["event"] == "stopped"
        assert [entry for entry in self._book.entries if entry["level"] == "error"] == []

    async def stop(self) -> None:
        """End it at once."""
        end_at_once()
        await self.wait_ended()

    async def client(self, **options: str) -> TrioClient:
        """A client that is logged in."""
        return await TrioClient.connect(self.port, **options)
