"""Everything that may happen to a relay, in any order: nobody ever gets anything but his own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hyperpool.config import PoolMode
from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame
from tests.support.relaypeers import ALL
from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from tests.support.relaypeers import SimClient, SimServer

_INDEX = st.integers(0, 7)
_CHUNK = st.sampled_from((1, 3, 7, 60, 500, 2000, ALL, ALL))
_PARAMETERS = st.sampled_from(
    (
        {},
        {},
        {"application_name": "it's \\ ; 'quoted'"},
        {"DateStyle": "German, DMY", "TimeZone": "Asia/Tokyo"},
        {"TimeZone": "bad/zone"},
    )
)
_ENDS = st.sampled_from(("close", "shutdown", "terminate"))
_HOSTILE = st.sampled_from(
    (
        frame(b"y"),
        frame(b"p", b"password\0"),
        b"\0\0\0\0\0\0\0\0",
        b"Q\0\0\0\3",
        b"Q\xff\xff\xff\xff",
        b"d\0\0\0\0",
        b"P\0\x02\0\0" + b"\0" * 100,
    )
)
_STRAY = st.sampled_from((frame(b"C", b"SELECT 1\0"), frame(b"Z", b"I"), frame(b"1"), frame(b"D", b"\0\0")))


class RelayMachine(RuleBasedStateMachine):
    """Clients, servers and the network around a relay that has one pool."""

    world: World

    @initialize(
        mode=st.sampled_from(
            (PoolMode.TRANSACTION, PoolMode.SESSION, PoolMode.TRANSACTION, PoolMode.STATEMENT)
        ),
        size=st.integers(1, 3),
        reserve=st.integers(0, 1),
        always=st.booleans(),
        buffer=st.sampled_from((512, 512, 2048)),
        parameters=_PARAMETERS,
    )
    def begin(
        self,
        mode: PoolMode,
        size: int,
        reserve: int,
        always: bool,
        buffer: int,
        parameters: dict[str, str],
    ) -> None:
        """Start a relay, and let a first client come."""
        pool = attrs.evolve(
            POOL,
            pool_mode=mode,
            pool_size=size,
            reserve_pool_size=reserve,
            server_reset_query_always=always,
        )
        self.world = World(pool, buffer)
        self.units = pp.NAMED if mode is PoolMode.SESSION else ()
        for _ in range(3):
            self.world.connect(parameters)

    def client(self, index: int) -> SimClient:
        """One of the clients that are connected."""
        clients = self.world.live_clients
        return clients[index % len(clients)]

    def server(self, index: int) -> SimServer:
        """One of the servers that are connected."""
        servers = self.world.live_servers
        return servers[index % len(servers)]

    def has_clients(self) -> bool:
        """Whether anybody is there."""
        return bool(self.world.live_clients)

    def has_servers(self) -> bool:
        """Whether there is any server."""
        return bool(self.world.live_servers)

    # -- clients ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.live_clients) < 5)
    @rule(parameters=_PARAMETERS, small=st.booleans())
    def connect(self, parameters: dict[str, str], small: bool) -> None:
        """A client comes."""
        self.world.connect(parameters, small=small)

    @precondition(has_clients)
    @rule(index=_INDEX, data=st.data(), chunk=_CHUNK)
    def ask(self, index: int, data: st.DataObject, chunk: int) -> None:
        """A client has something to ask, and sends the beginning of it."""
        client = self.client(index)
        if not client.hostile:
            pipeline = data.draw(pp.pipelines(*self.units, max_size=3))
            client.pending += pp.render(pipeline, client.tag)
            client.send(chunk)

    @precondition(has_clients)
    @rule(first=_INDEX, second=_INDEX, data=st.data(), chunk=_CHUNK, rounds=st.integers(0, 4))
    def talk(self, first: int, second: int, data: st.DataObject, chunk: int, rounds: int) -> None:
        """Two clients ask at once, and may be answered."""
        self.ask(first, data, ALL)
        self.ask(second, data, ALL)
        self.world.flow(chunk, rounds)

    @precondition(has_clients)
    @rule(index=_INDEX, how=_ENDS, parameters=_PARAMETERS, data=st.data(), chunk=_CHUNK)
    def replace(
        self, index: int, how: str, parameters: dict[str, str], data: st.DataObject, chunk: int
    ) -> None:
        """A client goes, and another one comes and asks; its first bytes came behind its login."""
        self.world.leave(self.client(index), how)
        self.world.turn()
        client = self.world.connect(parameters)
        client.pending += pp.render(data.draw(pp.pipelines(*self.units, max_size=2)), client.tag)
        self.world.flow(chunk, 2)

    @precondition(has_clients)
    @rule(first=_INDEX, second=_INDEX, early=st.booleans(), chunk=_CHUNK)
    def race(self, first: int, second: int, early: bool, chunk: int) -> None:
        """A cancel request is on its way to a sleeping query, which may end, while somebody else begins to sleep."""
        one, other = self.client(first), self.client(second)
        one.pending += b"" if one.hostile else pp.query(f"sleep {one.tag()}")
        self.world.flow(rounds=3)
        self.world.begin_cancel(one)
        other.pending += b"" if other.hostile else pp.query(f"sleep {other.tag()}")
        for server in self.world.live_servers if early else ():
            server.backend.wake()
            server.collect()
        self.world.flow(chunk, 3)

    @precondition(has_clients)
    @rule(index=_INDEX)
    def stop_or_start_reading(self, index: int) -> None:
        """A client stops taking answers, or takes them again."""
        client = self.client(index)
        client.reading = not client.reading

    @precondition(has_clients)
    @rule(index=_INDEX, how=_ENDS)
    def leave(self, index: int, how: str) -> None:
        """A client goes, in the middle of anything."""
        self.world.leave(self.client(index), how)

    @precondition(
        lambda self: self.has_clients() and not any(client.hostile for client in self.world.clients)
    )
    @rule(index=_INDEX, what=_HOSTILE)
    def attack(self, index: int, what: bytes) -> None:
        """A client breaks the protocol."""
        client = self.client(index)
        client.pending += what
        client.hostile = True
        client.send()

    @precondition(has_clients)
    @rule(index=_INDEX, ending=st.sampled_from(pp.ENDINGS))
    def end_session(self, index: int, ending: pp.Unit) -> None:
        """A client makes the server end its session."""
        client = self.client(index)
        client.pending += b"" if client.hostile else pp.render([ending], client.tag)
        self.world.flow()

    @precondition(has_clients)
    @rule(index=_INDEX)
    def cancel(self, index: int) -> None:
        """A cancel request comes in with a client's key."""
        self.world.begin_cancel(self.client(index))

    @precondition(lambda self: self.world.cancels)
    @rule(index=_INDEX)
    def deliver_cancel(self, index: int) -> None:
        """A cancel request reaches its server."""
        self.world.deliver_cancel(index % len(self.world.cancels))

    # -- servers ---------------------------------------------------------------------------------------------------

    @precondition(has_servers)
    @rule(index=_INDEX, taken=_CHUNK, given=_CHUNK)
    def serve(self, index: int, taken: int, given: int) -> None:
        """A server reads some, and answers some."""
        server = self.server(index)
        server.pull(taken)
        server.push(given)

    @precondition(has_servers)
    @rule(index=_INDEX)
    def wake(self, index: int) -> None:
        """A server's sleeping statement ends."""
        server = self.server(index)
        server.backend.wake()
        server.collect()

    @precondition(has_servers)
    @rule(index=_INDEX)
    def kill(self, index: int) -> None:
        """A server dies."""
        self.world.kill(self.server(index))

    @precondition(has_servers)
    @rule(
        index=_INDEX,
        what=st.sampled_from(("notice", "notice", "notification", "status", "fatal")),
        given=_CHUNK,
    )
    def say_unasked(self, index: int, what: str, given: int) -> None:
        """A server sends what answers nothing, or the beginning of it."""
        server = self.server(index)
        self.world.say_unasked(server, what)
        server.push(given)

    @precondition(has_servers)
    @rule(index=_INDEX, zone=st.sampled_from(("UTC", "Asia/Tokyo", "Europe/Rome")))
    def change_default(self, index: int, zone: str) -> None:
        """The server's configuration changes."""
        self.world.change_idle(self.server(index), "TimeZone", zone)

    @precondition(has_servers)
    @rule(index=_INDEX, answer=_STRAY)
    def misbehave(self, index: int, answer: bytes) -> None:
        """An idle server sends an answer."""
        self.world.misbehave(self.server(index), answer)

    @rule(failing=st.booleans())
    def dial(self, failing: bool) -> None:
        """Server connections are opened as needed; from now on that may fail."""
        self.world.failing = failing and len(self.world.live_servers) > 0
        self.world.dial()

    # -- the world -------------------------------------------------------------------------------------------------

    @rule()
    def turn(self) -> None:
        """The relay handles what has come."""
        self.world.turn()

    @rule(chunk=_CHUNK, rounds=st.integers(1, 3))
    def flow(self, chunk: int, rounds: int) -> None:
        """Everything moves on."""
        self.world.flow(chunk, rounds)

    @rule()
    def flow_on(self) -> None:
        """Everything moves on as far as it goes."""
        self.world.flow(rounds=6, wake=True)

    @rule(seconds=st.sampled_from((0.1, 1.0, 6.0, 31.0, 121.0, 601.0, 3601.0)))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.world.advance(seconds)

    @invariant()
    def consistent(self) -> None:
        """Nothing is lost, nothing is in two places, and no server that owes anything is idle."""
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """Everybody has received exactly his own answers, and nothing is left open."""
        if hasattr(self, "world"):
            try:
                self.world.finish()
            finally:
                self.world.close()


def test_every_client_receives_exactly_its_own_answers() -> None:
    """Random pipelines, partial reads and writes, disconnects, cancels, dying servers and timeouts."""
    run_state_machine_as_test(
        RelayMachine, settings=settings(max_examples=settings().max_examples, stateful_step_count=40)
    )
