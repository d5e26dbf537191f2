"""A model of a PostgreSQL backend: bytes in, bytes out, no I/O, no time, no chance.

It follows the backend's main loop as PostgreSQL documents it (chapter "Frontend/Backend Protocol", section "Message
Flow") and as a real server was seen to answer. It knows nothing of hyperpool. What it understands instead of SQL is
told in `tests.support.pglanguage`.

Everything is answered as soon as it is read; how much of `Backend.output` is passed on, and when, is the test's choice.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from tests.support.pglanguage import (
    DEFAULTS,
    REPORTED,
    WORDS,
    Sleeps,
    fill,
    frame,
    parse_assignment,
    report,
    split_statements,
    text_of,
    texts_of,
    verb_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Steps = Generator[None, None, None]

_EXTENDED: Final = b"PBDEC"
_MESSAGES: Final = b"QPBDECSHFXdcf"
_ENDS_TRANSACTION: Final = ("commit", "rollback")
_WITH_ROWS: Final = ("rows", "show")
_ABORTED: Final = "current transaction is aborted, commands ignored until end of transaction block"


class _Failure(Exception):
    """An ERROR: the statement fails, the session goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Ended(Exception):
    """The session ends."""


@attrs.define
class _Portal:
    """A statement that is bound; `left` is how many rows it has still to give, None before its first Execute."""

    sql: str
    left: int | None = None
    spent: bool = False


class Backend:
    """One session, logged in.

    Args:
        pid: its process id.
        parameters: what the startup packet asked for.
        sleeps: where the end of its sleeping statements is found, and written down.

    Attributes:
        output: what it has answered and nobody has taken yet, whole frames when nothing was taken.
        ended: it has closed the connection.
        dismissed: because of a Terminate.
        sleeping: the tag of the statement that sleeps, or "".
        copying: it reads COPY data.
        skipping: it discards messages until Sync.
        block: the transaction status, as ReadyForQuery tells it.
        implicit: a transaction is open that the next Sync or the end of the Query commits.
        log: every statement that it began to run.
    """

    def __init__(
        self, pid: int = 0, parameters: Mapping[str, str] | None = None, sleeps: Sleeps | None = None
    ) -> None:
        self.pid = pid
        self.output = bytearray()
        self.ended = False
        self.dismissed = False
        self.sleeping = ""
        self.copying = False
        self.skipping = False
        self.block = "I"
        self.implicit = False
        self.log: list[str] = []
        self.sleeps = sleeps or Sleeps()
        self.input = bytearray()
        self._initial = {**DEFAULTS, **(parameters or {})}
        self._values = dict(self._initial)
        self._reported = dict(self._initial)
        self._saved: dict[str, str] | None = None
        self._deferred = ""
        self._statements: dict[str, str] = {}
        self._portals: dict[str, _Portal] = {}
        self._loop = self._main()
        self._run()

    @property
    def parameters(self) -> dict[str, str]:
        """What ParameterStatus has told at login, or since."""
        return {name: value for name, value in self._reported.items() if name in REPORTED}

    @property
    def statements(self) -> Mapping[str, str]:
        """The prepared statements, by name; the unnamed one has the name ""."""
        return self._statements

    @property
    def neutral(self) -> bool:
        """It has answered all that it was sent, and is in no transaction."""
        waits = self.ended or self.sleeping or self.copying or self.skipping or self.input
        return not (waits or self.implicit or self.block != "I" or self.output)

    # -- what the outside does -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the frontend, and answer what can be answered."""
        self.input += data
        self._run()

    def wake(self) -> None:
        """The sleeping statement is over."""
        self._end_sleep(cancelled=False)

    def cancel(self) -> str:
        """A cancel request arrives. Returns the tag that it hits; "" when nothing sleeps, and nothing happens."""
        tag = self.sleeping
        self._end_sleep(cancelled=True)
        return tag

    def resume(self) -> None:
        """Look again whether the sleeping statement has ended (in a reference: elsewhere)."""
        self._run()

    def notice(self, text: str) -> None:
        """Send a NoticeResponse that nobody asked for."""
        self.output += report(b"N", "NOTICE", "00000", text)

    def notify(self, text: str) -> None:
        """Send a NotificationResponse."""
        self.output += frame(b"A", struct.pack("!I", self.pid) + b"channel\0" + text.encode() + b"\0")

    def change(self, name: str, value: str) -> None:
        """The default of a parameter changes (the server's configuration was reloaded), while nothing runs."""
        if self._values[name] == self._initial[name]:
            self._values[name] = value
        self._initial[name] = value
        self._report_parameters()

    def shut_down(self) -> None:
        """The administrator ends the session."""
        self.output += report(b"E", "FATAL", "57P01", "terminating connection due to administrator command")
        self.ended = True

    # -- the main loop ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self.ended:
            try:
                next(self._loop)
            except _Ended:
                self.ended = True

    def _end_sleep(self, *, cancelled: bool) -> None:
        if self.sleeping:
            self.sleeps.cancelled[self.sleeping] = cancelled
            self._run()

    def _message(self) -> Generator[None, None, tuple[bytes, bytes]]:
        """Read one message."""
        while True:
            if len(self.input) >= 5:
                kind = bytes(self.input[:1])
                length = int.from_bytes(self.input[1:5])
                if kind not in _MESSAGES:
                    self._fatal("08P01", f"invalid frontend message type {kind[0]}")
                if not 4 <= length < 1 << 30:
                    raise _Ended
                if len(self.input) > length:
                    body = bytes(self.input[5 : length + 1])
                    del self.input[: length + 1]
                    return kind, body
            yield

    def _main(self) -> Steps:
        while True:
            kind, body = yield from self._message()
            if kind == b"X":
                self.dismissed = True
                raise _Ended
            if kind == b"S":
                self.skipping = False
            if self.skipping:
                continue
            try:
                if kind == b"Q":
                    yield from self._query(text_of(body))
                elif kind == b"F":
                    self._call(body)
                elif kind == b"S":
                    self._commit_implicit()
                elif kind in _EXTENDED:
                    yield from self._extended(kind, body)
            except _Failure as failure:
                self._fail(failure)
                self.skipping = kind in _EXTENDED
            if kind in b"QSF":
                self._report_parameters()
                self._say(b"Z", self.block.encode())

    def _say(self, kind: bytes, body: bytes = b"") -> None:
        self.output += frame(kind, body)

    def _fail(self, failure: _Failure) -> None:
        self.output += report(b"E", "ERROR", failure.code, str(failure))
        self.copying = False
        self.sleeping = ""
        if self.block == "I":
            self._end_transaction(keep=False)
        else:
            self.block = "E"
            self._portals.clear()
            self._values = dict(self._saved or self._values)

    def _fatal(self, code: str, message: str) -> None:
        self.output += report(b"E", "FATAL", code, message)
        raise _Ended

    def _report_parameters(self) -> None:
        for name, value in self._values.items():
            if name in REPORTED and self._reported[name] != value:
                self._reported[name] = value
                self._say(b"S", name.encode() + b"\0" + value.encode() + b"\0")

    # -- transactions ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start an implicit transaction, unless there is a transaction."""
        if self._saved is None:
            self._saved = dict(self._values)
            self.implicit = True

    def _end_transaction(self, *, keep: bool) -> None:
        deferred, self._deferred = self._deferred, ""
        keep = keep and self.block != "E"
        if self._saved is not None and (deferred or not keep):
            self._values = self._saved
        self._saved = None
        self.implicit = False
        self.block = "I"
        self._portals.clear()
        if deferred and keep:
            raise _Failure("23503", f"<{deferred}> violates a deferred constraint")

    def _commit_implicit(self) -> None:
        if self.block == "I" and self.implicit:
            self._end_transaction(keep=True)

    def _control(self, verb: str) -> None:
        outside = self.block == "I"
        if verb == "begin":
            if not outside:
                self.output += report(b"N", "WARNING", "25001", "there is already a transaction in progress")
            self._start()
            self.implicit = False
            self.block = "T"
            self._done("BEGIN")
            return
        done = verb.upper() if self.block != "E" else "ROLLBACK"
        if outside:
            self.output += report(b"N", "WARNING", "25P01", "there is no transaction in progress")
        self._end_transaction(keep=verb == "commit")
        self._done(done)

    # -- requests --------------------------------------------------------------------------------------------------

    def _query(self, text: str) -> Steps:
        self._statements.pop("", None)
        self._portals.pop("", None)
        statements = split_statements(text)
        self._check_syntax(statements)
        if not statements:
            self._say(b"I")
        for number, sql in enumerate(statements, 1):
            self._check_aborted(sql)
            self._start()
            if verb_of(sql) in _WITH_ROWS:
                self._describe(sql)
            portal = _Portal(sql)
            done: list[str] = []
            yield from self._execute(portal, 0, done.append, alone=len(statements) == 1)
            # An implicit commit may fail: it comes before the last CommandComplete, which is then not sent.
            if number == len(statements):
                self._commit_implicit()
            for tag in done:
                self._say(b"C", tag.encode() + b"\0")

    def _call(self, body: bytes) -> None:
        if self.block == "E":
            raise _Failure("25P02", _ABORTED)
        if int.from_bytes(body[:4]) % 2:
            raise _Failure("42883", f"function <{body[4:].decode()}> does not exist")
        self._say(b"V", struct.pack("!I", len(body) - 4) + body[4:])
        self._commit_implicit()

    def _extended(self, kind: bytes, body: bytes) -> Steps:
        if kind == b"P":
            self._parse(*texts_of(body, 2))
        elif kind == b"B":
            self._bind(*texts_of(body, 2))
        elif kind == b"E":
            (name,) = texts_of(body, 1)
            portal = self._portal(name)
            if portal.sql:
                self._check_aborted(portal.sql)
            self._start()
            (limit,) = struct.unpack("!i", body[-4:])
            yield from self._execute(portal, limit, self._done, alone=False)
        else:
            target, name = body[:1], text_of(body[1:])
            if kind == b"C":
                (self._statements if target == b"S" else self._portals).pop(name, None)
                self._say(b"3")
            else:
                self._describe_named(target, name)

    def _parse(self, name: str, text: str) -> None:
        if not name:
            # The old one is gone whatever becomes of the new one.
            self._statements.pop("", None)
        statements = split_statements(text)
        self._check_syntax(statements)
        if len(statements) > 1:
            raise _Failure("42601", "cannot insert multiple commands into a prepared statement")
        sql = statements[0] if statements else ""
        if sql:
            self._check_aborted(sql)
        if name and name in self._statements:
            raise _Failure("42P05", f'prepared statement "{name}" already exists')
        self._start()
        self._statements[name] = sql
        self._say(b"1")

    def _bind(self, portal: str, name: str) -> None:
        sql = self._statement(name)
        self._check_aborted(sql)
        if portal and portal in self._portals:
            raise _Failure("42P03", f'cursor "{portal}" already exists')
        self._start()
        self._portals[portal] = _Portal(sql)
        self._say(b"2")

    def _describe_named(self, target: bytes, name: str) -> None:
        sql = self._statement(name) if target == b"S" else self._portal(name).sql
        rows = verb_of(sql) in _WITH_ROWS
        if rows:
            self._check_aborted(sql)
        self._start()
        if target == b"S":
            self._say(b"t", b"\0\0")
        if rows:
            self._describe(sql)
        else:
            self._say(b"n")

    def _describe(self, sql: str) -> None:
        self._say(b"T", b"\0\1" + verb_of(sql).encode() + b"\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))

    def _statement(self, name: str) -> str:
        if name not in self._statements:
            raise _Failure("26000", f'prepared statement "{name}" does not exist')
        return self._statements[name]

    def _portal(self, name: str) -> _Portal:
        if name not in self._portals:
            raise _Failure("34000", f'portal "{name}" does not exist')
        return self._portals[name]

    def _check_syntax(self, statements: list[str]) -> None:
        for sql in statements:
            if WORDS.get(verb_of(sql)) != len(sql.split()) and verb_of(sql) != "set":
                raise _Failure("42601", f"syntax error in <{sql}>")

    def _check_aborted(self, sql: str) -> None:
        if self.block == "E" and verb_of(sql) not in _ENDS_TRANSACTION:
            raise _Failure("25P02", _ABORTED)

    # -- statements ------------------------------------------------------------------------------------------------

    def _done(self, tag: str) -> None:
        self._say(b"C", tag.encode() + b"\0")

    def _execute(self, portal: _Portal, limit: int, done: Callable[[str], None], *, alone: bool) -> Steps:
        sql = portal.sql
        verb = verb_of(sql)
        if not sql:
            self._say(b"I")
            return
        if verb in _WITH_ROWS:
            self._rows(portal, limit, done)
            return
        if portal.spent:
            raise _Failure("55000", "portal cannot be run")
        portal.spent = True
        self.log.append(sql)
        words = sql.split()
        if verb in ("begin", "commit", "rollback"):
            self._control(verb)
        elif verb == "set":
            self._set(sql)
            done("SET")
        elif verb == "discard":
            self._discard(alone=alone)
            done("DISCARD ALL")
        elif verb == "deallocate":
            self._deallocate()
            done("DEALLOCATE ALL")
        elif verb == "sleep":
            yield from self._sleep(words[1])
            done("SLEEP")
        elif verb.startswith("copyin"):
            count = yield from self._copy_in(verb, words[1])
            done(f"COPY {count}")
        elif verb == "copyout":
            self._copy_out(int(words[1]), words[2])
            done(f"COPY {words[1]}")
        else:
            self._simple(verb, words[1])
            done(verb.upper())

    def _simple(self, verb: str, tag: str) -> None:
        if verb == "error":
            raise _Failure("P0001", f"<{tag}> failed")
        if verb == "fatal":
            self._fatal("XX000", f"<{tag}> ends the session")
        if verb == "deferred":
            self._deferred = tag
        else:
            self.notice(f"<{tag}>")

    def _rows(self, portal: _Portal, limit: int, done: Callable[[str], None]) -> None:
        words = portal.sql.split()
        if portal.left is None:
            self.log.append(portal.sql)
            portal.left = int(words[1]) if words[0] == "rows" else 1
        show = words[0] == "show"
        if show and words[1] not in self._values:
            raise _Failure("42704", f'unrecognized configuration parameter "{words[1]}"')
        value = self._values[words[1]].encode() if show else fill(words[3], int(words[2]))
        count = min(portal.left, limit or portal.left)
        self.output += frame(b"D", b"\0\1" + struct.pack("!i", len(value)) + value) * count
        portal.left -= count
        if limit and count == limit:
            self._say(b"s")
        else:
            done("SHOW" if show else f"SELECT {count}")

    def _set(self, sql: str) -> None:
        name, value = parse_assignment(sql)
        known = {key.lower(): key for key in self._values}
        if name.lower() not in known:
            raise _Failure("42704", f'unrecognized configuration parameter "{name}"')
        if value.startswith("bad"):
            raise _Failure("22023", f'invalid value for parameter "{name}": "{value}"')
        self._values[known[name.lower()]] = value

    def _discard(self, *, alone: bool) -> None:
        if self.block != "I" or not alone:
            raise _Failure("25001", "DISCARD ALL cannot run inside a transaction block")
        self._values = dict(self._initial)
        self._saved = dict(self._initial)
        self._deallocate()
        self._portals.clear()

    def _deallocate(self) -> None:
        """Drop the statements that have names."""
        self._statements = {name: sql for name, sql in self._statements.items() if not name}

    def _sleep(self, tag: str) -> Steps:
        self.sleeping = tag
        while tag not in self.sleeps.cancelled:
            yield
        self.sleeping = ""
        if self.sleeps.cancelled[tag]:
            raise _Failure("57014", f"<{tag}> canceled due to user request")

    def _copy_in(self, verb: str, tag: str) -> Generator[None, None, int]:
        self._say(b"G", b"\0\0\1\0\0")
        self.copying = True
        count = 0
        if verb == "copyin-early":
            raise _Failure("42809", f"cannot copy to <{tag}>")
        while True:
            kind, body = yield from self._message()
            if kind == b"c":
                self.copying = False
                return count
            if kind == b"d":
                if verb == "copyin-late":
                    raise _Failure("22P02", f"invalid input for <{tag}>")
                count += 1
            elif kind == b"f":
                raise _Failure("57014", f"COPY from stdin failed: {text_of(body)}")
            elif kind not in b"HS":
                self.output += report(
                    b"E", "ERROR", "08P01", "unexpected message type during COPY from stdin"
                )
                self._fatal("08P01", "terminating connection because protocol synchronization was lost")

    def _copy_out(self, count: int, tag: str) -> None:
        self._say(b"H", b"\0\0\1\0\0")
        self.output += frame(b"d", fill(tag, 40)) * count
        self._say(b"c")
