"""The Python drivers in the other pool modes, in short."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.drivers.site import Site
from tests.drivers.test_asyncpg import Asyncpg
from tests.drivers.test_django import Django
from tests.drivers.test_pg8000 import Pg8000, Pg8000Native
from tests.drivers.test_psycopg2 import Psycopg2
from tests.drivers.test_psycopg3 import Psycopg
from tests.drivers.test_psycopg3_async import AsyncPsycopg
from tests.drivers.test_sqlalchemy import AsyncSqlAlchemy, SqlAlchemy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.client import Client
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

KINDS = [Psycopg, AsyncPsycopg, Psycopg2, Asyncpg, Pg8000, Pg8000Native, SqlAlchemy, AsyncSqlAlchemy, Django]
WITHOUT_BLOCKS = [Asyncpg, Pg8000Native, Django]
"""Those that begin no transaction by themselves."""


@contextlib.contextmanager
def clients(kind: type[Client], mode: str, pg: PostgresCluster, pooler: Pooler) -> Iterator[list[Client]]:
    """Three connections to the database of a pool mode."""
    site = Site(pg, pooler, mode)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(kind.open(site))) for _ in range(3)]


def check_statements(client: Client, turn: int) -> None:
    """Statements that are used again and again, and errors in between."""
    assert client.one("SELECT CAST(? AS int) + 1", turn) == turn + 1
    assert client.rows("SELECT CAST(? AS text), n FROM generate_series(1, 2) AS n", "zwölf") == [
        ("zwölf", 1),
        ("zwölf", 2),
    ]
    with client.fails("22012"):
        client.one("SELECT 12 / CAST(? AS int)", 0)
    assert client.one(f"SELECT {turn}") == turn


@pytest.mark.hyperpool_only  # the drivers' prepared statements in statement mode
@pytest.mark.parametrize("kind", WITHOUT_BLOCKS)
def test_statement_mode(kind: type[Client], pg: PostgresCluster, pooler: Pooler) -> None:
    """Three connections alternate; a block is refused."""
    with clients(kind, "statement", pg, pooler) as (one, two, three):
        for turn in range(8):
            for client in (one, two, three):
                check_statements(client, turn)
        with (
            pytest.raises((one.error, *one.lost)),
            one.transaction(),
        ):  # not every driver has the server's words
            one.rows("SELECT 1")
        assert two.one("SELECT 1") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_session_mode(kind: type[Client], pg: PostgresCluster, pooler: Pooler) -> None:
    """Everything of the session stays with it, and nothing of it is left for the next one."""
    with clients(kind, "session", pg, pooler) as (one, two, three):
        one.rows("CREATE TEMPORARY TABLE kept (n int)")
        two.rows("SET work_mem = '5MB'")
        three.rows("SET ROLE pg_read_all_stats")
        for turn in range(8):
            for client in (one, two, three):
                check_statements(client, turn)
            with one.transaction():
                one.rows("INSERT INTO kept VALUES (?)", turn)
                with one.undone():
                    one.rows("INSERT INTO kept VALUES (?)", -1)
        assert one.one("SELECT count(*) FROM kept") == 8
        assert two.one("SHOW work_mem") == "5MB"
        assert three.one("SELECT CAST(current_user AS text)") == "pg_read_all_stats"
    with clients(kind, "session", pg, pooler) as after:
        for client in after:
            found: Any = client.rows(
                "SELECT CAST(to_regclass('kept') AS text), current_setting('work_mem'), CAST(current_user AS text)"
            )
            assert found == [(None, "4MB", "ann")]
