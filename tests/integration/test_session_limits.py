"""What a session may have, and what the pooler does in it, at a real server: bounds, snapshots, late cancels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def pooler(make_pooler: PoolerFactory, pg: PostgresCluster) -> Iterator[Pooler]:
    """Clients that share one server connection, and an empty table."""
    pg.sql(
        "DROP TABLE IF EXISTS filled; CREATE TABLE filled (x text); GRANT ALL ON filled TO PUBLIC",
        dbname="app",
    )
    yield make_pooler(pool_mode="transaction", default_pool_size=1)
    pg.sql("DROP TABLE filled", dbname="app")


@pytest.mark.parametrize("others", [1, 1900])
def test_the_data_of_a_copy_in_one_write_with_a_long_text(pooler: Pooler, others: int) -> None:
    """However long its translation takes: the server waits for the data, and the pooler for nothing."""
    with pooler.raw() as client:
        client.send(
            raw.query(f"SET my.own = '1'; SELECT {'+'.join(['1'] * others)}; COPY filled FROM STDIN"),
            raw.copy_data(b"a\n"),
            raw.frame(b"c"),
        )
        assert raw.kinds(client.receive_until()) == b"CTDCGCZ"
        assert client.value("SELECT count(*) FROM filled") == "1"


def test_a_client_that_goes_in_the_middle_of_a_copy_behind_a_reset(pooler: Pooler) -> None:
    """The pool's only server connection is free for others."""
    with pooler.raw(work_mem="3MB") as client:
        client.send(raw.query("RESET work_mem; COPY filled FROM STDIN"))
        client.receive_until(b"G")
        client.send(raw.copy_data(b"a\n"))
    with pooler.raw() as other:
        assert other.value("SELECT count(*) FROM filled") == "0"


def test_data_are_as_new_as_the_lock_behind_a_reset(pooler: Pooler, pg: PostgresCluster) -> None:
    """The snapshot of a REPEATABLE READ transaction is taken by the client's own first query."""
    with pooler.raw(search_path='public, "odd name"') as client:
        client.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")
        client.ask("RESET search_path")
        pg.sql("INSERT INTO filled VALUES ('a')", dbname="app")
        client.ask("LOCK TABLE filled")
        assert client.value("SELECT count(*) FROM filled") == "1"


def test_nobody_waits_for_somebody_elses_safe_snapshot(pooler: Pooler, pg: PostgresCluster) -> None:
    """A serializable transaction that writes is open; who defers to such is the client alone."""
    with pg.admin("app") as writing, pooler.raw() as client, pooler.raw() as other:
        writing.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        writing.execute("INSERT INTO filled VALUES ('a')")
        other.ask("SET search_path = public")
        client.ask(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"
        )
        assert other.value("SELECT count(*) FROM filled") == "0"
        writing.execute("ROLLBACK")
        assert client.value("SHOW default_transaction_deferrable") == "on"


def test_settings_that_are_too_long_to_follow(pooler: Pooler) -> None:
    """They end their client, once they have more bytes than a client may have; others find nothing of them."""
    with pooler.raw() as client, pooler.raw() as other:
        for number in range(4):
            client.ask(f"SET my.own{number} = '{'x' * 60_000}'")
        assert client.value("SELECT length(current_setting('my.own0'))") == "60000"
        assert other.value("SELECT current_setting('my.own0', true)") in {None, ""}
        client.send(raw.query(f"SET my.last = '{'x' * 60_000}'"))
        assert client.receive_all()[-1].fields["C"] == "53400"
        assert other.value("SELECT current_setting('my.last', true)") in {None, ""}


def test_names_in_a_failed_transaction(pooler: Pooler) -> None:
    """However many they are, and whether they mean anything or not: the client's own settings are its own."""
    with pooler.raw() as client, pooler.raw() as other:
        client.ask("SET my.own = 'kept'")
        client.ask("BEGIN")
        client.ask("SELECT 1/0")
        for number in range(12):
            names = " ".join(f"a{number}.b{each}" for each in range(100))
            assert raw.kinds(client.ask(f"DO '{names}'")) == b"EZ"
        client.ask("ROLLBACK")
        assert client.value("SHOW my.own") == "kept"
        assert other.value("SELECT current_setting('my.own', true)") in {None, ""}
        assert client.value("SHOW my.own") == "kept"
