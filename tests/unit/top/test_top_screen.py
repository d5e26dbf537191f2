"""What `hyperpool top` draws of recorded rows."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from hyperpool.top.keys import Keys
from hyperpool.top.screen import draw
from tests.support.overviews import recorded

if TYPE_CHECKING:
    from hyperpool.overview.model import Shown


def picture(shown: list[Shown], width: int = 160, height: int | None = None, **more: str) -> str:
    """The screen's text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(draw(shown, console, height=height, **more))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_everything() -> None:
    """Each panel has its heads and its rows."""
    text = picture(recorded(later=2.0))
    for title in ("Databases", "Pools", "Busy clients and their servers", "Result cache", "Top queries"):
        assert f"{title} ─" in text
    for words in (
        "queries/s 50",
        "query time 300 µs",
        "waiting 2",
        "longest wait 1,500 ms",
        "cache hits 75 %",
    ):
        assert words in text
    for words in ("192.0.2.7:4711", "shop", "tcp db:5432", "no certificate", "site", "pooler error"):
        assert words in text


def test_texts_of_others_do_nothing_to_the_terminal() -> None:
    """Neither escape sequences nor rich's markup."""
    text = picture(recorded(), only="queries")
    assert "\x1b" not in text
    assert "SELECT '</td><script>alert(1)</script>' \\x1b[31m FROM t" in text


@pytest.mark.parametrize("height", [8, 20, 40, 60])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits(width: int, height: int) -> None:
    """Every panel gets less if there is no room; then the whole still fits, but for the figures of tiny screens."""
    shown = recorded(later=2.0)
    lines = picture(shown, width, height).splitlines()
    assert all(len(line) <= width for line in lines)
    if (width, height) >= (80, 20):
        assert len(lines) <= height


def test_one_panel_alone() -> None:
    """It gets all the room."""
    text = picture(recorded(), height=30, only="pools")
    assert "Pools ─" in text
    assert "Databases" not in text


def test_what_is_wrong_is_said() -> None:
    """Also while there is nothing else yet."""
    assert picture([], note="db:6432: cannot connect").startswith("db:6432: cannot connect")


def test_a_panel_without_rows() -> None:
    """Says why."""
    shown = recorded()
    bare = [one if one.panel.key != "tunnels" else type(one)(one.panel, ()) for one in shown]
    assert "No agent has connected." in picture(bare)


@pytest.mark.parametrize(
    ("pressed", "chosen", "ends"),
    [
        (b"3", 3, False),
        (b"0", 0, False),
        (b"q", 0, True),
        (b"\x1b", 0, True),
        (b"\x1b[A", 0, False),
        (b"x", 0, False),
    ],
)
def test_keys(pressed: bytes, chosen: int, *, ends: bool) -> None:
    """A digit chooses, q and Escape end, and arrows are nothing."""
    keys = Keys()
    keys.take(pressed)
    assert (keys.chosen, keys.quit) == (chosen, ends)
