"""What becomes of a client's Parse: whether the server gets it, and what the client's name stands for from then on."""

from __future__ import annotations

from hyperpool.pool.statements import LONGEST_NAME, MARK, PREFIX, Change, Statement
from hyperpool.relay.ledger import FAKE, FORWARD, SKIP
from hyperpool.relay.placement import Placement
from hyperpool.relay.rewriting import REFUSAL
from hyperpool.relay.session import Pinned
from hyperpool.sql.effects import EVERYTHING
from hyperpool.wire import constants as wire
from hyperpool.wire import extended


class Parses(Placement):
    """Translates each Parse: `_parse` returns whether there is enough of the message."""

    __slots__ = ()

    def _parse(self, at: int, stop: int) -> bool:
        if stop > self._end:
            return not self._will_come(at, stop) and not self._gather(at, stop) and self._parse_long(at, stop)
        ledger = self._server.ledger
        nul = self._buffer.find(0, at + 5, stop)
        if ledger.skipping or nul < 0 or self._buffer.find(0, nul + 1, stop) < 0:
            ledger.request(wire.PARSE)
        elif nul == at + 5:
            self._parse_unnamed(bytes(self._view[nul + 1 : stop]))
        else:
            name = bytes(self._view[at + 5 : nul])
            if self._is_open(name[:LONGEST_NAME]):
                return self._stall()
            self._parse_named(name, bytes(self._view[nul + 1 : stop]), at, stop)
        return True

    def _gather(self, at: int, stop: int) -> bool:
        """Collect a Parse that is longer than what is read at once, if there is room for it."""
        client = self._client
        own = client.remembered()
        if self._server.ledger.skipping or not own.fits(b"", stop - at):
            return False
        own.reserve(stop - at)
        client.gathered = bytearray()
        return True

    def _parse_long(self, at: int, stop: int) -> bool:
        """A Parse that is too long to be kept: the server alone will have it."""
        client, server = self._client, self._server
        if server.ledger.skipping:
            return True
        nul = self._buffer.find(0, at + 5, self._end)
        if nul < 0:
            return self._incomplete(at, stop)
        self._uses = None
        if client.pool.watched:
            self._note(EVERYTHING, b"", at)
        if nul > at + 5:
            server.keep(Pinned.STATEMENT)
            server.ledger.request(wire.PARSE)
        else:
            self._give_unnamed(Statement(b"", b"", EVERYTHING if client.pool.watched else None))
        return True

    def _parse_unnamed(self, body: bytes) -> None:
        client = self._client
        statement = client.unnamed
        flavor = self._flavor()
        if statement is None or statement.body != body or statement.flavor != flavor:
            statement = client.pool.statements.unnamed(body, flavor)
            if len(body) > client.relay.max_whole:
                client.relay.budget.lend(statement)
        self._give_unnamed(statement)

    def _parse_named(self, spelt: bytes, body: bytes, at: int, stop: int) -> None:
        client, server = self._client, self._server
        pool, ledger = client.pool, server.ledger
        own = client.remembered()
        name = own.shortened(spelt)
        known = own.names.get(name)
        if server.suspicion is not None and self._may_vanish(name):
            server.suspicion.deallocations.given(name)
        elif known is not None:
            # The server shall make the error: prepare it under a name that it certainly has.
            self._uses = None
            alias = own.alias(spelt)
            self._insert(at, extended.close_statement(alias))
            ledger.request(wire.CLOSE, SKIP)
            self._insert(at, extended.parse(alias, b"\0\0\0"))
            ledger.request(wire.PARSE, SKIP)
            ledger.request(wire.PARSE)
            self._replace(at, stop, extended.parse(alias, body))
            return
        encoding = client.tracked.values.get("client_encoding")
        if not name.isascii() and encoding == "UTF8" and not _is_utf8(spelt):
            # The server shall say so.
            ledger.request(wire.PARSE)
            return
        flavor = self._flavor()
        if not pool.settings.max_prepared_statements or not (
            own.fits(name, len(body)) or own.fits(name, len(body), pool.statements.find(body, flavor))
        ):
            if self._may_pin():
                self._uses = None
                server.keep(Pinned.STATEMENT)
                if name.startswith(PREFIX):
                    self._replace(at, stop, extended.parse(name + MARK, body))
                ledger.request(wire.PARSE)
                return
            body = REFUSAL + b"\0\0\0"
        statement = pool.statements.intern(body, flavor, own.holders)
        own.put(name, statement)
        pool.stats.client_parses += 1
        if self._is_certain(statement) and self._first:
            ledger.request(wire.PARSE, FAKE, Change(name, known, None))
            self._replace(at, stop, b"")
            return
        # In a transaction block and behind other requests, an error must come where PostgreSQL alone would make it, and
        # nothing can be sent once more; and what is there may be out of date.
        self._uses = None
        self._make_room(statement, at)
        pool.stats.server_parses += 1
        ledger.request(wire.PARSE, FORWARD, Change(name, known, statement))
        self._replace(at, stop, extended.parse(statement.name, body))


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
