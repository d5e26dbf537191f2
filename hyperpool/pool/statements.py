"""Prepared statements of clients that share servers.

A client's names are its own: two clients may give the same name to different texts. So a statement has another name on
the servers, which stands for its text and parameter types, whoever prepares them. Sans-IO.

=======================  ===========================================================================================
`Statement`              one text with its parameter types, and its name on the servers
`StatementStore`         the statements of a pool, found by their text; no text is kept twice
`ClientStatements`       what one client has prepared: its names
`ServerStatements`       what one server connection has prepared, least recently used first
=======================  ===========================================================================================

Memory is bounded: `MemoryBudget` limits what all clients have together, where a text that they share counts once. What
one client may have is a part of that; a little of it is its own, whatever others have. A server's statements are
bounded by ``max_prepared_statements``.
"""

from __future__ import annotations

import re
import weakref
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from hyperpool.sql.effects import EffectReader, Effects

PREFIX: Final = b"HYPERPOOL_"
"""What statements' names on servers begin with."""

Flavor: TypeAlias = tuple[tuple[str, str], ...]

LONGEST_NAME: Final = 63
"""Bytes of a name that count; PostgreSQL does not look at what is behind them (NAMEDATALEN)."""

MARK: Final = b"?"
"""What a client's own name gets that begins like a server's: so it is nobody's."""

DUPLICATE: Final = PREFIX + b"0"
"""What names begin with that are no statement's: for errors that a name exists already."""

_OVERHEAD: Final = 400
"""Bytes that a statement costs apart from its text, however many have it: objects, and places in dictionaries."""

_NAME: Final = 100
"""Bytes that a name costs a client apart from itself: places in two dictionaries."""

_SHARE: Final = 16
"""One client may take this part of the budget."""

_OWN: Final = 1 << 16
"""Bytes that a client may always have, whatever others have: 70 statements of 400 bytes, as many as an application of
some size has; for 10,000 clients that is 640 MiB, if no two of them share a text."""

_CLOSED: Final = 32
"""Names that a client has closed and that errors on their way may still speak of."""

_ALIAS: Final = 16384
"""Bytes that are kept of a name for errors."""

_SERVER_NAME: Final = re.compile(PREFIX + rb"\d*" + re.escape(MARK) + b"?")


class Statement:
    """One text with its parameter types.

    Attributes:
        body: a Parse message's body behind the name: text, zero byte, parameter types.
        name: on the servers; b"" for the unnamed statement.
        flavor: the settings that it is parsed under: literals in it may have been read already.
        effects: what session state executing it may change; None for nothing. As of `generation`: ask
            `StatementStore.effects`.
        generation: the store's, when the text was read.
        users: how many clients have given it a name.
    """

    __slots__ = ("__weakref__", "body", "effects", "flavor", "generation", "name", "users")

    def __init__(
        self, body: bytes, name: bytes, effects: Effects | None, flavor: Flavor = (), generation: int = 0
    ) -> None:
        self.body = body
        self.name = name
        self.flavor = flavor
        self.effects = effects
        self.generation = generation
        self.users = 0

    def __repr__(self) -> str:
        return f"<Statement {self.name.decode('ascii') or 'unnamed'}>"

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.body) + _OVERHEAD

    @property
    def text(self) -> bytes:
        """The SQL text."""
        return text_of(self.body)


def text_of(body: bytes) -> bytes:
    """The SQL text in a Parse message's body behind the name."""
    return body[: body.find(0)]


class Change:
    """What a request changes, for the case that the server never comes to it.

    Attributes:
        name: the name that changes its meaning at the client, b"" for the unnamed statement; None for none.
        before: the statement that had the name.
        touched: the statement with a name that is prepared or closed on the server; None for none.
        unsure: of the unnamed statement: if the server never comes to it, nobody knows what it has instead.
        cycle: the pipeline that it belongs to; the ledger counts them.
    """

    __slots__ = ("before", "cycle", "name", "touched", "unsure")

    def __init__(
        self, name: bytes | None, before: Statement | None, touched: Statement | None, *, unsure: bool = False
    ) -> None:
        self.name = name
        self.before = before
        self.touched = touched
        self.unsure = unsure
        self.cycle = 0


class StatementStore:
    """The statements of a pool. A statement lives as long as a client or a server has it.

    Args:
        reader: tells what session state a text may change; None when nobody wants to know.

    Attributes:
        version: counts the changes of the schema that may have changed what a statement returns; servers prepare anew
            what they prepared before one.
        generation: counts the changes of what is known about texts; each is read anew when it is used next.
    """

    def __init__(self, reader: EffectReader | None) -> None:
        self.version = 0
        self.generation = 0
        self._reader = reader
        self._numbers = count(1)
        self._statements: weakref.WeakValueDictionary[tuple[bytes, Flavor, int], Statement] = (
            weakref.WeakValueDictionary()
        )

    def __len__(self) -> int:
        return len(self._statements)

    def intern(self, body: bytes, flavor: Flavor = (), taken: Container[Statement] = ()) -> Statement:
        """The statement with this text and these types.

        Args:
            body: see `Statement`.
            flavor: see `Statement`.
            taken: statements that will not do: a client that gives two names to one text has two statements, so that
                each statement has one name at each client.
        """
        for twin in count():
            statement = self._statements.get((body, flavor, twin))
            if statement is None:
                break
            if statement not in taken:
                return statement
        name = b"%s%d" % (PREFIX, next(self._numbers))
        statement = Statement(body, name, self._read(body), flavor, self.generation)
        self._statements[body, flavor, twin] = statement
        return statement

    def find(self, body: bytes, flavor: Flavor) -> Statement | None:
        """The statement with this text and these types, if somebody has it."""
        return self._statements.get((body, flavor, 0))

    def unnamed(self, body: bytes, flavor: Flavor = ()) -> Statement:
        """A statement that is nobody else's."""
        return Statement(body, b"", self._read(body), flavor, self.generation)

    def effects(self, statement: Statement) -> Effects | None:
        """What session state executing a statement may change, as far as is known today; None for nothing."""
        if statement.generation != self.generation:
            statement.effects = self._read(statement.body)
            statement.generation = self.generation
        return statement.effects

    def relearn(self, reader: EffectReader | None) -> None:
        """What the reader knows has changed, or there is another one."""
        self._reader = reader
        self.generation += 1

    def _read(self, body: bytes) -> Effects | None:
        return self._reader.read(text_of(body)) if self._reader is not None else None


class MemoryBudget:
    """Bounds what the prepared statements of all clients take.

    Attributes:
        limit: bytes.
        used: bytes; a text that clients share is counted once.
    """

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def lend(self, statement: Statement) -> None:
        """Count a statement that no client has given a name, for as long as it lives."""
        self.used += statement.size
        weakref.finalize(statement, self._give_back, statement.size).atexit = False

    def _give_back(self, size: int) -> None:
        self.used -= size


class ClientStatements:
    """What one client has prepared.

    Args:
        budget: shared by all clients.

    Attributes:
        names: each name's statement.
        holders: each statement's name.
        size: bytes that it takes, texts that it shares with others included.
        aside: those of them that have come and must wait.
    """

    __slots__ = (
        "_aliased",
        "_aliases",
        "_budget",
        "_closed",
        "_reserved",
        "_spelt",
        "aside",
        "holders",
        "names",
        "size",
    )

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._reserved = 0
        self.aside = 0
        self._closed: dict[bytes, bytes] = {}
        self._aliases: dict[bytes, bytes] = {}
        self._aliased = 0
        self._spelt = b""
        self.size = 0
        self.names: dict[bytes, Statement] = {}
        self.holders: dict[Statement, bytes] = {}

    def fits(self, name: bytes, body: int, shared: Statement | None = None) -> bool:
        """Whether the client may have another statement.

        Args:
            name: the name that it gives.
            body: how many bytes its text and types have.
            shared: the statement, if there is one already.
        """
        budget = self._budget
        size = body + _OVERHEAD + len(name) + _NAME
        whole = self.size + size
        if whole <= min(_OWN, budget.limit // _SHARE):
            return True
        new = size - body - _OVERHEAD if shared is not None and shared.users else size
        return budget.used + new <= budget.limit and whole <= max(budget.limit // _SHARE, size)

    def reserve(self, size: int) -> None:
        """Count `size` more bytes, or fewer, of a text that is on its way."""
        self._reserved += size
        self.size += size
        self._budget.used += size

    def put_aside(self, size: int) -> None:
        """Count the bytes of a text that has come and must wait; 0 when it need not any more."""
        self.reserve(size - self.aside)
        self.aside = size

    def put(self, name: bytes, statement: Statement | None) -> None:
        """Give a name to a statement, or take it away (None)."""
        old = self.names.pop(name, None)
        if old is not None:
            del self.holders[old]
            self._closed[old.name] = name
            if len(self._closed) > _CLOSED:
                del self._closed[next(iter(self._closed))]
            self._drop(name, old)
        if statement is not None:
            self.names[name] = statement
            self.holders[statement] = name
            if not statement.users:
                self._budget.used += statement.size
            statement.users += 1
            self.size += statement.size + len(name) + _NAME
            self._budget.used += len(name) + _NAME

    def _drop(self, name: bytes, statement: Statement) -> None:
        statement.users -= 1
        if not statement.users:
            self._budget.used -= statement.size
        self.size -= statement.size + len(name) + _NAME
        self._budget.used -= len(name) + _NAME

    def shortened(self, name: bytes) -> bytes:
        """What counts of a name that the client has sent; errors speak of the newest long one as it was sent."""
        if len(name) <= LONGEST_NAME:
            return name
        self._spelt = name
        return name[:LONGEST_NAME]

    def alias(self, name: bytes) -> bytes:
        """A server's name that is no statement's, and that stands for the client's in errors from now on.

        Args:
            name: the client's; of a very long one, errors show the beginning.
        """
        self._aliased = (self._aliased + 1) % _CLOSED
        server_name = b"%s%d" % (DUPLICATE, self._aliased)
        self._aliases[server_name] = name[:_ALIAS]
        return server_name

    def clear(self) -> None:
        """All names are gone, and what is on its way will not come."""
        for name, statement in self.names.items():
            self._drop(name, statement)
        self.names.clear()
        self.holders.clear()
        self.reserve(-self._reserved)
        self.aside = 0

    def translate(self, report: bytes) -> bytes:
        """Put the client's own names into an error's body that speaks of the servers' names."""
        own = {
            **self._closed,
            **self._aliases,
            **{statement.name: name for statement, name in self.holders.items()},
        }
        short, spelt = self._spelt[:LONGEST_NAME], self._spelt

        def other(found: re.Match[bytes]) -> bytes:
            name = own.get(found[0], found[0].removesuffix(MARK))
            return spelt if name == short and name else name

        return _SERVER_NAME.sub(other, report)


class ServerStatements:
    """What one server connection has prepared, least recently used first.

    A statement is *certain* when it is known to be there. After an error in a pipeline, the server has dropped requests
    to prepare or to close statements: those are uncertain, and are closed and prepared again before they are used.

    Attributes:
        certain: those that are certain.
        passing: those that were prepared where tables may have been that are there for this transaction only.
        version: the store's version when the certain ones were prepared.
    """

    __slots__ = ("_crowd", "_used", "certain", "passing", "version")

    def __init__(self) -> None:
        self._used: OrderedDict[Statement, float] = OrderedDict()
        self._crowd = 0
        self.certain: set[Statement] = set()
        self.passing: set[Statement] = set()
        self.version = 0

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, statement: Statement) -> bool:
        """Whether it may be there, certain or not."""
        return statement in self._used

    def use(self, statement: Statement, now: float) -> None:
        """The statement is used or prepared now."""
        self._used[statement] = now
        self._used.move_to_end(statement)

    def doubt(self, statement: Statement) -> None:
        """Nobody knows whether it is there."""
        self.certain.discard(statement)
        if statement not in self._used:
            self._used[statement] = 0.0
            self._used.move_to_end(statement, last=False)

    def doubt_all(self) -> None:
        """Every plan may be out of date."""
        self.certain.clear()

    def doubt_passing(self) -> None:
        """The transaction has ended."""
        self.certain.difference_update(self.passing)
        self.passing.clear()

    def evict(self, limit: int, since: float) -> Iterable[Statement]:
        """Forget statements until there is room for one more; what is used in this transaction stays, if it has a name.

        Args:
            limit: how many the server may have.
            since: when the transaction began.
        """
        while len(self._used) >= limit:
            oldest = next(iter(self._used))
            if oldest.users and self._used[oldest] >= since:
                break
            yield self._forget(oldest)
        else:
            self._crowd = 0
            return
        if len(self._used) > self._crowd:
            # Not each time: there may be many that stay.
            for closed in [statement for statement in self._used if not statement.users]:
                yield self._forget(closed)
            self._crowd = 2 * len(self._used)

    def _forget(self, statement: Statement) -> Statement:
        del self._used[statement]
        self.certain.discard(statement)
        self.passing.discard(statement)
        return statement

    def clear(self) -> None:
        """All are gone."""
        self._used.clear()
        self._crowd = 0
        self.certain.clear()
        self.passing.clear()
