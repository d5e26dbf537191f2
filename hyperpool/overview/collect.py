"""From rows of views to panels."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from hyperpool.overview.model import Meter, Shown
from hyperpool.overview.panels import PANELS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from hyperpool.overview.model import Panel, Value


class ColumnMissing(Exception):
    """A view lacks a column that a panel uses; the message names all three."""


class Collector:
    """Looks at everything, again and again, and compares with the look before.

    Args:
        read: gives the names of a view's columns and its rows; None if there is no such view.
        panels: what is wanted.
    """

    def __init__(
        self,
        read: Callable[[str], tuple[Sequence[str], Iterable[Sequence[Value]]] | None],
        panels: Sequence[Panel] = PANELS,
    ) -> None:
        self._read = read
        self._panels = panels
        self._meter = Meter()
        self._longest = _longest(panels)

    @property
    def views(self) -> Collection[str]:
        """The names of the views that are looked at."""
        return self._longest

    def look(self, now: float) -> list[Shown]:
        """What there is now. Panels whose views are not there are left out.

        Args:
            now: monotonic seconds.

        Raises:
            ColumnMissing: a view is there, but not a column that a panel uses.
        """
        self._meter.begin(now)
        views = {name: self._view(name, limit) for name, limit in self._longest.items()}
        shown = []
        for panel in self._panels:
            if all(views[name] is not None or name in panel.optional for name in panel.uses):
                seen = {name: _picked(panel, name, view) for name in panel.uses if (view := views[name])}
                rows = panel.make(seen, self._meter)
                names = [field.name for field in panel.fields]
                cells = tuple(tuple([row[name] for name in names]) for row in rows[: panel.limit])
                shown.append(Shown(panel, cells, max(len(rows) - panel.limit, 0)))
        return shown

    def _view(self, name: str, limit: int | None) -> tuple[Sequence[str], list[Sequence[Value]]] | None:
        found = self._read(name)
        return None if found is None else (found[0], list(islice(found[1], limit)))


def _longest(panels: Sequence[Panel]) -> dict[str, int | None]:
    """The views that are needed, and of those that one panel shows as they are, how many rows."""
    found: dict[str, int | None] = {}
    for panel in panels:
        for name in panel.uses:
            # Rows that are counted, sorted or grouped are all needed.
            found[name] = panel.limit if name in {"busy", "cache_queries", "errors"} else None
    return found


def _picked(
    panel: Panel, name: str, view: tuple[Sequence[str], list[Sequence[Value]]]
) -> list[Mapping[str, Value]]:
    columns, rows = view
    wanted = panel.uses[name]
    try:
        places = [columns.index(column) for column in wanted]
    except ValueError:
        missing = ", ".join(column for column in wanted if column not in columns)
        raise ColumnMissing(
            f"the panel {panel.title!r} uses the column {missing} of SHOW {name.upper()}, which is not there"
        ) from None
    return [dict(zip(wanted, [row[place] for place in places], strict=True)) for row in rows]
