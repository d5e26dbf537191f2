"""Runs a script directly on PostgreSQL, and writes down what was sent, by whom, in which order, and every answer.

`tests.support.pgscripts_replay` does all of it again somewhere else. The recorder sees to it that this cannot come to a
standstill for want of server connections: before a client needs one and all are held by others (in a transaction, in a
pipeline, with an answer that is still to come), the one that has held its own for the longest time is made to end what
it does.
"""

from __future__ import annotations

import contextlib
import select
import time
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final, Self

import attrs

from tests.support import rawclient as raw
from tests.support.pglanguage import split_frames
from tests.support.pgscripts import CUT, CUT_OFF, LATER, LEAVES, RESET, Script, Step
from tests.support.pgscripts_answers import Answers
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from tests.support.rawclient import Frame

PATIENCE: Final = 10.0  # seconds that an answer may take
_GLANCE: Final = 0.005  # seconds between two looks whether a statement sleeps


@attrs.frozen
class Connect:
    """A client connects and logs in; `frames` is what it is told then."""

    client: int
    frames: list[Frame]


@attrs.frozen
class Send:
    """A client sends a step, in these pieces."""

    client: int
    step: Step
    pieces: list[bytes]


@attrs.frozen
class Cancel:
    """What a client runs is cancelled once it sleeps."""

    client: int


@attrs.frozen
class Receive:
    """A client reads its answer; after it, the connection may be `ended`."""

    client: int
    frames: list[Frame]
    ended: bool


@attrs.frozen
class Leave:
    """A client closes its connection in one of the ways of `LEAVES`."""

    client: int
    how: str


Event = Connect | Send | Cancel | Receive | Leave


class Side:
    """The connections of one run.

    Args:
        address: of PostgreSQL or of a pooler.
        database: to log in to.
        user: who is let in without a password.
        asleep: tells which statement of a client is asleep, "" for none.
        patience: seconds that an answer may take.
    """

    def __init__(
        self,
        address: tuple[str, int],
        database: str,
        user: str,
        asleep: Callable[[int], str],
        patience: float = PATIENCE,
    ) -> None:
        self._address = address
        self._login = database, user
        self.asleep = asleep
        self.patience = patience
        self.clients: dict[int, raw.RawClient] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients.values():
            client.sock.close()

    def connect(self, number: int) -> list[Frame]:
        """Log a client in; returns what it is told about the session."""
        client = self.clients[number] = raw.RawClient(self._address)
        client.sock.settimeout(self.patience)
        return [got for got in client.login(*self._login) if got.kind not in {b"R", b"K"}]

    def send(self, number: int, pieces: Iterable[bytes]) -> None:
        """Send bytes in several pieces; whether they still arrive, the answer will tell."""
        with contextlib.suppress(raw.ConnectionEnded):
            for piece in pieces:
                self.clients[number].send(piece)

    def cancel(self, number: int) -> None:
        """Ask for what a client does to be cancelled, when it has fallen asleep, and wait until it has woken up."""
        client = self.clients[number]
        statement = eventually(
            lambda: self.asleep(number), within=self.patience, what=f"client {number} is asleep"
        )
        with raw.RawClient(self._address) as other:
            other.sock.settimeout(self.patience)
            other.send(raw.cancel_packet(client.pid, client.secret))
            other.receive_all()
        eventually(
            lambda: self.asleep(number) != statement, within=self.patience, what=f"client {number} wakes up"
        )

    def leave(self, number: int, how: str) -> None:
        """Close a client's connection."""
        client = self.clients.pop(number)
        if how == RESET:
            client.abort()
        else:
            client.sock.close()


class _Turns:
    """What the recorder knows about one client."""

    def __init__(self, since: int) -> None:
        self.answers = Answers()
        self.since = since
        self.unread = False

    @property
    def holding(self) -> bool:
        return self.unread or self.answers.holding


class Recorder:
    """Runs scripts on PostgreSQL and writes down what happens.

    Args:
        side: the connections; each client has one of its own.
        servers: how many server connections there are where this is run again.

    Attributes:
        events: what has happened.
    """

    def __init__(self, side: Side, servers: int) -> None:
        self._side = side
        self._servers = servers
        self._turns: dict[int, _Turns] = {}
        self._moments = count()
        self._random: Random | None = None
        self.events: list[Event] = []

    def run(self, script: Script) -> list[Event]:
        """Run a script; after it, each client that is left looks at its table and leaves.

        Returns:
            All events.
        """
        self._random = Random(script.chunks) if script.chunks else None
        for step in script.steps:
            self._step(step)
        for client in sorted(self._turns):
            self._end(client)
        for client in sorted(self._turns):
            self._step(Step(client, ("Q select n, t from @ order by n",)))
            self._step(Step(client, ("X",)))
        return self.events

    def _step(self, step: Step) -> None:
        client = step.client
        sent = step.render()
        self._settle(client)
        turns = self._turns.get(client)
        if turns is not None and turns.answers.copying and sent[:1] not in b"dcf":
            self._step(Step(client, ("d21,late", "c", "S")))
        if turns is None or not turns.holding:
            self._make_room()
        if turns is None:
            turns = self._turns[client] = _Turns(next(self._moments))
            self.events.append(Connect(client, self._side.connect(client)))
        if not turns.holding:
            turns.since = next(self._moments)
        self._send(step, sent[:-CUT_OFF] if step.ending == CUT else sent)
        if step.ending in LEAVES:
            self._side.leave(client, step.ending)
            self.events.append(Leave(client, step.ending))
            del self._turns[client]
            return
        for one in split_frames(sent)[0]:
            turns.answers.ask(one[:1])
        turns.unread = True
        if step.ending != LATER:
            self._settle(client)

    def _send(self, step: Step, data: bytes) -> None:
        pieces = [data]
        if self._random is not None and len(data) > 1:
            cuts = sorted(self._random.randrange(1, len(data)) for _ in range(self._random.randrange(5)))
            pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        self._side.send(step.client, pieces)
        self.events.append(Send(step.client, step, pieces))

    def _settle(self, client: int) -> None:
        """Read what a client has not read yet."""
        turns = self._turns.get(client)
        if turns is None or not turns.unread:
            return
        frames: list[Frame] = []
        ended = False
        try:
            while not turns.answers.complete:
                self._wake(client)
                got = self._side.clients[client].receive()
                turns.answers.take(got)
                frames.append(got)
        except raw.ConnectionEnded:
            ended = True
            self._side.leave(client, "")
            del self._turns[client]
        turns.unread = False
        self.events.append(Receive(client, frames, ended))

    def _wake(self, client: int) -> None:
        """Wait until something has come; if it does not because the client is asleep, cancel that."""
        connection = self._side.clients[client]
        started = time.monotonic()
        while not connection._buffer and not select.select([connection.sock], [], [], _GLANCE)[0]:
            if self._side.asleep(client):
                self.events.append(Cancel(client))
                self._side.cancel(client)
            elif time.monotonic() - started > self._side.patience:
                raise TimeoutError

    def _make_room(self) -> None:
        """Let fewer clients hold a server connection than there are."""
        while True:
            holders = [client for client, turns in self._turns.items() if turns.holding]
            if len(holders) < self._servers:
                return
            self._end(min(holders, key=lambda client: self._turns[client].since))

    def _end(self, client: int) -> None:
        """Let a client end what it does."""
        self._settle(client)
        turns = self._turns.get(client)
        if turns is None or not turns.holding:
            return
        answers = turns.answers
        ends = ("f",) if answers.copying else ()
        self._step(Step(client, (*ends, "S")))
        if answers.doubtful:
            self._step(Step(client, ("X",)))
        elif answers.status != b"I":
            self._step(Step(client, ("Q rollback",)))
