"""Translating what a client sends into what its server understands.

Where clients share servers, a prepared statement has other names on servers than at the client (`pool.statements`), and
is prepared on a server when it is used there. And texts that may change the state of the session are noted, so that
the server is asked about it when the transaction has ended (`relay.session`).

Only Query, Parse, Bind, Describe, Close and FunctionCall are looked into, and only their beginning if they are long.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.config import SessionState
from hyperpool.pool.statements import MARK, PREFIX, Change, Statement
from hyperpool.relay.connection import HEADER
from hyperpool.relay.ledger import FAKE, FORWARD, SKIP
from hyperpool.relay.session import Pinned
from hyperpool.relay.tables import ANSWERED, IDLE, MAX_MESSAGE, UNANSWERED
from hyperpool.sql.effects import EVERYTHING
from hyperpool.wire import constants as wire
from hyperpool.wire import extended, messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.pool.statements import Flavor
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection
    from hyperpool.sql.effects import Effects

_INT32: Final = Struct("!I").unpack_from


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


_header = Struct("!BI").pack
_STATEMENT: Final = ord("S")
_NO_PARAMETERS: Final = bytes(4)
"""In a Bind: no formats of parameters, and no parameters."""
_SHORTEST: Final = 7
"""Bytes of the shortest Describe or Close: header, kind, and an empty name."""
_FIRST_USER_OID: Final = 16384
"""Functions with a lower number come with PostgreSQL (transam.h, FirstNormalObjectId)."""

_STATEFUL_OIDS: Final = frozenset({2078, *range(2880, 2893), 3089, *range(3095, 3100)})
"""set_config, and the functions for advisory locks (pg_proc.dat)."""

_REFUSAL: Final = (
    b"DO $hyperpool$BEGIN RAISE EXCEPTION USING ERRCODE = '53400', MESSAGE = 'too many clients of this pool keep their"
    b" server connection (max_pinned)', HINT = 'this statement creates session state that lasts (temporary objects,"
    b" LISTEN, session advisory locks, WITH HOLD cursors, PREPARE, LOAD): end it in other clients, or raise max_pinned"
    b" and the pool''s size, or use session pooling'; END$hyperpool$"
)
"""What is executed instead of a statement that must not be: the server makes the error, at the right place of the
pipeline and of the transaction."""

_GAP: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/))*\*/|--[^\n]*(?:\n|$))*"
_DEALLOCATE: Final = re.compile(
    # Strings, comments and quoted identifiers are passed over.
    rb"(?is)'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|/\*.*?\*/|--[^\n]*|" + rb'"(?:[^"]|"")*"|'
    rb"(\bdeallocate\b" + _GAP + rb"(?:prepare\b" + _GAP + rb")?)"
    rb'("(?:[^"]|"")*"|[a-z_\x80-\xff][\w$\x80-\xff]*)'
)


class Translator:
    """Translates; one is enough for all connections, because nothing happens between beginning and end of a call."""

    __slots__ = ("_buffer", "_client", "_end", "_fresh", "_pieces", "_server", "_start", "_uses", "_view")

    _client: ClientConnection
    _server: ServerConnection
    _buffer: bytes | bytearray
    _view: memoryview

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._uses: list[Statement] | None = None
        self._fresh = False
        self._start = 0
        self._end = 0

    def forward(
        self, client: ClientConnection, buffer: bytes | bytearray, view: memoryview, at: int, end: int
    ) -> bool:
        """Translate and pass on what a linked client has sent.

        Args:
            client: the client.
            buffer: holds the bytes.
            view: the same memory.
            at: the first byte; `client.skip` bytes from there belong to a message that is under way.
            end: behind the last byte.

        Returns:
            Whether the client goes on; False when it leaves, or has broken the protocol.
        """
        server = client.server
        if server is None:
            raise AssertionError("only a linked client's bytes are passed on")
        self._client, self._server = client, server
        self._pieces.clear()
        self._buffer, self._view, self._end = buffer, view, end
        self._start = at
        ledger = server.ledger
        # Only a pipeline at whose beginning nothing is outstanding and no transaction is open can be sent once more.
        self._fresh = (
            server.status == IDLE
            and not (ledger.unsynced or client.skip)
            and (not ledger.entries or all(entry & SKIP for entry in ledger.entries))
        )
        server.replay = None
        self._uses = [] if self._fresh else None
        before = len(ledger.entries)
        leaving = False
        kind = 0
        at += client.skip
        limit = min(client.relay.max_packet_size, MAX_MESSAGE)
        while end - at >= 5:
            kind, length = HEADER(buffer, at)
            if not 4 <= length <= limit:
                client.violate(f"invalid message length {length}")
                break
            stop = at + 1 + length
            translate = _TRANSLATED.get(kind)
            if server.suspicion is not None and server.suspicion.restores and ledger.at_ready:
                # Behind a reset, before its answer: the pooler has to set what the client's session began with.
                client.stalled = True
                break
            if translate is not None:
                if not translate(self, at, stop):
                    break
            elif kind in ANSWERED:
                ledger.request(kind)
            elif kind == wire.TERMINATE:
                leaving = True
                break
            elif kind not in UNANSWERED:
                client.violate(f"invalid frontend message type {kind}")
                break
            at = stop
        if client.closed:
            self._pieces.clear()
            return False
        self._pass_on(at, kind, before)
        if leaving:
            client.close("client close request")
        return client.server is server

    def _pass_on(self, at: int, kind: int, before: int) -> None:
        """Send what is before `at`; the rest has to wait for more."""
        client, server = self._client, self._server
        end = self._end
        if at >= end:
            client.skip = at - end
        else:
            client.skip = 0
            if kind != wire.TERMINATE:
                self._put_aside(at, end)
            end = at
        data: bytes | memoryview = self._view[self._start : end]
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        if not data:
            self._answer_fakes()
            return
        entries = server.ledger.entries
        if self._uses and kind == wire.SYNC and at == self._end and entries.count(wire.SYNC) == 1:
            length = len(entries) - before
            while entries[-length] & FAKE:
                length -= 1
            server.replay = (bytes(data), length, self._uses)
        client.pool.stats.received += len(data)
        server.transmit(data)
        self._answer_fakes()

    def _put_aside(self, at: int, end: int) -> None:
        """Keep the beginning of a message until more of it comes, or until its turn has come."""
        client = self._client
        if client.gathered is not None:
            client.gathered += self._view[at:end]
            client.skip = HEADER(self._buffer, at)[1] + 1 - (end - at)
            return
        client.rest = bytes(self._view[at:end])
        if client.stalled:
            client.unread = True

    def _answer_fakes(self) -> None:
        """Answer what the server never sees, if it owes nothing that would come first."""
        server = self._server
        entries = server.ledger.entries
        if not entries or not entries[0] & FAKE or server.skip or server.rest:
            return
        if all(entry & FAKE for entry in entries):
            self._client.transmit(server.ledger.fakes())

    def _insert(self, at: int, message: bytes) -> None:
        """Send a message of the pooler's own in front of the one at `at`."""
        self._pieces += (self._view[self._start : at], message)
        self._start = at

    def _replace(self, at: int, stop: int, message: bytes) -> None:
        """Send another message, or nothing, for the one at `at`."""
        self._pieces += (self._view[self._start : at], message)
        self._start = stop

    # -- Query and FunctionCall: each of these methods returns whether there is enough of the message ------------

    def _query(self, at: int, stop: int) -> bool:
        client, server = self._client, self._server
        whole = stop <= self._end
        if not whole and self._will_come(at, stop):
            return False
        self._uses = None
        reader = client.pool.reader
        server.unnamed = None
        if not (server.ledger.skipping or server.ledger.unsynced):
            # Otherwise it may be skipped: its ReadyForQuery will tell.
            client.unnamed = None
        if reader is not None and not server.ledger.skipping:
            text = bytes(self._view[at + 5 : stop - 1]) if whole else b""
            effects = reader.read(text) if whole else EVERYTHING
            if effects is not None:
                if any(self._is_open(name) for name in effects.deallocates):
                    return self._stall()
                instead = self._note(effects, text, at)
                if instead is not None:
                    self._replace(at, stop, extended.query(instead))
        server.ledger.request(wire.QUERY)
        return True

    def _function_call(self, at: int, stop: int) -> bool:
        if at + 9 > min(stop, self._end):
            return self._incomplete(at, stop)
        self._uses = None
        (oid,) = _INT32(self._buffer, at + 5)
        if self._client.pool.watched and (oid >= _FIRST_USER_OID or oid in _STATEFUL_OIDS):
            self._note(EVERYTHING, b"", at)
        self._server.ledger.request(wire.FUNCTION_CALL)
        return True

    # -- Parse ---------------------------------------------------------------------------------------------------

    def _parse(self, at: int, stop: int) -> bool:
        if stop > self._end:
            return not self._will_come(at, stop) and not self._gather(at, stop) and self._parse_long(at, stop)
        ledger = self._server.ledger
        nul = self._buffer.find(0, at + 5, stop)
        if ledger.skipping or nul < 0 or self._buffer.find(0, nul + 1, stop) < 0:
            ledger.request(wire.PARSE)
        elif nul == at + 5:
            self._parse_unnamed(bytes(self._view[nul + 1 : stop]), at, stop)
        else:
            name = bytes(self._view[at + 5 : nul])
            if self._is_open(name):
                return self._stall()
            self._parse_named(name, bytes(self._view[nul + 1 : stop]), at, stop)
        return True

    def _gather(self, at: int, stop: int) -> bool:
        """Collect a Parse that is longer than what is read at once, if there is room for it."""
        client = self._client
        own = client.remembered()
        if self._server.ledger.skipping or not own.fits(stop - at):
            return False
        own.reserve(stop - at)
        client.gathered = bytearray()
        return True

    def _parse_long(self, at: int, stop: int) -> bool:
        """A Parse that is too long to be kept: the server alone will have it."""
        client, server = self._client, self._server
        nul = self._buffer.find(0, at + 5, self._end)
        if nul < 0:
            return self._incomplete(at, stop)
        self._uses = None
        if client.pool.watched and not server.ledger.skipping:
            self._note(EVERYTHING, b"", at)
        if nul > at + 5:
            server.keep(Pinned.STATEMENT)
            server.ledger.request(wire.PARSE)
        else:
            before = client.unnamed
            effects = EVERYTHING if client.pool.watched else None
            client.unnamed = server.unnamed = Statement(b"", b"", effects)
            server.ledger.request(wire.PARSE, FORWARD, Change(b"", before, None))
        return True

    def _parse_unnamed(self, body: bytes, at: int, stop: int) -> None:
        client, server = self._client, self._server
        before = client.unnamed
        statement = before
        if statement is None or statement.body != body:
            statement = client.pool.statements.unnamed(body)
        if statement.effects is not None:
            text = statement.text
            instead = self._note(statement.effects, text, at)
            if instead is not None:
                self._replace(at, stop, extended.parse(b"", instead + body[len(text) :]))
        client.unnamed = server.unnamed = statement
        server.ledger.request(wire.PARSE, FORWARD, Change(b"", before, None))

    def _parse_named(self, name: bytes, body: bytes, at: int, stop: int) -> None:
        client, server = self._client, self._server
        pool, ledger = client.pool, server.ledger
        own = client.remembered()
        known = own.names.get(name)
        if server.suspicion is not None and self._may_vanish(name):
            server.suspicion.deallocations.given(name)
        elif known is not None:
            # The server shall make the error: prepare it under a name that it certainly has.
            self._uses = None
            alias = own.alias(name)
            self._insert(at, extended.close_statement(alias))
            ledger.request(wire.CLOSE, SKIP)
            self._insert(at, extended.parse(alias, b"\0\0\0"))
            ledger.request(wire.PARSE, SKIP)
            ledger.request(wire.PARSE)
            self._replace(at, stop, extended.parse(alias, body))
            return
        encoding = client.tracked.values.get("client_encoding")
        if not name.isascii() and encoding == "UTF8" and not _is_utf8(name):
            # The server shall say so.
            ledger.request(wire.PARSE)
            return
        if not pool.settings.max_prepared_statements or not own.fits(len(body)):
            if self._may_pin():
                self._uses = None
                server.keep(Pinned.STATEMENT)
                if name.startswith(PREFIX):
                    self._replace(at, stop, extended.parse(name + MARK, body))
                ledger.request(wire.PARSE)
                return
            body = _REFUSAL + b"\0\0\0"
        statement = pool.statements.intern(body, self._flavor(), own.holders)
        own.put(name, statement)
        if self._is_certain(statement) and self._is_first():
            ledger.request(wire.PARSE, FAKE, Change(name, known, None))
            self._replace(at, stop, b"")
            return
        # In a transaction block and behind other requests, an error must come where PostgreSQL alone would make it, and
        # nothing can be sent once more; and what is there may be out of date.
        self._uses = None
        self._make_room(statement, at)
        ledger.request(wire.PARSE, FORWARD, Change(name, known, statement))
        self._replace(at, stop, extended.parse(statement.name, body))

    # -- Bind, Describe and Close --------------------------------------------------------------------------------

    def _bind(self, at: int, stop: int) -> bool:
        buffer, view = self._buffer, self._view
        last = min(stop, self._end)
        mark = at + 5
        if mark < last and buffer[mark]:
            mark = buffer.find(0, mark, last)
        nul = buffer.find(0, mark + 1, last) if mark > 0 else -1
        if nul < 0:
            return self._incomplete(at, stop)
        client, ledger = self._client, self._server.ledger
        if not ledger.skipping:
            name = bytes(view[mark + 1 : nul])
            if self._is_open(name):
                return self._stall()
            statement = self._find(name, at)
            if statement is not None:
                instead = None
                if statement.effects is not None:
                    text = statement.text
                    if text == _REFUSAL:
                        instead = text
                    else:
                        # What is set may be named by a parameter.
                        parameters = bytes(view[nul:last]) if statement.effects.unknown_settings else b""
                        instead = self._note(statement.effects, text + parameters, at)
                fits = instead == _REFUSAL or buffer[nul + 1 : nul + 5] == _NO_PARAMETERS
                if instead is not None and fits and stop <= self._end:
                    other = client.pool.statements.intern(instead + b"\0\0\0", client.tracked.flavor)
                    self._ensure(other, at)
                    self._replace(at, stop, extended.bind_nothing(bytes(view[at + 5 : mark]), other.name))
                else:
                    header = _header(wire.BIND, stop - at - 1 + len(statement.name) - len(name))
                    self._pieces += (view[self._start : at], header, view[at + 5 : mark + 1], statement.name)
                    self._start = nul
        ledger.request(wire.BIND)
        return True

    def _describe(self, at: int, stop: int) -> bool:
        if stop > self._end or stop - at < _SHORTEST:
            return self._incomplete(at, stop)
        ledger = self._server.ledger
        if not ledger.skipping and self._buffer[at + 5] == _STATEMENT:
            name = bytes(self._view[at + 6 : stop - 1])
            if self._is_open(name):
                return self._stall()
            statement = self._find(name, at)
            if statement is not None:
                self._replace(at, stop, extended.describe_statement(statement.name))
        ledger.request(wire.DESCRIBE)
        return True

    def _close(self, at: int, stop: int) -> bool:
        if stop > self._end or stop - at < _SHORTEST:
            return self._incomplete(at, stop)
        client, server = self._client, self._server
        ledger = server.ledger
        if ledger.skipping or self._buffer[at + 5] != _STATEMENT:
            ledger.request(wire.CLOSE)
            return True
        name = bytes(self._view[at + 6 : stop - 1])
        if self._is_open(name):
            return self._stall()
        own = client.statements
        statement = own.names.get(name) if own is not None else None
        if own is not None and statement is not None:
            own.put(name, None)
            ledger.request(wire.CLOSE, FAKE, Change(name, statement, None))
            self._replace(at, stop, b"")
        elif name:
            if name.startswith(PREFIX):
                self._replace(at, stop, extended.close_statement(name + MARK))
            ledger.request(wire.CLOSE)
        else:
            before, client.unnamed, server.unnamed = client.unnamed, None, None
            ledger.request(wire.CLOSE, FORWARD, Change(name, before, None))
        return True

    def _find(self, name: bytes, at: int) -> Statement | None:
        """The statement that a client means, prepared on the server; None if the server shall look for it itself."""
        if not name:
            unnamed = self._client.unnamed
            if unnamed is None or self._server.unnamed is not unnamed:
                self._restore_unnamed(unnamed, at)
            elif unnamed.effects is not None:
                self._note(unnamed.effects, unnamed.text, at)
            return None
        own, suspicion = self._client.statements, self._server.suspicion
        gone = suspicion is not None and self._may_vanish(name)
        statement = own.names.get(name) if own is not None and not gone else None
        if own is not None and statement is not None:
            if not self._is_certain(statement) and statement.flavor != self._flavor():
                # It would be parsed in a session with other settings than when the client prepared it.
                statement = self._client.pool.statements.intern(statement.body, self._flavor(), own.holders)
                own.put(name, statement)
            self._ensure(statement, at)
            if self._uses is not None:
                self._uses.append(statement)
        elif name.startswith(PREFIX):
            # It might be another client's.
            return Statement(b"", name + MARK, None)
        return statement

    # -- statements on the server --------------------------------------------------------------------------------

    def _is_certain(self, statement: Statement) -> bool:
        kept = self._server.statements
        version = self._client.pool.statements.version
        if kept.version != version:
            kept.doubt_all()
            kept.version = version
        return statement in kept.certain

    def _is_first(self) -> bool:
        """Whether everything before was answered, or is answered by the pooler, and no transaction is open."""
        return self._fresh and all(entry >= SKIP for entry in self._server.ledger.entries)

    def _ensure(self, statement: Statement, at: int) -> None:
        """Have a statement prepared on the server."""
        if self._is_certain(statement) and not self._server.ledger.is_open(statement):
            self._server.statements.use(statement, self._server.relay.now)
            return
        self._uses = None
        self._make_room(statement, at)
        self._insert(at, extended.parse(statement.name, statement.body))
        self._server.ledger.request(wire.PARSE, SKIP, Change(None, None, statement))

    def _ensure_alone(self, statement: Statement, at: int) -> None:
        """Have a statement prepared on the server, in front of a Query: an error must not make the server skip that."""
        ledger = self._server.ledger
        before = len(ledger.entries)
        own_pipeline = not ledger.unsynced
        self._ensure(statement, at)
        if len(ledger.entries) > before and own_pipeline and self._buffer[at] == wire.QUERY:
            self._insert(at, messages.SYNC)
            ledger.request(wire.SYNC, SKIP)

    def _make_room(self, statement: Statement, at: int) -> None:
        """Close what must go before a statement is prepared on the server; from here on, it counts as prepared."""
        server = self._server
        kept = server.statements
        limit = max(server.pool.settings.max_prepared_statements, 1)
        for gone in (statement,) if statement in kept else kept.evict(limit, server.linked):
            self._insert(at, extended.close_statement(gone.name))
            server.ledger.request(wire.CLOSE, SKIP, Change(None, None, gone))
        kept.use(statement, server.relay.now)
        kept.certain.add(statement)

    def _restore_unnamed(self, unnamed: Statement | None, at: int) -> None:
        """The unnamed statement on the server is not the one that the client has prepared: put that there."""
        server = self._server
        self._uses = None
        if unnamed is None or not unnamed.body:
            self._insert(at, extended.close_statement(b""))
            server.ledger.request(wire.CLOSE, SKIP)
            server.unnamed = None
        else:
            self._insert(at, extended.parse(b"", unnamed.body))
            server.ledger.request(wire.PARSE, SKIP)
            server.unnamed = unnamed
            if unnamed.effects is not None:
                self._note(unnamed.effects, unnamed.text, at)

    def _flavor(self) -> Flavor:
        """The settings that a text is parsed under now; unlike any other's if they may be about to change."""
        for suspicion in (self._server.suspicion, self._server.asking):
            if suspicion is not None and suspicion.touches_settings:
                break
        else:
            return self._client.tracked.flavor
        return (("", str(self._client.relay.unique())),)

    # -- requests whose meaning depends on answers that have not come -----------------------------------------

    def _is_open(self, name: bytes) -> bool:
        """Whether it depends on the answer to an earlier pipeline what a name means, if anything."""
        ledger = self._server.ledger
        if not name:
            # To put it there is expensive: not more often than the server answers.
            return self._server.unnamed is not self._client.unnamed and ledger.owed > 0
        if self._server.suspicion is not None and self._may_vanish(name):
            return ledger.owed > 0
        return ledger.is_open(name)

    def _may_vanish(self, name: bytes) -> bool:
        """Whether a text on its way deallocates this name of the client's."""
        suspicion = self._server.suspicion
        return suspicion is not None and suspicion.deallocations.concern(name, self._server.ledger.executes)

    def _stall(self) -> bool:
        """Go on with this message when all pipelines before this one have been answered."""
        self._client.stalled = True
        return False

    # -- session state -------------------------------------------------------------------------------------------

    def _may_pin(self) -> bool:
        pool = self._client.pool
        return bool(self._server.pinned) or pool.pinned < pool.max_pinned

    def _note(self, effects: Effects, text: bytes, at: int) -> bytes | None:
        """A text with effects is about to be sent.

        Returns:
            The text to be sent instead; None for the same.
        """
        server = self._server
        follows = server.pool.settings.session_state is SessionState.FOLLOW
        if effects.pins and follows and not effects.unknown_settings and not self._may_pin():
            return _REFUSAL
        if server.pool.watched:
            server.suspect(effects, text)
        elif effects.deallocates or effects.deallocates_all:
            server.expect_deallocation()
        instead = self._deallocate(effects, text, at) if effects.deallocates else None
        if server.suspicion is not None and (effects.deallocates or effects.deallocates_all):
            server.suspicion.deallocations.sent(
                effects.deallocates,
                server.ledger.owed + 1,
                -1 if self._buffer[at] == wire.QUERY else server.ledger.executes,
                everything=effects.deallocates_all,
            )
        return instead

    def _deallocate(self, effects: Effects, text: bytes, at: int) -> bytes | None:
        """Put servers' names into a text that deallocates what the client has prepared."""
        server, own = self._server, self._client.statements
        if own is None:
            return None
        names = iter(effects.deallocates)
        gone = server.suspicion.deallocations.names() if server.suspicion is not None else ()

        def rename(found: re.Match[bytes]) -> bytes:
            if found[2] is None:
                return found[0]
            name = next(names, b"")
            statement = own.names.get(name)
            if statement is None or name in gone:
                marked = name.startswith(PREFIX)
                return found[2] + b'"' + name.replace(b'"', b'""') + MARK + b'"' if marked else found[0]
            self._ensure_alone(statement, at)
            server.statements.doubt(statement)
            return found[2] + b'"' + statement.name + b'"'

        return _DEALLOCATE.sub(rename, text)

    # -- messages that are not all there -------------------------------------------------------------------------

    def _will_come(self, at: int, stop: int) -> bool:
        """Whether to wait until the message has come as a whole: it fits into what is read at once."""
        return stop > self._end and stop - at <= self._client.relay.max_whole

    def _incomplete(self, at: int, stop: int) -> bool:
        """What has to be looked at is not there: wait for it, or leave a broken message to the server."""
        if stop <= self._end:
            self._server.ledger.request(self._buffer[at])
            return True
        if self._end - at >= self._client.relay.max_partial:
            self._client.violate("a name in a message is too long")
        return False


_TRANSLATED: Final[dict[int, Callable[[Translator, int, int], bool]]] = {
    wire.QUERY: Translator._query,  # noqa: SLF001 - a table of its own methods
    wire.FUNCTION_CALL: Translator._function_call,  # noqa: SLF001
    wire.PARSE: Translator._parse,  # noqa: SLF001
    wire.BIND: Translator._bind,  # noqa: SLF001
    wire.DESCRIBE: Translator._describe,  # noqa: SLF001
    wire.CLOSE: Translator._close,  # noqa: SLF001
}
