"""The shortest ways to entries: from bytes that a client has sent.

This is the form in Python; `fronts.pyx` is the same in C, which `hyperpool.form` prefers: it looks for bytes where they
lie, and makes no object of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.cache.store import Entry

Path: TypeAlias = tuple[object, object, bytes]
"""What tells a request from all others: its client's settings, the statement that it uses by its name or None, and the
bytes that it has, or has behind that name. Settings and statements are compared by identity."""

FRONT = 300
"""Bytes that a way to an entry costs apart from its text."""


class Front:
    """A way to an entry: for bytes that have led there before, and would do so again.

    Args:
        path: what leads there.
        entry: where it leads to.
        prefix: what the answer has in front of the entry's.
        closes: a Close is answered, too.
        unnamed: the client's unnamed statement afterwards.

    Attributes:
        entry: as given.
        prefix: as given.
        closes: as given.
        unnamed: as given.
        size: bytes that it counts for.
    """

    __slots__ = ("closes", "entry", "owner", "path", "prefix", "size", "unnamed")

    def __init__(self, path: Path, entry: Entry, prefix: bytes, closes: bool, unnamed: Any) -> None:  # noqa: ANN401 - as in C
        self.path = path
        self.entry = entry
        self.prefix = prefix
        self.closes = closes
        self.unnamed = unnamed
        self.size = len(path[2]) + FRONT
        self.owner: Fronts | None = None

    def forget(self) -> None:
        """It leads nowhere any more; this may be said twice."""
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.drop(self)


class Fronts:
    """The ways to entries that a pool's clients have found."""

    __slots__ = ("_fronts",)

    def __init__(self) -> None:
        self._fronts: dict[Path, Front] = {}

    def __len__(self) -> int:
        return len(self._fronts)

    def __iter__(self) -> Iterator[Front]:
        """Each of them; `put` and `drop` must wait until that is over."""
        return iter(self._fronts.values())

    def find(self, settings: object, statement: object, buffer: bytearray, at: int, end: int) -> Front | None:
        """The way that a request leads.

        Args:
            settings: see `Path`.
            statement: see `Path`.
            buffer: holds the request.
            at: where the bytes begin.
            end: behind the last one.

        Raises:
            IndexError: they are not inside `buffer`.
        """
        if not 0 <= at <= end <= len(buffer):
            raise IndexError("outside of the buffer")
        return self._fronts.get((settings, statement, bytes(buffer[at:end])))

    def put(self, front: Front) -> bool:
        """Remember a way. Returns whether there was none for the same path."""
        if front.path in self._fronts:
            return False
        self._fronts[front.path] = front
        front.owner = self
        return True

    def drop(self, front: Front) -> None:
        """Forget a way, if it is there; `Front.forget` calls this."""
        if self._fronts.get(front.path) is front:
            del self._fronts[front.path]
