"""What a pooler tells a service manager, from its start to its end, and that its watchdog proves something."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from hyperpool.config import load
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.service import herald
from hyperpool.service.run import Pooler
from hyperpool.service.systemd import Notifier, ServiceManager
from hyperpool.service.watchdog import Heartbeat
from tests.support.network import free_port
from tests.support.notified import NotifySocket
from tests.support.service import Service
from tests.support.triopostgres import TrioPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.logbook import LogBook
    from tests.support.service import Document


@pytest.fixture
def notify(book: LogBook) -> Iterator[NotifySocket]:
    """Who is told."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as directory, NotifySocket(Path(directory)) as found:
        yield found


class Watched(Service):
    """A pooler that a service manager has started.

    Attributes:
        notify: whom it tells.
    """

    notify: NotifySocket

    async def start(self, document: Document | None = None, **pooler: object) -> None:
        """Start, and wait until it listens."""
        self.write(document or self.document(**pooler))
        notifier = Notifier(ServiceManager(self.notify.address, 0.3, 4))
        self.pooler = Pooler(load(self.path, {}), self.path, notifier=notifier)
        self._nursery.start_soon(self._run)
        await self._book.wait_for("listening")
        self._notifier = notifier

    async def stop(self) -> None:
        """End it at once."""
        await super().stop()
        self._notifier.close()

    async def wait_told(self, *assignments: str) -> None:
        """Wait until something has been told."""
        with trio.fail_after(10):
            while not self.notify.has(*assignments):  # noqa: ASYNC110 - a socket beside Trio
                await trio.sleep(0.005)


@pytest.fixture
async def service(nursery: trio.Nursery, notify: NotifySocket, book: LogBook, tmp_path: Path) -> Watched:
    """A pooler that is not started yet."""
    found = Watched(nursery, book, await TrioPostgres.start(nursery), tmp_path / "pooler.yaml")
    found.notify = notify
    return found


async def test_ready_without_warm_pools(service: Watched, book: LogBook) -> None:
    """At once; then it tells what there is, proves that it lives, and has its sockets kept."""
    await service.start()
    await service.wait_told("READY=1")
    assert book.count("ready") == 1
    client = await service.client()
    assert await client.ask("SELECT 1") == "SELECT 1"
    await service.wait_told("STATUS=Serving: 1 client, 1 server")
    await service.wait_told("WATCHDOG=1")
    assert service.notify.has("FDSTORE=1", "FDNAME=stored-clients")
    await client.close()
    await service.stop()
    assert service.notify.has("STOPPING=1")


async def test_ready_when_pools_are_filled(service: Watched, book: LogBook) -> None:
    """Not before the last of their servers can be used."""
    document = service.document()
    document["databases"]["app"] |= {"user": "owner", "min_pool_size": 2, "connect_query": "hold on"}
    await service.start(document)
    await service.server.wait_for_query("hold on")
    await service.wait_told("STATUS=Filling pools: app/owner")
    for _ in range(10):
        await trio.sleep(0.01)  # sweeps, each of which could tell too early
        assert not service.notify.has("READY=1")
    with trio.fail_after(10):
        while not service.notify.has("READY=1"):
            service.server.release()
            await trio.sleep(0.01)
    told = [
        one for message in service.notify.read() for one in message if one.startswith(("STATUS", "READY"))
    ]
    assert told[: told.index("READY=1")][-1] == "STATUS=Serving: 0 clients, 2 servers"
    assert service.server.sessions == ["owner"] * 2
    assert book.count("ready without the servers of a pool") == 0
    await service.stop()


async def test_ready_when_it_is_known_why_pools_are_empty(service: Watched, book: LogBook) -> None:
    """A server that is down keeps nobody else from being served, and the log says which."""
    document = service.document()
    document["databases"]["lost"] = {
        "host": "127.0.0.1",
        "port": free_port(),
        "user": "owner",
        "password": "x",
        "min_pool_size": 1,
    }
    await service.start(document)
    entry = await book.wait_for("ready without the servers of a pool")
    assert entry["pool"] == "lost/owner"
    assert "refused" in entry["error"]
    await service.wait_told("READY=1")
    await service.stop()


async def test_ready_when_a_login_has_no_end(
    service: Watched, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while."""
    monkeypatch.setattr(herald, "_PATIENCE", 0.2)
    document = service.document()
    document["databases"]["app"] |= {"user": "owner", "min_pool_size": 1, "connect_query": "hold on"}
    await service.start(document)
    entry = await book.wait_for("ready without the servers of a pool")
    assert (entry["pool"], entry["error"]) == ("app/owner", "still connecting")
    await service.wait_told("READY=1")
    service.server.release()
    await service.stop()


async def test_a_reload_is_told(service: Watched, book: LogBook) -> None:
    """From its begin to its end, also when nothing comes of it."""
    await service.start()
    await service.wait_told("READY=1")
    for event in ("reloaded", "reload: settings are unchanged"):
        del service.notify.told[:]
        signal.raise_signal(signal.SIGHUP)
        await book.wait_for(event)
        told = [line.partition("=")[0] for message in service.notify.read() for line in message]
        wanted = [name for name in told if name in {"RELOADING", "MONOTONIC_USEC", "READY"}]
        assert wanted == ["RELOADING", "MONOTONIC_USEC", "READY"]
        service.path.write_text("pooler: {pool_mode: none}\n")
    book.entries[:] = [entry for entry in book.entries if entry["level"] != "error"]
    await service.stop()


async def test_a_drain_is_told(service: Watched) -> None:
    """With what is left, and with the time that it may take."""
    await service.start(drain_timeout=100)
    client = await service.client()
    signal.raise_signal(signal.SIGTERM)
    await service.wait_told("STOPPING=1", "EXTEND_TIMEOUT_USEC=100000000")
    await service.wait_told("STATUS=Draining: 1 client left, for up to")
    await service.wait_told("WATCHDOG=1")
    await client.close()
    await service.wait_ended()
    service._notifier.close()


async def test_the_watchdog_needs_a_relay_that_turns(book: LogBook) -> None:
    """Trio alone is no proof."""
    relay = Relay(RelayOptions(linger=0.0, slice=1.0), ParameterTracker())
    heartbeat = Heartbeat(relay)
    relay.welcome(heartbeat)
    beats: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.run, 0.003, lambda: beats.append(1))
        for _ in range(20):
            await trio.sleep(0.001)
        assert beats == []
        nursery.start_soon(relay.run)
        with trio.fail_after(10):
            while len(beats) < 3:  # noqa: ASYNC110 - as above
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    relay.close()
