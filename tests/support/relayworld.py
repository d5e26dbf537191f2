"""A relay between simulated clients and simulated servers, without Trio, threads or real time.

Everything that may happen to a relay is a method of `World`; `World.check` holds what must be true at any moment, and
`World.finish` what must be true in the end: each client has received what a server of its own would have answered.
"""

from __future__ import annotations

import itertools
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyperpool.config import PoolMode, PoolSettings, SessionState
from hyperpool.errors import ConnectFailed
from hyperpool.pool import statements
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.state import Pool
from hyperpool.relay.handover import ClientReady
from hyperpool.relay.ledger import LOST
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.translate import Translator
from tests.support.pglanguage import DEFAULTS, REPORTED, Sleeps, frame, report, split_frames
from tests.support.pgmodel import Backend
from tests.support.pgpipelines import TERMINATE
from tests.support.relaypeers import ALL, SimClient, SimServer, make_pair, unread_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.connection import Connection
    from hyperpool.relay.handover import RelayPool

WELCOME: Final = frame(b"Z", b"I")
MAX_PACKET: Final = 100_000
_LONGEST: Final = 1000
"""Bytes of a Parse, the only message that is collected."""
_CANCELED: Final = report(b"E", "ERROR", "57014", "canceling statement due to user request") + WELCOME

POOL: Final = PoolSettings(
    database="db",
    user="u",
    dbname="db",
    host="none",
    port=1,
    password=None,
    pool_mode=PoolMode.TRANSACTION,
    pool_size=2,
    min_pool_size=0,
    reserve_pool_size=0,
    reserve_pool_timeout=5.0,
    query_wait_timeout=120.0,
    server_lifetime=3600.0,
    server_idle_timeout=600.0,
    server_connect_timeout=15.0,
    server_login_retry=15.0,
    server_reset_query="DISCARD ALL",
    server_reset_query_always=False,
    server_check_query="<empty>",
    server_check_delay=30.0,
    connect_query="",
    parameters={},
    embedded=False,
    max_prepared_statements=0,
    session_state=SessionState.KEEP,
    max_pinned=0,
    pin_functions=(),
    query_timeout=0.0,
    idle_transaction_timeout=0.0,
    transaction_timeout=0.0,
    client_idle_timeout=0.0,
    query_wait_notify=0.0,
)
"""The settings of a pool; tests evolve them."""


class Clock:
    """Monotonic seconds that pass only when a test says so, and a microsecond at each look."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Look at the clock."""
        self.now += 1e-6
        return self.now


_EXCUSES: Final = {
    "death": "server closed|server ended|connection broke|shutting down",
    "time": "query_wait_timeout|a message did not come to its end",
    "dial": "no server connection: ",
    "cancel": "client canceled a pipeline that waited",
}
"""What may have happened -> the pooler's reasons to close a client that it makes good."""


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class WatchedRelay(Relay):
    """A relay that tells why it closes clients, and hides no exception; it works in no time."""

    def __init__(self, options: RelayOptions, tracker: ParameterTracker, clock: Clock) -> None:
        super().__init__(options, tracker, clock)
        self.translator = Translator(clock)
        self.reasons: dict[str, str] = {}

    def forget_client(self, client: ClientConnection, reason: str, farewell: bytes | None) -> None:
        """Take note of the reason."""
        super().forget_client(client, reason, farewell)
        self.reasons[client.address] = reason

    def _crashed(self, connection: Connection, error: Exception) -> None:
        raise AssertionError(f"the handler of {connection!r} failed") from error


class World:
    """The relay, one pool, and everybody around.

    Args:
        settings: of the pool.
        buffer: the relay's buffer, in bytes.

    Attributes:
        cancels: cancel requests under way: the server, and the client that asked.
        excuses: what has happened that lets the relay close clients, keys of `_EXCUSES`.
        failing: opening a server connection fails.
    """

    def __init__(self, settings: PoolSettings = POOL, buffer: int = 512) -> None:
        self._descriptors = open_descriptors()
        self.clock = Clock()
        options = RelayOptions(
            buffer=buffer,
            linger=0.0,
            slice=0.5,
            max_packet_size=MAX_PACKET,
            log_connections=False,
            log_disconnections=False,
        )
        self.relay = WatchedRelay(options, ParameterTracker(), self.clock)
        # Many an answer is a stream, and it is looked at about as often as the clock is.
        self.relay.much, self.relay.stream, self.relay.beat = 100, 2, 2e-6
        self._wanted: set[RelayPool] = set()
        self.relay.demand = self._wanted.add
        self.pool: RelayPool = Pool(settings, lambda: 0.5)
        self.clients: list[SimClient] = []
        self.servers: list[SimServer] = []
        self.cancels: list[tuple[SimServer, SimClient]] = []
        self.excuses: set[str] = set()
        self.failing = False
        self._own = self._watched()
        self._sleeps = Sleeps()
        self._queue: dict[ClientConnection, float] = {}
        self._numbers = itertools.count(1)

    @property
    def pools(self) -> Iterator[RelayPool]:
        """All pools, as the relay's timers want them."""
        return iter([self.pool])

    @property
    def live_clients(self) -> list[SimClient]:
        """The clients that are connected."""
        return [client for client in self.clients if not (client.left or client.eof)]

    @property
    def live_servers(self) -> list[SimServer]:
        """The servers that are connected, both sides agreeing."""
        return [server for server in self.servers if not (server.gone or server.conn.closed)]

    # -- what may happen -------------------------------------------------------------------------------------------

    def connect(
        self, parameters: Mapping[str, str] | None = None, early: bytes = b"", *, small: bool = False
    ) -> SimClient:
        """A client has logged in; `early` came behind its login."""
        parameters = parameters or {}
        inner, outer = make_pair(small=small)
        pid, secret = self.relay.reserve_key()
        number = next(self._numbers)
        client = SimClient(number, outer, f"c{number}", pid, secret, parameters)
        self.clients.append(client)
        client.sent += early
        reported = {name: value for name, value in DEFAULTS.items() if name in REPORTED}
        tracked = self.relay.tracker.intern({**reported, **parameters})
        ready = ClientReady(inner, self.pool, tracked, pid, secret, WELCOME, early, client.address)
        self.relay.adopt_client(ready)
        return client

    def leave(self, client: SimClient, how: str) -> None:
        """A client goes: with Terminate, by closing, or by half-closing and then closing."""
        if how == "terminate" and not client.pending:
            client.pending += TERMINATE
            client.send()
        elif how == "shutdown":
            client.sock.shutdown(socket.SHUT_WR)
            self.turn()
        client.left = True
        client.sock.close()

    def dial(self) -> None:
        """The warmer opens, or fails to open, the server connections that the pool misses."""
        for _ in range(self.pool.missing(self.clock())):
            self.pool.dialing += 1
            if self.failing:
                self.excuses.add("dial")
                self.relay.adopt_failure(
                    ServerFailed(self.pool, self.pool.generation, ConnectFailed("nothing there"))
                )
            else:
                self.arrive()

    def arrive(self) -> None:
        """A server connection that is dialing is logged in."""
        inner, outer = make_pair(small=len(self.servers) % 2 == 0)
        backend = Backend(pid=len(self.servers) + 1, sleeps=self._sleeps)
        settings = self.pool.settings
        expires = self.clock() + settings.server_lifetime
        ready = ServerReady(
            inner, self.pool, self.pool.generation, backend.parameters, backend.pid, b"secret", expires
        )
        before = set(self.pool.servers)
        self.relay.adopt_server(ready)
        for conn in self.pool.servers - before:
            self.servers.append(SimServer(outer, conn, backend))
            return
        outer.close()  # a client that waited has spoilt it at once

    def kill(self, server: SimServer) -> None:
        """A server dies without a word; the kernel resets its connection if it has left bytes unread."""
        self.excuses.add("death")
        server.die()

    def begin_cancel(self, client: SimClient) -> None:
        """A cancel request with the client's key comes in."""
        conn = self.relay.clients.get(client.pid)
        assert self.relay.cancel_target(client.pid, b"wrong") is None
        if conn is None:
            assert self.relay.cancel_target(client.pid, client.secret) is None
            return
        self.excuses.add("cancel")
        parked = conn.parked
        end = len(client.sent) - unread_bytes(conn.sock)
        target = self.relay.cancel_target(client.pid, client.secret)
        assert target is conn.server
        if target is not None:
            (server,) = (server for server in self.servers if server.conn is target)
            self.cancels.append((server, client))
        elif parked is not None and not conn.closed:
            client.void.append((end - len(parked), end))
            self._queue.pop(conn, None)

    def deliver_cancel(self, number: int = 0) -> None:
        """A cancel request reaches its server: it must not hit anybody but who asked for it."""
        server, client = self.cancels.pop(number)
        hit = server.backend.cancel()
        assert hit == "" or hit.startswith(f"c{client.number}q"), f"{client.address} has canceled {hit}"
        server.collect()
        server.conn.end_cancel()

    def advance(self, seconds: float) -> None:
        """Time passes, and the relay's timers look."""
        self.excuses.add("time")
        self.clock.now += seconds
        self.relay.sweep(self.pools)
        self.relay.maintain(self.pools)

    def say_unasked(self, server: SimServer, what: str) -> None:
        """A server sends what answers nothing."""
        backend = server.backend
        if backend.ended:
            return
        if what == "notice":
            backend.notice("unasked " + "." * 600)
        elif what == "notification":
            backend.notify("unasked")
        elif what == "status":
            backend.change("is_superuser", "on")
            backend.change("is_superuser", "off")
        elif what == "fatal":
            backend.shut_down()
        server.collect()

    def change_idle(self, server: SimServer, name: str, value: str) -> None:
        """The default of a parameter changes while a server is idle, and the relay hears of it at once."""
        if server.conn in self.pool.idle and not server.out and not unread_bytes(server.conn.sock):
            server.backend.change(name, value)
            server.collect()
            server.push()
            server.conn.readable(0)

    def misbehave(self, server: SimServer, answer: bytes) -> None:
        """An idle server answers what nobody has asked: that is its end."""
        if server.conn in self.pool.idle and not server.out and not unread_bytes(server.conn.sock):
            server.out += answer
            server.push()
            server.conn.readable(0)
            assert server.conn.closed, "kept, although it has answered what nobody has asked"

    def turn(self) -> None:
        """The relay handles events; sessions that have ended by themselves are noted."""
        for server in self.servers:
            if server.backend.ended and not server.conn.closed:
                assert not server.backend.dismissed, "a Terminate has reached a server that is in the pool"
                self.excuses.add("death")
        self.relay.turn()

    def flow(self, chunk: int = ALL, rounds: int = 1, *, served: int = ALL, wake: bool = False) -> bool:
        """Everybody moves some bytes, `rounds` times.

        Args:
            chunk: how many bytes each client sends and receives at most.
            rounds: how many times.
            served: how many bytes each server reads and sends at most.
            wake: what sleeps wakes up.

        Returns:
            Whether anything moved in the last round.
        """
        moved = False
        for _ in range(rounds):
            self.dial()
            sent = [client.send(chunk) for client in self.clients]
            self.turn()
            for server in self.servers:
                if wake and server.backend.sleeping:
                    server.backend.wake()
                    server.collect()
            answered = [action(served) for server in self.servers for action in (server.pull, server.push)]
            self.turn()
            received = [client.receive(chunk) for client in self.clients]
            moved = any(sent) or any(answered) or any(received)
        return moved

    # -- what must be true at any moment ---------------------------------------------------------------------------

    def check(self) -> None:
        """Between two events, every structure is consistent."""
        pool, relay = self.pool, self.relay
        for conn in pool.servers:
            places = (conn in pool.idle) + (conn in pool.conditioning) + (conn.client is not None)
            assert places == 1, f"{conn!r} is in {places} places"
            assert not conn.closed
            assert conn.client is None or conn.client.server is conn
            assert conn.ledger.doubt[:14] in ("", "unexpected 'E'"), conn.ledger
            assert len(conn.outbox) <= 3 * len(relay.buffer) + 1000
        assert len(pool.idle) == len(set(pool.idle))
        assert pool.servers.issuperset([*pool.idle, *pool.conditioning])
        for client in relay.clients.values():
            assert not client.closed
            assert client.server is None or client.server.client is client
            assert (client in pool.waiting) == (client.parked is not None)
            assert client.server is None or client.parked is None
            assert len(client.parked or b"") <= len(relay.buffer) + _LONGEST
            assert len(client.outbox) <= 3 * len(relay.buffer) + 1000
        assert pool.clients == len(relay.clients)
        assert set(pool.waiting) <= set(relay.clients.values())
        # Who waits while a server is idle waits for another one that is being checked.
        assert not pool.idle or len(pool.waiting) <= len(pool.conditioning), (
            "a client waits while a server is idle"
        )
        limit = pool.settings.pool_size + pool.settings.reserve_pool_size
        assert pool.dialing == 0
        assert len(pool.servers) <= limit
        self._check_queue()
        self._check_descriptors()
        self._check_servers()
        self._check_statements()

    def _check_queue(self) -> None:
        """Clients are served in the order in which they have begun to wait."""
        waiting = self.pool.waiting
        waits = [waiting.get(conn) == since for conn, since in self._queue.items() if not conn.closed]
        assert waits == sorted(waits), "a client was served before one that has waited longer"
        self._queue = dict(waiting)

    def _check_descriptors(self) -> None:
        relay = self.relay
        known = {*relay.clients.values(), *self.pool.servers, *relay.transients}
        assert set(relay._connections.values()) == known
        assert all(fd == conn.sock.fileno() for fd, conn in relay._connections.items())
        assert {conn for conn in known if conn.polled} == set(relay._polled)
        assert self._watched() - self._own == set(relay._connections), (
            "the epoll object watches what nobody knows"
        )

    def _watched(self) -> set[int]:
        """The file descriptors that the relay's epoll object watches."""
        return set(self.watched())

    def watched(self) -> dict[int, int]:
        """Which events of which file descriptors the relay is told of."""
        info = Path(f"/proc/self/fdinfo/{self.relay._epoll.fileno()}").read_text()
        return {
            int(words[1]): int(words[3], 16)
            for words in map(str.split, info.splitlines())
            if words[0] == "tfd:"
        }

    def _check_servers(self) -> None:
        """An idle server owes nothing; one that changes hands is spent of cancels, and reset for a new session."""
        for server in self.servers:
            conn = server.conn
            if conn.closed:
                continue
            assert conn.ledger.clean or conn not in self.pool.idle, conn.ledger
            if conn in self.pool.idle and not server.gone:
                owed = server.owes()
                assert not owed, f"idle, but {owed}"
            if conn.client is None:
                continue
            (user,) = (client for client in self.clients if client.address == conn.client.address)
            for held, canceller in self.cancels:
                assert held is not server or canceller is user, "given away while a cancel was under way"
            if server.user is not user and server.user is not None and self._resets():
                assert server.backend.log.count("DISCARD ALL") > server.resets, "given away without a reset"
            if server.user is not user:
                server.user = user
                server.resets = server.backend.log.count("DISCARD ALL")

    def _check_statements(self) -> None:
        """Bytes and memory of clients are accounted for, and what is certain on a server is there."""
        relay = self.relay
        assert not relay.translator._pieces, "bytes of one client are left for another"
        assert relay.budget.used == memory_used(relay, self.pool)
        for server in self.servers:
            conn = server.conn
            changing = [entry for entry in conn.ledger.entries if entry & 0xFF in b"PC"]
            assert len(conn.ledger.changes) == len(changing)
            if server.gone or conn.closed or conn.ledger.entries or server.owes():
                continue
            there = server.backend.statements
            for statement in conn.statements.certain:
                text = statement.text.decode().strip()
                assert there.get(statement.name.decode()) == text, f"{statement} is not there, but {there}"

    def _resets(self) -> bool:
        settings = self.pool.settings
        return self.pool.session or settings.server_reset_query_always

    # -- what must be true in the end ------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let everything run its course, then hold each client's answers against those of a server of its own."""
        self.failing = False
        for client in self.clients:
            client.reading = True
        while self.relay.clients:
            self._come_to_rest()
            linked = [client for client in self.live_clients if self._is_linked(client)]
            self._check_links()
            assert linked or not self.pool.waiting, f"clients wait for nobody: {self.pool}"
            # Those in a transaction or a COPY make room for those who wait.
            for client in linked if self.pool.waiting else self.live_clients:
                self._compare(client)
                self.leave(client, "close")
            self.turn()
            self.check()
        self._come_to_rest()
        for client in self.clients:
            self._compare(client)
        self.check()
        assert all(conn in self.pool.idle for conn in self.pool.servers)
        self._shut_down()

    def _come_to_rest(self) -> None:
        while self.cancels:
            self.deliver_cancel()
        for _ in range(2000):
            moved = self.flow(wake=True)
            self.check()
            if self.pool.waiting and not self.pool.servers:
                self.advance(1.0)  # the backoff after a failure
            elif not moved:
                return
        raise AssertionError("no end in sight")

    def _check_links(self) -> None:
        """At rest, only a session, a transaction or an unfinished request binds a server to a client."""
        for server in self.live_servers:
            conn = server.conn
            if conn.client is not None and not self.pool.session:
                partial = conn.client.skip or conn.client.rest
                assert partial or server.owes() or conn.ledger.doubt or conn.ledger.unsynced, (
                    f"kept by its client for nothing: {conn.ledger}"
                )

    def _is_linked(self, client: SimClient) -> bool:
        conn = self.relay.clients.get(client.pid)
        return conn is not None and conn.server is not None

    def _shut_down(self) -> None:
        self.relay.shut_down(self.pools, "the pooler ends")
        self.turn()
        for server in self.servers:
            while server.pull():
                pass
            assert server.gone, "a server connection was left open"
        self.advance(10.0)
        self.check()
        self.relay.close()
        assert open_descriptors() == self._descriptors, "file descriptors have leaked"

    def close(self) -> None:
        """Close what is still open, after a failure."""
        for connection in self.relay._connections.values():
            connection.sock.close()
        peers: list[SimClient | SimServer] = [*self.clients, *self.servers]
        for peer in peers:
            peer.sock.close()
        self.relay.close()

    def _compare(self, client: SimClient) -> None:
        """The oracle: a private server gets the same bytes."""
        expected, _ = split_frames(self._expected(client))
        frames, rest = split_frames(bytes(client.received))
        frames = [one for one in frames if not is_unasked(one)]
        closed = client.left or client.eof
        if not closed:
            assert frames == expected, difference(client, frames, expected)
            assert not rest
            return
        if client.eof and not client.left:
            self._check_reason(client, expected)
            assert not rest or frames == expected[: len(frames)]
        if len(frames) > len(expected) or frames != expected[: len(frames)]:
            assert frames[:-1] == expected[: len(frames) - 1], difference(client, frames, expected)
            assert frames[-1][:1] == b"E", frames[-1]
            assert b"SFATAL\0" in frames[-1], frames[-1]
            assert not rest
        elif rest[:1] not in (b"", b"E", b"N", b"S", b"A"):
            assert b"".join(expected[len(frames) :]).startswith(rest)

    def _expected(self, client: SimClient) -> bytes:
        reference = Backend(parameters=client.parameters, sleeps=self._sleeps)
        answers = bytearray(WELCOME)
        at = 0
        for start, end in [*client.void, (len(client.sent), len(client.sent))]:
            reference.receive(bytes(client.sent[at:start]))
            answers += reference.output
            reference.output.clear()
            if start < end:
                answers += _CANCELED
            at = end
        return bytes(answers)

    def _check_reason(self, client: SimClient, expected: list[bytes]) -> None:
        """The relay closes a client only for a cause that the test has given it."""
        reason = self.relay.reasons[client.address]
        if client.hostile and reason.startswith("protocol violation"):
            return
        if reason == "client close request" and TERMINATE in client.sent:
            return
        if self.pool.settings.pool_mode is PoolMode.STATEMENT and reason.startswith("transaction blocks"):
            assert any(one[:1] == b"Z" and one != WELCOME for one in expected)
            return
        if reason == LOST and b"copyin" in client.sent:
            return
        bad = any(value.startswith("bad") for value in client.parameters.values())
        if bad and "invalid value" in reason:
            return
        known = "|".join(_EXCUSES[excuse] for excuse in sorted(self.excuses))
        assert re.search(known or "$nothing", reason), f"{client.address} was closed: {reason}"


def memory_used(relay: Relay, pool: RelayPool) -> int:
    """What the statements of clients take: a text that they share counts once, one without a name if it is long."""
    used = 0
    clients = relay.clients.values()
    kept = [client.statements for client in clients if client.statements is not None]
    for own in kept:
        used += own._reserved + sum(len(name) + statements._NAME for name in own.names)
        sizes = (statement.size + len(name) + statements._NAME for name, statement in own.names.items())
        assert own.size == own._reserved + sum(sizes)
    texts = {one for own in kept for one in own.holders}
    assert all(one.users == sum(one in own.holders for own in kept) for one in texts)
    unnamed = {client.unnamed for client in clients} | {server.unnamed for server in pool.servers}
    unnamed |= {change.before for server in pool.servers for change in server.ledger.changes if change}
    long = {one for one in unnamed if one is not None and not one.name and len(one.body) > relay.max_whole}
    return used + sum(one.size for one in texts | long)


def is_unasked(one: bytes) -> bool:
    """Whether a frame is one of those that the servers of a `World` send without being asked."""
    marks = {b"A": b"", b"N": b"unasked", b"S": b"is_superuser"}
    return one[:1] in marks and marks[one[:1]] in one


def difference(client: SimClient, got: list[bytes], expected: list[bytes]) -> str:
    """Where two sequences of frames part."""
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(got), len(expected)))
    return f"{client.address}, frame {at}: got {got[at : at + 4]}, expected {expected[at : at + 4]}"
