"""The result cache tells apart what PostgreSQL tells apart: who asks, as whom, where, and with which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.cached import DATABASE, Stage, config_for, rows, tables
from tests.support.postgres import ANN, TRUDY, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_CREATE: Final = """
DROP ROLE IF EXISTS cache_group;
CREATE ROLE cache_group;
GRANT cache_group TO trudy, ann;
ALTER ROLE trudy SUPERUSER;
CREATE SCHEMA cached_two;
GRANT USAGE ON SCHEMA cached_two TO PUBLIC;
CREATE TABLE cached_two.item (id int PRIMARY KEY, name text);
INSERT INTO cached_two.item VALUES (1, 'of two');
CREATE TABLE cached.own (id int, owner text, tenant int);
INSERT INTO cached.own VALUES (1, 'ann', 1), (2, 'cache_group', 2), (3, 'bob', 1);
ALTER TABLE cached.own ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON cached.own USING (owner = current_user);
GRANT SELECT ON ALL TABLES IN SCHEMA cached, cached_two TO PUBLIC;
"""
_DROP: Final = """
DROP SCHEMA IF EXISTS cached_two CASCADE;
DROP TABLE IF EXISTS cached.own;
ALTER ROLE trudy NOSUPERUSER;
DROP ROLE IF EXISTS cache_group;
"""


@pytest.fixture(scope="module")
def caching_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """With settings of its own."""
    with tables(_pg):
        _pg.sql(_CREATE, dbname=DATABASE)
        yield make_module_pooler(config_for(_pg))
        _pg.sql(_DROP, dbname=DATABASE)


def _agree(stage: Stage, sql: str, variants: list[str], role: Role = ANN) -> None:
    """Each variant of a session gets its own answer, though all answers are in the cache."""
    expected = {}
    for variant in variants:
        direct = stage.direct(role)
        direct.frames(raw.query(variant))
        expected[variant] = rows(direct.ask(sql))
    assert len({str(answer) for answer in expected.values()}) > 1, "the variants make no difference"
    for _ in range(2):
        for variant in variants:
            client = stage.client("app", role)
            client.frames(raw.query(variant))
            for _ in range(2):
                assert rows(client.ask(sql)) == expected[variant]
    client = stage.client("app", role)
    for variant in (*variants, *reversed(variants)):
        client.frames(raw.query("RESET ALL"))
        client.frames(raw.query("RESET SESSION AUTHORIZATION"))
        client.frames(raw.query(variant))
        assert rows(client.ask(sql)) == expected[variant]


def test_a_session_user_gets_no_answer_of_another_one(stage: Stage) -> None:
    """SET SESSION AUTHORIZATION makes another user of a superuser."""
    variants = ["SELECT 1", "SET SESSION AUTHORIZATION ann", "SET SESSION AUTHORIZATION cache_group"]
    _agree(stage, "SELECT id FROM cached.own", variants, TRUDY)


def test_a_role_of_the_startup_message_counts(stage: Stage) -> None:
    """It is a setting like any other."""
    sql = "SELECT id FROM cached.own"
    for _ in range(2):
        assert stage.client("app", ANN).fetch(sql) == [[b"1"]]
        assert stage.client("app", ANN, options="-c role=cache_group").fetch(sql) == [[b"2"]]


def test_a_search_path_of_the_startup_message_counts(stage: Stage) -> None:
    """Also when nothing else is different."""
    sql = "SELECT name FROM item WHERE id = 1"
    for _ in range(2):
        for schema, name in (("cached", b"item 1"), ("cached_two", b"of two")):
            assert stage.client("app", ANN, options=f"-c search_path={schema}").fetch(sql) == [[name]]


def test_row_security_that_is_switched_off_is_an_error_for_those_it_concerns(stage: Stage) -> None:
    """It is not answered with what others may see."""
    sql = "SELECT id FROM cached.own"
    client = stage.client("app", ANN)
    for _ in range(2):
        assert client.fetch(sql) == [[b"1"]]
    client.frames(raw.query("SET row_security = off"))
    assert client.ask(sql)[0].fields["C"] == "42501"
    client.frames(raw.query("SET row_security = on"))
    assert client.fetch(sql) == [[b"1"]]


def _parse(sql: str, *types: int) -> bytes:
    declared = b"".join(oid.to_bytes(4, "big") for oid in types)
    return raw.frame(b"P", b"\0" + raw.cstring(sql) + len(types).to_bytes(2, "big") + declared)


def _bind(value: bytes, *, binary: bool = False, results: tuple[int, ...] = ()) -> bytes:
    body = b"\0\0\0\1" + int(binary).to_bytes(2, "big") + b"\0\1" + len(value).to_bytes(4, "big") + value
    body += len(results).to_bytes(2, "big") + b"".join(code.to_bytes(2, "big") for code in results)
    return raw.frame(b"B", body)


def _answers(stage: Stage, *requests: bytes) -> None:
    """Each request gets its own answer, though all answers are in the cache."""
    direct = stage.direct(ANN)
    expected = [direct.frames(one) for one in requests]
    for _ in range(2):
        client = stage.client("app", ANN)
        assert [client.frames(one) for one in requests] == expected
        assert [client.frames(one) for one in reversed(requests)] == expected[::-1]


def test_formats_of_parameters_and_results_decide(stage: Stage) -> None:
    """The same four bytes are a number, or digits."""
    sql = "SELECT id, price FROM cached.item WHERE id = $1 OR id = $1 + 1"
    ends = raw.describe_portal() + raw.execute() + raw.SYNC
    binds = [
        _bind(b"0002", binary=False),
        _bind(b"\0\0\0\2", binary=True),
        _bind(b"2", results=(1,)),
        _bind(b"2", results=(0, 1)),
        _bind(b"2", results=(1, 0)),
    ]
    _answers(stage, *(_parse(sql, 23) + bind + ends for bind in binds))


def test_whether_rows_are_described_decides(stage: Stage) -> None:
    """The simple protocol describes them, the extended one where it is asked to."""
    sql = "SELECT name FROM cached.item WHERE id = 1"
    ends = raw.execute() + raw.SYNC
    _answers(
        stage,
        raw.query(sql),
        _parse(sql) + raw.bind() + ends,
        _parse(sql) + raw.bind() + raw.describe_portal() + ends,
    )


def test_literals_and_names_decide(stage: Stage) -> None:
    """Whatever else is the same."""
    queries = [
        "SELECT name FROM cached.item WHERE id = 1",
        "SELECT name FROM cached.item WHERE id = 2",
        "SELECT name FROM cached.item WHERE id = '1'",
        'SELECT name AS "NAME" FROM cached.item WHERE id = 1',
        "SELECT name AS NAME FROM cached.item WHERE id = 1",
        "SELECT 'a  b'",
        "SELECT 'a b'",
        "SELECT 'A b'",
        "SELECT 'a' 'b'".replace("' '", "'\n'"),
        "SELECT E'a\\tb'",
        "SELECT U&'a\\0062'",
        "SELECT $$a b$$",
    ]
    _answers(stage, *(raw.query(sql) for sql in queries))


def test_another_database_of_the_same_server_is_another_one(
    pg: PostgresCluster, make_pooler: PoolerFactory
) -> None:
    """The same text means other tables there."""
    config = config_for(pg)
    config["databases"]["shared"] = {"host": pg.host, "port": pg.port, "dbname": "shared", "cache": True}
    sql = "SELECT n FROM cached_where"
    try:
        for name in (DATABASE, "shared"):
            pg.sql("CREATE TABLE public.cached_where (n) AS SELECT current_database()", dbname=name)
            pg.sql("GRANT SELECT ON public.cached_where TO PUBLIC", dbname=name)
        pooler = make_pooler(config)
        for _ in range(2):
            for name, database in (("app", DATABASE), ("shared", "shared")):
                with pooler.connect(name, TRUDY) as connection:
                    for _ in range(2):
                        assert connection.execute(sql).fetchall() == [(database,)]
    finally:
        for name in (DATABASE, "shared"):
            pg.sql("DROP TABLE IF EXISTS public.cached_where", dbname=name)
