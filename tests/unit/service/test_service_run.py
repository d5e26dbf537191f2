"""The whole pooler within the test's own Trio run: life cycle, signals, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from hyperpool.config import PoolerSettings, Settings, load
from hyperpool.errors import StartupError
from hyperpool.relay.loop import Relay
from hyperpool.service import run as run_module
from hyperpool.service import start
from hyperpool.service.run import Pooler
from hyperpool.wire import messages
from tests.support.checkpoints import no_descriptor_left
from tests.support.network import free_port
from tests.support.service import Service, end_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.relay.handover import RelayPool
    from tests.support.logbook import LogBook


# -- start and stop ------------------------------------------------------------------------------------------------


async def test_a_short_life(service: Service, book: LogBook) -> None:
    """It says where it listens, serves, ends when asked to, and refuses who comes afterwards."""
    await service.start()
    (entry,) = [entry for entry in book.entries if entry["event"] == "listening"]
    assert entry["addresses"] == f"127.0.0.1:{service.port}"
    client = await service.client()
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    signal.raise_signal(signal.SIGTERM)
    await service.wait_ended()
    with pytest.raises(OSError, match=str(service.port)):
        await trio.open_tcp_stream("127.0.0.1", service.port)
    assert service.server.queries == ["SELECT 1"]


async def test_warm_pools(service: Service, book: LogBook) -> None:
    """They are filled before any client comes."""
    document = service.document()
    document["databases"]["app"] |= {"user": "owner", "min_pool_size": 3}
    await service.start(document)
    for _ in range(3):
        await book.wait_for("new connection to server")
    assert service.server.sessions == ["owner"] * 3
    await service.stop()


async def test_a_port_that_is_taken(service: Service, book: LogBook) -> None:
    """It does not start, and leaves nothing open."""
    settings = Settings(pooler=PoolerSettings(listen_addr=("127.0.0.1",), listen_port=service.port))
    with (
        socket.create_server(("127.0.0.1", service.port)),
        pytest.raises(StartupError, match="already in use"),
    ):
        await Pooler(settings, service.path).run()


def test_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It configures the log and the limits, runs, and returns the exit code.

    The collector of garbage does not look at what was there before any client.
    """
    calls: list[object] = []
    settings = Settings(pooler=PoolerSettings(listen_addr=("127.0.0.1",), listen_port=free_port()))
    monkeypatch.setattr(start, "configure_logging", calls.append)
    monkeypatch.setattr(start, "raise_open_file_limit", calls.append)

    async def run(pooler: Pooler) -> int:
        calls.append(type(pooler))
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
        await trio.lowlevel.checkpoint()
        return 42

    monkeypatch.setattr(Pooler, "run", run)
    try:
        assert start.serve(settings, tmp_path / "pooler.yaml") == 42
    finally:
        gc.unfreeze()
    assert calls == [settings.pooler, settings, Pooler]


# -- ending --------------------------------------------------------------------------------------------------------


async def test_sigint_waits_for_servers(service: Service, book: LogBook) -> None:
    """A transaction may end, no other begins, and then every client is told that it is over."""
    await service.start(default_pool_size=1)
    busy, other = await service.client(), await service.client()
    assert await busy.ask("BEGIN") == "BEGIN"
    signal.raise_signal(signal.SIGINT)
    entry = await book.wait_for("waiting for servers")
    assert entry["active"] == 1
    with pytest.raises(OSError, match=str(service.port)):
        await trio.open_tcp_stream("127.0.0.1", service.port)
    await other.send(messages.query("SELECT 2"))
    assert await busy.ask("SELECT 1") == "SELECT 1"
    assert service.code is None
    assert await busy.ask("COMMIT") == "COMMIT"
    assert [await busy.farewell(), await other.farewell()] == ["57P01", "57P01"]
    await service.wait_ended()
    assert service.server.queries == ["BEGIN", "SELECT 1", "COMMIT"]


async def test_sigterm_waits_for_clients(service: Service, book: LogBook) -> None:
    """They may work as long as they like."""
    await service.start()
    client = await service.client()
    signal.raise_signal(signal.SIGTERM)
    entry = await book.wait_for("waiting for clients")
    assert entry["clients"] == 1
    with pytest.raises(OSError, match=str(service.port)):
        await trio.open_tcp_stream("127.0.0.1", service.port)
    for _ in range(3):
        assert await client.ask("SELECT 1") == "SELECT 1"
    assert service.code is None
    await client.close()
    await service.wait_ended()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_at_once(
    service: Service, book: LogBook, first: signal.Signals, second: signal.Signals
) -> None:
    """Whatever is still running."""
    await service.start()
    client = await service.client()
    await client.send(messages.query("hold"))
    await service.server.wait_for_query("hold")
    signal.raise_signal(first)
    await book.wait_for("waiting for")
    signal.raise_signal(second)
    await service.wait_ended()
    assert await client.farewell() == "57P01"


async def test_a_reload_while_it_ends(service: Service, book: LogBook) -> None:
    """SIGHUP is no second signal: it reloads."""
    await service.start()
    client = await service.client()
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("waiting for clients")
    await service.reload(service.document(max_client_conn=7))
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.wait_ended()


class _AtStep(trio.abc.Instrument):
    """Calls something in a given step of a task's descendants.

    Attributes:
        left: how many steps it is until then.
    """

    def __init__(self, step: int, root: trio.lowlevel.Task, call: Any) -> None:
        self.left = step
        self._root = root
        self._call = call

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        while task.parent_nursery is not None:
            task = task.parent_nursery.parent_task
            if task is self._root:
                self.left -= 1
                if self.left == 0:
                    self._call()
                return


async def test_ended_at_any_moment_it_leaves_nothing(
    service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two signals at any step of its start, while server connections are on their way: no descriptor is left.

    The sweeps are at rest, so that the steps are those of the start.
    """
    monkeypatch.setattr(run_module, "_SWEEP", 1000.0)
    document = service.document()
    document["databases"]["app"] |= {"user": "owner", "min_pool_size": 4}
    service.write(document)
    settings = load(service.path, {})

    for step in range(2, 300):  # in its first step it begins to listen to signals
        opened = book.count("new connection to server")
        async with trio.open_nursery() as nursery:
            instrument = _AtStep(step, trio.lowlevel.current_task(), end_at_once)
            with no_descriptor_left():
                trio.lowlevel.add_instrument(instrument)
                nursery.start_soon(Pooler(settings, service.path).run)
                while instrument.left > 0 and book.count("new connection to server") < opened + 4:
                    await trio.lowlevel.checkpoint()
                trio.lowlevel.remove_instrument(instrument)
                if instrument.left > 0:
                    end_at_once()
                while nursery.child_tasks or service.server.connections:
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()
        if instrument.left > 0:
            break
    assert instrument.left > 0, "it has not come to the end of the start"
    assert step > 20


async def test_a_mistake_in_one_of_its_tasks(
    service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the pooler with an error; clients are told, and nothing is left open."""

    class Stumbling(Relay):
        stumbles = False  # set when a client is there

        def maintain(self, pools: Iterator[RelayPool]) -> None:
            if self.stumbles:
                raise ZeroDivisionError("oops")
            super().maintain(pools)

    monkeypatch.setattr(run_module, "Relay", Stumbling)
    async with trio.open_nursery() as watched:
        caught: list[BaseException] = []

        async def run() -> None:
            try:
                await Pooler(load(service.path, {}), service.path).run()
            except* ZeroDivisionError as group:
                caught.extend(group.exceptions)

        service.write(service.document())
        watched.start_soon(run)
        await book.wait_for("listening")
        client = await service.client()
        assert await client.ask("SELECT 1") == "SELECT 1"
        Stumbling.stumbles = True
        assert await client.farewell() == "57P01"
    assert [str(error) for error in caught] == ["oops"]
