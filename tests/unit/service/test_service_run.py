"""The whole pooler within the test's own Trio run: life cycle, signals, and that it leaves nothing behind."""

from __future__ import annotations

import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import structlog
import trio
import trio.testing
import yaml

from hyperpool.config import AuthType, DatabaseSettings, PoolerSettings, Secret, Settings, UserSettings, load
from hyperpool.errors import StartupError
from hyperpool.relay.loop import Relay
from hyperpool.service import run as run_module
from hyperpool.service.run import Pooler, serve
from hyperpool.stats import PoolStats
from hyperpool.wire import messages
from tests.support.checkpoints import no_descriptor_left
from tests.support.logbook import LogBook
from tests.support.network import free_port
from tests.support.triopostgres import TrioClient, TrioPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

Document = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogBook]:
    """The pooler's log; it stays the log, whatever the settings say."""
    found = LogBook()
    before = structlog.get_config()
    structlog.configure(processors=[found])
    monkeypatch.setattr(run_module, "configure_logging", lambda settings: None)
    yield found
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def _stray_signals() -> Iterator[None]:
    """A signal that no pooler is there for must not end the test run."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError(f"signal {number} while no pooler was running")

    before = {
        number: signal.signal(number, fail) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps ten times as often as in earnest: most tests wait for one."""
    monkeypatch.setattr(run_module, "_SWEEP", 0.01)


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


@pytest.fixture
async def service(nursery: trio.Nursery, book: LogBook, tmp_path: Path) -> Service:
    """A pooler that is not started yet."""
    return Service(nursery, book, await TrioPostgres.start(nursery), tmp_path / "pooler.yaml")


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
    """It configures the log and the limits, runs, and returns the exit code."""
    calls: list[object] = []
    settings = Settings(pooler=PoolerSettings(listen_addr=("127.0.0.1",), listen_port=free_port()))
    monkeypatch.setattr(run_module, "configure_logging", calls.append)
    monkeypatch.setattr(run_module, "raise_open_file_limit", calls.append)

    async def run(pooler: Pooler) -> int:
        calls.append(type(pooler))
        await trio.lowlevel.checkpoint()
        return 42

    monkeypatch.setattr(Pooler, "run", run)
    assert serve(settings, tmp_path / "pooler.yaml") == 42
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

    def stumble(relay: Relay, pools: object) -> None:
        raise ZeroDivisionError("oops")

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
        monkeypatch.setattr(Relay, "maintain", stumble)
        assert await client.farewell() == "57P01"
    assert [str(error) for error in caught] == ["oops"]


# -- embedded databases --------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(run_module, "EmbeddedPostgres", FakeEmbedded)
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


# -- reload --------------------------------------------------------------------------------------------------------


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
    assert await refused.farewell() == "53300"
    assert await client.ask("SELECT 1") == "SELECT 1"
    await client.close()
    await service.stop()


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
    assert service.pooler._warmer.options.keepidle == 77
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
    since = PoolStats.since

    def watched(total: PoolStats, earlier: PoolStats) -> PoolStats:
        periods.set()
        return since(total, earlier)

    monkeypatch.setattr(PoolStats, "since", watched)
    for _ in range(2):
        periods = trio.Event()
        await periods.wait()
    assert book.count("stats") == told
    await service.stop()
