"""What a client does to its session must hang nobody, and not make its requests run in another session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def pooler(make_pooler: PoolerFactory, pg: PostgresCluster) -> Iterator[Pooler]:
    """Clients that share one server connection, and a table in two schemas."""
    pg.sql(
        "DROP SCHEMA IF EXISTS tenant CASCADE; CREATE SCHEMA tenant; CREATE TABLE tenant.account (x text);"
        "DROP TABLE IF EXISTS public.account; CREATE TABLE public.account (x text);"
        "GRANT ALL ON SCHEMA tenant TO PUBLIC; GRANT ALL ON tenant.account, public.account TO PUBLIC",
        dbname="app",
    )
    yield make_pooler(pool_mode="transaction", default_pool_size=1)
    pg.sql("DROP SCHEMA tenant CASCADE; DROP TABLE public.account", dbname="app")


def test_a_copy_behind_a_reset_in_one_text(pooler: Pooler) -> None:
    """The server waits for data: nothing may hold that back."""
    with pooler.raw(work_mem="3MB") as client:
        client.send(
            raw.query("RESET work_mem; COPY public.account FROM STDIN"),
            raw.frame(b"d", b"a\n"),
            raw.frame(b"c"),
        )
        assert raw.kinds(client.receive_until()) == b"CGCZ"
        assert client.value("SHOW work_mem") == "3MB"


def test_a_refused_login_takes_nothing_from_others(pooler: Pooler) -> None:
    """A timeout is lifted for the question whether the server takes a value, and not for longer."""
    with pooler.raw() as client:
        client.ask("SET statement_timeout = '7s'")
        assert pooler.refused(work_mem="garbage").fields["C"] == "22023"
        assert client.value("SHOW statement_timeout") == "7s"


@pytest.mark.parametrize("text", ["DO 'BEGIN END'", "RESET ALL", "SET lock_timeout = '1s'"])
def test_what_cannot_be_set_any_more_is_not_touched(pooler: Pooler, text: str) -> None:
    """PostgreSQL takes no other value for temp_buffers once a session has used a temporary table."""
    with pooler.raw() as client:
        client.ask("SET temp_buffers = '16MB'")
        client.ask("CREATE TEMPORARY TABLE seen AS SELECT 1 AS x")
        client.ask(text)
        assert client.value("SELECT x FROM seen") == "1"


@pytest.fixture
def similarity(pg: PostgresCluster) -> Iterator[str]:
    """A function of a library that PostgreSQL loads when it is called; then `pg_trgm.*` are settings with rules."""
    if not pg.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'"):
        pytest.skip("no pg_trgm on this machine")
    pg.sql("CREATE EXTENSION pg_trgm", dbname="app")
    yield "similarity('a', 'b')"
    pg.sql("DROP EXTENSION pg_trgm", dbname="app")


@pytest.mark.parametrize("setting", ["temp_buffers = '16MB'", "plpgsql.variable_conflict = 'garbage'"])
def test_no_request_runs_in_a_session_that_could_not_be_adjusted(pooler: Pooler, setting: str) -> None:
    """What one server connection takes, another may refuse: the client is told, and nothing is written elsewhere."""
    with pooler.raw() as client, pooler.raw() as other:
        client.ask("SET search_path = tenant, public")
        client.ask(f"SET {setting}")
        other.ask("CREATE TEMPORARY TABLE used AS SELECT 1 AS x")
        other.ask("DROP TABLE used")
        other.ask("DO 'BEGIN END'")
        client.send(raw.query("INSERT INTO account VALUES ('of the tenant')"))
        assert client.receive_all()[-1].fields["S"] == "FATAL"
        assert other.value("SELECT count(*) FROM public.account") == "0"


def test_no_request_runs_in_a_session_whose_library_refuses_a_setting(
    pooler: Pooler, similarity: str
) -> None:
    """A setting that nobody had rules for when it was set: the client is told, and nothing is written elsewhere."""
    with pooler.raw() as client, pooler.raw() as other:
        client.ask("SET search_path = tenant, public")
        client.ask("SET pg_trgm.similarity_threshold = 'garbage'")
        assert other.value(f"SELECT {similarity}") == "0"
        client.send(raw.query("INSERT INTO account VALUES ('of the tenant')"))
        refusal = client.receive_all()[-1].fields
        assert (refusal["S"], refusal["C"]) == ("FATAL", "22023")
        assert other.value("SELECT count(*) FROM public.account") == "0"


def test_a_default_that_changes(pooler: Pooler, pg: PostgresCluster) -> None:
    """What a session begins with is asked of each server connection, and not remembered for others."""
    try:
        with pooler.raw() as client:
            client.ask("SET statement_timeout = '9s'")
            client.ask("RESET statement_timeout")
            pg.sql("ALTER ROLE ann SET statement_timeout = '30s'")
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'")
        eventually(lambda: not pg.backends(), what="the server connection ends")
        with pooler.raw() as client, pooler.raw() as other:
            client.ask("SET statement_timeout = 0")
            assert other.value("SHOW statement_timeout") == "30s"
            assert client.value("SHOW statement_timeout") == "0"
    finally:
        pg.sql("ALTER ROLE ann RESET statement_timeout")


def test_a_reset_takes_no_snapshot(pooler: Pooler) -> None:
    """What is set behind it leaves the transaction as young as it was."""
    with pooler.raw(search_path='public, "odd name"') as client:
        client.ask("BEGIN")
        client.ask("RESET search_path")
        assert raw.kinds(client.ask("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")) == b"CZ"
        assert client.value("SHOW search_path") == 'public, "odd name"'


def test_a_local_value_behind_a_reset(pooler: Pooler) -> None:
    """It holds until the transaction ends."""
    with pooler.raw(work_mem="3MB") as client:
        client.ask("BEGIN")
        client.ask("RESET work_mem; SET LOCAL work_mem = '5MB'")
        assert client.value("SHOW work_mem") == "5MB"


def test_somebody_who_waits_for_safe_snapshots(pooler: Pooler) -> None:
    """A serializable, read-only and deferrable transaction waits for others; the pooler's questions do not."""
    with pooler.raw() as client, pooler.raw() as other:
        other.ask("SET search_path = public")
        client.ask(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"
        )
        assert other.value("SHOW transaction_isolation") == "read committed"
        assert client.value("SHOW transaction_isolation") == "serializable"


def test_deallocate_behind_a_pipeline_that_fails(make_pooler: PoolerFactory) -> None:
    """What has to be prepared for it cannot be, in a failed transaction: the client is answered all the same."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=2)
    with pooler.raw() as client, pooler.raw() as other:
        client.send(raw.parse("SELECT 1", "a"), raw.SYNC)
        client.receive_until()
        other.ask("BEGIN")
        client.send(
            raw.parse("BEGIN") + raw.bind(portal="p") + raw.execute("p") + raw.execute("q") + raw.SYNC,
            raw.query("DEALLOCATE a"),
        )
        assert raw.kinds(client.receive_until()) == b"12CEZ"
        assert raw.kinds(client.receive_until()) == b"EZ"
