"""The parts of an overview: panels, their fields, and what counters say about the time between two looks."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Value: TypeAlias = "str | int | float | None"
Cells: TypeAlias = "dict[str, Value]"
Seen: TypeAlias = "Mapping[str, Sequence[Mapping[str, Value]]]"
"""Rows by view; of each of them the columns that the panel uses, and no others."""

_OLDEST: Final = 30.0
"""Seconds after which a look is too old to compare with."""


class Kind(enum.Enum):
    """What a value is, which says how it is shown."""

    TEXT = "text"
    CODE = "code"
    """A text that is as hostile as it is long: of a query, or of an error."""
    COUNT = "count"
    RATE = "rate"
    """Per second."""
    BYTES = "bytes"
    BYTE_RATE = "byterate"
    TIME = "time"
    """In microseconds."""
    SHARE = "share"
    """Between 0 and 1."""


@attrs.frozen
class Field:
    """A column of a panel, or one of its figures.

    Attributes:
        name: of the cell.
        title: for people.
        kind: what it is.
        alarm: anything but nothing deserves attention.
    """

    name: str
    title: str
    kind: Kind = Kind.COUNT
    alarm: bool = False


@attrs.frozen
class Panel:
    """A part of the overview.

    Attributes:
        key: its name for programs.
        title: its name for people.
        uses: the columns that it needs, by view of the console.
        fields: what it shows.
        make: makes its rows of what views have shown; one cell for each field.
        empty: what is said when there is no row.
        limit: rows at most.
        optional: views that it can do without.
    """

    key: str
    title: str
    uses: Mapping[str, tuple[str, ...]]
    fields: tuple[Field, ...]
    make: Callable[[Seen, Meter], Sequence[Cells]]
    empty: str = ""
    limit: int = 200
    optional: frozenset[str] = frozenset()


@attrs.frozen
class Shown:
    """A panel with its rows.

    Attributes:
        panel: which one.
        rows: cells in the order of the panel's fields.
        more: rows beyond its limit.
    """

    panel: Panel
    rows: tuple[tuple[Value, ...], ...]
    more: int = 0


class Meter:
    """Compares counters with what they were at the look before.

    Attributes:
        elapsed: seconds between the two looks; None if there is nothing to compare with.
    """

    def __init__(self) -> None:
        self.elapsed: float | None = None
        self._began: float | None = None
        self._before: dict[str, tuple[float, ...]] = {}
        self._now: dict[str, tuple[float, ...]] = {}

    def begin(self, now: float) -> None:
        """A look begins.

        Args:
            now: monotonic seconds.
        """
        elapsed = None if self._began is None else now - self._began
        self.elapsed = elapsed if elapsed and elapsed <= _OLDEST else None
        self._began = now
        self._before, self._now = self._now, {}

    def grown(self, key: str, totals: tuple[float, ...]) -> tuple[float, ...] | None:
        """How much counters have grown since the look before; None if that is not known.

        Args:
            key: tells them from others; the same one at each look.
            totals: the counters.
        """
        before = self._before.get(key)
        self._now[key] = totals
        if before is None or self.elapsed is None:
            return None
        grown = tuple([now - then for now, then in zip(totals, before, strict=True)])
        # A counter that has become less is another one: of another process, or of a pool that was forgotten.
        return grown if min(grown) >= 0 else None


def number(value: Value) -> float:
    """A cell of a column of numbers; 0 for nothing."""
    return 0 if value is None or isinstance(value, str) else value
