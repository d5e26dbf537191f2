"""psycopg 3 through the pooler, checked in every pool mode that allows it."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.support.poolers import Pooler

_64_MIB = 64 << 20

VALUES = [
    True,
    -(2**62),
    1.5e-300,
    decimal.Decimal("12345678901234567890.123456789"),
    "text with 'quotes', a \\ and 🐘",
    b"\x00\xff bytes",
    dt.date(2024, 2, 29),
    dt.datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=dt.UTC),
    dt.timedelta(days=3, microseconds=7),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    [1, 2, 3],
    None,
]


def test_parameters_and_types(pooler: Pooler, mode: str) -> None:
    """Values of all common types travel as parameters and come back equal, in text and in binary format."""
    with pooler.connect(mode) as connection:
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                for value in VALUES:
                    row = cursor.execute("SELECT %s", [value]).fetchone()
                    assert row == (value,)


def test_json(pooler: Pooler, mode: str) -> None:
    """A jsonb document comes back as it was sent."""
    document = {"a": [1, 2, {"b": None}], "ü": "ö" * 1000}
    with pooler.connect(mode) as connection:
        assert connection.execute("SELECT %s", [Jsonb(document)]).fetchone() == (document,)


def test_many_rows(pooler: Pooler, mode: str) -> None:
    """A result of 100,000 rows arrives complete and in order."""
    with pooler.connect(mode) as connection:
        rows = connection.execute("SELECT n FROM generate_series(1, 100000) n").fetchall()
    assert rows == [(n,) for n in range(1, 100001)]


def test_no_result_empty_query_and_row_counts(pooler: Pooler, mode: str) -> None:
    """Commands without rows, an empty query and the counts in command tags arrive as from PostgreSQL."""
    with pooler.connect(mode) as connection:
        assert connection.execute("").statusmessage in {None, ""}
        assert connection.execute("SELECT 1 WHERE false").fetchall() == []
        assert connection.execute("SELECT FROM generate_series(1, 7)").rowcount == 7


def test_several_statements_in_one_message(pooler: Pooler, mode: str) -> None:
    """A simple query with several statements returns each of their results."""
    with pooler.connect(mode) as connection:
        cursor = connection.execute("SELECT 1; SELECT 'two'; SELECT 3.0")
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
    assert results == [[(1,)], [("two",)], [(decimal.Decimal("3.0"),)]]


def test_commit_and_rollback(pooler: Pooler, block_mode: str) -> None:
    """A committed transaction is seen by the next client, a rolled back one is not."""
    table = f"psycopg_tx_{block_mode}"
    with pooler.connect(block_mode, autocommit=False) as connection:
        connection.execute(f"CREATE TABLE {table} (n int)".encode())
        connection.commit()
        connection.execute(f"INSERT INTO {table} VALUES (1)".encode())
        connection.commit()
        connection.execute(f"INSERT INTO {table} VALUES (2)".encode())
        connection.rollback()
    with pooler.connect(block_mode) as other:
        assert other.execute(f"SELECT n FROM {table}".encode()).fetchall() == [(1,)]
        other.execute(f"DROP TABLE {table}".encode())


def test_savepoints(pooler: Pooler, block_mode: str) -> None:
    """Nested transaction blocks roll back to their savepoint alone."""

    def fail_inside_a_savepoint(connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            connection.execute("INSERT INTO sp VALUES (2)")
            connection.execute("SELECT 1 / 0")

    with pooler.connect(block_mode) as connection, connection.transaction():
        connection.execute("CREATE TEMP TABLE sp (n int) ON COMMIT DROP")
        connection.execute("INSERT INTO sp VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            fail_inside_a_savepoint(connection)
        connection.execute("INSERT INTO sp VALUES (3)")
        assert connection.execute("SELECT n FROM sp ORDER BY n").fetchall() == [(1,), (3,)]


def test_a_failed_transaction_stays_failed_until_rollback(pooler: Pooler, block_mode: str) -> None:
    """After an error in a block every command fails with 25P02; after ROLLBACK the connection is as new."""
    with pooler.connect(block_mode) as connection:
        connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM does_not_exist")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.execute("ROLLBACK")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_errors_carry_all_fields(pooler: Pooler, mode: str) -> None:
    """An error of the server arrives with SQLSTATE, detail, hint and position untouched."""
    with pooler.connect(mode) as connection:
        with pytest.raises(psycopg.errors.UndefinedFunction) as caught:
            connection.execute("SELECT no_such_function(1)")
        assert caught.value.diag.statement_position == "8"
        assert caught.value.diag.message_hint is not None
        using = "errcode = 'XY123', message = 'm', detail = 'd', hint = 'h'"
        raising = f"DO $$ BEGIN RAISE EXCEPTION USING {using}; END $$".encode()
        with pytest.raises(psycopg.Error) as custom:
            connection.execute(raising)
        diag = custom.value.diag
        assert (diag.sqlstate, diag.message_primary) == ("XY123", "m")
        assert (diag.message_detail, diag.message_hint) == ("d", "h")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_notices(pooler: Pooler, mode: str) -> None:
    """Notices reach the client that caused them, in order, and not the next client on the same server."""
    seen: list[str | None] = []
    with pooler.connect(mode) as connection:
        connection.add_notice_handler(lambda diag: seen.append(diag.message_primary))
        connection.execute("DO $$ BEGIN FOR i IN 1..50 LOOP RAISE NOTICE 'note %', i; END LOOP; END $$")
    assert seen == [f"note {n}" for n in range(1, 51)]
    late: list[str | None] = []
    with pooler.connect(mode) as other:
        other.add_notice_handler(lambda diag: late.append(diag.message_primary))
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert late == []


def test_copy_in_and_out(pooler: Pooler, mode: str) -> None:
    """COPY FROM STDIN and COPY TO STDOUT move 50,000 rows unchanged."""
    table = f"psycopg_copy_{mode}"
    rows = [(n, f"value {n}\t\\N") for n in range(50_000)]
    with pooler.connect(mode) as connection:
        connection.execute(f"CREATE TABLE {table} (n int, t text)".encode())
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            with cursor.copy(f"COPY (SELECT * FROM {table} ORDER BY n) TO STDOUT".encode()) as copy:
                copy.set_types(["int4", "text"])
                assert list(copy.rows()) == rows
        connection.execute(f"DROP TABLE {table}".encode())


def test_large_copy(pooler: Pooler, mode: str) -> None:
    """A COPY of 40 MB in each direction is complete."""
    table = f"psycopg_bulk_{mode}"
    block = b"".join(b"%d\t%s\n" % (n, b"x" * 90) for n in range(10_000))
    with pooler.connect(mode) as connection:
        connection.execute(f"CREATE UNLOGGED TABLE {table} (n int, t text)".encode())
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for _ in range(42):
                    copy.write(block)
            with cursor.copy(f"COPY {table} TO STDOUT".encode()) as copy:
                assert sum(len(data) for data in copy) == 42 * len(block)
        connection.execute(f"DROP TABLE {table}".encode())


def test_copy_that_fails(pooler: Pooler, mode: str) -> None:
    """A COPY refused by the server, and one given up by the client, leave the connection usable."""
    table = f"psycopg_badcopy_{mode}"

    def give_up(cursor: psycopg.Cursor[Any], statement: bytes) -> None:
        with cursor.copy(statement) as copy:
            copy.write(b"1\n")
            raise ZeroDivisionError

    with pooler.connect(mode) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (n int)".encode())
        copy_in = f"COPY {table} FROM STDIN".encode()
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), cursor.copy(copy_in) as copy:
            copy.write(b"not a number\n")
        with pytest.raises(ZeroDivisionError):
            give_up(cursor, copy_in)
        assert cursor.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)
        cursor.execute(f"DROP TABLE {table}".encode())


@pytest.mark.parametrize("depth", [1, 10, 2000])
def test_pipeline(pooler: Pooler, mode: str, depth: int) -> None:
    """A pipeline of any depth gives each statement its own result, in order."""
    with pooler.connect(mode) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT %s::int", [n]) for n in range(depth)]
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(depth)]


def test_pipeline_with_an_error(pooler: Pooler, mode: str) -> None:
    """A statement that fails in a pipeline fails alone; the connection goes on behind the pipeline."""

    def run(connection: psycopg.Connection[Any]) -> None:
        with connection.pipeline():
            connection.execute("SELECT 1 / (SELECT 0)").fetchone()

    with pooler.connect(mode) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            run(connection)
        assert connection.execute("SELECT 3").fetchone() == (3,)


def test_pipeline_of_large_answers(pooler: Pooler, mode: str) -> None:
    """A pipeline whose answers exceed every buffer does not deadlock."""
    with pooler.connect(mode) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT repeat('x', 300000), %s::int", [n]) for n in range(50)]
        for n, cursor in enumerate(cursors):
            row = cursor.fetchone()
            assert row is not None
            assert (len(row[0]), row[1]) == (300_000, n)


def test_one_value_of_64_mib_from_the_server(pooler: Pooler, mode: str) -> None:
    """A single value of 64 MiB reaches the client."""
    with pooler.connect(mode) as connection:
        row = connection.execute("SELECT repeat('0123456789abcdef', %s)", [_64_MIB // 16]).fetchone()
        assert row is not None
        assert row[0] == "0123456789abcdef" * (_64_MIB // 16)


def test_one_value_of_64_mib_to_the_server(pooler: Pooler, mode: str) -> None:
    """A single parameter of 64 MiB reaches the server; the session goes on after it."""
    value = b"0123456789abcdef" * (_64_MIB // 16)
    with pooler.connect(mode) as connection:
        row = connection.execute("SELECT length(%b), sha256(%b) IS NOT NULL", [value, b"x"]).fetchone()
        assert row == (_64_MIB, True)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_server_side_cursor(pooler: Pooler, block_mode: str) -> None:
    """A named cursor inside a transaction fetches in portions from one and the same server."""
    with (
        pooler.connect(block_mode, autocommit=False) as connection,
        connection.cursor(name="portions") as cursor,
    ):
        cursor.itersize = 100
        cursor.execute("SELECT n FROM generate_series(1, 1000) n")
        assert [row[0] for row in cursor] == list(range(1, 1001))


def test_prepared_statements_in_session_mode(pooler: Pooler) -> None:
    """In session mode psycopg's own prepared statements work across transactions."""
    with pooler.connect("session") as connection:
        connection.prepare_threshold = 1
        for n in range(10):
            assert connection.execute("SELECT %s::int + 1", [n]).fetchone() == (n + 1,)
        prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared is not None
    assert prepared[0] >= 1
