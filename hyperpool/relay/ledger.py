"""The ledger of outstanding requests of one server connection.

A frontend message that makes the server answer is written down when it is sent, and struck out when its answer has
come. What is left tells whether the server still owes something, and for each answer whether it goes to the client.
Sans-IO: the ledger sees message types only.

Rules, from the PostgreSQL docs, chapter "Frontend/Backend Protocol", section "Message Flow":

1.  Query, FunctionCall and Sync are answered in order, and each ends with ReadyForQuery.
2.  Parse, Bind, Describe, Execute and Close are each completed by one message: ParseComplete, BindComplete,
    RowDescription or NoData, (CommandComplete, EmptyQueryResponse or PortalSuspended), CloseComplete.
3.  An error inside extended-query messages makes the server discard everything up to the next Sync, a Query among it
    included.
4.  While the server reads COPY data it ignores Sync and Flush, until CopyDone or CopyFail. Copy messages outside of a
    copy are ignored. CopyDone and CopyFail are written down only to know where the copy ended.
    When a copy fails, nobody knows whether the server had read a Sync that it would ignore: it notices, for instance,
    that the target is a view only after CopyInResponse, and then answers a Sync that came before the data. Until
    something else is answered, a ReadyForQuery may be one too many (`surplus`); and if it depends on that whether a
    request was discarded, nothing is known any more (`lost`).
5.  That, and what does not fit these rules, is a *doubt*: messages still pass, but the server connection is never
    given to another client.

Each entry is the type byte of the frontend message, plus an action:

FORWARD
    the client sent the request; its answer belongs to the client.
SKIP
    the pooler sent the request; its answer is dropped.
FAKE
    the client sent the request, but the server never saw it; the answer is made at this spot of the pipeline.

A Parse or a Close may come with a `Change` of what is prepared. It counts from when it is written down. If an
error makes the server discard the request, the change comes back in `undone`, and whoever made it undoes it.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import Change
from hyperpool.wire import constants as wire

if TYPE_CHECKING:
    from hyperpool.pool.statements import Statement

FORWARD: Final = 0
SKIP: Final = 0x100
FAKE: Final = 0x200
_IGNORED: Final = 0x400
"""A Sync that the server ignores if it reads it while it copies."""
_MAX_IGNORED: Final = 16
"""So many of those are kept in mind: a client that sends more of them in a copy that fails is ended."""
_KIND: Final = 0xFF
LOST: Final = "which of the requests behind a COPY the server reads cannot be known"
"""Why a client is ended when its ledger is `lost`."""

ENDS_WITH_READY: Final = frozenset({wire.QUERY, wire.FUNCTION_CALL, wire.SYNC})
_ENDS_COPY: Final = frozenset({wire.COPY_DONE, wire.COPY_FAIL})
CHANGING: Final = frozenset({wire.PARSE, wire.CLOSE})
_EXTENDED: Final = frozenset({wire.PARSE, wire.BIND, wire.DESCRIBE, wire.EXECUTE, wire.CLOSE})

_COMPLETES: Final = {
    wire.PARSE_COMPLETE: wire.PARSE,
    wire.BIND_COMPLETE: wire.BIND,
    wire.CLOSE_COMPLETE: wire.CLOSE,
    wire.ROW_DESCRIPTION: wire.DESCRIBE,
    wire.NO_DATA: wire.DESCRIBE,
    wire.COMMAND_COMPLETE: wire.EXECUTE,
    wire.EMPTY_QUERY_RESPONSE: wire.EXECUTE,
    wire.PORTAL_SUSPENDED: wire.EXECUTE,
}
"""Backend message -> the extended-query request that it completes (rule 2)."""

_WITHIN: Final = {
    wire.ROW_DESCRIPTION: {wire.QUERY},
    wire.COMMAND_COMPLETE: {wire.QUERY},
    wire.EMPTY_QUERY_RESPONSE: {wire.QUERY},
    wire.DATA_ROW: {wire.QUERY, wire.EXECUTE},
    wire.PARAMETER_DESCRIPTION: {wire.DESCRIBE},
    wire.FUNCTION_CALL_RESPONSE: {wire.FUNCTION_CALL},
    wire.COPY_IN_RESPONSE: {wire.QUERY, wire.EXECUTE},
    wire.COPY_OUT_RESPONSE: {wire.QUERY, wire.EXECUTE},
    wire.COPY_BOTH_RESPONSE: {wire.QUERY, wire.EXECUTE},
    wire.COPY_DATA: {wire.QUERY, wire.EXECUTE},
    wire.COPY_DONE: {wire.QUERY, wire.EXECUTE},
}
"""Backend message -> the requests in whose answer it may stand without completing it."""

_COMPLETION: Final = {wire.PARSE: wire.PARSE_COMPLETE, wire.CLOSE: wire.CLOSE_COMPLETE}
"""The request that can be faked -> the empty message that answers it."""


class Ledger:
    """What one server connection still owes, in order.

    Attributes:
        skipping: the server discards messages until it sees a Sync (rule 3).
        copying: the server reads COPY data (rule 4).
        doubt: why the server connection must not be reused, or "".
        changes: what the Parse and Close messages among `entries` change, in the same order; None for nothing.
        unnamed: those of them that change the unnamed statement, in the same order.
        owed: how many ReadyForQuery messages are to come.
        asked: how many the client has asked for so far.
        awaited: how many of those are still to come.
        executes: how many Execute messages there have been so far.
        surplus: how many ReadyForQuery messages may come for Syncs that a copy should have ignored (rule 4).
        lost: nobody can tell which requests will be answered: what is translated must not go on.
        failed: the change of the newest request that has failed itself; None if it changes nothing.
        cycle: how many Syncs there have been so far.
        midway: since the newest one, and since a ReadyForQuery behind which nothing was outstanding, there has been a
            request whose error would make the server discard what comes.
        undone: changes of requests that failed or were discarded, oldest first, until somebody takes them out.
        unsynced: extended-query messages have been sent since the newest ReadyForQuery: even if all of them have been
            answered (Flush), the server is inside an implicit transaction that only Sync ends.
    """

    __slots__ = (
        "_answering",
        "_entries",
        "_ignored",
        "_last_ready",
        "_lone",
        "_lone_before",
        "_open",
        "_position",
        "asked",
        "awaited",
        "changes",
        "copying",
        "cycle",
        "doubt",
        "executes",
        "failed",
        "lost",
        "midway",
        "owed",
        "skipping",
        "surplus",
        "undone",
        "unnamed",
        "unsynced",
    )

    def __init__(self) -> None:
        self._entries: deque[int] = deque()
        self._lone: tuple[int, ...] = ()
        self._lone_before: Statement | None = None
        self.changes: deque[Change | None] = deque()
        self.unnamed: deque[Change] = deque()
        self.undone: list[Change] = []
        self.failed: Change | None = None
        self._open: dict[bytes | Statement, deque[int]] = {}
        self._position = 0
        self._last_ready = 0
        self.owed = 0
        self.asked = 0
        self.awaited = 0
        self.executes = 0
        self.cycle = 0
        self.midway = False
        self.skipping = False
        self.copying = False
        self._ignored = 0
        self._answering = False
        self.surplus = 0
        self.lost = False
        self.unsynced = False
        self.doubt = ""

    def __repr__(self) -> str:
        names = {FORWARD: "", SKIP: "~", FAKE: "+"}
        owed = (entry for entry in self.entries if not entry & _IGNORED)
        pipeline = " ".join(names[entry & ~_KIND] + chr(entry & _KIND) for entry in owed)
        flags = [name for name in ("skipping", "copying", "unsynced") if getattr(self, name)]
        return f"<Ledger [{pipeline}] {' '.join(flags)}{self.doubt}>"

    @property
    def entries(self) -> deque[int]:
        """Outstanding requests, oldest first."""
        if self._lone:
            self._entries.extend(self._lone)
            if self._lone[0] == wire.PARSE:
                self.changes.append(Change(b"", self._lone_before, None))
            self._lone = ()
            self._lone_before = None
        return self._entries

    def expect(self, kinds: tuple[int, ...], before: Statement | None = None) -> None:
        """Write down requests of a client's, all that are outstanding, which may be `fulfilled` in one step.

        What is counted here, and `changes`, are not up to date before `recount`.

        Args:
            kinds: of the messages; only the first may be a Parse, and it is one of the unnamed statement.
            before: what that was before.
        """
        self._lone = kinds
        self._lone_before = before

    def fulfilled(self) -> None:
        """All that was outstanding has been answered, and nothing has failed."""
        if self._lone:
            self._lone = ()
            self._lone_before = None
        else:
            self._entries.clear()
            self.changes.clear()
        self.unsynced = False

    @property
    def busy(self) -> bool:
        """Whether, as far as is known, the server owes something, or its client a Sync or the end of a COPY."""
        return bool(self.entries or self.unsynced or self.skipping or self.copying)

    @property
    def own(self) -> bool:
        """Whether whatever is outstanding is the pooler's own: the client has been answered."""
        return all(entry & SKIP for entry in self.entries)

    @property
    def clean(self) -> bool:
        """Whether the server owes nothing and there is no doubt about it."""
        return not (self.entries or self.unsynced or self.skipping or self.copying or self.doubt)

    def rests(self) -> bool:
        """Whether it is `clean`, and no error could make the server discard what comes next."""
        outstanding = self._lone or self._entries
        between = self.unsynced or self.midway or self.skipping or self.copying
        return not (outstanding or between or self.doubt)

    @property
    def at_ready(self) -> bool:
        """Whether the newest request is outstanding, the client's, and ends with ReadyForQuery."""
        for entry in reversed(self.entries):
            if entry & _KIND not in _ENDS_COPY and not entry & _IGNORED:
                return entry in ENDS_WITH_READY
        return False

    @property
    def wants_data(self) -> bool:
        """Whether the server reads COPY data whose end has not been sent: it answers nothing before that comes."""
        return self.copying and _ENDS_COPY.isdisjoint(self.entries)

    @property
    def settled(self) -> int:
        """Of what the client has asked so far, how many ReadyForQuery messages will not come any more."""
        return self.asked - self.awaited

    def copies(self) -> bool:
        """Whether a COPY is outstanding, or was: only the server knows whether what stands behind it is answered."""
        entries = self.entries
        return bool(self.copying or self.doubt or wire.COPY_DONE in entries or wire.COPY_FAIL in entries)

    def is_open(self, what: bytes | Statement) -> bool:
        """Whether it depends on the answers to an earlier pipeline what a name means, or if a statement is there."""
        positions = self._open.get(what)
        return positions is not None and positions[0] < self._last_ready

    @property
    def unnamed_is_open(self) -> bool:
        """Whether it depends on the answers to an earlier pipeline if the server has the client's unnamed statement."""
        newest = self.unnamed[-1] if self.unnamed else None
        return newest is not None and newest.unsure and newest.cycle != self.cycle

    def recount(self) -> None:
        """Take in what has been put into `entries` and `changes` without `request`."""
        self.owed = sum(entry & _KIND in ENDS_WITH_READY for entry in self.entries)
        self.awaited = sum(entry in ENDS_WITH_READY for entry in self.entries)
        self.unnamed = deque(change for change in self.changes if change is not None and change.name == b"")

    def request(self, kind: int, action: int = FORWARD, change: Change | None = None) -> None:
        """Write down a frontend message that goes to the server (or, for FAKE, that is kept from it).

        Args:
            kind: its type byte; types that are never answered (Flush, CopyData) may be left out.
            action: FORWARD, SKIP or FAKE.
            change: what a Parse or Close changes; must not be given while `skipping`.
        """
        if self.skipping:
            if kind != wire.SYNC:
                self.lost = self.lost or (self.surplus > 0 and kind not in _ENDS_COPY)
                return
            self.skipping = False
        elif kind in _ENDS_COPY:
            if not self.entries:
                return
            self.midway = True
        elif self.copying and kind == wire.SYNC and self.wants_data:
            self._ignored += 1
            if self._ignored <= _MAX_IGNORED:
                self.entries.append(kind | _IGNORED)
            return
        elif kind in _EXTENDED:
            self.unsynced = self.midway = True
            if kind in CHANGING:
                self.changes.append(change)
                if change is not None:
                    self._note(change)
            elif kind == wire.EXECUTE:
                self.executes += 1
        self.entries.append(kind | action)
        self._position += 1
        if kind in ENDS_WITH_READY:
            self._last_ready = self._position
            if kind == wire.SYNC:
                self.cycle += 1
                self.midway = False
            self.owed += 1
            if not action:
                self.asked += 1
                self.awaited += 1

    def _note(self, change: Change) -> None:
        change.cycle = self.cycle
        if change.name == b"":
            self.unnamed.append(change)
        for what in (change.name, change.touched):
            if what:
                self._open.setdefault(what, deque()).append(self._position)

    def ready(self) -> int:
        """Take in ReadyForQuery.

        Returns:
            FORWARD or SKIP: what to do with it.
        """
        entries = self.entries
        head = entries[0] if entries else 0
        self.copying = False
        answered, self._answering = self._answering, False
        surplus = self.surplus and head & _KIND != wire.SYNC and not answered
        if surplus or head & _KIND not in ENDS_WITH_READY:
            # Nothing but a Sync is answered by ReadyForQuery alone.
            self._doubt(wire.READY_FOR_QUERY)
            self.surplus = max(self.surplus - 1, 0)
            self.skipping = False
            self.unsynced = bool(entries)
            return FORWARD
        entries.popleft()
        self._struck(head)
        self._strike_copy_ends()
        self.unsynced = bool(entries)
        if not entries:
            # A copy may have ended without a Sync.
            self.midway = False
        return head & SKIP

    def response(self, kind: int) -> int:
        """Take in any other backend message that answers a request.

        NoticeResponse, NotificationResponse and ParameterStatus answer nothing and do not belong here.

        Args:
            kind: its type byte.

        Returns:
            FORWARD or SKIP: what to do with it.
        """
        head = self.entries[0] if self.entries else 0
        request = head & _KIND
        self._answering = True
        self.surplus = 0
        if kind == wire.ERROR_RESPONSE:
            return self._error(head)
        if _COMPLETES.get(kind) == request:
            self.entries.popleft()
            if request in CHANGING:
                self._next_change()
            self.copying = False
            self._strike_copy_ends()
        elif request not in _WITHIN.get(kind, ()):
            self._doubt(kind)
        elif kind in (wire.COPY_IN_RESPONSE, wire.COPY_BOTH_RESPONSE):
            self._begin_copy()
        return head & SKIP

    def fakes(self) -> bytes:
        """The answers to make now: those of the FAKE requests at the head of the ledger, which are struck out."""
        made = b""
        while self.entries and self.entries[0] & FAKE:
            made += bytes((_COMPLETION[self.entries.popleft() & _KIND], 0, 0, 0, 4))
            self._next_change()
            self._strike_copy_ends()
        return made

    def _struck(self, entry: int) -> None:
        """A request that ends with ReadyForQuery is struck out."""
        self.owed -= 1
        if not entry & SKIP:
            self.awaited -= 1

    def _error(self, head: int) -> int:
        if self.copying and self._ignored:
            self._doubt(wire.ERROR_RESPONSE)
            self._copy_failed()
        self.copying = False
        if head & _KIND in _EXTENDED:
            entries = self.entries
            self.failed = self.changes[0] if head & _KIND in CHANGING else None
            while entries and entries[0] & _KIND != wire.SYNC:
                entry = entries.popleft()
                if entry & _KIND in CHANGING:
                    change = self._next_change()
                    if change is not None:
                        self.undone.append(change)
                elif entry & _KIND in ENDS_WITH_READY:
                    self._struck(entry)
            self.skipping = not entries
        elif not head:
            self._doubt(wire.ERROR_RESPONSE)
        return head & SKIP

    def _begin_copy(self) -> None:
        """Drop the Syncs that the server will read, and ignore, while it copies (rule 4)."""
        entries = self.entries
        kept = deque([entries.popleft()])
        if self.copying:
            # The second copy of one Query: the first is over, and so is what ended it.
            while entries and entries[0] & _KIND not in _ENDS_COPY:
                entry = entries.popleft()
                if not entry & _IGNORED:
                    kept.append(entry)
            if entries:
                entries.popleft()
        self.copying = True
        self._ignored = 0
        while entries and entries[0] & _KIND not in _ENDS_COPY:
            entry = entries.popleft()
            if entry & _KIND == wire.SYNC:
                if not entry & _IGNORED:
                    self._struck(entry)
                    entry |= _IGNORED
                self._ignored += 1
                if self._ignored > _MAX_IGNORED:
                    continue
            elif entry & FAKE:
                # The server would have ended the session.
                self._doubt(wire.COPY_IN_RESPONSE)
                self.lost = True
            kept.append(entry)
        entries.extendleft(reversed(kept))

    def _copy_failed(self) -> None:
        """Find out which of the Syncs that a copy should have ignored the server may answer (rule 4)."""
        entries = self.entries
        kept = deque([entries.popleft()])
        while entries and entries[0] & _KIND not in _ENDS_COPY:
            entry = entries.popleft()
            if entry & _IGNORED and len(kept) == 1:
                self.surplus += 1
                continue
            if entry & _IGNORED:
                # A copy does not get past another request: the server has not read this far.
                entry &= ~_IGNORED
                self.owed += 1
                self.awaited += not entry & SKIP
            kept.append(entry)
        entries.extendleft(reversed(kept))
        if self.surplus:
            # What stands before the next Sync is discarded if all those before it have been read.
            behind = itertools.takewhile(lambda entry: entry & _KIND != wire.SYNC, entries)
            other = any(entry & _KIND not in _ENDS_COPY for entry in itertools.islice(behind, 1, None))
            self.lost = (
                self._ignored > _MAX_IGNORED
                or (other and entries[0] & _KIND == wire.EXECUTE)
                or any(entry & FAKE for entry in entries)
            )

    def _next_change(self) -> Change | None:
        """The change of the Parse or Close that is struck out."""
        change = self.changes.popleft()
        if change is not None:
            if change.name == b"":
                self.unnamed.popleft()
            for what in (change.name, change.touched):
                if what:
                    positions = self._open[what]
                    positions.popleft()
                    if not positions:
                        del self._open[what]
        return change

    def _strike_copy_ends(self) -> None:
        entries = self.entries
        while entries and (entries[0] & _KIND in _ENDS_COPY or entries[0] & _IGNORED):
            entries.popleft()

    def _doubt(self, kind: int) -> None:
        self.doubt = self.doubt or f"unexpected {chr(kind)!r} message, {self!r}"
