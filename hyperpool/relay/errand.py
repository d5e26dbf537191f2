"""An errand: a query of the pooler's own on a server connection."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from collections.abc import Callable

_count = Struct("!H").unpack_from
_length = Struct("!i").unpack_from


class Errand:
    """A query of the pooler's own.

    Args:
        purpose: one word, for logs.
        then: called when it is answered, also if the answer is an error.

    Attributes:
        rows: the answer's rows, as text.
        behind: queries of the pooler's own that are answered before it.
        error: the fields of the error that it was answered with.
    """

    __slots__ = ("behind", "error", "purpose", "rows", "then")

    def __init__(self, purpose: str, then: Callable[[Errand], None]) -> None:
        self.purpose = purpose
        self.then = then
        self.rows: list[list[str | None]] = []
        self.behind = 0
        self.error: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Errand {self.purpose}>"

    def fail(self, error: dict[str, str]) -> Errand:
        """Take the answer for an error; returns itself."""
        self.error = error
        return self

    def row(self, body: bytes) -> None:
        """Take in a DataRow's body."""
        (count,) = _count(body)
        at = 2
        values: list[str | None] = []
        for _ in range(count):
            (length,) = _length(body, at)
            at += 4
            if length < 0:
                values.append(None)
            else:
                values.append(decode(body[at : at + length]))
                at += length
        self.rows.append(values)
