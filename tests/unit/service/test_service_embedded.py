"""Embedded databases in the pooler's life cycle."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, ClassVar

import pytest
import structlog
import trio
import trio.testing

from hyperpool.config import AuthType, DatabaseSettings, PoolerSettings, Secret, Settings, UserSettings
from hyperpool.errors import StartupError
from hyperpool.service import embedded as embedded_module
from hyperpool.service.run import Pooler
from tests.support.service import Service, end_at_once

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.logbook import LogBook


class FakeEmbedded:
    """Stands in for an embedded PostgreSQL.

    Attributes:
        events: what has happened to all of them.
        outcome: how `start` ends: "ready", "never" or "failed".
        target: where the server listens.
    """

    events: ClassVar[list[str]] = []
    outcome: ClassVar[str] = "ready"
    target: ClassVar[int] = 0

    def __init__(self, name: str, *, user: str, password: Secret, dbname: str, state_dir: Path) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.port = self.target
        self.psql_path = self.pgbench_path = state_dir / "bin"
        self.events.append(f"new {name} {user} {password.reveal()} {dbname}")

    async def start(self) -> None:
        """Start, or not."""
        self.events.append("start")
        if self.outcome == "never":
            structlog.get_logger("test").info("starting")
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.outcome == "failed":
            raise StartupError("the embedded database does not start")

    async def keep_running(self) -> None:
        """Nothing ever goes wrong."""
        await trio.sleep_forever()

    async def stop(self) -> None:
        """Stop."""
        await trio.lowlevel.checkpoint()
        self.events.append("stop")


@pytest.fixture
def embedded(service: Service, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with an embedded database, that is the test's server in truth."""
    monkeypatch.setattr(embedded_module, "EmbeddedPostgres", FakeEmbedded)
    monkeypatch.setattr(FakeEmbedded, "events", [])
    monkeypatch.setattr(FakeEmbedded, "target", service.server.port)
    database = DatabaseSettings(embedded=True, user="demo", password=Secret("pencil"), host="none", port=1)
    return Settings(
        pooler=PoolerSettings(listen_addr=("127.0.0.1",), listen_port=service.port, auth_type=AuthType.TRUST),
        databases={"demo": database},
        users={"ann": UserSettings()},
    )


async def test_an_embedded_database(
    service: Service, embedded: Settings, book: LogBook, nursery: trio.Nursery
) -> None:
    """It is started before clients are let in, is where they get to, and is stopped last."""
    nursery.start_soon(Pooler(embedded, service.path).run)
    entry = await book.wait_for("embedded database is served")
    assert entry["connect"] == f"psql postgres://demo@127.0.0.1:{service.port}/demo"
    client = await service.client(database="demo")
    assert await client.ask("SELECT 1") == "SELECT 1"
    assert service.server.sessions == ["demo"]
    assert FakeEmbedded.events == ["new demo demo pencil demo", "start"]
    await client.close()
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("stopped")
    assert FakeEmbedded.events[2:] == ["stop"]


async def test_a_signal_while_an_embedded_database_stops(
    service: Service, embedded: Settings, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing left to ask for: it does not end the process by itself afterwards."""

    async def stop(self: FakeEmbedded) -> None:
        end_at_once()
        await trio.lowlevel.checkpoint()
        self.events.append("stop")

    monkeypatch.setattr(FakeEmbedded, "stop", stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Pooler(embedded, service.path).run)
        await book.wait_for("listening")
        signal.raise_signal(signal.SIGINT)
    assert FakeEmbedded.events[1:] == ["start", "stop"]
    assert book.entries[-1]["event"] == "stopped"


async def test_a_signal_while_an_embedded_database_starts(
    service: Service, embedded: Settings, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the start; a reload has nothing to do yet. What has been started is stopped."""
    monkeypatch.setattr(FakeEmbedded, "outcome", "never")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Pooler(embedded, service.path).run)
        await book.wait_for("starting")
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        assert FakeEmbedded.events[1:] == ["start"]
        signal.raise_signal(signal.SIGINT)
    assert FakeEmbedded.events[1:] == ["start", "stop"]
    assert book.entries[-1]["event"] == "stopped"


async def test_an_embedded_database_that_does_not_start(
    service: Service, embedded: Settings, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is why the pooler does not start; what there is of it is stopped, and nobody listens any more."""
    monkeypatch.setattr(FakeEmbedded, "outcome", "failed")
    with pytest.raises(StartupError, match="the embedded database does not start"):
        await Pooler(embedded, service.path).run()
    assert FakeEmbedded.events[1:] == ["start", "stop"]
