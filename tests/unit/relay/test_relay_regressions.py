"""Defects that the relay once had: each test fails with its defect."""

from __future__ import annotations

import select
import struct
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hyperpool.config import DatabaseSettings, PoolerSettings, PoolMode, SessionState, Settings
from hyperpool.errors import ConnectFailed
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.pools import Pools
from hyperpool.relay.ledger import FAKE
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.transient import TransientConnection
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame, kinds_of, report
from tests.support.relaypeers import make_pair
from tests.support.relayworld import POOL, WELCOME, World

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection
    from tests.support.relaypeers import SimClient, SimServer


def _stirs(world: World) -> bool:
    """Whether a relay that sleeps in Trio would be woken."""
    return bool(select.select([world.relay._epoll.fileno()], [], [], 0)[0])


def _link(world: World) -> tuple[SimClient, SimServer]:
    """A client inside a request that its server has not read yet."""
    client = world.connect()
    client.pending += pp.parse("rows 1 5 c1q1")
    client.send()
    world.turn()
    world.dial()
    world.turn()
    client.receive()
    client.received.clear()
    (server,) = world.servers
    return client, server


class _Probe(TransientConnection):
    """A connection that tells what is done with it."""

    __slots__ = ("lost_event", "read_event")

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        super().__init__(relay, sock, float("inf"))
        self.read_event = trio.Event()
        self.lost_event = trio.Event()

    def readable(self, mask: int) -> None:
        """The relay reads again."""
        self.read_event.set()

    def flushed(self) -> None:
        """Nothing is ever sent."""

    def timed_out(self) -> None:
        """There is no deadline."""

    def gone(self, reason: str) -> None:
        """The relay has closed it."""
        self.lost_event.set()


async def test_what_a_task_puts_off_wakes_a_relay_that_sleeps(nursery: trio.Nursery) -> None:
    """Reading again, and closing what broke, asked for from outside the relay's turn, without any traffic."""
    relay = Relay(RelayOptions(linger=0.0), ParameterTracker())
    inner, outer = make_pair(small=False)
    with outer:
        probe = _Probe(relay, inner)
        relay.welcome(probe)
        nursery.start_soon(relay.run)
        await wait_all_tasks_blocked()
        assert not probe.read_event.is_set()
        relay.resume(probe)
        with trio.fail_after(5):
            await probe.read_event.wait()
        await wait_all_tasks_blocked()
        relay.doom(probe, OSError(32, "Broken pipe"))
        with trio.fail_after(5):
            await probe.lost_event.wait()
        nursery.cancel_scope.cancel()
    relay.close()


def test_a_long_query_whose_server_is_just_opened_is_read_to_its_end(world: World) -> None:
    """The first part waited for the server; a task of the control plane brings it, and nothing else happens."""
    client = world.connect()
    client.pending += pp.query("rows 1 5 c1q1" + " " * 700)
    client.send()
    world.turn()
    assert not _stirs(world)
    world.dial()
    assert _stirs(world)
    world.turn()
    world.flow(rounds=3)
    assert kinds_of(client.received) == "ZTDCZ"


def test_a_client_with_unread_bytes_behind_its_login_is_read(world: World) -> None:
    """Its login waited for the pool's first server, and its first query came meanwhile."""
    client = world.connect()
    conn = world.relay.clients[client.pid]
    world.turn()
    assert not _stirs(world)
    world.relay.resume(conn)
    assert _stirs(world)


def test_a_connection_that_breaks_outside_the_turn_is_closed(world: World) -> None:
    """Its socket is found broken when a task of the control plane has the relay send something."""
    client = world.connect()
    conn = world.relay.clients[client.pid]
    world.turn()
    world.relay.doom(conn, OSError(32, "Broken pipe"))
    assert not conn.closed
    assert _stirs(world)
    world.turn()
    assert conn.closed


@pytest.mark.parametrize("chunk", [1, 3, 5, 6, 7, 100, 205, 206, 210, 211, 216, 400])
def test_a_faked_answer_stands_right_behind_the_message_before_it(world: World, chunk: int) -> None:
    """However the server's bytes are cut; nothing that an earlier read has left in the buffer goes out."""
    client, server = _link(world)
    server.conn.ledger.entries.clear()
    for entry in (wire.DESCRIBE, wire.PARSE | FAKE, wire.DESCRIBE, wire.SYNC):
        server.conn.ledger.entries.append(entry)
    row_description = frame(b"T", b"\0\1" + b"abc" * 66)
    server.out += row_description + frame(b"n", b"") + WELCOME
    stale = b"of another client " * 100
    while server.push(chunk):
        world.relay.buffer[:] = stale[: len(world.relay.buffer)]
        world.turn()
        client.receive()
    assert bytes(client.received) == row_description + frame(b"1", b"") + frame(b"n", b"") + WELCOME
    assert server.conn in world.pool.idle


@pytest.mark.parametrize("size", [470, 480, 488, 489, 490, 500, 3000])
@pytest.mark.parametrize("chunk", [200, 511, 512, 4000])
def test_a_long_parameter_status_passes(world: World, size: int, chunk: int) -> None:
    """It is as long as the buffer, or longer: it passes, and a server of which nothing is known is not reused."""
    client, server = _link(world)
    server.conn.ledger.request(wire.SYNC)
    status = messages.parameter_status("application_name", "x" * size)
    server.out += frame(b"1", b"") + status + WELCOME
    while server.push(chunk):
        world.turn()
        client.receive()
    assert bytes(client.received) == frame(b"1", b"") + status + WELCOME
    assert server.conn.client is None
    if len(status) > len(world.relay.buffer):
        assert server.conn.closed
    else:
        assert server.conn.closed or server.conn.tracked.values["application_name"] == "x" * size


@pytest.mark.parametrize("size", [450, 480, 500, 3000])
@pytest.mark.parametrize("chunk", [200, 512, 4000])
def test_a_long_fatal_error_passes(world: World, size: int, chunk: int) -> None:
    """The client gets all of it and then the end, whether or not it could be looked into."""
    client, server = _link(world)
    error = report(b"E", "FATAL", "57P01", "x" * size)
    server.out += error
    while server.push(chunk):
        world.turn()
        client.receive()
    server.die()
    world.turn()
    client.receive()
    client.receive()
    assert bytes(client.received[: len(error)]) == error
    assert server.conn.closed
    assert client.eof


def test_answers_of_a_copy_in_doubt_are_for_nobody_else(world: World) -> None:
    """COPY with a bad row, a Sync and a query behind it: the server answers the Sync as well.

    When that answer came alone, it looked like the whole answer of the query behind.
    """
    client = world.connect()
    client.pending += pp.query("copyin c1q1")
    client.send()
    world.turn()
    world.dial()
    (server,) = world.servers
    server.out += frame(b"G", bytes(3))
    server.push()
    world.turn()
    client.pending += pp.copy_data(10) + pp.SYNC + pp.query("rows 1 5 c1q2")
    client.send()
    other = world.connect()
    other.pending += pp.query("rows 1 5 c2q1")
    other.send()
    world.turn()
    answer = frame(b"T", bytes(2)) + frame(b"D", b"\0\1\0\0\0\6<c1q2>") + frame(b"C", b"SELECT 1\0") + WELCOME
    for part in (report(b"E", "ERROR", "22P02", "bad row") + WELCOME, WELCOME, answer):
        server.out += part
        server.push()
        world.turn()
        client.receive()
        other.receive()
    assert kinds_of(client.received) == "ZGEZZTDCZ"
    assert bytes(other.received) == WELCOME
    world.leave(client, "close")
    world.turn()
    assert server.conn.closed


def test_a_session_that_ends_within_a_message_ends_its_server() -> None:
    """Half a CopyData outside of a copy is nothing that the server answers, but it waits for the rest."""
    world = World(attrs.evolve(POOL, pool_size=1, pool_mode=PoolMode.SESSION))
    try:
        client = world.connect()
        client.pending += pp.query("rows 1 5 c1q1")
        world.flow(rounds=3)
        client.pending += b"d" + struct.pack("!i", 5000) + b"zz"
        world.flow(rounds=3)
        (server,) = world.servers
        world.leave(client, "close")
        world.turn()
        assert server.conn.closed
        other = world.connect()
        other.pending += pp.query("rows 1 5 c2q1")
        world.flow(rounds=5)
        assert kinds_of(other.received) == "ZTDCZ"
        world.finish()
    finally:
        world.close()


class TestReload:
    """What was begun before a reload that moves the server is void."""

    @staticmethod
    def _settings(port: int) -> Settings:
        return Settings(
            pooler=PoolerSettings(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP),
            databases={"db": DatabaseSettings(host="db.example", port=port)},
        )

    @pytest.fixture
    def pools(self, world: World) -> Pools[ServerConnection, ClientConnection]:
        """Pools of settings; the world's pool is one of them."""
        pools: Pools[ServerConnection, ClientConnection] = Pools(self._settings(1), lambda: 0.5)
        pool = pools.find("db", "u")
        assert pool is not None
        world.pool = pool
        return pools

    @staticmethod
    def _dial_and_move(world: World, pools: Pools[ServerConnection, ClientConnection]) -> SimClient:
        """A client waits, a dial is under way, and the settings change."""
        client = world.connect()
        client.pending += pp.query("rows 1 5 c1q1")
        client.send()
        world.turn()
        world.pool.dialing = 1
        pools.reload(TestReload._settings(2))
        return client

    def test_a_failure_of_the_past_is_not_reported(
        self, world: World, pools: Pools[ServerConnection, ClientConnection]
    ) -> None:
        """The client goes on to wait for the new server, which is dialed at once."""
        client = self._dial_and_move(world, pools)
        world._wanted.clear()
        assert world.pool.missing(world.clock()) == 1
        world.relay.adopt_failure(ServerFailed(world.pool, 0, ConnectFailed("old news")))
        assert (world.pool.dialing, world.pool.void) == (0, 0)
        assert world.pool.backoff.error is None
        assert world._wanted == {world.pool}
        world.flow(rounds=3)
        assert kinds_of(client.received) == "ZTDCZ"

    def test_a_server_of_the_past_is_closed(
        self, world: World, pools: Pools[ServerConnection, ClientConnection]
    ) -> None:
        """It serves nobody, and does not tell the clients to come what the new one will report."""
        client = self._dial_and_move(world, pools)
        inner, outer = make_pair(small=False)
        with outer:
            ready = ServerReady(inner, world.pool, 0, {"TimeZone": "Nowhere"}, 1, b"secret", 0.0)
            world.relay.adopt_server(ready)
            assert outer.recv(1) == b""
        assert (world.pool.dialing, world.pool.void) == (0, 0)
        assert not world.pool.servers
        assert world.pool.parameters is None
        world.flow(rounds=3)
        assert kinds_of(client.received) == "ZTDCZ"


class TestConnectQuery:
    """`connect_query`."""

    @pytest.fixture
    def world(self) -> Iterator[World]:
        """A pool with a query for each new server."""
        made = World(attrs.evolve(POOL, pool_size=1, connect_query="rows 1 5 x"))
        try:
            yield made
        finally:
            made.close()

    def _ask(self, world: World) -> tuple[SimClient, SimServer]:
        client = world.connect()
        client.pending += pp.query("rows 1 5 c1q1")
        client.send()
        world.turn()
        world.dial()
        (server,) = world.servers
        return client, server

    def test_a_failure_backs_off_and_is_told(self, world: World) -> None:
        """A client that waits is told at once, in the server's words, and no server is opened for a while."""
        client, server = self._ask(world)
        server.out += report(b"E", "ERROR", "42703", 'column "nonsense" does not exist') + WELCOME
        server.push()
        world.turn()
        client.receive()
        assert server.conn.closed
        assert b'column "nonsense" does not exist' in client.received
        assert world.pool.parameters is None
        now = world.clock()
        assert world.pool.backoff.holds(now + 1)
        assert not world.pool.backoff.holds(now + POOL.server_login_retry)

    def test_a_good_one_runs_before_the_first_client(self, world: World) -> None:
        """Until it is answered nobody is served, and its answer is for nobody."""
        client, server = self._ask(world)
        assert list(world.pool.waiting)
        world.flow(rounds=3)
        assert [entry for entry in server.backend.log if entry.startswith("rows")] == [
            "rows 1 5 x",
            "rows 1 5 c1q1",
        ]
        assert world.pool.parameters is not None
        assert kinds_of(client.received) == "ZTDCZ"
        world.finish()
