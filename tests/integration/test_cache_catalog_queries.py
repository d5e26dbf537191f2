"""Queries drawn at random: what the judge of the result cache allows is harmless by PostgreSQL's own analysis."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import hypothesis
import pytest
from hypothesis import strategies as st

from hyperpool.sql.reader import QueryReader
from tests.support.cachecatalog import PATH, Oracle
from tests.support.cachequeries import draw_query

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.cache.catalog import Catalog

pytestmark = pytest.mark.hyperpool_only

_READER: Final = QueryReader()

_OPENED: Final = frozenset(
    {
        *("opened(int4)", "opened_body(int4)", "opened_rows(int4)", "opened_columns()"),
        *("current_setting(text)", "current_setting(text,bool)"),
    }
)
"""What is opened, or told as a setting; everything else must be fit by itself."""


@pytest.fixture(scope="module")
def views(judged_catalog: Catalog) -> frozenset[int]:
    """Oids of the views: the judge tells what is behind them instead."""
    return frozenset().union(*(judged_catalog.find(f"judged.{name}") for name in ("plain", "deep", "who")))


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, int]]:
    """How many queries PostgreSQL took, and how many of those the judge allowed: enough of both kinds."""
    counts = {"taken": 0, "allowed": 0}
    yield counts
    assert counts["taken"] > 75
    assert 35 < counts["allowed"] < counts["taken"] - 15


@pytest.mark.usefixtures("pg")
@hypothesis.given(seed=st.integers(0, 1 << 32))
def test_whatever_is_allowed_is_harmless_by_postgresqls_own_analysis(
    judged_catalog: Catalog, oracle: Oracle, views: frozenset[int], tally: dict[str, int], seed: int
) -> None:
    """Nothing that is allowed calls a function that is unfit, or reads a table that is not told."""
    random = Random(seed)
    for _ in range(2):
        query = draw_query(random)
        text = _READER.read(query.encode())
        if text.reading.reason is not None:
            continue
        verdict = judged_catalog.judge(text, PATH)
        analysis = oracle.analyse(query)
        if analysis is None:
            continue
        tally["taken"] += 1
        if verdict.reason is None:
            tally["allowed"] += 1
            assert set(analysis.unfit) <= _OPENED, query
            assert analysis.tables - views <= verdict.tables, query
