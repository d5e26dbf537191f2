"""The warmer: it opens what a pool is missing, tells what it could not open, and holds on to nothing."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from hyperpool.config import DatabaseSettings, Secret, Settings, SslMode
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.state import Pool
from hyperpool.pool.warmer import Warmer
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.checkpoints import cancel_everywhere
from tests.support.memorynet import ClientEnd, FakeSocket, MemoryNetwork, PeerEnd, dial_context

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from trio.testing import MockClock

    from hyperpool.pool.handover import AnyPool

    Arrival = ServerReady | ServerFailed
    Arrivals = trio.MemoryReceiveChannel[Arrival]

OPTIONS = TcpOptions(keepidle=5)
CONTEXT = dial_context(OPTIONS)
NOW = 1000.0
WELCOME = (
    messages.authentication_ok()
    + messages.parameter_status("TimeZone", "UTC")
    + messages.backend_key_data(4711, b"s3cr")
    + messages.ready_for_query()
)


class Attention:
    """Counts how many logins are under way."""

    def __init__(self) -> None:
        self.level = 0
        self.times = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Pay attention."""
        self.level += 1
        self.times += 1
        try:
            yield
        finally:
            self.level -= 1


def endpoint(stream: trio.abc.Stream) -> socket.socket:
    """What the network's streams become."""
    assert isinstance(stream, ClientEnd)
    return cast("socket.socket", stream.detach())


async def welcomes(server: PeerEnd) -> None:
    """A server that lets everybody in."""
    await server.read_packet()
    await server.send(WELCOME)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Monotonic time stands still at its `now`, so that expiry can be told exactly."""
    clock = SimpleNamespace(now=NOW)
    monkeypatch.setattr("hyperpool.pool.warmer.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
async def network(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    """Where server connections lead to."""
    found = MemoryNetwork(nursery, welcomes)
    found.install(monkeypatch)
    return found


@pytest.fixture
def attention() -> Attention:
    """The relay's attention."""
    return Attention()


@pytest.fixture
def warmer(attention: Attention) -> Warmer:
    """A warmer whose chance is always one half."""
    return Warmer(CONTEXT, endpoint, attention, lambda: 0.5)


def make_pool(**changes: Any) -> AnyPool:
    """A pool that wants two server connections, if nothing else is said."""
    database = DatabaseSettings(
        host="db.example",
        user="ann",
        password=Secret("pencil"),
        min_pool_size=2,
        sslmode=SslMode.DISABLE,
    )
    settings = Settings(databases={"app": database}).pool_for("app", "ann")
    assert settings is not None
    pool: AnyPool = Pool(attrs.evolve(settings, **changes), lambda: 0.5)
    pool.kept = True
    return pool


async def run(nursery: trio.Nursery, warmer: Warmer, room: float = 100) -> Arrivals:
    """Run the warmer; returns what it opens."""
    send, receive = trio.open_memory_channel[ServerReady | ServerFailed](room)
    nursery.start_soon(warmer.run, send)
    await wait_all_tasks_blocked()
    return receive


async def arrived(arrivals: Arrivals) -> list[Arrival]:
    """Everything that has been opened, or not, when all is quiet."""
    await wait_all_tasks_blocked()
    found = []
    with contextlib.suppress(trio.WouldBlock):
        while True:
            found.append(arrivals.receive_nowait())
    return found


def sockets_of(arrivals: list[Arrival]) -> set[object]:
    """The sockets that have been handed over."""
    return {one.sock for one in arrivals if isinstance(one, ServerReady)}


async def test_it_opens_what_is_missing(
    network: MemoryNetwork, warmer: Warmer, attention: Attention, nursery: trio.Nursery
) -> None:
    """Each connection arrives logged in, with all that the relay must know of it."""
    pool = make_pool(min_pool_size=2, server_lifetime=0.0)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    ready = await arrived(arrivals)
    assert len(ready) == len(network.ends) == pool.dialing == 2
    assert [host for host, _, _ in network.dialed] == ["db.example"] * 2
    assert all(options is OPTIONS for _, _, options in network.dialed)
    assert sockets_of(ready) == {end.detached for end in network.ends}
    for one in ready:
        assert isinstance(one, ServerReady)
        assert one.generation == pool.generation
        assert (one.pool, one.parameters, one.pid, one.secret) == (pool, {"TimeZone": "UTC"}, 4711, b"s3cr")
        assert one.expires == 0.0
        assert (one.address, one.local) == ("192.0.2.1:5432", "192.0.2.2:40000")
    assert (attention.times, attention.level) == (2, 0)
    # What the network of the test does has no hops of its own; both connections are counted, each once.
    assert {kind: times.count for kind, times in pool.stats.hops.items()} == {"login": 2}
    assert pool.stats.hop_failures == {}


async def test_one_demand_is_met_once(network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery) -> None:
    """However often it is repeated before it is met, and while it is met."""
    pool = make_pool(min_pool_size=3)
    for _ in range(5):
        warmer.demand(pool)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    assert len(await arrived(arrivals)) == 3
    warmer.demand(pool)
    assert await arrived(arrivals) == []
    assert pool.dialing == 3


async def test_a_later_demand_is_met_too(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery
) -> None:
    """When the pool has lost what it had."""
    pool = make_pool(min_pool_size=1)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    assert len(await arrived(arrivals)) == 1
    pool.dialing -= 1
    warmer.demand(pool)
    assert len(await arrived(arrivals)) == 1


async def test_a_pool_that_misses_nothing(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery
) -> None:
    """Nothing is opened for it."""
    pool = make_pool(min_pool_size=0)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    assert await arrived(arrivals) == []
    assert network.dialed == []


async def test_demand_from_synchronous_code_never_blocks(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery
) -> None:
    """Also when nobody listens yet, for many pools; none is forgotten."""
    pools = [make_pool(min_pool_size=1) for _ in range(100)]
    for pool in pools:
        warmer.demand(pool)
    arrivals = await run(nursery, warmer)
    assert {one.pool for one in await arrived(arrivals)} == set(pools)


async def test_one_slow_server_keeps_no_other_pool_waiting(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, attention: Attention
) -> None:
    """Connections are opened side by side."""

    async def slow_at_first(server: PeerEnd) -> None:
        if len(network.ends) == 1:
            await trio.sleep_forever()
        await welcomes(server)

    network.script = slow_at_first
    stuck, lively = make_pool(min_pool_size=1), make_pool(min_pool_size=1)
    arrivals = await run(nursery, warmer)
    warmer.demand(stuck)
    await wait_all_tasks_blocked()
    warmer.demand(lively)
    assert [one.pool for one in await arrived(arrivals)] == [lively]
    assert attention.level == 1


async def test_a_refusal_is_reported(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, attention: Attention
) -> None:
    """With the server's own words; nothing is left open."""
    refusal = messages.error_response("sorry, too many clients already", "53300")

    async def refuses(server: PeerEnd) -> None:
        await server.read_packet()
        await server.send(refusal)

    network.script = refuses
    pool = make_pool(min_pool_size=1)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    (failed,) = await arrived(arrivals)
    assert isinstance(failed, ServerFailed)
    assert isinstance(failed.error, LoginFailed)
    assert (pool.stats.hops, pool.stats.hop_failures) == ({}, {"login": pool.stats.hop_failures["login"]})
    assert pool.stats.hop_failures["login"] >= 1
    assert (failed.pool, failed.error.sqlstate, failed.error.response) == (pool, "53300", refusal)
    assert network.held == []
    assert attention.level == 0


UNSUPPORTED = messages.error_response(
    "unsupported frontend protocol 3.2: server supports 1.0 to 3.0", "0A000"
)


async def test_an_old_server_is_remembered(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, clock: SimpleNamespace
) -> None:
    """By its address, for all pools, and for an hour: it may be replaced by a newer one."""
    asked = []

    async def old(server: PeerEnd) -> None:
        version = (await server.read_packet())[4:8]
        asked.append(version[3])
        await server.send(UNSUPPORTED if version[3] else WELCOME)

    network.script = old
    arrivals = await run(nursery, warmer)

    async def open_for(pool: AnyPool) -> list[int]:
        asked.clear()
        warmer.demand(pool)
        assert all(isinstance(one, ServerReady) for one in await arrived(arrivals))
        return asked

    with capture_logs() as logs:
        assert await open_for(make_pool(min_pool_size=1)) == [2, 0]
        assert await open_for(make_pool(min_pool_size=1)) == [0]
        assert await open_for(make_pool(min_pool_size=1, user="bob", password=None)) == [0]
        assert await open_for(make_pool(min_pool_size=1, port=5433)) == [2, 0]
        clock.now += 3599.0
        assert await open_for(make_pool(min_pool_size=1)) == [0]
        clock.now += 1.0
        assert await open_for(make_pool(min_pool_size=1)) == [2, 0]
    assert [(entry["event"], entry["port"]) for entry in logs] == [
        ("server speaks protocol 3.0 alone", port) for port in (5432, 5433, 5432)
    ]


async def test_a_server_that_refuses_every_version_is_not_remembered(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery
) -> None:
    """What it meant was something else."""
    asked = []

    async def refuses(server: PeerEnd) -> None:
        asked.append((await server.read_packet())[7])
        await server.send(messages.error_response("no such database: app", "08P01"))

    network.script = refuses
    arrivals = await run(nursery, warmer)
    for _ in range(2):
        warmer.demand(make_pool(min_pool_size=1))
        (failed,) = await arrived(arrivals)
        assert isinstance(failed, ServerFailed)
        assert str(failed.error) == "no such database: app"
    assert asked == [2, 0, 2, 0]


async def test_a_timeout_is_reported(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """After ``server_connect_timeout``."""

    async def deaf(server: PeerEnd) -> None:
        await trio.sleep_forever()

    network.script = deaf
    arrivals = await run(nursery, warmer)
    warmer.demand(make_pool(min_pool_size=1, server_connect_timeout=7.0))
    failed = await arrivals.receive()
    assert isinstance(failed, ServerFailed)
    assert isinstance(failed.error, ConnectFailed)
    assert trio.current_time() == pytest.approx(7.0)


async def test_what_is_void_is_given_up(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, attention: Attention
) -> None:
    """At once, and told; it counts until then, and is no failure. The next ones are those of the new generation."""

    async def deaf_at_first(server: PeerEnd) -> None:
        if len(network.ends) <= 2:
            await trio.sleep_forever()
        await welcomes(server)

    network.script = deaf_at_first
    pool = make_pool(min_pool_size=2, pool_size=2)
    arrivals = await run(nursery, warmer)
    warmer.demand(pool)
    await wait_all_tasks_blocked()
    pool.renew()
    warmer.demand(pool)
    voided = await arrived(arrivals)
    assert network.held == []
    assert attention.level == 0
    assert len(voided) == len(network.ends) == 2
    assert all(isinstance(one, ServerFailed) and not pool.arrived(one.generation) for one in voided)
    assert pool.stats.hop_failures == {}
    warmer.demand(pool)
    ready = await arrived(arrivals)
    assert len(ready) == pool.dialing == 2
    assert all(isinstance(one, ServerReady) and pool.arrived(one.generation) for one in ready)
    assert pool.attempts == set()


async def test_what_is_void_before_it_has_begun(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery
) -> None:
    """It belongs to the generation that it was wanted in, whichever task has its turn first."""
    pool = make_pool(min_pool_size=1)

    async def renew() -> None:
        pool.renew()
        await trio.lowlevel.checkpoint()

    class Renewing:
        def take(self, pool: AnyPool, missing: int, now: float) -> int:
            del pool, now
            nursery.start_soon(renew)
            return missing

    warmer.permits = Renewing()
    arrivals = await run(nursery, warmer)
    for _ in range(20):
        warmer.demand(pool)
        for one in await arrived(arrivals):
            pool.arrived(one.generation)
        assert (pool.dialing, pool.void) == (0, 0)


async def test_a_mistake_of_our_own_is_reported_and_logged(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs that connection, neither the warmer nor the pool's count; its cause is in the log."""

    async def broken(*arguments: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError("oops")

    working = network.open
    monkeypatch.setattr(network, "open", broken)
    network.install(monkeypatch)
    pool = make_pool(min_pool_size=1)
    arrivals = await run(nursery, warmer)
    with capture_logs() as logs:
        warmer.demand(pool)
        (failed,) = await arrived(arrivals)
    assert isinstance(failed, ServerFailed)
    assert isinstance(failed.error, ConnectFailed)
    assert str(failed.error) == "internal error: ZeroDivisionError"
    assert [(entry["log_level"], entry["pool"], str(entry["exc_info"])) for entry in logs] == [
        ("error", "app/ann", "oops")
    ]
    monkeypatch.setattr(network, "open", working)
    network.install(monkeypatch)
    pool.dialing -= 1
    warmer.demand(pool)
    assert isinstance((await arrived(arrivals))[0], ServerReady)


async def test_a_connection_that_cannot_be_handed_over_costs_itself_alone(
    network: MemoryNetwork, nursery: trio.Nursery
) -> None:
    """The warmer goes on, and the pool is told."""

    def broken(stream: trio.abc.Stream) -> socket.socket:
        raise ZeroDivisionError("oops")

    warmer = Warmer(CONTEXT, broken, Attention(), lambda: 0.5)
    arrivals = await run(nursery, warmer)
    for _ in range(2):
        pool = make_pool(min_pool_size=1)
        warmer.demand(pool)
        (failed,) = await arrived(arrivals)
        assert isinstance(failed, ServerFailed)
        assert failed.pool is pool


@pytest.mark.parametrize(("chance", "lifetime"), [(0.0, 3600.0), (0.5, 3420.0), (0.999, 3240.36)])
async def test_lifetime_has_jitter(
    network: MemoryNetwork, nursery: trio.Nursery, chance: float, lifetime: float
) -> None:
    """Up to a tenth is taken off, so that connections opened together do not end together."""
    warmer = Warmer(CONTEXT, endpoint, Attention(), lambda: chance)
    arrivals = await run(nursery, warmer)
    warmer.demand(make_pool(min_pool_size=1, server_lifetime=3600.0))
    (ready,) = await arrived(arrivals)
    assert isinstance(ready, ServerReady)
    assert ready.expires == pytest.approx(NOW + lifetime)


async def test_new_options_are_used(network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery) -> None:
    """From the next connection on."""
    arrivals = await run(nursery, warmer)
    warmer.context = dial_context(TcpOptions(keepidle=99))
    warmer.demand(make_pool(min_pool_size=1))
    await arrived(arrivals)
    assert [options.keepidle for _, _, options in network.dialed] == [99]


async def test_it_waits_for_a_relay_that_is_busy(
    network: MemoryNetwork, warmer: Warmer, nursery: trio.Nursery, attention: Attention
) -> None:
    """A full channel is backpressure; meanwhile no login is under way."""
    arrivals = await run(nursery, warmer, room=0)
    warmer.demand(make_pool(min_pool_size=2))
    await wait_all_tasks_blocked()
    assert attention.level == 0
    assert len([await arrivals.receive(), await arrivals.receive()]) == 2


async def test_cancelled_anywhere_it_holds_nothing(network: MemoryNetwork, attention: Attention) -> None:
    """What has not been taken over is closed, whether it was being opened, or waited to be taken."""
    taken: list[Arrival] = []

    async def one_run() -> None:
        warmer = Warmer(CONTEXT, endpoint, attention, lambda: 0.5)
        send, receive = trio.open_memory_channel[ServerReady | ServerFailed](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(warmer.run, send)
            warmer.demand(make_pool(min_pool_size=2))
            taken.append(await receive.receive())
            taken.append(await receive.receive())
            nursery.cancel_scope.cancel()

    def is_released() -> bool:
        return {end.detached for end in network.held} <= sockets_of(taken) and attention.level == 0

    async def checked_run() -> None:
        assert is_released()
        await one_run()

    assert await cancel_everywhere(checked_run) >= 10
    assert is_released()


async def test_a_relay_that_is_gone(network: MemoryNetwork, warmer: Warmer) -> None:
    """A connection that nobody can take any more is closed."""
    send, receive = trio.open_memory_channel[ServerReady | ServerFailed](0)
    receive.close()
    warmer.demand(make_pool(min_pool_size=1))
    with pytest.RaisesGroup(trio.BrokenResourceError):
        await warmer.run(send)
    (end,) = network.ends
    assert isinstance(end.detached, FakeSocket)
    assert end.detached.closed
