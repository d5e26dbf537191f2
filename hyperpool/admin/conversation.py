"""A console client's conversation: the simple and the extended protocol, around statements. Sans-IO.

Source: PostgreSQL documentation, "Message Flow". What is done is done at once: BEGIN and COMMIT are there for drivers
that send them unasked, and only change the status in ReadyForQuery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs

from hyperpool.admin import extended, tables
from hyperpool.admin.outcomes import ConsoleError, Done, Waits
from hyperpool.admin.statements import Nothing, Statement, TransactionControl, Unintelligible, parse
from hyperpool.errors import ProtocolError
from hyperpool.wire import constants as wire
from hyperpool.wire import messages, text
from hyperpool.wire.frames import FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hyperpool.admin.extended import Portal, Prepared
    from hyperpool.admin.outcomes import Outcome
    from hyperpool.admin.tables import Column

_MAX_MESSAGE: Final = 64 * 1024
_MAX_PREPARED: Final = 1000
"""Prepared statements that a client may have."""
_MAX_PORTALS: Final = 100
"""Portals that a client may have: each may hold the rows that have not been asked for yet."""
_ENOUGH: Final = 64 * 1024
"""Bytes of answers, after which no further statement is begun before the client has taken them."""
_PARSE_COMPLETE: Final = messages.frame(wire.PARSE_COMPLETE)
_BIND_COMPLETE: Final = messages.frame(wire.BIND_COMPLETE)
_CLOSE_COMPLETE: Final = messages.frame(wire.CLOSE_COMPLETE)
_EMPTY: Final = messages.frame(wire.EMPTY_QUERY_RESPONSE)
_NO_DATA: Final = messages.frame(wire.NO_DATA)
_SUSPENDED: Final = messages.frame(wire.PORTAL_SUSPENDED)


class Executor(Protocol):
    """What executes statements."""

    def describe(self, statement: Statement) -> tuple[Column, ...] | None:
        """The columns of a statement's result, None for none; without executing it.

        Raises:
            ConsoleError: there is no such statement, or the client may not use it.
        """

    def execute(self, statement: Statement) -> Outcome:
        """Execute a statement.

        Raises:
            ConsoleError: it fails.
        """


class Conversation:
    """Feed what the client sends to `receive`, and send it what that returns.

    Args:
        executor: executes statements.

    Attributes:
        waits: the statement that is not done yet; while there is one, nothing more is handled.
        ended: the client has said goodbye.
        behind: its answers were long, and there may be more that it has sent already: `receive` goes on.
    """

    __slots__ = (
        "_executor",
        "_finish",
        "_handlers",
        "_portals",
        "_prepared",
        "_reader",
        "_skipping",
        "_status",
        "behind",
        "ended",
        "waits",
    )

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._reader = FrameReader(_MAX_MESSAGE)
        self._prepared: dict[str, Prepared] = {}
        self._portals: dict[str, Portal] = {}
        self._skipping = False
        self._status = b"I"
        self._finish: Callable[[Done], bytes] = self._result
        self.waits: Waits | None = None
        self.ended = False
        self.behind = False
        self._handlers: dict[int, Callable[[bytes], bytes]] = {
            wire.PARSE: self._parse,
            wire.BIND: self._bind,
            wire.DESCRIBE: self._describe,
            wire.EXECUTE: self._execute,
            wire.CLOSE: self._close,
        }

    def receive(self, data: bytes) -> bytes:
        """Take in what the client sent; to be called only when it has been sent all answers.

        Returns:
            What to send to it.

        Raises:
            ProtocolError: the client broke the protocol.
        """
        self._reader.feed(data)
        return self._go_on()

    def poll(self) -> bytes:
        """Look whether the statement that is waited for is done.

        Returns:
            What to send to the client.

        Raises:
            ProtocolError: the client broke the protocol in what it sent behind it.
        """
        waits = self.waits
        if waits is None or not waits.over():
            return b""
        self.waits = None
        try:
            answer = self._finish(waits.done())
        except ConsoleError as error:
            answer = self._failed(error)
        return answer + self._go_on()

    def interrupt(self) -> bytes:
        """The client cancels the statement that is waited for.

        Returns:
            What to send to the client.

        Raises:
            ProtocolError: the client broke the protocol in what it sent behind it.
        """
        waits = self.waits
        if waits is None:
            return b""
        self.waits = None
        waits.interrupt()
        return self._failed(ConsoleError("canceling statement due to user request", "57014")) + self._go_on()

    def _failed(self, error: ConsoleError) -> bytes:
        """The statement that was waited for has failed."""
        simple = self._finish == self._simply_done
        self._skipping = not simple
        return self._error(error) + (self._ready() if simple else b"")

    def _go_on(self) -> bytes:
        answers = bytearray()
        self.behind = False
        while self.waits is None and not self.ended:
            if len(answers) >= _ENOUGH:
                self.behind = True
                break
            frame = self._reader.next_frame()
            if frame is None:
                break
            answers += self._handle(*frame)
        return bytes(answers)

    def _handle(self, kind: int, body: bytes) -> bytes:
        if kind == wire.TERMINATE:
            self.ended = True
            return b""
        if kind == wire.SYNC:
            self._skipping = False
            if self._status != b"T":
                self._portals.clear()
            return self._ready()
        if self._skipping or kind in {wire.FLUSH, wire.COPY_DATA, wire.COPY_DONE, wire.COPY_FAIL}:
            return b""
        if kind == wire.QUERY:
            return self._query(body)
        handler = self._handlers.get(kind)
        if handler is None:
            raise ProtocolError(f"unsupported packet type for admin console: {kind}")
        try:
            return handler(body)
        except ConsoleError as error:
            self._skipping = True
            return self._error(error)

    # -- the simple protocol -------------------------------------------------------------------------------------------

    def _query(self, body: bytes) -> bytes:
        query, end = text.take_cstring(body, 0)
        if end != len(body):
            raise ProtocolError("invalid Query message")
        self._portals.clear()
        try:
            statement = _parsed(query)
            if isinstance(statement, Nothing):
                return _EMPTY + self._ready()
            return self._run(statement, self._simply_done)
        except ConsoleError as error:
            return self._error(error) + self._ready()

    def _simply_done(self, done: Done) -> bytes:
        if not done.tag:
            return b""
        answer = _notice(done)
        if done.shape is not None:
            answer += tables.row_description(done.shape) + tables.data_rows(done.shape, done.rows)
        return answer + _complete(done.tag) + self._ready()

    # -- the extended protocol -----------------------------------------------------------------------------------------

    def _parse(self, body: bytes) -> bytes:
        name, query, oids = extended.parse_fields(body)
        if name and name in self._prepared:
            raise ConsoleError(f'prepared statement "{name}" already exists', "42P05")
        _bound(self._prepared, name, _MAX_PREPARED, "prepared statements")
        self._prepared[name] = extended.prepare(_parsed(query), oids)
        return _PARSE_COMPLETE

    def _bind(self, body: bytes) -> bytes:
        fields = extended.bind_fields(body)
        prepared = self._known(fields.statement)
        _bound(self._portals, fields.portal, _MAX_PORTALS, "portals")
        statement = extended.bind(prepared, fields)
        shape = self._shape(statement)
        self._portals[fields.portal] = extended.Portal(
            statement, shape, extended.result_formats(fields.formats, shape)
        )
        return _BIND_COMPLETE

    def _describe(self, body: bytes) -> bytes:
        kind, name = extended.kind_and_name(body)
        if kind == "S":
            prepared = self._known(name)
            described = extended.parameter_description(prepared.oids)
            shape = self._shape(prepared.statement)
            return described + (_NO_DATA if shape is None else tables.row_description(shape))
        portal = self._portal(name)
        return _NO_DATA if portal.shape is None else tables.row_description(portal.shape, portal.formats)

    def _execute(self, body: bytes) -> bytes:
        name, limit = extended.execute_fields(body)
        portal = self._portal(name)
        if isinstance(portal.statement, Nothing):
            return _EMPTY
        if portal.done is not None:
            return _rows(portal, portal.done, limit)

        def finish(done: Done) -> bytes:
            portal.done = done
            return b"" if not done.tag else _notice(done) + _rows(portal, done, limit)

        return self._run(portal.statement, finish)

    def _close(self, body: bytes) -> bytes:
        kind, name = extended.kind_and_name(body)
        if kind == "S":
            self._prepared.pop(name, None)
        else:
            self._portals.pop(name, None)
        return _CLOSE_COMPLETE

    def _known(self, name: str) -> Prepared:
        prepared = self._prepared.get(name)
        if prepared is None:
            raise ConsoleError(f'prepared statement "{name}" does not exist', "26000")
        return prepared

    def _portal(self, name: str) -> Portal:
        portal = self._portals.get(name)
        if portal is None:
            raise ConsoleError(f'portal "{name}" does not exist', "34000")
        return portal

    def _shape(self, statement: Statement) -> tuple[Column, ...] | None:
        if isinstance(statement, Nothing | TransactionControl):
            return None
        return self._executor.describe(statement)

    # -- both ----------------------------------------------------------------------------------------------------------

    def _run(self, statement: Statement, finish: Callable[[Done], bytes]) -> bytes:
        if isinstance(statement, TransactionControl):
            return finish(self._transact(statement))
        if self._status == b"E":
            raise ConsoleError(
                "current transaction is aborted, commands ignored until end of transaction block", "25P02"
            )
        outcome = self._executor.execute(statement)
        if isinstance(outcome, Done):
            return finish(outcome)
        self.waits, self._finish = outcome, finish
        return self.poll()

    def _transact(self, control: TransactionControl) -> Done:
        failed = self._status == b"E"
        if control.begins:
            if not failed:
                self._status = b"T"
            return Done("BEGIN")
        self._status = b"I"
        return Done("COMMIT" if control.commits and not failed else "ROLLBACK")

    def _error(self, error: ConsoleError) -> bytes:
        if self._status == b"T":
            self._status = b"E"
        return messages.error_response(str(error), error.sqlstate, "ERROR", error.detail, error.hint)

    def _ready(self) -> bytes:
        return messages.ready_for_query(self._status)

    def _result(self, done: Done) -> bytes:
        return _complete(done.tag)


def _parsed(query: str) -> Statement:
    try:
        return parse(query)
    except Unintelligible as error:
        raise ConsoleError(str(error)) from None


def _bound(kept: Collection[str], name: str, most: int, what: str) -> None:
    if name not in kept and len(kept) >= most:
        raise ConsoleError(f"too many {what}", "53400", hint="close those that are not needed")


def _notice(done: Done) -> bytes:
    if not done.notice:
        return b""
    return messages.notice_response(done.notice, "00000", "NOTICE", done.detail)


def _complete(tag: str) -> bytes:
    return messages.frame(wire.COMMAND_COMPLETE, text.cstring(tag))


def _rows(portal: Portal, done: Done, limit: int) -> bytes:
    """Rows of an executed portal from where it stands, at most `limit` of them, and what ends them."""
    if portal.shape is None:
        return _complete(done.tag)
    rest = done.rows[portal.sent :]
    part = rest[:limit] if limit else rest
    portal.sent += len(part)
    sent = tables.data_rows(portal.shape, part, portal.formats)
    if limit and len(rest) >= limit:
        return sent + _SUSPENDED
    # Nobody asks for the rows again.
    portal.done, portal.sent = attrs.evolve(done, rows=()), 0
    return sent + _complete(done.tag)
