"""The result cache and writes: a client reads what it has written, and what it is told of is there for everybody."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.cached import Stage, rows
from tests.support.waiting import eventually

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = 1"
_OTHER = "SELECT name FROM cached.other WHERE id = 1"
_UPDATE = "UPDATE cached.item SET name = 'written' WHERE id = 1"


WRITES = {
    "UPDATE": [raw.query(_UPDATE)],
    "UPDATE ... RETURNING": [raw.query(f"{_UPDATE} RETURNING *")],
    "a data-modifying CTE": [raw.query(f"WITH w AS ({_UPDATE} RETURNING *) SELECT count(*) FROM w")],
    "MERGE": [
        raw.query(
            "MERGE INTO cached.item i USING (VALUES (1)) v (id) ON i.id = v.id"
            " WHEN MATCHED THEN UPDATE SET name = 'written'"
        )
    ],
    "INSERT ... ON CONFLICT": [
        raw.query("INSERT INTO cached.item VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'written'")
    ],
    "DELETE and COPY": [
        raw.query("DELETE FROM cached.item WHERE id = 1"),
        raw.query("COPY cached.item (id, name) FROM STDIN") + raw.copy_data(b"1\twritten\n") + raw.COPY_DONE,
    ],
    "TRUNCATE": [
        raw.query("TRUNCATE cached.item CASCADE"),
        raw.query("INSERT INTO cached.item VALUES (1, 'written')"),
    ],
    "DO": [raw.query(f"DO $$ BEGIN {_UPDATE}; END $$")],
    "EXPLAIN ANALYZE": [raw.query(f"EXPLAIN ANALYZE {_UPDATE}")],
    "several statements": [raw.query(f"SELECT 1; {_UPDATE}; SELECT 2")],
    "a transaction": [raw.query("BEGIN"), raw.query(_UPDATE), raw.query("COMMIT")],
    "a transaction in one text": [raw.query(f"BEGIN; {_UPDATE}; COMMIT")],
    "a pipeline": [raw.extended("SELECT 1") + raw.extended(_UPDATE) + raw.extended("SELECT 2") + raw.SYNC],
    "an Execute with a row limit": [raw.parse(_UPDATE) + raw.bind() + raw.execute(rows=1) + raw.SYNC],
    "a prepared statement": [
        raw.parse(_UPDATE, "write") + raw.SYNC,
        raw.bind(name="write") + raw.execute() + raw.SYNC,
    ],
    "SQL-level PREPARE": [
        raw.query(f"PREPARE w AS {_UPDATE}"),
        raw.query("EXECUTE w"),
        raw.query("DEALLOCATE w"),
    ],
    "with another search_path": [
        raw.query("BEGIN"),
        raw.query("SET LOCAL search_path = cached"),
        raw.query("UPDATE item SET name = 'written' WHERE id = 1"),
        raw.query("COMMIT"),
    ],
    "a temporary view": [
        raw.query("CREATE TEMP VIEW way AS SELECT * FROM cached.item"),
        raw.query("UPDATE pg_temp.way SET name = 'written' WHERE id = 1"),
        raw.query("DROP VIEW pg_temp.way"),
    ],
    "a temporary view that hides a table": [
        raw.query("SET search_path = cached; CREATE TEMP VIEW other AS SELECT * FROM cached.item"),
        raw.query("UPDATE other SET name = 'written' WHERE id = 1"),
        raw.query("DROP VIEW pg_temp.other; RESET search_path"),
    ],
    "a temporary view in one transaction": [
        raw.query("BEGIN; CREATE TEMP VIEW way AS SELECT * FROM cached.item"),
        raw.query("UPDATE pg_temp.way SET name = 'written' WHERE id = 1"),
        raw.query("DROP VIEW pg_temp.way; COMMIT"),
    ],
    "a search_path and a write in one text": [
        raw.query("SET search_path = cached; UPDATE item SET name = 'written' WHERE id = 1"),
        raw.query("RESET search_path"),
    ],
    "CREATE TABLE AS from a CTE that writes": [
        raw.query(f"WITH w AS ({_UPDATE} RETURNING *) SELECT * FROM w")
    ],
}


@pytest.mark.parametrize("write", WRITES)
def test_a_client_reads_what_it_has_written(stage: Stage, write: str) -> None:
    """A client reads what it has written."""
    client, other = stage.client(), stage.client()
    for _ in range(2):
        assert client.fetch(_SQL) == [[b"item 1"]]
    for part in WRITES[write]:
        client.send(part)
        frames = client.receive_until()
        assert not [frame.fields for frame in frames if frame.kind == b"E"]
    assert client.fetch(_SQL) == [[b"written"]]
    assert other.fetch(_SQL) == [[b"written"]]


@pytest.mark.parametrize("database", ["plain", "session"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_through_another_entry_of_the_same_database_counts(
    stage: Stage, write: str, database: str
) -> None:
    """A write through another entry of the same database counts."""
    reader, writer = stage.client(), stage.client(database)
    for _ in range(2):
        assert reader.fetch(_SQL) == [[b"item 1"]]
    for part in WRITES[write]:
        rows(writer.frames(part))
    assert reader.fetch(_SQL) == [[b"written"]]


def test_a_write_drops_only_what_depends_on_its_tables(stage: Stage) -> None:
    """A write drops only what depends on its tables."""
    client = stage.client()
    client.fetch(_OTHER)
    stage.rename(1, "behind", "other")
    client.fetch(_UPDATE)
    assert client.fetch(_OTHER) == [[b"other 1"]]


def test_a_rolled_back_write_may_drop_but_never_shows(stage: Stage) -> None:
    """A rolled back write may drop but never shows."""
    client, other = stage.client(), stage.client()
    client.fetch(_SQL)
    client.fetch("BEGIN")
    client.fetch(_UPDATE)
    assert client.fetch(_SQL) == [[b"written"]], "its own transaction"
    assert other.fetch(_SQL) == [[b"item 1"]]
    client.fetch("ROLLBACK")
    assert client.fetch(_SQL) == [[b"item 1"]]


def test_nothing_is_answered_from_memory_in_a_transaction(stage: Stage) -> None:
    """Nothing is answered from memory in a transaction."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    for begin in ("BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ ONLY"):
        client.fetch(begin)
        assert client.fetch(_SQL) == [[b"new"]]
        client.fetch("COMMIT")
    assert client.fetch(_SQL) == [[b"item 1"]]


def test_nothing_that_is_read_in_a_transaction_is_kept(stage: Stage) -> None:
    """Nothing that is read in a transaction is kept."""
    client, other = stage.client(), stage.client()
    client.fetch("BEGIN ISOLATION LEVEL REPEATABLE READ")
    client.fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"item 1"]], "its snapshot"
    assert other.fetch(_SQL) == [[b"new"]]
    client.fetch("COMMIT")
    assert client.fetch(_SQL) == [[b"new"]]


def test_a_read_behind_a_write_in_a_pipeline_is_not_answered_from_memory(stage: Stage) -> None:
    """A read behind a write in a pipeline is not answered from memory."""
    client = stage.client()
    client.fetch(_SQL)
    frames = client.frames(raw.extended(_UPDATE), raw.extended(_SQL), raw.SYNC)
    assert rows(frames) == [[b"written"]]
    client.fetch(_SQL)
    client.send(raw.query("UPDATE cached.item SET name = 'again' WHERE id = 1"), raw.query(_SQL))
    client.receive_until()
    assert rows(client.receive_until()) == [[b"again"]]


def test_an_answer_that_was_under_way_when_its_table_was_written_to_is_not_kept(stage: Stage) -> None:
    """An answer that was under way when its table was written to is not kept."""
    reader, writer, locker = stage.client(), stage.client(), stage.direct()
    locker.fetch("BEGIN; LOCK TABLE cached.other IN ACCESS EXCLUSIVE MODE")
    sql = "SELECT i.name FROM cached.item i LEFT JOIN cached.other o ON o.id = i.id WHERE i.id = 1"
    reader.send(raw.query(sql))
    eventually(lambda: _waits(stage), what="the query waits for its lock")
    writer.fetch(_UPDATE)
    locker.fetch("ROLLBACK")
    rows(reader.receive_until())
    stage.rename(1, "behind")
    assert stage.client().fetch(sql) == [[b"behind"]], "what came first was not kept"


def _waits(stage: Stage) -> bool:
    return bool(
        stage.read("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'other'")
    )


def test_a_write_whose_server_is_lost_counts(stage: Stage) -> None:
    """A write whose server is lost counts."""
    client, writer = stage.client(), stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"item 1"]]
    writer.fetch("BEGIN")
    writer.fetch("UPDATE cached.item SET price = 1 WHERE id = 20")
    writer.sock.close()
    eventually(lambda: client.fetch(_SQL) == [[b"new"]], what="it may have been committed")


def test_cascades_and_triggers_widen_what_a_write_drops(stage: Stage) -> None:
    """Cascades and triggers widen what a write drops."""
    client = stage.client()
    notes = "SELECT words FROM cached.note WHERE id = 3"
    assert client.fetch(notes) == [[b"note 3"]]
    assert client.fetch(notes) == [[b"note 3"]]
    client.fetch("DELETE FROM cached.item WHERE id = 3")
    assert client.fetch(notes) == []


def test_a_view_is_dropped_with_its_table(stage: Stage) -> None:
    """A view is dropped with its table."""
    client = stage.client()
    view = "SELECT name FROM cached.cheap WHERE id = 1"
    client.fetch(view)
    stage.rename(1, "behind")
    assert client.fetch(view) == [[b"item 1"]]
    client.fetch("UPDATE cached.item SET name = 'written' WHERE id = 1")
    assert client.fetch(view) == [[b"written"]]


def test_ddl_through_the_pooler_drops_everything(stage: Stage) -> None:
    """Ddl through the pooler drops everything."""
    client = stage.client()
    star = "SELECT * FROM cached.other WHERE id = 1"
    assert client.fetch(star) == [[b"1", b"other 1"]]
    client.fetch("ALTER TABLE cached.other ADD COLUMN more int DEFAULT 7")
    assert client.fetch(star) == [[b"1", b"other 1", b"7"]]
    client.fetch("ALTER TABLE cached.other DROP COLUMN more")
    assert client.fetch(star) == [[b"1", b"other 1"]]


def test_many_writers_each_read_what_they_have_written(stage: Stage) -> None:
    """Many writers each read what they have written."""
    failures: list[str] = []

    def work(key: int) -> None:
        with psycopg.connect(
            **stage.pooler.conninfo("app"), autocommit=True, prepare_threshold=2
        ) as connection:
            for value in range(40):
                connection.execute("UPDATE cached.item SET price = %s WHERE id = %s", (value, key))
                for _ in range(3):
                    found = connection.execute(
                        "SELECT price FROM cached.item WHERE id = %s", (key,)
                    ).fetchone()
                    if found is None or found[0] != value:
                        failures.append(f"{key}: {found} for {value}")

    threads = [threading.Thread(target=work, args=(key,)) for key in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
