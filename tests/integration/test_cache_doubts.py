"""The result cache and writes whose end nobody waits for, or that are not what they seem to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import farend
from tests.support import rawclient as raw
from tests.support.cached import DATABASE, Stage, config_for
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.cached import Client
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = {}"
_UPDATE = "UPDATE cached.item SET name = 'written' WHERE id = 1"


def _warm(client: Client, *keys: int) -> None:
    """Have answers about some rows in the cache."""
    for key in keys:
        for _ in range(2):
            assert client.fetch(_SQL.format(key)) == [[b"item %d" % key]]


def _dropped(stage: Stage, client: Client, key: int) -> None:
    """Wait until an answer about a row is no longer that of before."""
    stage.rename(key, f"behind {key}")
    eventually(lambda: client.fetch(_SQL.format(key)) == [[b"behind %d" % key]], what="answers are dropped")


FORMS = {
    "a simple query": [raw.query(_UPDATE)],
    "a pipeline": [raw.extended(_UPDATE) + raw.SYNC + raw.extended("SELECT 1") + raw.SYNC],
    "with a half message behind": [raw.query(_UPDATE) + raw.query("SELECT 1")[:7]],
    "a large answer": [raw.query(f"{_UPDATE} RETURNING repeat('x', 3000000)")],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_write_counts_that_is_committed_when_its_client_has_gone(stage: Stage, form: str) -> None:
    """PostgreSQL goes on with what it is at; what was answered meanwhile is no answer any more then."""
    reader, writer, locker = stage.client(), stage.client(), stage.direct()
    _warm(reader, 1, 2)
    locker.fetch("BEGIN; SELECT FROM cached.item WHERE id = 1 FOR UPDATE")
    writer.send(*FORMS[form])
    eventually(stage.waiting, what="the write waits for its lock")
    writer.sock.close()
    _dropped(stage, reader, 2)
    _warm(reader, 1)
    locker.fetch("ROLLBACK")
    eventually(lambda: stage.read(_SQL.format(1)) == [("written",)], what="the write is committed")
    eventually(lambda: reader.fetch(_SQL.format(1)) == [[b"written"]], within=3, what="it is seen")


@pytest.fixture
def broken(
    pg: PostgresCluster, make_pooler: PoolerFactory, stage: Stage
) -> Iterator[tuple[FaultProxy, Stage]]:
    """A pooler whose connections to the server can be broken."""
    with FaultProxy(pg.port) as proxy:
        config = config_for(pg)
        config["databases"]["app"]["port"] = proxy.port
        with Stage(make_pooler(config), pg) as other:
            yield proxy, other


def test_a_write_counts_that_is_committed_when_its_server_is_lost(broken: tuple[FaultProxy, Stage]) -> None:
    """If the connection breaks, nobody says when: what was answered meanwhile is dropped in time."""
    proxy, stage = broken
    reader, writer, locker = stage.client(), stage.client(), stage.direct()
    _warm(reader, 1, 2)
    locker.fetch("BEGIN; SELECT FROM cached.item WHERE id = 1 FOR UPDATE")
    writer.send(raw.query(_UPDATE))
    eventually(stage.waiting, what="the write waits for its lock")
    proxy.cut_all()
    assert writer.receive_all()[-1].kind == b"E"
    reader = stage.client()
    _dropped(stage, reader, 2)
    _warm(reader, 1)
    locker.fetch("ROLLBACK")
    eventually(lambda: stage.read(_SQL.format(1)) == [("written",)], what="the write is committed")
    eventually(lambda: reader.fetch(_SQL.format(1)) == [[b"written"]], what="it is seen")


def test_a_write_counts_whose_tunnel_has_ended(
    pg: PostgresCluster, make_pooler: PoolerFactory, stage: Stage
) -> None:
    """A WebSocket that carried it: its client is told, and another one reads what was committed."""
    with farend.FarEnd(farend.ingress(pg.port)) as far:
        far.wait_for("listening")
        config = config_for(pg)
        config["databases"]["session"]["transport"] = farend.to_ingress(far.port)
        with Stage(make_pooler(config), pg) as other:
            reader, writer, locker = other.client(), other.client("session"), other.direct()
            _warm(reader, 1, 2)
            locker.fetch("BEGIN; SELECT FROM cached.item WHERE id = 1 FOR UPDATE")
            writer.send(raw.query(_UPDATE))
            eventually(other.waiting, what="the write waits for its lock")
            far.kill()
            assert writer.receive_all()[-1].kind == b"E"
            locker.fetch("ROLLBACK")
            eventually(lambda: other.read(_SQL.format(1)) == [("written",)], what="the write is committed")
            eventually(lambda: reader.fetch(_SQL.format(1)) == [[b"written"]], what="it is seen")


@pytest.mark.usefixtures("stage")
def test_what_a_session_has_prepared_drops_nothing_until_it_is_executed(
    pg: PostgresCluster, make_pooler: PoolerFactory
) -> None:
    """In session mode, too, where names are the client's own; in a pooler in which no earlier doubt is followed up."""
    with Stage(make_pooler(config_for(pg)), pg) as own:
        reader, session = own.client(), own.client("session")
        session.frames(raw.parse(_UPDATE, "write") + raw.parse(_SQL.format(2), "read") + raw.SYNC)
        _warm(reader, 1, 2)
        own.rename(2, "behind")
        for _ in range(2):
            session.frames(raw.bind(name="read") + raw.execute() + raw.SYNC)
            session.frames(raw.extended(_SQL.format(2)) + raw.SYNC)
        assert reader.fetch(_SQL.format(2)) == [[b"item 2"]]
        session.frames(raw.bind(name="write") + raw.execute() + raw.SYNC)
        assert reader.fetch(_SQL.format(2)) == [[b"behind"]]
        assert reader.fetch(_SQL.format(1)) == [[b"written"]]


@pytest.mark.parametrize(
    "prepare",
    [
        raw.query(f"PREPARE other AS {_UPDATE}"),
        raw.parse(_UPDATE, "other") + raw.SYNC + raw.parse("SELECT 1", "other") + raw.SYNC,
        raw.parse("SELECT 1", "other") + raw.SYNC + raw.query(f"DEALLOCATE other; PREPARE other AS {_UPDATE}"),
        raw.parse("SELECT 1/0") + raw.bind() + raw.parse("SELECT 1", "other") + raw.SYNC
        + raw.parse(_UPDATE, "other") + raw.SYNC,
    ],
)  # fmt: skip
def test_a_name_of_a_session_may_mean_another_statement_than_it_seems(stage: Stage, prepare: bytes) -> None:
    """A name that is taken, one that SQL has given, one whose statement the server has never looked at."""
    reader, session = stage.client(), stage.client("session")
    _warm(reader, 1)
    session.send(prepare)
    for _ in range(prepare.count(raw.SYNC) + prepare.count(b"DEALLOCATE") + (prepare[:1] == b"Q")):
        session.receive_until()
    session.frames(raw.bind(name="other") + raw.execute() + raw.SYNC)
    assert reader.fetch(_SQL.format(1)) == [[b"written"]]


_CREATE = """
CREATE OR REPLACE VIEW cached.shown AS SELECT id, name FROM cached.item;
CREATE OR REPLACE FUNCTION cached.turn() RETURNS int LANGUAGE plpgsql AS
    'BEGIN CREATE OR REPLACE VIEW cached.shown AS SELECT id, name FROM cached.other; RETURN 1; END';
CREATE OR REPLACE FUNCTION cached.by_another() RETURNS int STABLE LANGUAGE plpgsql AS
    'BEGIN RETURN cached.turn(); END';
CREATE OR REPLACE FUNCTION cached.rename(who int) RETURNS int LANGUAGE plpgsql AS
    'BEGIN UPDATE cached.item SET name = ''renamed'' WHERE id = who; RETURN 1; END';
CREATE OR REPLACE FUNCTION cached.quietly(who int) RETURNS int STABLE LANGUAGE plpgsql AS
    'BEGIN RETURN cached.rename(who); END';
GRANT ALL ON cached.shown TO PUBLIC;
ALTER VIEW cached.shown OWNER TO trudy;
"""


@pytest.fixture
def functions(stage: Stage) -> Iterator[Client]:
    """Functions that change more than they seem to; a client that knows them."""
    stage.behind(_CREATE)
    client = stage.client()
    client.fetch("ALTER TABLE cached.other SET (fillfactor = 90)")
    eventually(lambda: _is_kept(stage, client), what="the catalog is known")
    yield client
    stage.behind(
        "DROP VIEW cached.shown; DROP FUNCTION cached.turn, cached.by_another, cached.rename, cached.quietly"
    )


def _is_kept(stage: Stage, client: Client) -> bool:
    sql = "SELECT name FROM cached.shown WHERE id = 5"
    client.fetch(sql)
    stage.behind("UPDATE cached.item SET name = name || '!' WHERE id = 5")
    stage.behind("UPDATE cached.other SET name = name || '!' WHERE id = 5")
    (now,) = stage.read(sql)[0]
    return client.fetch(sql) != [[now.encode()]]


@pytest.mark.parametrize(
    "change", ["SELECT cached.turn()", "SELECT cached.by_another()", "DO 'BEGIN PERFORM cached.turn(); END'"]
)
def test_a_view_that_a_function_has_replaced_is_another_one(
    stage: Stage, functions: Client, change: str
) -> None:
    """What is known of the schema is read again, so that answers depend on other tables from then on."""
    sql = "SELECT name FROM cached.shown WHERE id = 1"
    assert functions.fetch(sql) == [[b"item 1"]]
    functions.fetch(change)
    for _ in range(3):
        assert functions.fetch(sql) == [[b"other 1"]]
    functions.fetch("UPDATE cached.other SET name = 'new' WHERE id = 1")
    assert functions.fetch(sql) == [[b"new"]]
    eventually(lambda: _is_kept(stage, functions), what="the cache answers again")
    functions.fetch("UPDATE cached.other SET name = 'newer' WHERE id = 1")
    assert functions.fetch(sql) == [[b"newer"]]


def test_a_function_that_is_not_volatile_may_call_one_that_writes(stage: Stage, functions: Client) -> None:
    """PostgreSQL does not prevent that."""
    _warm(functions, 1)
    functions.fetch("SELECT cached.quietly(1)")
    assert functions.fetch(_SQL.format(1)) == [[b"renamed"]]


@pytest.fixture
def ways(pg: PostgresCluster, make_pooler: PoolerFactory, stage: Stage) -> Iterator[Stage]:
    """A pooler that knows several ways to one database."""
    config = config_for(pg)
    host = config["databases"]["app"]["host"]
    assert host == "127.0.0.1"
    for name, cache in (("other_way", {}), ("plain_other_way", False)):
        config["databases"][name] = {"host": "localhost", "port": pg.port, "dbname": DATABASE, "cache": cache}
    config["databases"]["plain_other_way"]["pool_mode"] = "session"
    with Stage(make_pooler(config), pg) as other:
        yield other


@pytest.mark.parametrize(
    ("reads", "writes"), [("app", "other_way"), ("other_way", "app"), ("app", "plain_other_way")]
)
def test_a_write_by_another_way_to_the_same_database_counts(ways: Stage, reads: str, writes: str) -> None:
    """Whether that is cached or not: the server tells which database it is."""
    reader = ways.client(reads)
    eventually(lambda: _is_warm(ways, reader), what="the cache answers")
    writer = ways.client(writes)
    writer.fetch("SELECT 1")
    _warm(reader, 1)
    writer.fetch(_UPDATE)
    assert reader.fetch(_SQL.format(1)) == [[b"written"]]


def _is_warm(stage: Stage, client: Client) -> bool:
    sql = "SELECT name FROM cached.note n JOIN cached.item i ON i.id = n.item WHERE n.id = 9"
    client.fetch(sql)
    stage.behind("UPDATE cached.item SET name = name || '!' WHERE id = 9")
    (now,) = stage.read(sql)[0]
    return client.fetch(sql) != [[now.encode()]]


_DEFAULTS = {
    "search_path": ("SET search_path = cached_two", "SET search_path = cached_one"),
    "a setting that a policy reads": ("SET app.tenant = 'two'", "SET app.tenant = 'one'"),
    "a setting that shapes answers": ("SET extra_float_digits = 0", "SET extra_float_digits = 1"),
}


@pytest.fixture
def defaults(pg: PostgresCluster, make_pooler: PoolerFactory, stage: Stage) -> Iterator[Stage]:
    """Two schemas with tables of one name, and a table that a setting divides."""
    stage.behind(
        """
        CREATE SCHEMA cached_one; CREATE SCHEMA cached_two;
        CREATE TABLE cached_one.t AS SELECT 'one' AS name; CREATE TABLE cached_two.t AS SELECT 'two' AS name;
        CREATE TABLE cached.divided AS SELECT 'one' AS tenant UNION SELECT 'two';
        ALTER TABLE cached.divided ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON cached.divided USING (tenant = current_setting('app.tenant', true));
        GRANT ALL ON SCHEMA cached_one, cached_two TO PUBLIC;
        GRANT ALL ON cached_one.t, cached_two.t, cached.divided TO PUBLIC;
        """
    )
    for _, value in _DEFAULTS.values():
        stage.behind(f"ALTER ROLE trudy IN DATABASE {DATABASE} {value}")
    with Stage(make_pooler(config_for(pg)), pg) as other:
        yield other
    stage.behind(f"ALTER ROLE trudy IN DATABASE {DATABASE} RESET ALL")
    stage.behind("DROP SCHEMA cached_one CASCADE; DROP SCHEMA cached_two CASCADE; DROP TABLE cached.divided")


_ASKED = "SELECT name, (SELECT min(tenant) FROM cached.divided), 0.1::float8 + 0.2 FROM t"


@pytest.mark.parametrize("setting", _DEFAULTS)
def test_what_sessions_begin_with_may_change_in_mid_flight(defaults: Stage, setting: str) -> None:
    """As soon as a new server tells that, answers are those of new sessions, and writes those of who writes."""
    client, holder = defaults.client(), defaults.client()
    digits = (b"0.3", b"0.30000000000000004")
    assert client.fetch(_ASKED) == client.fetch(_ASKED) == [[b"one", b"one", digits[1]]]
    defaults.behind(f"ALTER ROLE trudy IN DATABASE {DATABASE} {_DEFAULTS[setting][0]}")
    holder.fetch("BEGIN")
    changed = setting == "search_path", "policy" in setting, "shapes" in setting
    expected = [b"two" if changed[0] else b"one", b"two" if changed[1] else b"one", digits[not changed[2]]]
    openers = [defaults.client() for _ in range(3)]
    for opener in openers:
        opener.fetch("BEGIN")
    for opener in openers:
        opener.fetch("COMMIT")
    holder.fetch("UPDATE cached.item SET price = 1 WHERE id = 1")
    holder.fetch("COMMIT")
    assert client.fetch(_ASKED) == defaults.direct().fetch(_ASKED) == [expected]
    client.fetch("UPDATE t SET name = 'new'")
    assert client.fetch(_ASKED)[0][0] == b"new"
