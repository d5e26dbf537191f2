"""What most clients send, in as few steps as Python takes: one request, whole, to a server that owes nothing.

That may be a server that nobody has, or one whose client is in a transaction block.

Four shapes are known. Drivers send them for a query without parameters, for a query with parameters, and for a prepared
statement:

=====================================  =====================================================================
Query                                  the simple protocol
Parse, Bind, (Describe,) Execute, Sync the unnamed statement, as libpq, psycopg and pgjdbc send it at first
Bind, (Describe,) Execute, Sync        a named statement that is prepared on the server already
=====================================  =====================================================================

Anything else, and anything that could have an effect on the session, takes the way through `relay.translate`, which
comes to the same result.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from hyperpool.relay import caching
from hyperpool.relay.tables import PIPELINE, SIMPLE
from hyperpool.relay.upkeep import Upkeep
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import byte_at, length_at, matches, part, renamed, text_at

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection

_QUERY: Final = (wire.QUERY,)
_DESCRIBE: Final = b"D\0\0\0\6P\0"
_EXECUTE: Final = b"E\0\0\0\x09\0\0\0\0\0"
_SYNC: Final = b"S\0\0\0\4"
_WITH_DESCRIBE: Final = _DESCRIBE + _EXECUTE + _SYNC
_WITHOUT: Final = _EXECUTE + _SYNC
"""What stands behind a Bind."""
_DESCRIBED: Final[tuple[int, ...]] = (wire.BIND, wire.DESCRIBE, wire.EXECUTE, wire.SYNC)
_EXECUTED: Final[tuple[int, ...]] = (wire.BIND, wire.EXECUTE, wire.SYNC)
_PARSED_DESCRIBED: Final[tuple[int, ...]] = (wire.PARSE, *_DESCRIBED)
_PARSED_EXECUTED: Final[tuple[int, ...]] = (wire.PARSE, *_EXECUTED)
"""What the server will have to answer."""


class Shortcut(Upkeep):
    """What a server connection does with a request of a known shape."""

    __slots__ = ()

    def take(self, client: ClientConnection, buffer: bytes | bytearray, end: int) -> bool:
        """Link a client and pass its request on, if that has one of the known shapes.

        The server owes nothing. It has no client, and this client's parameters; or it `goes_on` with this client.

        Args:
            client: has no server, or this one.
            buffer: holds the request at its beginning.
            end: how many bytes were read.

        Returns:
            Whether that was done.
        """
        kind = byte_at(buffer, 0)
        at = length_at(buffer, 0) + 1
        pool = client.pool
        if kind == wire.QUERY:
            if at != end or pool.session:
                return False
            glance = pool.glance
            if glance is not None and not glance.passes(buffer, 5, end - 1):
                reader = pool.reader
                if reader is not None and reader.read(buffer[5 : end - 1]) is not None:
                    return False
            if pool.cache is not None and not caching.is_harmless(
                client, pool.cache, part(buffer, 5, end - 1)
            ):
                return False
            client.unnamed = self.unnamed = None
            self._link(client, SIMPLE)
            self.ledger.expect(_QUERY)
            if pool.keeps_texts:
                self.said = part(buffer, 5, end - 1)
            pool.stats.received += end
            self.transmit_part(buffer, end)
            return True
        if not pool.translates or at >= end:
            return False
        if kind == wire.BIND:
            return self._take_bind(client, buffer, at, end)
        if kind == wire.PARSE and byte_at(buffer, 5) == 0:
            return self._take_parse(client, buffer, at, end)
        return False

    def _take_bind(self, client: ClientConnection, buffer: bytes | bytearray, at: int, end: int) -> bool:
        if matches(buffer, at, end, _WITH_DESCRIBE):
            requests = _DESCRIBED
        elif matches(buffer, at, end, _WITHOUT):
            requests = _EXECUTED
        else:
            return False
        own = client.statements
        name = None if own is None or at < 7 or byte_at(buffer, 5) else text_at(buffer, 6, at)
        statement = None if name is None or own is None else own.names.get(name)
        if name is None or statement is None:
            return False
        pool, kept = client.pool, self.statements
        store = pool.statements
        if (
            statement.effects is not None
            or statement.generation != store.generation
            or statement not in kept.certain
            or kept.version != store.version
        ):
            return False
        lane = pool.cache
        if lane is not None and not caching.is_harmless(client, lane, statement.text):
            return False
        self._link(client, PIPELINE)
        kept.use(statement, self.linked)
        pool.stats.binds += 1
        if pool.keeps_texts:
            self.said = statement.text
        data = renamed(buffer, 6, 6 + len(name), end, statement.name)
        ledger = self.ledger
        ledger.expect(requests)
        ledger.unsynced = True
        # Within a block, nothing can be sent once more.
        self.replay = (data, len(requests), (statement,)) if self.status == wire.IDLE else None
        pool.stats.received += len(data)
        self.transmit_part(data, len(data))
        return True

    def _take_parse(self, client: ClientConnection, buffer: bytes | bytearray, at: int, end: int) -> bool:
        if (
            end - at < 7
            or byte_at(buffer, at) != wire.BIND
            or byte_at(buffer, at + 5)
            or byte_at(buffer, at + 6)
        ):
            return False
        tail = at + length_at(buffer, at) + 1
        if tail > end:
            return False
        if matches(buffer, tail, end, _WITH_DESCRIBE):
            requests = _PARSED_DESCRIBED
        elif matches(buffer, tail, end, _WITHOUT):
            requests = _PARSED_EXECUTED
        else:
            return False
        pool = client.pool
        store = pool.statements
        flavor = client.tracked.flavor
        statement = before = client.unnamed
        if (
            statement is None
            or not statement.body
            or statement.flavor is not flavor
            or not matches(buffer, 6, at, statement.body)
        ):
            body = part(buffer, 6, at)
            if body.find(0) < 0:
                return False
            statement = store.unnamed(body, flavor)
        lane = pool.cache
        if lane is not None and not caching.is_harmless(client, lane, statement.text):
            return False
        if statement.effects is not None or statement.generation != store.generation:
            return False
        client.unnamed = self.unnamed = statement
        self._link(client, PIPELINE)
        ledger = self.ledger
        ledger.expect(requests, before)
        ledger.unsynced = True
        if pool.keeps_texts:
            self.said = statement.text
        pool.stats.received += end
        self.transmit_part(buffer, end)
        return True

    def goes_on(self, client: ClientConnection) -> bool:
        """Whether its client is in a transaction block where nothing is outstanding and nothing has to be watched."""
        pool = self.pool
        if self.status == wire.IDLE or not pool.translates or pool.cache is not None:
            return False
        if self.expected is not None or self.outbox or self.rest or self.skip or not self.ledger.rests():
            return False
        if self.suspicion is not None or self.asking is not None or self.errand is not None:
            return False
        own = client.statements
        return self.writes is None and (own is None or not own.aside)

    @abstractmethod
    def _link(self, client: ClientConnection, expected: bytes) -> None:
        """Serve a client, or go on with it; its request is answered by messages that are `expected`."""
