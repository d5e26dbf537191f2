"""Fixtures of the tests that run a whole pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.service import Service, pooler_process
from tests.support.triopostgres import TrioPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trio

    from tests.support.logbook import LogBook


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogBook]:
    """The pooler's log."""
    with pooler_process(monkeypatch) as found:
        yield found


@pytest.fixture
async def service(nursery: trio.Nursery, book: LogBook, tmp_path: Path) -> Service:
    """A pooler that is not started yet."""
    return Service(nursery, book, await TrioPostgres.start(nursery), tmp_path / "pooler.yaml")
