"""Translating what a client sends into what its server understands.

Where clients share servers, a prepared statement has other names on servers than at the client (`pool.statements`), and
is prepared on a server when it is used there. And texts that may change the state of the session are noted, so that
the server is asked about it when the transaction has ended (`relay.session`).

Only Query, Parse, Bind, Describe, Close and FunctionCall are looked into, and only their beginning if they are long.
"""

from __future__ import annotations

import time
from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import LONGEST_NAME, MARK, PREFIX, Change
from hyperpool.relay import caching
from hyperpool.relay.ledger import FAKE, FORWARD, LOST, SKIP
from hyperpool.relay.parses import Parses
from hyperpool.relay.rewriting import REFUSAL, with_deallocated
from hyperpool.relay.tables import ANSWERED, IDLE, IGNORED, MAX_MESSAGE, UNANSWERED
from hyperpool.sql.effects import EVERYTHING
from hyperpool.wire import constants as wire
from hyperpool.wire import extended
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.relay.client import ClientConnection
    from hyperpool.sql.effects import Effects

_INT32: Final = Struct("!I").unpack_from
_header: Final = Struct("!BI").pack

_COPYING: Final = frozenset({wire.COPY_DATA, wire.COPY_DONE, wire.COPY_FAIL})
_STATEMENT: Final = ord("S")
_NO_PARAMETERS: Final = bytes(4)
"""In a Bind: no formats of parameters, and no parameters."""
_CLOSE_NOTHING: Final = extended.close_statement(PREFIX + b"closed")
"""A Close of a statement that no server has."""
_SHORTEST: Final = 7
"""Bytes of the shortest Describe or Close: header, kind, and an empty name."""

_LARGE_OBJECTS: Final = frozenset({715, *range(952, 959), 964, 1004, 3170, 3171, 3172})
"""Functions that libpq calls for large objects (pg_proc.dat): lo_creat, lo_create, lo_open, lo_close, loread, lowrite,
lo_lseek, lo_tell, lo_truncate, lo_unlink, and those for 64 bits. They change nothing in the session."""

_SLICE: Final = 0.005
"""Seconds that one client's requests are translated for; then others have their turn."""


class Translator(Parses):
    """Translates; one is enough for all connections, because nothing happens between beginning and end of a call.

    Args:
        clock: seconds.
    """

    __slots__ = ("_clock",)

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._clock = clock

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
        fresh = (
            server.status == IDLE
            and not (ledger.unsynced or client.skip or ledger.doubt)
            and (not ledger.entries or all(entry & SKIP for entry in ledger.entries))
        )
        server.replay = None
        self._first = fresh
        self._uses = [] if fresh else None
        own = client.statements
        if own is not None and own.aside:
            own.put_aside(0)
        before = len(ledger.entries)
        at, kind = self._walk(at + client.skip)
        if client.closed:
            self._pieces.clear()
            return False
        if ledger.lost:
            self._pieces.clear()
            server.lost(LOST)
            return False
        self._pass_on(at, kind, before)
        if kind == wire.TERMINATE:
            client.close("client close request")
        return client.server is server

    def _walk(self, at: int) -> tuple[int, int]:
        """Go from message to message, as far as they are there and need not wait.

        Returns:
            Where the next message begins, and the type of the newest one that was looked at, or 0.
        """
        client, server, buffer, end = self._client, self._server, self._buffer, self._end
        ledger = server.ledger
        limit = min(client.relay.max_packet_size, MAX_MESSAGE)
        clock, translated = self._clock, _TRANSLATED
        turn_ends = clock() + _SLICE
        kind = 0
        while end - at >= 5:
            kind, length = buffer[at], length_at(buffer, at)
            if not 4 <= length <= limit:
                client.violate(f"invalid message length {length}")
                break
            stop = at + 1 + length
            restores = server.suspicion is not None and server.suspicion.restores
            if (
                restores
                and ledger.at_ready
                and not (kind in _COPYING or (kind in IGNORED and ledger.wants_data))
            ):
                # Behind a reset, before its answer: the pooler has to set what the client's session began with.
                client.stalled = True
                break
            translate = translated.get(kind)
            if translate is not None:
                if not translate(self, at, stop):
                    break
                if clock() > turn_ends and stop < end:
                    at = stop
                    self._pause()
                    break
            elif kind in ANSWERED:
                ledger.request(kind)
            elif kind == wire.TERMINATE:
                break
            elif kind not in UNANSWERED:
                client.violate(f"invalid frontend message type {kind}")
                break
            if self._first and ledger.entries and ledger.entries[-1] < SKIP:
                self._first = False
            at = stop
        return at, kind

    def _pause(self) -> None:
        """Go on when others have had their turn."""
        self._client.stalled = self._client.paused = True
        self._client.relay.resume(self._client)

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
            client.skip = length_at(self._buffer, at) + 1 - (end - at)
            return
        client.rest = bytes(self._view[at:end])
        if end - at > client.relay.max_whole:
            client.remembered().put_aside(end - at)
        if client.stalled:
            client.unread = True
            if self._server.ledger.wants_data:
                # No answer will wake it.
                client.relay.resume(client)

    def _answer_fakes(self) -> None:
        """Answer what the server never sees, if it owes nothing that would come first."""
        server = self._server
        entries = server.ledger.entries
        if not entries or not entries[0] & FAKE or server.skip or server.rest:
            return
        if all(entry & FAKE for entry in entries):
            self._client.transmit(server.ledger.fakes())

    # -- Query and FunctionCall: each of these methods returns whether there is enough of the message ------------

    def _query(self, at: int, stop: int) -> bool:
        client, server = self._client, self._server
        if client.relay.extended_only:
            client.refuse_simple()
            return False
        whole = stop <= self._end
        if not whole and self._will_come(at, stop):
            return False
        self._uses = None
        reader = client.pool.reader
        server.unnamed = None
        if not (server.ledger.skipping or server.ledger.midway):
            # Otherwise it may be skipped: its ReadyForQuery will tell.
            client.unnamed = None
        if reader is not None and not server.ledger.skipping:
            text = bytes(self._view[at + 5 : stop - 1]) if whole else b""
            effects = reader.read(text) if whole else EVERYTHING
            if effects is not None:
                effects = with_deallocated(effects, text)
                if self._has_to_wait(effects):
                    return False
                instead = self._note(effects, text, at)
                if instead is not None:
                    self._replace(at, stop, extended.query(instead))
            if client.pool.cache is not None:
                caching.note(client, server, text if whole else None)
        if client.pool.keeps_texts:
            server.said = bytes(self._view[at + 5 : stop - 1]) if whole else b""
        server.ledger.request(wire.QUERY)
        return True

    def _function_call(self, at: int, stop: int) -> bool:
        if at + 9 > min(stop, self._end):
            return self._incomplete(at, stop)
        self._uses = None
        (oid,) = _INT32(self._buffer, at + 5)
        if oid not in _LARGE_OBJECTS:
            if self._client.pool.watched:
                self._note(EVERYTHING, b"", at)
            if self._client.pool.cache is not None:
                caching.note(self._client, self._server, None)
        self._server.said = b""
        self._server.ledger.request(wire.FUNCTION_CALL)
        return True

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
            name = self._name(bytes(view[mark + 1 : nul]))
            effects = self._effects(name)
            if self._is_open(name):
                return self._stall()
            if effects is not None and (self._has_to_wait(effects) or self._will_come(at, stop)):
                # Another one may have to take its place.
                return False
            statement = self._find(name, at)
            meant = statement if name else client.unnamed
            if client.pool.keeps_texts:
                self._server.said = meant.text if meant is not None else b""
            if client.pool.cache is not None:
                caching.note(client, self._server, meant.text if meant is not None and meant.body else None)
            instead = None
            if effects is not None and meant is not None:
                instead = self._instead(meant.text, effects, at, nul, stop)
            if instead is not None:
                other = client.pool.statements.intern(instead + b"\0\0\0", client.tracked.flavor)
                self._ensure(other, at)
                self._replace(at, stop, extended.bind_nothing(bytes(view[at + 5 : mark]), other.name))
            elif statement is not None:
                header = _header(wire.BIND, stop - at - nul + mark + len(statement.name))
                self._pieces += (view[self._start : at], header, view[at + 5 : mark + 1], statement.name)
                client.pool.stats.binds += 1
                self._start = nul
        ledger.request(wire.BIND)
        return True

    def _effects(self, name: bytes) -> Effects | None:
        """What session state executing a statement of the client's may change; None for nothing."""
        client = self._client
        statement = client.unnamed
        if name:
            statement = client.statements.names.get(name) if client.statements is not None else None
        return client.pool.statements.effects(statement) if statement is not None else None

    def _instead(self, text: bytes, effects: Effects, at: int, behind: int, stop: int) -> bytes | None:
        """The text to be executed by a Bind instead of a statement's; None for the same.

        Args:
            text: what the client wants to be executed.
            effects: what that may do.
            at: where the Bind begins.
            behind: where the zero byte is behind its names.
            stop: where it ends.
        """
        whole = stop <= self._end
        instead: bytes | None = text
        if text != REFUSAL:
            if effects.unknown_settings:
                # What is set may be named by a parameter.
                text += self._view[behind : min(stop, self._end)]
            instead = self._note(effects, text, at, replaceable=whole)
        # Another text than that has no parameters, and what is bound to some will fail.
        fits = instead == REFUSAL or self._buffer[behind + 1 : behind + 5] == _NO_PARAMETERS
        return instead if whole and fits else None

    def _describe(self, at: int, stop: int) -> bool:
        if stop > self._end or stop - at < _SHORTEST:
            return self._incomplete(at, stop)
        ledger = self._server.ledger
        if not ledger.skipping and self._buffer[at + 5] == _STATEMENT:
            name = self._name(bytes(self._view[at + 6 : stop - 1]))
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
        name = bytes(self._view[at + 6 : stop - 1])[:LONGEST_NAME]
        if self._is_open(name):
            return self._stall()
        own = client.statements
        statement = own.names.get(name) if own is not None else None
        if own is not None and statement is not None:
            own.put(name, None)
            if server.suspicion is not None:
                server.suspicion.deallocations.closed(name)
            if self._first or not ledger.copies():
                ledger.request(wire.CLOSE, FAKE, Change(name, statement, None))
                self._replace(at, stop, b"")
            else:
                # Only the server knows whether, and when, it is answered.
                ledger.request(wire.CLOSE, FORWARD, Change(name, statement, None))
                self._replace(at, stop, _CLOSE_NOTHING)
        elif name:
            if name.startswith(PREFIX):
                self._replace(at, stop, extended.close_statement(name + MARK))
            ledger.request(wire.CLOSE)
        else:
            before, client.unnamed, server.unnamed = client.unnamed, None, None
            ledger.request(wire.CLOSE, FORWARD, Change(name, before, None, unsure=ledger.midway))
        return True


_TRANSLATED: Final[dict[int, Callable[[Translator, int, int], bool]]] = {
    wire.QUERY: Translator._query,  # noqa: SLF001 - a table of its own methods
    wire.FUNCTION_CALL: Translator._function_call,  # noqa: SLF001
    wire.PARSE: Translator._parse,  # noqa: SLF001
    wire.BIND: Translator._bind,  # noqa: SLF001
    wire.DESCRIBE: Translator._describe,  # noqa: SLF001
    wire.CLOSE: Translator._close,  # noqa: SLF001
}
