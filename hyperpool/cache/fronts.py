"""The shortest ways to entries: from bytes that a client has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from hyperpool.cache.store import FRONT

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hyperpool.cache.store import Entry

U = TypeVar("U")


class Front(Generic[U]):
    """A way to an entry: for bytes that have led there before, and would do so again.

    Attributes:
        path: under what the lane has it.
        fronts: where the lane has it.
        entry: where it leads to.
        prefix: what the answer has in front of the entry's.
        closes: a Close is answered, too.
        unnamed: the client's unnamed statement afterwards.
        size: bytes that it counts for.
    """

    __slots__ = ("closes", "entry", "fronts", "path", "prefix", "size", "unnamed")

    def __init__(
        self,
        fronts: dict[Hashable, Front[U]],
        path: Hashable,
        entry: Entry,
        size: int,
        *,
        prefix: bytes,
        closes: bool,
        unnamed: U | None,
    ) -> None:
        self.fronts = fronts
        self.path = path
        self.entry = entry
        self.prefix = prefix
        self.closes = closes
        self.unnamed = unnamed
        self.size = size + FRONT

    def forget(self) -> None:
        """It leads nowhere any more."""
        self.fronts.pop(self.path, None)
