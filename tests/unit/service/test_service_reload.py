"""A pooler whose settings change while it runs; cancel requests and statistics on the way."""

from __future__ import annotations

import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from hyperpool.admin.outcomes import ConsoleError
from hyperpool.errors import StartupError
from hyperpool.service import run as run_module
from hyperpool.stats import PoolStats, StatsBook
from hyperpool.wire import messages
from tests.support.certificates import issue
from tests.support.network import free_port
from tests.support.triopostgres import TrioClient, TrioPostgres

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config import PoolerSettings
    from tests.support.logbook import LogBook
    from tests.support.service import Service


async def test_a_reload(service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """New settings hold for those who come; what needs a restart is said."""
    configured: list[PoolerSettings] = []
    monkeypatch.setattr(run_module, "configure_logging", configured.append)
    await service.start()
    client = await service.client()
    document = service.document(max_client_conn=1, listen_backlog=5, log_level="debug")
    service.write(document)
    signal.raise_signal(signal.SIGHUP)
    assert (await book.wait_for("reload: this setting"))["setting"] == "pooler.listen_backlog"
    assert (await book.wait_for("reloaded"))["config"] == str(service.path)
    assert [settings.log_level for settings in configured] == ["debug"]
    refused = TrioClient(await trio.open_tcp_stream("127.0.0.1", service.port))
    await refused.send(messages.startup_message({"user": "ann"}))
    assert await refused.farewell() == "08P01"
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.stop()


async def test_a_reload_back_to_what_runs(service: Service, book: LogBook) -> None:
    """What needs a restart is compared with what runs, not with the last reload."""
    await service.start()
    for document, warnings in (
        (service.document(listen_backlog=5), 1),
        (service.document(listen_backlog=5), 2),
        (service.document(), 2),
    ):
        service.write(document)
        signal.raise_signal(signal.SIGHUP)
        await book.wait_for("reloaded")
        assert book.count("reload: this setting needs a restart") == warnings
    await service.stop()


async def test_files_that_are_gone(service: Service, book: LogBook, tmp_path: Path) -> None:
    """A setting that is changed by hand is not taken over with a certificate that cannot be read; all goes on."""
    files = issue(tmp_path / "tls", "localhost")
    agents = {
        "listen_port": free_port(),
        "tls_cert_file": str(files.cert),
        "tls_key_file": str(files.key),
        "tokens": {"site": {"id": "site.access", "secret": "0123456789abcdef"}},
    }
    await service.start({**service.document(), "agents": agents})  # it listens for agents first
    await book.wait_for("listening")
    files.cert.unlink()
    with pytest.raises(ConsoleError) as caught:
        service.pooler.set("max_client_conn", "7")
    assert "agents.tls_cert_file" in caught.value.detail
    client = await service.client()
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.stop()


async def test_a_reload_that_fails_late(
    service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log file that cannot be opened: nothing has changed, who may come from private networks included."""

    def agents(secret: str) -> dict[str, object]:
        return {"listen_port": port, "tokens": {"site": {"id": "site.access", "secret": secret}}}

    def fail(settings: PoolerSettings) -> None:
        raise StartupError("cannot write to the log file")

    port = free_port()
    await service.start({**service.document(), "agents": agents("0123456789abcdef")})
    await book.wait_for("listening")
    reception = service.pooler._reception
    assert reception is not None
    before = reception._settings
    monkeypatch.setattr(run_module, "configure_logging", fail)
    await service.reload({**service.document(), "agents": agents("fedcba9876543210")})
    assert service.pooler.reload() == ["cannot write to the log file"]
    assert reception._settings is before
    monkeypatch.setattr(run_module, "configure_logging", lambda settings: None)
    assert service.pooler.reload() == []
    assert reception._settings is not before
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("stopped")


async def test_a_reload_reaches_every_part(service: Service) -> None:
    """The relay, its servers, the listeners and the warmer."""
    await service.start()
    client = await service.client()
    assert await client.ask("SELECT 1") == "SELECT 1"
    await service.reload(
        service.document(max_packet_size=100, server_reset_query_always=True, tcp_keepidle="77s")
    )
    for number in (2, 3):
        assert await client.ask(f"SELECT {number}") == f"SELECT {number}"
    asked = service.server.queries
    assert "DISCARD ALL" in asked[asked.index("SELECT 2") : asked.index("SELECT 3")]
    (listener,) = service.pooler._listeners
    assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    assert service.pooler._warmer.context.options.keepidle == 77
    await client.send(messages.query("x" * 100))
    assert await client.farewell() == "08P01"
    await service.stop()


async def test_a_reload_of_a_bad_file(service: Service, book: LogBook) -> None:
    """Every problem is told, and nothing changes."""
    await service.start(max_client_conn=1)
    bad = service.document(max_client_conn="many", pool_mode="sometimes")
    service.write(bad)
    signal.raise_signal(signal.SIGHUP)
    problems = {
        (await book.wait_for("reload: settings are unchanged"))["problem"].split(":")[0] for _ in range(2)
    }
    assert problems == {"pooler.max_client_conn", "pooler.pool_mode"}
    service.path.unlink()
    signal.raise_signal(signal.SIGHUP)
    await book.wait_for("reload: settings are unchanged")
    client = await service.client()
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    signal.raise_signal(signal.SIGTERM)
    await book.wait_for("stopped")


async def test_a_reload_with_another_server(service: Service, book: LogBook, nursery: trio.Nursery) -> None:
    """Queries that come go to the new one, when the transaction under way is over."""
    other = await TrioPostgres.start(nursery)
    await service.start()
    client = await service.client()
    assert await client.ask("BEGIN") == "BEGIN"
    document = service.document()
    document["databases"]["app"]["port"] = other.port
    await service.reload(document)
    assert await client.ask("COMMIT") == "COMMIT"
    assert await client.ask("SELECT 1") == "SELECT 1"
    assert (service.server.queries, other.queries) == (["BEGIN", "COMMIT"], ["SELECT 1"])
    await client.close()
    await service.stop()


async def test_a_cancel_request_goes_to_the_server_that_runs_the_query(
    service: Service, nursery: trio.Nursery
) -> None:
    """Also when a reload has given the pool another server meanwhile."""
    other = await TrioPostgres.start(nursery)
    await service.start()
    client = await service.client()
    await client.send(messages.query("hold"))
    await service.server.wait_for_query("hold")
    await client.cancel(service.port)
    assert service.server.cancels == [1]
    document = service.document()
    document["databases"]["app"]["port"] = other.port
    await service.reload(document)
    await client.cancel(service.port)
    assert (service.server.cancels, other.cancels) == ([1, 1], [])
    service.server.release()
    await client.answer()
    await client.close()
    await service.stop()


async def test_a_cancel_request_over_a_unix_socket(service: Service, nursery: trio.Nursery) -> None:
    """It goes the way that the connection went, not by the path that the server knows of its socket."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as directory:
        there, here = Path(directory) / "there", Path(directory) / "here"
        there.mkdir()
        service.server = await TrioPostgres.start(nursery, there)
        there.rename(here)
        document = service.document()
        document["databases"]["app"]["host"] = str(here)
        await service.start(document)
        client = await service.client()
        await client.send(messages.query("hold"))
        await service.server.wait_for_query("hold")
        await client.cancel(service.port)
        assert service.server.cancels == [1]
        service.server.release()
        await client.answer()
        await client.close()
        await service.stop()


# -- statistics ----------------------------------------------------------------------------------------------------


async def test_statistics(service: Service, book: LogBook) -> None:
    """Each ``stats_period``, what has been done in it."""
    await service.start(stats_period=0.05)
    client = await service.client()
    for _ in range(10):
        await client.ask("SELECT 1")
    entry = await book.wait_for("stats")
    while not entry["queries_per_s"]:
        entry = await book.wait_for("stats")
    assert entry["queries_per_s"] == entry["xacts_per_s"] <= 10 / 0.05
    assert entry["client_bytes_per_s"] > 0
    assert entry["server_bytes_per_s"] > 0
    assert entry["clients"] == 1
    while entry["queries_per_s"]:
        entry = await book.wait_for("stats")
    await client.close()
    await service.stop()


async def test_statistics_of_a_database_that_is_removed(service: Service, book: LogBook) -> None:
    """What it has done is not undone."""
    document = service.document(stats_period=0.05)
    document["databases"]["kept"] = document["databases"]["app"]
    await service.start(document)
    client = await service.client()
    for _ in range(10):
        await client.ask("SELECT 1")
    while not (await book.wait_for("stats"))["queries_per_s"]:
        pass
    without = {**document, "databases": {"kept": document["databases"]["kept"]}}
    await service.reload(without)
    assert (await book.wait_for("stats"))["queries_per_s"] >= 0
    assert await client.farewell() == "57P01"
    await service.stop()


async def test_statistics_that_are_switched_on_and_off(
    service: Service, book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a reload; which is no reason for a report by itself."""
    await service.start(stats_period=0)
    await service.reload(service.document(stats_period=0))
    await trio.testing.wait_all_tasks_blocked()
    assert book.count("stats") == 0
    await service.reload(service.document(stats_period=0.02))
    await book.wait_for("stats")
    await service.reload(service.document(stats_period=0.02, log_stats=False))
    told = book.count("stats")
    periods = trio.Event()
    turn = StatsBook.turn

    def watched(turning: StatsBook, totals: Mapping[str, PoolStats], now: float) -> PoolStats:
        periods.set()
        return turn(turning, totals, now)

    monkeypatch.setattr(StatsBook, "turn", watched)
    for _ in range(2):
        periods = trio.Event()
        await periods.wait()
    assert book.count("stats") == told
    await service.stop()


async def test_settings_of_authentication_that_the_console_sets(
    service: Service, book: LogBook, tmp_path: Path
) -> None:
    """The files that they name are read; what is wrong with them changes nothing; a password is not logged."""
    rules = tmp_path / "hba.conf"
    rules.write_text("host all all all trust\n")
    await service.start()
    pooler = service.pooler
    pooler.set("auth_hba_file", str(rules))
    pooler.set("auth_type", "hba")
    client = await service.client()
    await client.close()
    rules.write_text("nonsense\n")
    with pytest.raises(ConsoleError) as caught:
        pooler.set("auth_hba_file", str(rules))
    assert "line 1: expected local, host" in caught.value.detail
    client = await service.client()
    await client.close()
    rules.write_text("host all all all trust\n")
    pooler.set("AUTH_LDAP_OPTIONS", "ldapbasedn=x ldapbindpasswd=hunter2")
    assert "hunter2" not in str(book.entries)
    await service.stop()
