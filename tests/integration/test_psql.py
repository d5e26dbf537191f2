"""Tests of psql through the pooler: commands, scripts, `copy` and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

_ENVIRONMENT = {**os.environ, "PSQLRC": os.devnull, "PGCONNECT_TIMEOUT": "15", "LC_ALL": "C"}


def _run(psql: str, url: str, *arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [psql, url, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *arguments],
        input=script,
        capture_output=True,
        text=True,
        timeout=30,
        env=_ENVIRONMENT,
        check=False,
    )


def _output(psql: str, url: str, *arguments: str, script: str = "") -> str:
    done = _run(psql, url, *arguments, script=script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_one_command(psql: str, pooler: Pooler, mode: str) -> None:
    """`psql -c` prints the row of a query and nothing on stderr."""
    assert _output(psql, pooler.url(mode), "-c", "SELECT 41 + 1, 'naïve'") == "42|naïve\n"


def test_several_statements_in_one_message(psql: str, pooler: Pooler, mode: str) -> None:
    """A `-c` with several statements is one Query message; psql 15 and later print every result."""
    done = _output(psql, pooler.url(mode), "-c", "SELECT 1; SELECT 2; SELECT 3")
    assert done.split() == ["1", "2", "3"]


def test_a_script_with_a_transaction(psql: str, pooler: Pooler, block_mode: str) -> None:
    """A script on stdin runs DDL, a transaction with a savepoint, and a query, in order."""
    table = f"psql_script_{block_mode}"
    script = f"""
        CREATE TABLE {table} (n int);
        BEGIN;
        INSERT INTO {table} VALUES (1);
        SAVEPOINT s;
        INSERT INTO {table} VALUES (2);
        ROLLBACK TO s;
        INSERT INTO {table} VALUES (3);
        COMMIT;
        SELECT n FROM {table} ORDER BY n;
        DROP TABLE {table};
    """
    assert _output(psql, pooler.url(block_mode), script=script).split() == ["1", "3"]


def test_copy_in_and_out(psql: str, pooler: Pooler, mode: str, tmp_path: Path) -> None:
    r"""`\copy` from a file and to a file moves every row unchanged, CSV with quotes and newlines included."""
    table = f"psql_copy_{mode}"
    given = tmp_path / "in.csv"
    given.write_text("".join(f'{n},"row {n}, ""quoted""\nsecond line"\n' for n in range(5000)))
    got = tmp_path / "out.csv"
    script = f"""
        CREATE TABLE {table} (n int, t text);
        \\copy {table} FROM '{given}' (FORMAT csv)
        \\copy (SELECT * FROM {table} ORDER BY n) TO '{got}' (FORMAT csv)
        DROP TABLE {table};
    """
    _output(psql, pooler.url(mode), script=script)
    assert got.read_text() == given.read_text()


def test_an_error_is_the_servers_own(psql: str, pooler: Pooler, mode: str) -> None:
    """An error of the server reaches psql with its text and position; psql ends the script with code 3."""
    done = _run(psql, pooler.url(mode), script="SELECT 1;\nSELECT nonsense;\n")
    assert done.returncode == 3
    assert done.stdout == "1\n"
    assert 'column "nonsense" does not exist' in done.stderr
    assert "LINE 1: SELECT nonsense" in done.stderr


@pytest.mark.parametrize("name", ["session", "transaction"])
def test_interrupt_cancels_the_query(psql: str, pooler: Pooler, pg: PostgresCluster, name: str) -> None:
    """Ctrl-C in psql cancels `SELECT pg_sleep(60)` at once; psql reports it and ends."""
    asleep = f"SELECT pg_sleep(60) /* interrupted in {name} */"
    process = subprocess.Popen(
        [psql, pooler.url(name), "-X", "-A", "-t", "-q", "-c", asleep],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    )
    eventually(
        lambda: pg.sql(
            "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s",
            f"SELECT pg_sleep%interrupted in {name}%",
        ),
        what="the query runs",
    )
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "canceling statement due to user request" in err
    assert process.returncode == 1
