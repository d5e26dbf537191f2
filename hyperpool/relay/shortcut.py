"""What most clients send, in as few steps as Python takes: one request, whole, to a server that owes nothing.

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
from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import Change
from hyperpool.relay import caching
from hyperpool.relay.tables import PIPELINE, SIMPLE
from hyperpool.relay.upkeep import Upkeep
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection

_header: Final = Struct("!BI").pack

_QUERY: Final = (wire.QUERY,)
_DESCRIBE: Final = b"D\0\0\0\6P\0"
_EXECUTE: Final = b"E\0\0\0\x09\0\0\0\0\0"
_SYNC: Final = b"S\0\0\0\4"
_TAILS: Final = {
    _DESCRIBE + _EXECUTE + _SYNC: (wire.BIND, wire.DESCRIBE, wire.EXECUTE, wire.SYNC),
    _EXECUTE + _SYNC: (wire.BIND, wire.EXECUTE, wire.SYNC),
}
"""What stands behind a Bind, and what the server will have to answer."""


class Shortcut(Upkeep):
    """What a server connection does with a request of a known shape."""

    __slots__ = ()

    def take(self, client: ClientConnection, buffer: bytes | bytearray, view: memoryview, end: int) -> bool:
        """Link a client and pass its request on, if that has one of the known shapes.

        The server has no client, owes nothing, and has the client's parameters.

        Args:
            client: has no server.
            buffer: holds the request at its beginning.
            view: the same memory.
            end: how many bytes were read.

        Returns:
            Whether that was done.
        """
        kind = buffer[0]
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
                client, pool.cache, bytes(view[5 : end - 1])
            ):
                return False
            client.unnamed = None
            self._link(client, SIMPLE)
            self.ledger.expect(_QUERY)
            if pool.keeps_texts:
                self.said = bytes(view[5 : end - 1])
            pool.stats.received += end
            self.transmit_part(view, end)
            return True
        if not pool.translates or at >= end:
            return False
        if kind == wire.BIND:
            return self._take_bind(client, buffer, view, at, end)
        if kind == wire.PARSE and buffer[5] == 0:
            return self._take_parse(client, buffer, view, at, end)
        return False

    def _take_bind(
        self,
        client: ClientConnection,
        buffer: bytes | bytearray,
        view: memoryview,
        at: int,
        end: int,
    ) -> bool:
        requests = _TAILS.get(bytes(view[at:end]))
        own = client.statements
        if requests is None or own is None or buffer[5]:
            return False
        nul = buffer.find(0, 6, at)
        statement = own.names.get(bytes(view[6:nul]))
        kept, store = self.statements, client.pool.statements
        if (
            statement is None
            or statement.effects is not None
            or statement.generation != store.generation
            or statement not in kept.certain
            or kept.version != store.version
        ):
            return False
        lane = client.pool.cache
        if lane is not None and not caching.is_harmless(client, lane, statement.text):
            return False
        self._link(client, PIPELINE)
        kept.use(statement, self.linked)
        client.pool.stats.binds += 1
        if client.pool.keeps_texts:
            self.said = statement.text
        name = statement.name
        data = b"".join((_header(wire.BIND, at + 5 - nul + len(name)), b"\0", name, view[nul:end]))
        ledger = self.ledger
        ledger.expect(requests)
        ledger.unsynced = True
        self.replay = (data, len(requests), (statement,))
        client.pool.stats.received += end
        self.transmit(data)
        return True

    def _take_parse(
        self,
        client: ClientConnection,
        buffer: bytes | bytearray,
        view: memoryview,
        at: int,
        end: int,
    ) -> bool:
        if end - at < 7 or buffer[at] != wire.BIND or buffer[at + 5] or buffer[at + 6]:
            return False
        requests = _TAILS.get(bytes(view[at + length_at(buffer, at) + 1 : end]))
        body = bytes(view[6:at])
        if requests is None or body.find(0) < 0:
            return False
        before = client.unnamed
        statement = before
        store = client.pool.statements
        flavor = client.tracked.flavor
        if statement is None or statement.body != body or statement.flavor is not flavor:
            statement = store.unnamed(body, flavor)
        lane = client.pool.cache
        if lane is not None and not caching.is_harmless(client, lane, statement.text):
            return False
        if statement.effects is not None or statement.generation != store.generation:
            return False
        client.unnamed = statement
        self._link(client, PIPELINE)
        ledger = self.ledger
        ledger.expect((wire.PARSE, *requests))
        if client.pool.keeps_texts:
            self.said = statement.text
        ledger.changes.append(Change(b"", before, None))
        ledger.unsynced = True
        client.pool.stats.received += end
        self.transmit_part(view, end)
        return True

    @abstractmethod
    def _link(self, client: ClientConnection, expected: bytes) -> None:
        """Serve a client, whose request is answered by messages that are `expected`."""
