"""What the terminal shows of an overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.columns import Columns
from rich.console import Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hyperpool.overview.formats import is_alarming, spell
from hyperpool.overview.model import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from hyperpool.overview.model import Field, Panel, Shown, Value

_OF_A_TABLE: Final = 3
"""Lines that a table takes beside its rows: title, heads, and a blank one."""

_LEFT: Final = frozenset({Kind.TEXT, Kind.CODE})
_NARROW: Final = 100
"""Columns below which facts give way to numbers."""

_KEYS: Final = " 0 everything · 1-{last} one panel · q quit"


def draw(
    shown: Sequence[Shown], console: Console, *, height: int | None = None, only: str = "", note: str = ""
) -> RenderableType:
    """An overview for a terminal.

    Args:
        shown: the panels; the first one is shown as figures, the others as tables.
        console: where it will be shown.
        height: lines to fit in; None for as many as are needed.
        only: the key of the one table to show; empty for all.
        note: what is wrong, if something is.
    """
    parts: list[RenderableType] = []
    if note:
        parts.append(Text(note, "bold red"))
    if shown:
        parts.append(_figures(shown[0]))
    tables = [one for one in shown[1:] if only in {"", one.panel.key}]
    above = sum(len(console.render_lines(part)) for part in parts)
    rows = _share(tables, None if height is None else height - above - 1)
    for one, count in zip(tables, rows, strict=True):
        if count != 0 or only:
            parts.append(_table(one, count, console.width))
    if height is not None:
        parts.append(Text(_KEYS.format(last=len(shown) - 1), "dim"))
    return Group(*parts)


def _figures(shown: Shown) -> RenderableType:
    figures = []
    for field, value in zip(shown.panel.fields, shown.rows[0], strict=True):
        if field.alarm and not is_alarming(value):
            continue
        figures.append(Text.assemble((f"{field.title} ", "dim"), _cell(field, value)))
    return Padding(Columns(figures, padding=(0, 3)), (0, 0, 1, 0))


def _share(tables: Sequence[Shown], lines: int | None) -> list[int | None]:
    """How many rows of each table fit: all get the same, and what some do not need goes to the others."""
    if lines is None:
        return [None] * len(tables)
    found: list[int | None] = [0] * len(tables)
    places = [place for place, one in enumerate(tables) if one.rows] or list(range(len(tables)))
    for at, place in enumerate(sorted(places, key=lambda place: len(tables[place].rows))):
        fair = lines // (len(places) - at) - _OF_A_TABLE
        found[place] = count = max(min(fair, len(tables[place].rows)), 0)
        lines -= count + _OF_A_TABLE if count else 0
    return found


def _table(shown: Shown, count: int | None, width: int) -> RenderableType:
    panel = shown.panel
    hidden = shown.more + (0 if count is None else len(shown.rows) - count)
    title = f"{panel.title}, {hidden} more" if hidden > 0 and shown.rows else panel.title
    rule = Rule(Text(title, "bold"), align="left", style="dim")
    if not shown.rows:
        return Group(rule, Text(panel.empty, "dim"), Text())
    fields = _fitting(panel, width)
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for field in fields:
        left = field.kind in _LEFT
        table.add_column(
            field.title,
            justify="left" if left else "right",
            no_wrap=True,
            overflow="ellipsis",
            ratio=3 if field.kind is Kind.CODE else None,
        )
    for row in shown.rows[:count]:
        cells = dict(zip(panel.fields, row, strict=True))
        table.add_row(*(_cell(field, cells[field]) for field in fields))
    return Group(rule, table, Text())


def _fitting(panel: Panel, width: int) -> list[Field]:
    """On a narrow terminal, texts that only explain give way."""
    if width >= _NARROW:
        return list(panel.fields)
    codes = [field for field in panel.fields if field.kind is Kind.CODE]
    spared = set(codes[1:]) | {field for field in panel.fields if field.name in _SPARED}
    return [field for field in panel.fields if field not in spared]


_SPARED: Final = frozenset(
    {
        "addr",
        "server_id",
        "server_addr",
        "received",
        "sent",
        "sv_used",
        "sv_other",
        "fingerprint",
        "refreshes",
    }
)
"""Fields that a narrow terminal does without."""


def _cell(field: Field, value: Value) -> Text:
    text = spell(field.kind, value)
    plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return Text(plain, "bold red" if field.alarm and is_alarming(value) else "")
