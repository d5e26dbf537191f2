"""A column of the console that gets another name is missed by somebody: here it is said by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.admin.views import Register
from hyperpool.overview.panels import PANELS
from tests.support.consolecolumns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hyperpool.admin.views import View


def _views() -> dict[str, View]:
    views = Register()
    found = {name: views.find(name) for name in COLUMNS}
    return {name: view for name, view in found.items() if view is not None}


def _names(view: View | None) -> list[str]:
    return [] if view is None else [column.name for column in view.shape]


def _readers(view: str, column: str) -> str:
    panels = [panel.title for panel in PANELS if column in panel.uses.get(view, ())]
    return ", ".join(["scripts and monitoring", *(f"panel {title!r}" for title in panels)])


def _broken(views: Mapping[str, View]) -> list[str]:
    """What is not as readers know it, with those readers."""
    told = []
    for name, spelled in COLUMNS.items():
        there, known = _names(views.get(name)), spelled.split()
        told += [
            f"SHOW {name.upper()} has no column {column!r}, which is read by {_readers(name, column)}"
            for column in known
            if column not in there
        ]
        told += [
            f"SHOW {name.upper()} has a column {column!r} that tests/support/consolecolumns.py does not know"
            for column in there
            if column not in known
        ]
        if sorted(there) == sorted(known) and there != known:
            told.append(f"SHOW {name.upper()} has its columns in another order, by which rows are read")
    return told


def test_every_column_has_the_name_that_its_readers_know() -> None:
    """The panels of the dashboard and of `hyperpool top`, and what others have written for pgbouncer's console."""
    broken = _broken(_views())
    assert not broken, "\n".join(broken)


def test_every_view_is_known() -> None:
    """So that the tests here speak of all: SHOW HELP tells them, and the panels use no others."""
    told = {
        name.lower()
        for line in Register().help().splitlines()
        if line.strip().startswith("SHOW ")
        for name in line.split()[1].split("|")
    }
    assert told - {"help"} == set(COLUMNS)
    assert {view for panel in PANELS for view in panel.uses} <= set(COLUMNS)


def _every_column() -> Sequence[tuple[str, str]]:
    return [(name, column) for name, view in _views().items() for column in _names(view)]


@pytest.mark.parametrize(("view", "column"), _every_column())
def test_a_new_name_of_any_column_is_noticed(view: str, column: str) -> None:
    """The message names the view, the column and each panel that would have broken."""
    views = _views()
    shape = tuple(
        attrs.evolve(one, name=f"new_{one.name}") if one.name == column else one for one in views[view].shape
    )
    first, *_ = _broken({**views, view: attrs.evolve(views[view], shape=shape)})
    assert first.startswith(f"SHOW {view.upper()} has no column {column!r}, which is read by ")
    for panel in PANELS:
        if column in panel.uses.get(view, ()):
            assert f"panel {panel.title!r}" in first


def test_columns_in_another_order_are_noticed() -> None:
    """Scripts take them by their places, too."""
    views = _views()
    moved = attrs.evolve(views["fds"], shape=views["fds"].shape[::-1])
    assert _broken({**views, "fds": moved}) == [
        "SHOW FDS has its columns in another order, by which rows are read"
    ]
