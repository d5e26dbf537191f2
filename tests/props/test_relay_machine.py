"""Everything that may happen to a relay, in any order: nobody ever gets anything but his own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from hypothesis import given, settings
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
from tests.support.pglanguage import frame, split_frames
from tests.support.relaypeers import ALL
from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from tests.support.relaypeers import SimClient, SimServer

_INDEX = st.integers(0, 7)
_CHUNK = st.sampled_from((1, 3, 7, 60, 500, 2000, ALL, ALL, ALL, ALL))
_MESSAGES = st.sampled_from((0, 1, 2, 3, 99, 99))
_PART = st.sampled_from((0, 3, 30))
_ENDS = st.sampled_from(("close", "shutdown", "terminate"))
_PARAMETERS = st.sampled_from(
    (
        {},
        {},
        {"application_name": "it's \\ ; 'quoted'"},
        {"application_name": "plain"},
        {"DateStyle": "German, DMY", "TimeZone": "Asia/Tokyo"},
        {"DateStyle": "German, DMY", "TimeZone": "Asia/Tokyo"},
        {"TimeZone": "bad/zone"},
    )
)
_HOSTILE = (
    frame(b"y"),
    frame(b"p", b"password\0"),
    b"\0\0\0\0\0\0\0\0",
    b"Q\0\0\0\3",
    b"Q\xff\xff\xff\xff",
    b"d\0\0\0\0",
    b"P\0\x02\0\0" + b"\0" * 100,
)
_STRAY = (frame(b"C", b"SELECT 1\0"), frame(b"Z", b"I"), frame(b"1"), frame(b"D", b"\0\0"))
_SIZES = {PoolMode.TRANSACTION: (1, 2, 3), PoolMode.SESSION: (1, 2, 4), PoolMode.STATEMENT: (1, 2)}


class RelayMachine(RuleBasedStateMachine):
    """Clients, servers and the network around a relay that has one pool."""

    world: World

    @initialize(
        mode=st.sampled_from(
            (PoolMode.TRANSACTION, PoolMode.SESSION, PoolMode.TRANSACTION, PoolMode.STATEMENT)
        ),
        size=_INDEX,
        reserve=st.integers(0, 1),
        always=st.booleans(),
        buffer=st.sampled_from((512, 512, 2048)),
        prepared=st.sampled_from((0, 2, 2)),
        parameters=st.lists(_PARAMETERS, min_size=3, max_size=3),
    )
    def begin(
        self,
        mode: PoolMode,
        size: int,
        reserve: int,
        always: bool,
        buffer: int,
        prepared: int,
        parameters: list[dict[str, str]],
    ) -> None:
        """Start a relay, and let the first clients come."""
        pool = attrs.evolve(
            POOL,
            pool_mode=mode,
            pool_size=_SIZES[mode][size % len(_SIZES[mode])],
            reserve_pool_size=reserve,
            server_reset_query_always=always,
            max_prepared_statements=prepared,
        )
        self.world = World(pool, buffer)
        self.units = pp.NAMED if mode is PoolMode.SESSION else pp.SHARED if prepared else ()
        for number, wanted in enumerate(parameters):
            self.world.connect(wanted, small=number < 2)

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

    def request(self, client: SimClient, pipeline: list[pp.Unit]) -> None:
        """Give a client something to ask; one that has broken the protocol has nothing to say any more."""
        if not client.hostile:
            client.pending += pp.render(pipeline, client.tag)

    # -- conversations ---------------------------------------------------------------------------------------------

    @precondition(has_clients)
    @rule(first=_INDEX, second=_INDEX, data=st.data(), chunk=_CHUNK, served=_CHUNK, rounds=st.integers(1, 4))
    def talk(
        self, first: int, second: int, data: st.DataObject, chunk: int, served: int, rounds: int
    ) -> None:
        """Two clients ask at once, and are answered as far as it goes."""
        for index in (first, second):
            self.request(self.client(index), data.draw(pp.pipelines(*self.units, max_size=2)))
        self.world.flow(chunk, rounds, served=served)

    @precondition(has_clients)
    @rule(index=_INDEX, data=st.data(), chunk=_CHUNK)
    def ask(self, index: int, data: st.DataObject, chunk: int) -> None:
        """A client has something to ask, and sends the beginning of it."""
        client = self.client(index)
        self.request(client, data.draw(pp.pipelines(*self.units, max_size=3)))
        client.send(chunk)

    @precondition(has_clients)
    @rule(index=_INDEX, data=st.data(), messages=_MESSAGES, part=_PART)
    def hesitate(self, index: int, data: st.DataObject, messages: int, part: int) -> None:
        """A client sends some messages and the beginning of another, and the others when those have been answered."""
        self.ask_in_two_parts(self.client(index), data, messages, part)
        self.world.flow(rounds=2)

    @rule(
        parameters=_PARAMETERS,
        how=_ENDS,
        data=st.data(),
        messages=_MESSAGES,
        part=_PART,
    )
    def visit(
        self, parameters: dict[str, str], how: str, data: st.DataObject, messages: int, part: int
    ) -> None:
        """A client comes, asks, is answered, and goes; it may have begun to ask something else."""
        client = self.world.connect(parameters)
        self.ask_in_two_parts(client, data, messages, part)
        client.pending.clear()
        if not client.eof:
            self.world.leave(client, how)
            self.world.turn()

    def ask_in_two_parts(self, client: SimClient, data: st.DataObject, messages: int, part: int) -> None:
        """Send and answer some messages of a pipeline, and leave the others pending."""
        client.send()
        self.request(client, [*data.draw(pp.pipelines(*self.units, max_size=2)), ("d300",)])
        frames, _ = split_frames(bytes(client.pending))
        first = sum(map(len, frames[:-1][:messages])) + part
        later = bytes(client.pending[first:])
        del client.pending[first:]
        self.world.flow(rounds=3, wake=True)
        client.pending += later

    @precondition(has_clients)
    @rule(index=_INDEX, how=_ENDS, parameters=_PARAMETERS, data=st.data(), chunk=_CHUNK)
    def replace(
        self, index: int, how: str, parameters: dict[str, str], data: st.DataObject, chunk: int
    ) -> None:
        """A client goes in the middle of anything, and another one comes, whose first bytes came with its login."""
        self.world.leave(self.client(index), how)
        early = data.draw(st.sampled_from((b"", pp.query("show TimeZone"), pp.SYNC[:3], pp.COPY_DONE)))
        client = self.world.connect(parameters, early, small=len(early) == 0)
        client.pending += pp.SYNC[3:] if early == pp.SYNC[:3] else b""
        self.request(client, data.draw(pp.pipelines(*self.units, max_size=2)))
        self.world.flow(chunk, 2)

    @precondition(has_clients)
    @rule(index=_INDEX, answer=st.sampled_from(("rows 1 5 $", "error $", "copyin-late $")), served=_CHUNK)
    def flood(self, index: int, answer: str, served: int) -> None:
        """A client sends more than its server reads, of what is not answered, and is answered meanwhile."""
        self.request(self.client(index), [("Q" + answer, "d11", "H*2000", "Qrows 1 5 $")])
        self.world.flow(rounds=2, served=served)

    @rule()
    def calm(self) -> None:
        """Everybody is answered, and ends what is open."""
        for client in self.world.live_clients:
            client.reading = True
        self.world.flow(rounds=4, wake=True)
        for client in self.world.live_clients:
            self.request(client, [("c", "S", "Qrollback")])
        self.world.flow(rounds=4, wake=True)

    @precondition(has_clients)
    @rule(first=_INDEX, second=_INDEX, early=st.booleans(), chunk=_CHUNK)
    def race(self, first: int, second: int, early: bool, chunk: int) -> None:
        """A cancel request is on its way to a sleeping query, which may end, while somebody else begins to sleep."""
        one, other = self.client(first), self.client(second)
        self.request(one, [("Qsleep $",)])
        self.world.flow(rounds=3)
        self.world.begin_cancel(one)
        self.request(other, [("Qsleep $",)])
        for server in self.world.live_servers if early else ():
            server.backend.wake()
            server.collect()
        self.world.flow(chunk, 3)

    # -- clients ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.live_clients) < 6)
    @rule(parameters=_PARAMETERS, small=st.booleans())
    def connect(self, parameters: dict[str, str], small: bool) -> None:
        """A client comes."""
        self.world.connect(parameters, small=small)

    @precondition(has_clients)
    @rule(index=_INDEX)
    def stop_or_start_reading(self, index: int) -> None:
        """A client stops taking answers, or takes them again."""
        client = self.client(index)
        client.reading = not client.reading

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
    @rule(index=_INDEX, taken=_CHUNK, given=_CHUNK, wake=st.booleans())
    def serve(self, index: int, taken: int, given: int, wake: bool) -> None:
        """A server reads some, and answers some; what sleeps there may end."""
        server = self.server(index)
        if wake:
            server.backend.wake()
            server.collect()
        server.pull(taken)
        server.push(given)
        self.world.turn()

    @precondition(has_servers)
    @rule(
        index=_INDEX,
        what=st.sampled_from(("notice", "notice", "notification", "status")),
        given=_CHUNK,
        asking=st.integers(0, 4),
    )
    def say_unasked(self, index: int, what: str, given: int, asking: int) -> None:
        """A server sends what answers nothing, or the beginning of it; meanwhile somebody may ask something."""
        server = self.server(index)
        self.world.say_unasked(server, what)
        server.push(given)
        self.world.turn()
        for client in self.world.live_clients[:asking]:
            self.request(client, [("Qrows 1 5 $",)])
            client.send()
        self.world.turn()

    @precondition(has_servers)
    @rule(index=_INDEX, zone=st.sampled_from(("UTC", "Asia/Tokyo", "Europe/Rome")))
    def change_default(self, index: int, zone: str) -> None:
        """The server's configuration changes."""
        self.world.change_idle(self.server(index), "TimeZone", zone)

    # -- the world -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.has_clients() and self.has_servers())
    @rule(
        index=_INDEX, what=st.sampled_from(("kill", "kill", "fatal", "stray", "end", "attack")), which=_INDEX
    )
    def disaster(self, index: int, what: str, which: int) -> None:
        """A server dies, is shut down or misbehaves, or a client makes it end its session, or breaks the protocol."""
        client, server = self.client(index), self.server(index)
        if what == "kill":
            self.world.kill(server)
        elif what == "fatal":
            self.world.say_unasked(server, "fatal")
        elif what == "stray":
            self.world.misbehave(server, _STRAY[which % len(_STRAY)])
        elif what == "end":
            self.request(client, [pp.ENDINGS[which % len(pp.ENDINGS)]])
        else:
            client.pending += _HOSTILE[which % len(_HOSTILE)]
            client.hostile = True
        self.world.flow()

    @rule(failing=st.sampled_from((False, False, True)))
    def dial(self, failing: bool) -> None:
        """Server connections are opened as needed; from now on that may fail."""
        self.world.failing = failing
        self.world.dial()

    @rule()
    def turn(self) -> None:
        """The relay handles what has come."""
        self.world.turn()

    @rule(chunk=_CHUNK, served=_CHUNK, rounds=st.integers(1, 3))
    def flow(self, chunk: int, served: int, rounds: int) -> None:
        """Everything moves on."""
        self.world.flow(chunk, rounds, served=served)

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
    examples = 3 * settings().max_examples // 2
    run_state_machine_as_test(RelayMachine, settings=settings(max_examples=examples, stateful_step_count=50))


_SHARED = st.lists(st.sampled_from(pp.SHARED), min_size=1, max_size=3)
_COPIES = st.lists(st.one_of(st.sampled_from(pp.SHARED), pp.copies()), min_size=1, max_size=4)
_TURNS = st.lists(
    st.tuples(st.integers(0, 2), _SHARED, _CHUNK, st.integers(0, 2)),
    min_size=4,
    max_size=16,
)


@settings(max_examples=3 * settings().max_examples)
@given(turns=_TURNS, size=st.integers(1, 2), limit=st.integers(1, 3), buffer=st.sampled_from((512, 2048)))
def test_clients_that_share_statements_receive_exactly_their_own_answers(
    turns: list[tuple[int, list[pp.Unit], int, int]], size: int, limit: int, buffer: int
) -> None:
    """Three clients, one or two servers, room for few statements: more of what the machine does too rarely."""
    world = World(attrs.evolve(POOL, pool_size=size, max_prepared_statements=limit), buffer)
    try:
        for parameters in ({}, {}, {"TimeZone": "Asia/Tokyo"}):
            world.connect(parameters)
        for index, pipeline, chunk, rounds in turns:
            client = world.clients[index]
            client.pending += pp.render(pipeline, client.tag)
            world.flow(chunk, rounds)
            world.check()
        world.finish()
    finally:
        world.close()


@settings(max_examples=2 * settings().max_examples)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 1), _COPIES, _CHUNK, _CHUNK, st.integers(0, 2)), min_size=1, max_size=6
    ),
    limit=st.integers(1, 2),
    buffer=st.sampled_from((512, 2048)),
)
def test_what_stands_behind_a_copy_that_may_fail_is_answered_at_its_place(
    turns: list[tuple[int, list[pp.Unit], int, int, int]], limit: int, buffer: int
) -> None:
    """Syncs that a copy has read, or has not, and statements that are shared behind them."""
    world = World(attrs.evolve(POOL, pool_size=1, max_prepared_statements=limit), buffer)
    try:
        for _ in range(2):
            world.connect()
        for index, pipeline, chunk, served, rounds in turns:
            client = world.clients[index]
            client.pending += pp.render(pipeline, client.tag)
            world.flow(chunk, rounds, served=served)
            world.check()
        world.finish()
    finally:
        world.close()
