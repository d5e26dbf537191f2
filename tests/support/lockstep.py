"""Two relays that live through the same: one as it is, and one where no request goes the short way.

A script is a sequence of steps, each a tuple: a verb, and numbers. Whatever it says happens to both relays; then each
of their peers must have received the same bytes, and what the relays know must be the same.

No function is created here: it makes the pool ask its database which functions there are, and how soon depends on the
way that the next request goes.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Final

import attrs

from hyperpool.cache.results import ResultCache
from hyperpool.config import SessionState
from hyperpool.config.cache import CacheSettings
from hyperpool.pool.handover import ServerReady
from hyperpool.pool.state import Pool
from hyperpool.relay.handover import ClientReady
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.server import ServerConnection
from hyperpool.relay.translate import Translator
from tests.support.relaypeers import make_pair
from tests.support.relaysession import Session
from tests.support.relaystage import (
    REPORTED,
    Actor,
    _greet,
    answers,
    requests,
    spell_answers,
    spell_requests,
)
from tests.support.relaystate import state_of
from tests.support.relayworld import POOL, WELCOME, Clock, WatchedRelay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.cache.database import DatabaseCache
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool

Step = tuple[Any, ...]

PLAIN: Final = (
    *("select 1", "select 2", "insert into t values (1)", "update t set a = 1", "select 'a\\b'"),
    *("begin", "begin", "commit", "commit", "rollback", "start transaction"),
)
"""Texts that change nothing but what they are about, as far as is known."""
TEXTS: Final = (
    *PLAIN,
    *PLAIN,
    *("select fails", "syntax", "", "select 1; select 2", "begin; select 1", "commit; begin", "select 1;"),
    *("set work_mem = '1MB'", "set local work_mem = '2MB'", "reset work_mem", "reset all", "discard all"),
    *("set application_name = 'x'", "set application_name = 'y'", "set \"TimeZone\" = 'Asia/Tokyo'"),
    *("set app.user = 'z'", "select set_config('work_mem', '3MB', false)", "select stateful()"),
    *("set statement_timeout = 0", "set search_path = other", "set standard_conforming_strings = off"),
    *("listen channel", "unlisten *", "select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"),
    *("create temp table t ()", "drop table t", "declare c cursor with hold for select 1", "close c"),
    *("prepare q as select 1", "deallocate q", "deallocate all", "deallocate a", "deallocate b"),
    *("alter table t add b int", "copy t from stdin", "copy t to stdout", "select 'a\\b'", "load 'x'"),
    *("select set_config('work_mem', '5MB', true)", "select 'é'", "select " + "7" * 600, "select dies"),
    "select " + "8" * 9000,
)
UNITS: Final = (
    *("Q{0}", "Q{0}", "Q{0}", "P:{0}|B|E|S", "P:{0}|B|DP|E|S", "P:{0}|B|E|S", "Pa:{0}|S", "Pb:{0}|S"),
    *("Ba|E|S", "Ba|DP|E|S", "Bb|E|S", "Bb|DP|E|S", "Ba|DP|E|S", "B|E|S", "B|DP|E|S", "P:{0}|S", "DSa|S"),
    *("Pa:{0}|Ba|E|S", "CSa|S", "CSb|S", "CS|S", "S", "H", "c", "d5|c", "f", "F2078", "F952", "Ba|E"),
    *("P:{0}|B|E", "P:{0}|DS|S", "DS|S", "Pa:{0}|H", "P:{0}|B|E|P:{1}|B|E|S", "Ba(3)|E|S", "Bp=a|Ep|S"),
    *("CSa|Pa:{0}|S", "P:{0}[23]|B(3)|DP|E|S", "Ba|E/1|S", "Q{0}|Q{1}", "Ba|E|Bb|E|S", "Ba|E|S|Bb|E|S"),
    *("P:{0}|B|E|S|B|E|S", "P:{0}|B|E|S|P:{1}|B|E|S", "Q{0}|Ba|E|S", "Ba|E|S|Q{0}"),
)
PARAMETERS: Final[tuple[dict[str, str], ...]] = (
    {},
    {},
    {"TimeZone": "Asia/Tokyo"},
    {"application_name": "x"},
    {"work_mem": "9MB"},
)


class _LongWay(ServerConnection):
    """A server connection that leaves all to the general machinery."""

    def take(self, client: ClientConnection, buffer: bytes | bytearray, end: int) -> bool:
        return False

    def goes_on(self, client: ClientConnection) -> bool:
        return False


class _Clock(Clock):
    """Time passes only when a script says so: the two look at it differently often."""

    def __call__(self) -> float:
        return self.now


class _Relay(WatchedRelay):
    """A relay whose servers are of a class that a test has chosen."""

    made: type[ServerConnection]

    def adopt_server(self, ready: ServerReady) -> None:
        self.now = self._clock()
        pool = ready.pool
        if not pool.arrived(ready.generation) or pool.paused:
            ready.sock.close()
        else:
            server = self.made(self, ready)
            pool.servers.add(server)
            pool.starting.add(server)
            self._register(server)
            self._guard(server, server.start, ready.parameters)
        self.want(pool)


class _Side:
    """One of the two relays, with its peers."""

    def __init__(
        self,
        made: type[ServerConnection],
        buffer: int,
        relay: dict[str, Any],
        pool: dict[str, Any],
        *,
        cached: bool,
    ) -> None:
        self.clock = _Clock()
        options = RelayOptions(
            buffer=buffer,
            linger=0.0,
            slice=60.0,
            log_connections=False,
            log_disconnections=False,
            log_errors=False,
            **{"max_packet_size": 100_000, **relay},
        )
        self.relay = _Relay(options, ParameterTracker(), self.clock)
        self.relay.made = made
        self.relay.cancel = self._cancel
        self.canceled: list[str] = []
        self.pool: RelayPool = Pool(attrs.evolve(POOL, **pool), lambda: 0.5)
        self.database: DatabaseCache | None = None
        if cached:
            results: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
            caching = results.lane(
                attrs.evolve(POOL, session_state=SessionState.FOLLOW, cache=CacheSettings())
            )
            self.database = None if caching is None else caching.database
            self.pool.attach(results.lane(self.pool.settings))
        self.peers: dict[str, Actor] = {}

    def _cancel(self, server: ServerConnection) -> None:
        self.canceled.append(f"s{server.pid}")

    def come(self, name: str, parameters: dict[str, str], *, proven: bool) -> None:
        inner, outer = make_pair(small=True)
        self.peers[name] = Actor(outer)
        pid, secret = self.relay.reserve_key()
        tracked = self.relay.tracker.with_settings(self.relay.tracker.intern(REPORTED), dict(parameters))
        welcome, greet = (WELCOME, None) if proven else (b"", _greet)
        ready = ClientReady(inner, self.pool, tracked, pid, secret, welcome, b"", name, greet)
        self.relay.adopt_client(ready)

    def arrive(self, number: int) -> None:
        inner, outer = make_pair(small=True)
        self.peers[f"s{number}"] = Actor(outer)
        self.pool.dialing += 1
        self.relay.adopt_server(
            ServerReady(inner, self.pool, self.pool.generation, dict(REPORTED), number, b"secret", 0.0)
        )

    def send(self, name: str, data: bytes) -> int:
        """Send from a peer. Returns how much of that was taken."""
        actor = self.peers.get(name)
        if actor is None or actor.closed or not data:
            return len(data)
        try:
            return actor.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def client(self, name: str) -> ClientConnection | None:
        return next((conn for conn in self.relay.clients.values() if conn.address == name), None)

    def server(self, name: str) -> ServerConnection | None:
        return next((conn for conn in self.pool.servers if f"s{conn.pid}" == name), None)

    def close(self) -> None:
        self.relay.shut_down(iter([self.pool]), "the test ends")
        self.relay.turn()
        for actor in self.peers.values():
            actor.sock.close()
        for conn in list(self.relay.transients):
            conn.lost("the test ends")
        self.relay.close()


class Lockstep:
    """The two relays, and the sessions of their servers.

    Args:
        buffer: the relays', in bytes.
        relay: options of the relays.
        cached: another pool caches what the same database answers.
        pool: settings of the pools that are not those of `relayworld.POOL`.
    """

    def __init__(
        self, buffer: int = 512, relay: dict[str, Any] | None = None, *, cached: bool = False, **pool: Any
    ) -> None:
        self._sides = tuple(
            _Side(made, buffer, relay or {}, pool, cached=cached) for made in (ServerConnection, _LongWay)
        )
        self._deaf: set[str] = set()
        self._sessions: dict[str, Session] = {}
        self._clients: list[str] = []
        self._pending: dict[str, bytes] = {}
        self._saying: dict[str, bytes] = {}
        self._cancels: list[str] = []
        self._numbers = iter(range(1, 1000))
        self.log: list[str] = []

    # -- steps -------------------------------------------------------------------------------------------------------

    def play(self, script: Sequence[Step]) -> None:
        """Do all that, and hold the two against each other after each step."""
        for number in range(2):
            self._come(number)
        for step in script:
            self.log.append(f"# {step}")
            getattr(self, "_" + step[0])(*step[1:])
            self._turn()
            self._compare()
        self.log.append("# the end")
        self._deaf.clear()
        self._turn()
        for _ in range(20):
            for name in list(self._pending):
                self._send(name, -1)
            self._serve_all(0)
            self._compare()

    def _pick(self, index: int) -> str:
        if not self._clients:
            self._come(0)
        return self._clients[index % len(self._clients)]

    def _come(self, number: int) -> None:
        name = f"c{next(self._numbers)}"
        self._clients.append(name)
        for side in self._sides:
            side.come(name, PARAMETERS[number % len(PARAMETERS)], proven=number % 10 < 7)
        self._turn()

    def _ask(self, index: int, units: Sequence[tuple[int, int, int]], cut: int) -> None:
        name = self._pick(index)
        words = "|".join(UNITS[unit].format(TEXTS[one], TEXTS[other]) for unit, one, other in units)
        self.log.append(f"{name} > {words}" + (f" (cut at {cut})" if cut >= 0 else ""))
        self._pending[name] = self._pending.get(name, b"") + requests(words)
        self._send(name, cut)

    def _send(self, name: str, cut: int) -> None:
        data = self._pending.pop(name, b"")
        if 0 <= cut < len(data):
            self._pending[name] = data[cut:]
            data = data[:cut]
        sent = [side.send(name, data) for side in self._sides]
        assert sent[0] == sent[1], f"{name} has sent {sent}"
        if data[sent[0] :]:
            self._pending[name] = data[sent[0] :] + self._pending.get(name, b"")
        self._turn()

    def _rest(self, index: int, cut: int) -> None:
        self._send(self._pick(index), cut)

    def _serve(self, index: int, most: int, luck: int, cut: int) -> None:
        busy = [name for name, one in self._sessions.items() if one.waits or self._saying.get(name)]
        if busy:
            self._answer(busy[index % len(busy)], most, luck, cut)

    def _answer(self, name: str, most: int, luck: int, cut: int = -1) -> None:
        session = self._sessions[name]
        data = self._saying.pop(name, b"") + session.answer(most, luck)
        if 0 <= cut < len(data):
            self._saying[name] = data[cut:]
            data = data[:cut]
        self.log.append(f"{name} > {spell_answers(data)}")
        sent = [side.send(name, data) for side in self._sides]
        assert sent[0] == sent[1], f"{name} has sent {sent}"
        if data[sent[0] :]:
            self._saying[name] = data[sent[0] :] + self._saying.get(name, b"")
        self._turn()

    def _serve_all(self, luck: int) -> None:
        for turn in range(30):
            busy = [name for name, one in self._sessions.items() if one.waits or self._saying.get(name)]
            if not busy:
                return
            self._answer(busy[turn % len(busy)], 1000, luck + turn)

    def _leave(self, index: int, how: int) -> None:
        name = self._pick(index)
        self._clients.remove(name)
        self._pending.pop(name, None)
        for side in self._sides:
            actor = side.peers.pop(name)
            if how:
                side.send(name, requests("X"))
                side.relay.turn()
            actor.sock.close()
        self._deaf.discard(name)

    def _cancel(self, index: int) -> None:
        name = self._pick(index)
        found = []
        for side in self._sides:
            conn = side.client(name)
            target = None if conn is None else side.relay.cancel_target(conn.pid, conn.secret)
            found.append(None if target is None else f"s{target.pid}")
        assert found[0] == found[1], f"{name} cancels {found}"
        if found[0] is not None:
            self._cancels.append(found[0])

    def _deliver(self, luck: int) -> None:
        if not self._cancels:
            return
        name = self._cancels.pop(0)
        if name in self._sessions:
            self._sessions[name].doomed = luck % 2 > 0
        for side in self._sides:
            conn = side.server(name)
            if conn is not None:
                conn.end_cancel()

    def _wait(self, seconds: float) -> None:
        for side in self._sides:
            side.clock.now += seconds
            side.relay.sweep(iter([side.pool]))
            side.relay.maintain(iter([side.pool]))

    def _deafen(self, index: int) -> None:
        names = [*self._clients, *sorted(self._sessions)]
        if names:
            self._deaf ^= {names[index % len(names)]}

    def _die(self, index: int) -> None:
        names = sorted(self._sessions)
        if names:
            name = names[index % len(names)]
            del self._sessions[name]
            self._saying.pop(name, None)
            for side in self._sides:
                side.peers.pop(name).sock.close()

    def _retire(self, index: int) -> None:
        names = sorted(self._sessions)
        for side in self._sides if names else ():
            conn = side.server(names[index % len(names)])
            if conn is not None:
                conn.retire("RECONNECT")

    def _pause(self) -> None:
        for side in self._sides:
            side.pool.paused = not side.pool.paused
            if not side.pool.paused:
                while side.pool.idle and side.pool.waiting:
                    side.pool.idle.pop().reuse()
                side.relay.want(side.pool)

    def _tell(self, index: int, what: int) -> None:
        names = sorted(self._sessions)
        if names:
            name = names[index % len(names)]
            said = ("Nunasked", "Achannel", "SDateStyle=x", "Sis_superuser=on")[what % 4]
            if not self._saying.get(name):
                self._saying[name] = answers(said)
                self._answer(name, 0, 0)

    # -- turning -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Both handle what has come, and get the servers that they want."""
        for side in self._sides:
            side.clock.now += 0.001
        for _ in range(200):
            took = False
            for side in self._sides:
                side.relay.turn()
                for name, actor in side.peers.items():
                    took = (name not in self._deaf and actor.receive()) or took
            missing = [side.pool.missing(side.clock()) for side in self._sides]
            assert missing[0] == missing[1], f"servers are missing: {missing}"
            if missing[0]:
                number = next(self._numbers)
                self._sessions[f"s{number}"] = Session()
                for side in self._sides:
                    side.arrive(number)
            elif not took:
                self._exchange()
                return
        raise AssertionError("no end in sight")

    def _exchange(self) -> None:
        """What peers have received must be the same; the sessions get theirs."""
        one, other = self._sides
        assert sorted(one.canceled) == sorted(other.canceled)
        self._cancels += sorted(one.canceled)
        one.canceled.clear()
        other.canceled.clear()
        for name, actor in list(one.peers.items()):
            if name in self._deaf:
                continue
            spell = spell_requests if name[0] == "s" else spell_answers
            (got, end), (expected, ends) = actor.take(), other.peers[name].take()
            if got:
                self.log.append(f"{name} < {spell(got)}")
            assert got == expected, f"{name} has received {spell(got)} and not {spell(expected)}"
            assert end == ends, f"{name} is closed: {end} and not {ends}, {self._reasons(name)}"
            if end:
                self.log.append(f"{name} < END")
            if name in self._sessions:
                self._sessions[name].receive(got)
                if end:
                    del self._sessions[name]
                    self._saying.pop(name, None)
            elif end and name in self._clients:
                self._clients.remove(name)
        for name, session in list(self._sessions.items()):
            if session.ended:
                del self._sessions[name]

    def _reasons(self, name: str) -> list[str | None]:
        return [side.relay.reasons.get(name) for side in self._sides]

    # -- what must be the same ---------------------------------------------------------------------------------------

    def _compare(self) -> None:
        if len({side.relay.budget.used for side in self._sides}) > 1:
            for side in self._sides:
                side.relay.translator = Translator(side.clock)  # It remembers whom it has worked for.
            gc.collect()
        one, other = (state_of(side.relay, side.pool) for side in self._sides)
        for key in (*one, *(key for key in other if key not in one)):
            assert one.get(key) == other.get(key), f"{key}: {one.get(key)} and not {other.get(key)}"
        databases = [side.database for side in self._sides if side.database is not None]
        assert len({database.version for database in databases}) <= 1
        for side in self._sides:
            assert not side.relay.translator._pieces
            assert side.pool.pinned == sum(bool(conn.pinned) for conn in side.pool.servers)

    def close(self) -> None:
        """Close everything."""
        for side in self._sides:
            side.close()
