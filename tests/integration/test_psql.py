"""Tests of psql through the pooler: commands, scripts, `copy` and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import ANN
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
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


# -- what psql has to offer, compared with psql on PostgreSQL itself ---------------------------------------------------

_SCHEMA = """
    CREATE SCHEMA look;
    CREATE TYPE look.mood AS ENUM ('sad', 'ok');
    CREATE TABLE look.things (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', mood look.mood CHECK (id > 0));
    CREATE INDEX ON look.things (lower(name)) WHERE id > 5;
    COMMENT ON TABLE look.things IS 'things';
    CREATE TABLE look.parts (thing int REFERENCES look.things);
    CREATE VIEW look.seen AS SELECT id, name FROM look.things;
    CREATE SEQUENCE look.counter;
    CREATE FUNCTION look.double(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2';
    INSERT INTO look.things SELECT n, 'thing ' || n, 'ok' FROM generate_series(1, 20) n;
    GRANT ALL ON SCHEMA look TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA look TO PUBLIC;
"""


@pytest.fixture(scope="module")
def _look(_pg: PostgresCluster) -> Iterator[None]:
    with _pg.admin("shared") as admin:
        admin.execute(_SCHEMA)
    yield
    with _pg.admin("shared") as admin:
        admin.execute("DROP SCHEMA look CASCADE")


def _direct(pg: PostgresCluster) -> str:
    password = ANN.password.replace("'", "%27").replace(" ", "%20")
    return f"postgresql://{ANN.name}:{password}@{pg.host}:{pg.port}/shared"


_SCRIPTS = {
    "d": r"\d+ look.*",
    "dt": r"\dt+ *.*",
    "df": "\\df+ look.*\n\\df pg_catalog.set_*",
    "l": r"\l",
    "others": "\\dn+\n\\di look.*\n\\dT+ look.*\n\\du\n\\dp look.*\n\\ds look.*\n\\sf look.double\n\\sv look.seen",
    "gexec": r"SELECT format('SELECT %s, %L', n, 'it''s') FROM generate_series(1, 3) n \gexec",
    "gset": "SELECT 42 AS answer, 'it''s' AS text \\gset\n\\echo :answer :'text'\nSELECT :answer, :'text';",
    "gdesc": r"SELECT id, name, now() - now() AS span FROM look.things \gdesc",
    "crosstabview": r"SELECT id % 3, id % 2, count(*) FROM look.things GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview",
    "copy out": r"\copy (SELECT * FROM look.things ORDER BY id) TO STDOUT (FORMAT csv, HEADER)",
    "copy in": """
        BEGIN;
        \\copy look.parts FROM STDIN
1
2
\\.
        SELECT count(*) FROM look.parts;
        ROLLBACK;
    """,
    "a cursor": "\\set FETCH_COUNT 3\nSELECT id, name FROM look.things ORDER BY id;",
    "without autocommit": "\\set AUTOCOMMIT off\nCREATE TABLE look_gone (n int);\nROLLBACK;\n\\dt look_gone\n",
    "errors go on": """
        \\set ON_ERROR_STOP off
        \\set ON_ERROR_ROLLBACK on
        BEGIN;
        SELECT 1/0;
        SELECT 'goes on';
        COMMIT;
        \\errverbose
    """,
    "encoding": "\\encoding LATIN1\nSELECT ascii(chr(233)), :'ENCODING';\n\\encoding UTF8\nSELECT chr(233);",
    "settings": """
        SET search_path = look;
        SET DateStyle = German;
        SELECT count(*), date '2000-02-29' FROM things;
        \\d seen
        SHOW search_path;
    """,
    "large objects": "\\lo_import '/dev/null'\nSELECT lo_get(:LASTOID), lo_unlink(:LASTOID);",
    "connect again": "SET work_mem = '7MB';\n\\c\nSHOW work_mem;",
}


@pytest.mark.usefixtures("_look")
@pytest.mark.parametrize("script", _SCRIPTS.values(), ids=_SCRIPTS)
def test_as_on_postgresql(
    psql: str, pooler: Pooler, block_mode: str, pg: PostgresCluster, script: str
) -> None:
    """A script prints the same through the pooler as on PostgreSQL itself."""
    got = _run(psql, pooler.url(block_mode), "-P", "format=aligned", script=script)
    expected = _run(psql, _direct(pg), "-P", "format=aligned", script=script)
    assert (got.stdout, got.stderr, got.returncode) == (expected.stdout, expected.stderr, expected.returncode)
    assert got.stdout


def test_bind(psql: str, pooler: Pooler, block_mode: str, pg: PostgresCluster) -> None:
    r"""`\bind` of psql 16 uses the extended protocol; older ones print the same complaint."""
    script = "\\set ON_ERROR_STOP off\nSELECT $1 || $2 \\bind 'a ' 'b' \\g\n"
    got, expected = (_run(psql, url, script=script) for url in (pooler.url(block_mode), _direct(pg)))
    assert (got.stdout, got.stderr) == (expected.stdout, expected.stderr)
    assert "a b" in got.stdout or r"invalid command \bind" in got.stderr


def test_conninfo(psql: str, pooler: Pooler, block_mode: str) -> None:
    r"""`\conninfo` tells of the pooler, as psql sees nothing else."""
    output = _output(psql, pooler.url(block_mode), script=r"\conninfo")
    for word in (block_mode, ANN.name, "127.0.0.1", str(pooler.port)):
        assert re.search(rf"\b{re.escape(word)}\b", output)


def test_watch(psql: str, pooler: Pooler, block_mode: str) -> None:
    r"""`\watch` repeats a query for as long as psql lives."""
    with subprocess.Popen(
        [psql, pooler.url(block_mode), "-X", "-A", "-t", "-q"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("SELECT 'again' \\watch 0.05\n")
        process.stdin.flush()
        lines = [process.stdout.readline().strip() for _ in range(12)]
        process.terminate()
    assert lines.count("again") >= 4
    assert not any("error" in line.lower() for line in lines)
