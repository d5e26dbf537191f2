"""Clients are closed gently while a pooler ends."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.service import drain
from hyperpool.wire import messages

if TYPE_CHECKING:
    from tests.support.logbook import LogBook
    from tests.support.service import Service


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_idle_clients_are_closed_at_a_rate(
    service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Those that have been idle for longest first; a transaction goes on to its end, and then it is that one's turn."""
    monkeypatch.setattr(drain, "_REST", 0.0)
    await service.start(drain_rate=20, pool_mode=mode)
    clients = [await service.client() for _ in range(4)]
    for client in clients:
        await client.ask("SELECT 1")
    busy = clients.pop(0)
    assert await busy.ask("BEGIN") == "BEGIN"
    began = trio.current_time()
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("waiting for clients")
    for client in clients:
        assert await client.farewell() == "57P01"
    assert trio.current_time() - began >= 3 / 20 - 0.01
    closed = [entry["id"] for entry in book.entries if entry["event"] == "closing client"]
    assert closed == sorted(closed)
    assert await busy.ask("SELECT 2") == "SELECT 2"
    assert service.code is None
    assert await busy.ask("COMMIT") == "COMMIT"
    assert await busy.farewell() == "57P01"
    await service.wait_ended()
    queries = [query for query in service.server.queries if query != "DISCARD ALL"]
    assert queries[-3:] == ["BEGIN", "SELECT 2", "COMMIT"]


async def test_busy_clients_stay(service: Service, book: LogBook) -> None:
    """One that has just been answered is about to ask more: it is not closed for the rate."""
    await service.start(drain_rate=1000)
    client = await service.client()
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("waiting for clients")
    end = trio.current_time() + 0.3
    while trio.current_time() < end:
        assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.wait_ended()


async def test_the_time_is_over(service: Service, book: LogBook) -> None:
    """Idle clients are closed in its last part, and at its end a transaction is, too."""
    await service.start(drain_timeout=1)
    idle, busy = await service.client(), await service.client()
    assert await busy.ask("BEGIN") == "BEGIN"
    began = trio.current_time()
    signal.raise_signal(signal.SIGTERM)
    assert await idle.farewell() == "57P01"
    assert trio.current_time() - began >= 0.85
    assert await busy.farewell() == "57P01"
    assert trio.current_time() - began >= 0.95
    entry = await book.wait_for("ending: drain_timeout is over")
    assert entry["left"] == "1 client left, for up to 0 s"
    await service.wait_ended()


async def test_the_time_is_over_for_servers(service: Service, book: LogBook) -> None:
    """The same for SIGINT."""
    await service.start(drain_timeout=0.3)
    busy = await service.client()
    assert await busy.ask("BEGIN") == "BEGIN"
    signal.raise_signal(signal.SIGINT)
    assert await busy.farewell() == "57P01"
    entry = await book.wait_for("ending: drain_timeout is over")
    assert entry["left"] == "1 active server left, for up to 0 s"
    await service.wait_ended()


async def test_a_query_that_has_come_is_answered(service: Service, book: LogBook) -> None:
    """A client whose socket holds a query is not idle, whatever the relay knows of it so far."""
    await service.start()
    client = await service.client()
    (connection,) = service.pooler._relay.clients.values()
    assert drain.is_idle(connection)
    # No checkpoint in between: the relay has no chance to read.
    os.write(client._stream.socket.fileno(), messages.query("SELECT 1"))  # type: ignore[attr-defined]
    assert not drain.is_idle(connection)
    assert (await client.answer())[0][1] == b"SELECT 1\0"
    assert drain.is_idle(connection)
    await client.close()
    await service.stop()


async def test_who_has_connected_may_log_in(service: Service, book: LogBook) -> None:
    """Whoever came before the signal is let in, and waited for; also from the queue of the listening socket."""
    await service.start()
    early = await trio.open_tcp_stream("127.0.0.1", service.port)
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("waiting for clients")
    await early.send_all(messages.startup_message({"user": "ann", "database": "app"}))
    answer = await early.receive_some()
    assert bytes(answer).startswith(b"R")
    await early.aclose()
    await service.wait_ended()


async def test_servers_go_with_the_last_client(service: Service, book: LogBook) -> None:
    """The process that follows needs the room, also where servers are to be kept."""
    document = service.document()
    document["databases"]["app"] |= {"min_pool_size": 2, "user": "owner"}
    document["databases"]["other"] = {**document["databases"]["app"]}
    await service.start(document)
    for _ in range(4):
        await book.wait_for("new connection to server")
    client = await service.client()
    signal.raise_signal(signal.SIGTERM)
    gone = [await book.wait_for("closing server") for _ in range(2)]
    assert {entry["pool"] for entry in gone} == {"other/owner"}
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.wait_ended()


async def test_a_signal_behind_the_consoles_command(service: Service, book: LogBook) -> None:
    """The first one ends nothing that has begun: an orchestrator's signal comes after its hook. The second one does."""
    await service.start()
    client = await service.client()
    service.pooler.shut_down(ShutdownMode.WAIT_FOR_CLIENTS)
    await book.wait_for("waiting for clients")
    signal.raise_signal(signal.SIGTERM)
    assert await client.ask("SELECT 1") == "SELECT 1"
    assert service.code is None
    signal.raise_signal(signal.SIGTERM)
    assert await client.farewell() == "57P01"
    await service.wait_ended()
