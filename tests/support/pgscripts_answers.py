"""When a client has read all that it was answered: the rules of "Message Flow", as an application sees them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.support.rawclient import Frame

_EXTENDED: Final = b"PBDEC"
_FLUSHING: Final = b"SQFH"
_COPY_ENDS: Final = b"cf"
_COPY_IGNORES: Final = b"SHd"
_COMPLETES: Final = {
    b"1": b"P",
    b"2": b"B",
    b"3": b"C",
    b"n": b"D",
    b"T": b"D",
    b"C": b"E",
    b"I": b"E",
    b"s": b"E",
    b"Z": b"SQF",
}
"""The answers that complete a request."""


class Answers:
    """What a server still has to answer to one client.

    Attributes:
        status: of the transaction, as the newest ReadyForQuery tells it.
        copying: the server waits for CopyData.
        ends: the session has been ended by the client, or by a fatal error.
        doubtful: a COPY has failed after a Sync that the server may have ignored, or not: who does not know when it
            failed cannot tell, and a pooler leaves the server connection to the client then.
    """

    def __init__(self) -> None:
        self.status = b"I"
        self.copying = False
        self.ends = False
        self.doubtful = False
        self._ignored = False
        self._pending: deque[bytes] = deque()
        self._due = 0
        self._skipping = False
        self._unsynced = False

    @property
    def unsynced(self) -> bool:
        """Whether the server is inside a pipeline that a Sync has to end."""
        return self._unsynced or self._skipping

    @property
    def holding(self) -> bool:
        """Whether the client has a server connection of its own."""
        busy = self.unsynced or self.copying or bool(self._pending)
        return busy or self.doubtful or self.status != b"I"

    @property
    def complete(self) -> bool:
        """Whether nothing more will come unless more is asked."""
        return not self.ends and (self.copying or not self._due)

    def ask(self, kind: bytes) -> None:
        """A message is sent."""
        if self.copying:
            if kind in _COPY_ENDS:
                self.copying = False
            else:
                self._ignore(kind)
            return
        if self._skipping and kind not in b"SX":
            return
        if kind == b"X":
            self.ends = True
            return
        if kind in _EXTENDED:
            self._unsynced = True
        elif kind == b"S":
            self._skipping = False
        elif kind == b"d":
            return
        self._due += kind in _FLUSHING
        self._pending.append(kind)
        self._strike()

    def take(self, frame: Frame) -> None:
        """A message has come."""
        head = self._pending[0] if self._pending else b"-"
        if frame.kind == b"E":
            self._fail(head, frame)
        elif frame.kind == b"G":
            self._begin_copy()
        elif head in _COMPLETES.get(frame.kind, b""):
            self._drop()
            self._ignored = False
        if frame.kind == b"Z":
            self.status = frame.body
            self._unsynced = any(kind in _EXTENDED for kind in self._pending)
        self._strike()

    def _fail(self, head: bytes, frame: Frame) -> None:
        self.copying = False
        self.doubtful = self.doubtful or self._ignored
        self.ends = self.ends or frame.fields["V"] in {"FATAL", "PANIC"}
        if head in _EXTENDED:
            while self._pending and self._pending[0] != b"S":
                self._drop()
            self._skipping = not self._pending

    def _begin_copy(self) -> None:
        """The server takes what comes up to the end of the data, if that has been sent already, for a part of them."""
        copy = self._pending.popleft()
        while self._pending:
            kind = self._pending.popleft()
            if kind in _COPY_ENDS:
                break
            self._due -= kind in _FLUSHING
            self._ignore(kind)
        else:
            self.copying = True
        self._pending.appendleft(copy)

    def _ignore(self, kind: bytes) -> None:
        """The server ignores Sync and Flush while it copies, and ends the session for anything else but data."""
        self._ignored = self._ignored or kind == b"S"
        self.ends = self.ends or kind not in _COPY_IGNORES

    def _strike(self) -> None:
        """Take out what is not answered."""
        while self._pending and self._pending[0] in b"Hcf":
            self._drop()

    def _drop(self) -> None:
        self._due -= self._pending.popleft() in _FLUSHING
