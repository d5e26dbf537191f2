"""Clients that do everything twice: through a pooler with the result cache, and on a second database directly.

The two databases begin alike and see the same statements in the same order, so that all answers must be the same, byte
by byte. What is not compared: object ids, the order of rows (PostgreSQL may change its mind), what errors say beyond
their code and message, notices and reported parameters.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from tests.support import rawclient as raw
from tests.support.cacheworld import SCHEMAS, Statement, World
from tests.support.rawclient import Frame, RawClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random
    from types import TracebackType

    from tests.support.postgres import Role

_REMEMBERED: Final = 30  # steps that a difference tells
_HOT: Final = 8  # queries that are asked again and again
_AGAIN: Final = 0.95
_WARM: Final = 5
_UNCOMPARED: Final = frozenset({b"S", b"N", b"A"})

_COMMENTS: Final = ("", "", "", " ", " /* hello */", "-- it's a comment\n", " /* a /* nested */ one */", " ;")


class DifferenceError(AssertionError):
    """The two answers to one request differ."""


class Twin:
    """A client that does everything twice.

    Args:
        addresses: of the pooler, and of PostgreSQL.
        databases: one for each.
        role: as whom.
        parameters: of the startup message.
    """

    def __init__(
        self,
        addresses: tuple[tuple[str, int], tuple[str, int]],
        databases: tuple[str, str],
        role: Role,
        **parameters: str,
    ) -> None:
        self.role = role
        self.sides = [RawClient(address) for address in addresses]
        for side, database in zip(self.sides, databases, strict=True):
            last = side.login(database, role.name, role.password, **parameters)[-1]
            assert last.kind == b"Z", last.fields
        self.names: dict[str, str] = {}
        self.count = 0

    def exchange(self, *messages: bytes, syncs: int = 1) -> list[Frame]:
        """Send messages, and compare what comes.

        Args:
            messages: the same for both.
            syncs: so many of them are answered with ReadyForQuery.

        Returns:
            What PostgreSQL itself has sent.

        Raises:
            DifferenceError: it differs.
        """
        for side in self.sides:
            side.send(*messages)
        answers = [[one for _ in range(syncs) for one in side.receive_until()] for side in self.sides]
        cached, plain = (_comparable(answer) for answer in answers)
        if cached != plain:
            raise DifferenceError(f"through the pooler:\n  {cached}\ndirectly:\n  {plain}")
        return answers[1]

    def flush(self, *messages: bytes) -> Frame:
        """Send messages, and a Flush; compare what comes up to a description or an error, the last message."""
        for side in self.sides:
            side.send(*messages, raw.FLUSH)
        answers: list[list[Frame]] = [[], []]
        for side, answer in zip(self.sides, answers, strict=True):
            while not answer or answer[-1].kind not in (b"T", b"n", b"E"):
                answer.append(side.receive())
        cached, plain = (_comparable(answer) for answer in answers)
        if cached != plain:
            raise DifferenceError(f"through the pooler:\n  {cached}\ndirectly:\n  {plain}")
        return answers[1][-1]

    def close(self) -> None:
        """Leave."""
        for side in self.sides:
            side.sock.close()


def _comparable(frames: Sequence[Frame]) -> list[tuple[bytes, object]]:
    found: list[tuple[bytes, object]] = []
    rows: list[tuple[bytes, object]] = []
    for frame in frames:
        if frame.kind == b"D":
            rows.append((b"D", frame.columns))
            continue
        found += sorted(rows, key=repr)
        rows.clear()
        if frame.kind == b"E":
            found.append((b"E", (frame.fields["C"], frame.fields["M"])))
        elif frame.kind == b"T":
            found.append((b"T", _columns(frame.body)))
        elif frame.kind not in _UNCOMPARED:
            found.append((frame.kind, frame.body))
    return found


def _columns(body: bytes) -> list[tuple[bytes, bytes]]:
    """Names, types and formats, without the table's object id."""
    columns = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        columns.append((body[at:end], body[end + 5 : end + 19]))
        at = end + 19
    return columns


class Differential:
    """A random world, and random steps of many clients in it.

    Args:
        random: where all decisions come from.
        connect: makes a client; the first makes the world.
        clients: how many there are.
    """

    def __init__(self, random: Random, connect: Callable[[int], Twin], clients: int) -> None:
        self._random = random
        self._connect = connect
        self._twins = [connect(number) for number in range(clients)]
        self._owner = connect(0)
        self._open: int | None = None
        self._done: deque[str] = deque(maxlen=_REMEMBERED)
        self._asked: deque[tuple[Statement, str]] = deque(maxlen=_HOT)
        self.steps = 0
        self.world = World(random, self._twins[0].role.name, self._twins[1].role.name)
        for text in ("BEGIN", *self.world.drop(), *self.world.create(), "COMMIT"):
            self._setup(text)
        for twin in self._twins[::3]:
            twin.exchange(raw.query(f"SET search_path = {random.choice(SCHEMAS)}"))

    def _setup(self, text: str) -> None:
        errors = [frame.fields for frame in self._owner.exchange(raw.query(text)) if frame.kind == b"E"]
        assert not errors, (text, errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for twin in (*self._twins, self._owner):
            twin.close()

    def finish(self) -> None:
        """Leave nothing behind."""
        if self._open is not None:
            self._twins[self._open].exchange(raw.query("ROLLBACK"))
        for text in ("BEGIN", *self.world.drop(), "COMMIT"):
            self._setup(text)

    def run(self, steps: int) -> None:
        """Do so many steps.

        Raises:
            DifferenceError: two answers differ; what was done before is in the message.
        """
        for _ in range(steps):
            self.steps += 1
            try:
                self._step()
            except (DifferenceError, TimeoutError, raw.ConnectionEnded) as error:
                done = "\n".join(self._done)
                raise DifferenceError(
                    f"{error!r}\n{error}\n\nafter {self.steps} steps, the last of which:\n{done}"
                ) from None

    def _step(self) -> None:
        random = self._random
        number = random.randrange(len(self._twins))
        chance = random.random()
        if self._open is not None and number != self._open and chance > 0.7:
            number = self._open
        if number == self._open:
            self._in_transaction(number, chance)
        elif self._open is not None or chance < 0.92:
            self._read(number)
        elif chance < 0.96:
            self._write(number)
        elif chance < 0.968:
            self._simple(number, self.world.setting().sql)
        elif chance < 0.975:
            self._simple(number, random.choice(("BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ")))
            self._open = number
        elif chance < 0.98:
            self._pipeline(number)
        elif chance < 0.985:
            self._temporary(number)
        elif chance < 0.99:
            self._again(number)
        elif chance < 0.992:
            self._change()
        else:
            self._copy(number)

    def _in_transaction(self, number: int, chance: float) -> None:
        if chance < 0.4:
            self._read(number)
        elif chance < 0.8:
            self._ask(number, self.world.write())
        elif chance < 0.85:
            self._simple(number, self.world.setting().sql.replace("SET ", "SET LOCAL ", 1))
        elif chance < 0.88:
            self._simple(
                number, self._random.choice(("SAVEPOINT s", "ROLLBACK TO s", "SET CONSTRAINTS ALL DEFERRED"))
            )
        else:
            self._simple(number, self._random.choice(("COMMIT", "COMMIT", "ROLLBACK")))
            self._open = None

    def _read(self, number: int) -> None:
        """Mostly what somebody has asked not long ago, and mostly in the same way."""
        random = self._random
        if random.random() < _AGAIN and self._asked:
            statement, form = random.choice(self._asked)
            if random.random() < 0.2:
                form = random.choice(_FORMS)
        else:
            statement, form = self.world.read(), random.choice(_FORMS)
            self._asked.append((statement, form))
        getattr(self, form)(number, statement)

    def _write(self, number: int) -> None:
        """Some of what is asked again and again is in the cache before, and is asked for again afterwards."""
        asked = self._random.sample(self._asked, min(_WARM, len(self._asked)))
        for statement, form in asked:
            getattr(self, form)(number, statement)
        self._ask(number, self.world.write())
        for statement, form in asked:
            getattr(self, form)(number, statement)

    # -- one step ------------------------------------------------------------------------------------------------

    def _exchange(self, number: int, what: str, *messages: bytes, syncs: int = 1) -> list[Frame]:
        self._done.append(f"{number} {self._twins[number].role.name}: {what}")
        return self._twins[number].exchange(*messages, syncs=syncs)

    def _simple(self, number: int, sql: str) -> None:
        self._exchange(number, sql, raw.query(sql))

    def _ask(self, number: int, statement: Statement) -> None:
        form = self._random.choice(_FORMS)
        getattr(self, form)(number, statement)

    def _as_query(self, number: int, statement: Statement) -> None:
        text = statement.literal()
        if self._random.random() < 0.3:
            text = self._random.choice((text, text.replace("SELECT", "select"), text.replace(" ", "  ")))
            text += self._random.choice(_COMMENTS)
        self._simple(number, text)

    def _as_literals(self, number: int, statement: Statement) -> None:
        """In the extended protocol, without parameters."""
        self._unnamed(number, statement.literal(), ())

    def _as_parameters(self, number: int, statement: Statement) -> None:
        self._unnamed(number, statement.parameters(), statement.values)

    def _unnamed(self, number: int, sql: str, values: tuple[int | str, ...]) -> None:
        describe = raw.describe_portal() if self._random.random() < 0.9 else b""
        rows = int(self._random.random() < 0.05)
        binary = int(self._random.random() < 0.1)
        closes = raw.frame(b"C", b"P\0") if self._random.random() < 0.1 else b""
        self._exchange(
            number,
            f"{sql} {values} describe={describe != b''} rows={rows} binary={binary} closes={closes != b''}",
            raw.parse(sql),
            _bind(values, binary=binary),
            describe,
            raw.execute(rows=rows),
            closes,
            raw.SYNC,
        )

    def _as_named(self, number: int, statement: Statement) -> None:
        """Prepared once, executed many times, as drivers do it."""
        twin = self._twins[number]
        sql, values = statement.parameters(), statement.values
        binary = int(self._random.random() < 0.1)
        name = twin.names.get(sql)
        prepare = b""
        if name is None:
            twin.count += 1
            name = f"s{twin.count}"
            prepare = raw.parse(sql, name)
            how = self._random.random()
            describe = raw.frame(b"D", b"S" + raw.cstring(name))
            if how < 0.2:
                self._done.append(f"{number} {twin.role.name}: prepare with Flush {name}: {sql}")
                last = twin.flush(prepare, describe)
                prepare = b""
                if last.kind == b"E":
                    twin.exchange(raw.SYNC)
                    return
            elif how < 0.6:
                frames = self._exchange(number, f"prepare {name}: {sql}", prepare, describe, raw.SYNC)
                prepare = b""
                if any(frame.kind == b"E" for frame in frames):
                    return
        describe = raw.describe_portal() if self._random.random() < 0.9 else b""
        frames = self._exchange(
            number,
            f"{'prepare and ' if prepare else ''}execute {name}: {sql} {values} binary={binary}",
            prepare,
            _bind(values, binary=binary, name=name),
            describe,
            raw.execute(rows=int(self._random.random() < 0.2)),
            raw.SYNC,
        )
        if not any(frame.kind == b"E" for frame in frames):
            twin.names[sql] = name
        if len(twin.names) > 12:
            self._forget(number)

    def _forget(self, number: int) -> None:
        """Close a statement."""
        twin = self._twins[number]
        name = twin.names.pop(next(iter(twin.names)))
        self._exchange(number, f"close {name}", raw.frame(b"C", b"S" + raw.cstring(name)), raw.SYNC)

    def _pipeline(self, number: int) -> None:
        """Several statements with one Sync, or a Sync each, or in one text."""
        kinds = [self.world.read, self.world.read, self.world.write]
        statements = [self._random.choice(kinds)() for _ in range(self._random.randrange(2, 4))]
        how = self._random.randrange(3)
        what = "; ".join(statement.literal() for statement in statements)
        if how == 0:
            self._exchange(number, what, raw.query(what))
            return
        parts = [
            raw.parse(one.parameters()) + _bind(one.values) + raw.describe_portal() + raw.execute()
            for one in statements
        ]
        if how == 1:
            self._exchange(number, f"pipeline: {what}", *parts, raw.SYNC)
        else:
            self._exchange(
                number, f"pipelines: {what}", *[part + raw.SYNC for part in parts], syncs=len(parts)
            )

    def _temporary(self, number: int) -> None:
        """A temporary table hides a permanent one for a while. (Plans within functions do not notice that.)."""
        self._simple(number, "CREATE TEMP TABLE a (id int, name text)")
        for sql in ("SELECT id, name FROM a", "SELECT count(*) FROM a", "SELECT id FROM w1.a WHERE id = {0}"):
            self._ask(number, Statement(sql, (1,) * sql.count("{")))
        self._simple(number, "DROP TABLE pg_temp.a")

    def _copy(self, number: int) -> None:
        data = f"{self._random.randrange(200, 10**6)}\tcopied\n".encode()
        sql = "COPY a (id, name) FROM STDIN"
        self._exchange(number, sql, raw.query(sql), raw.copy_data(data), raw.COPY_DONE)

    def _again(self, number: int) -> None:
        """A client leaves, and another one comes."""
        self._twins[number].close()
        self._twins[number] = self._connect(number)
        self._done.append(f"{number} comes again")
        self._simple(number, f"SET search_path = {self._random.choice(SCHEMAS)}")

    def _change(self) -> None:
        """The schema changes; who has prepared statements prepares them anew, as PostgreSQL asks for."""
        for text in self.world.ddl():
            self._done.append(f"owner: {text}")
            self._owner.exchange(raw.query(text))
        for twin in self._twins:
            twin.names.clear()


_FORMS: Final = ("_as_query", "_as_query", "_as_literals", "_as_parameters", "_as_named", "_as_named")


def _bind(values: tuple[int | str, ...], *, binary: int = 0, name: str = "") -> bytes:
    """Build a Bind with parameters in text format, and all results in one format."""
    body = b"\0" + raw.cstring(name) + struct.pack("!hh", 0, len(values))
    for value in values:
        data = str(value).encode()
        body += struct.pack("!i", len(data)) + data
    return raw.frame(b"B", body + struct.pack("!hh", 1, binary))
