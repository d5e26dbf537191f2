"""The result cache in the console: what it shows, what it explains, and how it is emptied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row

from hyperpool.sql.reasons import Reason
from tests.support.cached import Stage, config_for, tables
from tests.support.postgres import ANN, TRUDY, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

Row = dict[str, Any]

_SQL = "SELECT name FROM cached.item WHERE id = 1"


@pytest.fixture(scope="module")
def caching_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """With settings of its own."""
    rules = [
        {"table": "cached.note", "never": True},
        {"table": "cached.other", "always": "the tests have decided that", "max_age": "7s"},
    ]
    with tables(_pg):
        yield make_module_pooler(
            config_for(_pg, {"rules": rules}, admin_users=["ann"], stats_users=["trudy"])
        )


@pytest.fixture
def console(stage: Stage) -> Iterator[psycopg.Connection[Row]]:
    """The console, as an administrator."""
    with _console(stage) as connection:
        yield connection


def _console(stage: Stage, role: Role = ANN) -> psycopg.Connection[Row]:
    return psycopg.connect(**stage.pooler.conninfo("pgbouncer", role), autocommit=True, row_factory=dict_row)


def _cache(console: psycopg.Connection[Row]) -> Row:
    (row,) = console.execute("SHOW CACHE").fetchall()
    return row


def _explain(console: psycopg.Connection[Row], query: str) -> dict[str, str]:
    rows = console.execute(f"EXPLAIN CACHE (app, trudy) {query}").fetchall()
    assert {(row["database"], row["user"]) for row in rows} == {("app", "trudy")}
    return {row["item"]: row["value"] for row in rows}


def test_entries_hits_and_drops_are_counted(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """One row for the database, whatever its names are."""
    before, client = _cache(console), stage.client()
    for _ in range(5):
        client.fetch(_SQL)
    after = _cache(console)
    assert "app" in after["database"].split(", ")
    assert after["entries"] == before["entries"] + 1
    assert after["bytes"] > before["bytes"]
    assert (after["misses"] - before["misses"], after["hits"] - before["hits"]) == (1, 4)
    assert after["bytes_sent"] > before["bytes_sent"]
    assert after["catalog"] == "known"
    client.fetch("UPDATE cached.item SET name = 'x' WHERE id = 1")
    dropped = _cache(console)
    assert dropped["entries"] == before["entries"]
    assert dropped["invalidated"] == after["invalidated"] + 1
    assert "writes=" in dropped["invalidations"]


def test_queries_are_told_apart_by_their_fingerprints(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """Values are not shown."""
    client = stage.client()
    for number in (4101, 4102, 4101):
        client.fetch(f"SELECT name, price AS counted FROM cached.item WHERE id = {number}")
    (row,) = [one for one in console.execute("SHOW CACHE_QUERIES") if "counted" in one["query"]]
    assert "410" not in str(row)
    assert (row["calls"], row["misses"], row["hits"], row["last_refusal"]) == (3, 2, 1, None)
    client.fetch("SELECT name, random() AS counted_too FROM cached.item")
    (row,) = [one for one in console.execute("SHOW CACHE_QUERIES") if "counted_too" in one["query"]]
    assert (row["calls"], row["misses"], row["last_refusal"]) == (1, 0, "volatile_function")


def test_reasons_are_counted_and_say_what_to_do(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """Each is one that the documentation has."""

    def counted(reason: Reason) -> int:
        rows = console.execute("SHOW CACHE_REASONS").fetchall()
        found = [row for row in rows if row["reason"] == reason.value and row["what"] == "query"]
        assert len(found) < 2
        assert all(row["remedy"] == reason.remedy and row["meaning"] == reason.sentence for row in found)
        return int(found[0]["count"]) if found else 0

    before, client = counted(Reason.STABLE_FUNCTION), stage.client()
    client.fetch("SELECT now(), name FROM cached.item")
    client.fetch("SELECT now(), name FROM cached.item")
    assert counted(Reason.STABLE_FUNCTION) == before + 2


def test_a_query_is_explained(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """What it depends on, for how long it is served, and what its key is made of."""
    stage.client()
    found = _explain(console, "SELECT name FROM cached.cheap /* a view */ WHERE id = 7;")
    assert found["cacheable"] == "yes"
    assert found["tables"] == "cached.item"
    assert (found["max_age"], found["stale_while_revalidate"]) == ("60 s", "15 s")
    assert found["key: text"] == "select name from cached . cheap where id = 7"
    assert found["key: user"] == "trudy"
    assert found["key: search_path"] == "trudy, public"
    assert "parameters" in _explain(console, "SELECT name FROM cached.item WHERE id = $1")
    hinted = _explain(console, "/*+ hyperpool: max_age=3s */ SELECT name FROM cached.item")
    assert hinted["max_age"] == "3 s"


@pytest.mark.parametrize(
    ("query", "reason", "detail"),
    [
        ("SELECT now()", Reason.STABLE_FUNCTION, "now()"),
        ("SELECT * FROM missing", Reason.UNKNOWN_RELATION, "missing"),
        ("SELECT name FROM cached.item FOR UPDATE", Reason.LOCKING, None),
        ("SELECT words FROM cached.note", Reason.RULE, None),
        ("SELECT FROM FROM", Reason.PARSE_ERROR, None),
        ("SELECT 1; SELECT 2", Reason.MULTIPLE_STATEMENTS, None),
        ("/*+ hyperpool: nocache */ SELECT 1", Reason.HINT, None),
    ],
)
def test_a_refusal_is_explained(
    stage: Stage, console: psycopg.Connection[Row], query: str, reason: Reason, detail: str | None
) -> None:
    """With its meaning, what it is about, and what to do."""
    stage.client()
    found = _explain(console, query)
    assert (found["cacheable"], found["reason"]) == ("no", reason.value)
    assert (found["meaning"], found["remedy"]) == (reason.sentence, reason.remedy)
    assert found.get("detail") == detail


def test_a_waiver_is_explained(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """What somebody has signed for is cached, and shown as such."""
    stage.client()
    found = _explain(console, "SELECT random(), name FROM cached.other")
    assert (found["cacheable"], found["max_age"]) == ("yes", "7 s")
    assert found["waived"] == "volatile_function: random()"


def test_all_pools_explain_a_query(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """Unless a database is named; a query may begin with a parenthesis, too."""
    stage.client()
    stage.client("app", ANN)
    rows = console.execute("EXPLAIN CACHE (SELECT 1) UNION (SELECT 2)").fetchall()
    assert {(row["database"], row["user"]) for row in rows} >= {("app", "ann"), ("app", "trudy")}
    assert {row["value"] for row in rows if row["item"] == "cacheable" and row["user"] == "trudy"} == {"yes"}
    with pytest.raises(psycopg.Error, match="has a cache") as caught:
        console.execute("EXPLAIN CACHE (plain) SELECT 1")
    assert "databases.NAME.cache" in (caught.value.diag.message_hint or "")
    with pytest.raises(psycopg.Error, match="a query is required"):
        console.execute("EXPLAIN CACHE")


@pytest.mark.parametrize("what", ["", "DATABASE app", "TABLE cached.item", "TABLE item", "FINGERPRINT {}"])
def test_the_cache_is_emptied(stage: Stage, console: psycopg.Connection[Row], what: str) -> None:
    """Of everything, or of what is named."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "changed")
    assert client.fetch(_SQL) == [[b"item 1"]]
    fingerprint = _explain(console, _SQL)["fingerprint"]
    tag = console.execute(f"PURGE CACHE {what.format(fingerprint)}").statusmessage or ""
    assert int(tag.removeprefix("PURGE ")) >= 1
    assert client.fetch(_SQL) == [[b"changed"]]


@pytest.mark.parametrize("what", ["TABLE cached.other", "FINGERPRINT 0123456789abcdef"])
def test_what_is_not_named_stays(stage: Stage, console: psycopg.Connection[Row], what: str) -> None:
    """A table or a fingerprint is not everything."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "changed")
    console.execute(f"PURGE CACHE {what}")
    assert client.fetch(_SQL) == [[b"item 1"]]


def test_mistakes_and_other_users_purge_nothing(stage: Stage, console: psycopg.Connection[Row]) -> None:
    """Only administrators empty the cache; whoever may read may look."""
    stage.client().fetch(_SQL)
    for what, problem in {
        "TABLE cached.missing": "no database with a cache has a table cached.missing",
        "DATABASE missing": "no database missing has a cache",
        "EVERYTHING": "does not know that",
    }.items():
        with pytest.raises(psycopg.Error, match=problem):
            console.execute(f"PURGE CACHE {what}")
    with _console(stage, TRUDY) as reader:
        with pytest.raises(psycopg.Error, match="admin access needed"):
            reader.execute("PURGE CACHE")
        assert _cache(reader)["entries"] >= 1
        assert reader.execute("EXPLAIN CACHE SELECT 1").fetchall()
