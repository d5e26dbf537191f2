"""Session state that comes about by code which no text names: constraints, policies, casts, and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from hyperpool.relay import catalog
from tests.support.sharing import DATABASE, Sharing, config_for, differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SCHEMA: Final = """
    CREATE SCHEMA hidden;
    GRANT USAGE ON SCHEMA hidden TO PUBLIC;
    SET search_path = hidden;
    CREATE FUNCTION leaves(v text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('work_mem', '7MB', false); RETURN true; END $$;
    CREATE FUNCTION leaves_int(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('work_mem', '7MB', false); RETURN v; END $$;
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION quiet(v int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT v';

    CREATE TABLE plain (n int PRIMARY KEY CHECK (quiet(n) >= 0));
    CREATE VIEW over_plain AS SELECT * FROM plain;
    CREATE TABLE checked (n text CHECK (leaves(n)));
    CREATE TABLE checked_builtin (n text CHECK (set_config('work_mem', n, false) <> ''));
    CREATE VIEW over_checked AS SELECT * FROM checked;
    CREATE DOMAIN dom AS text CHECK (leaves(VALUE));
    CREATE DOMAIN dom_builtin AS text CHECK (set_config('work_mem', VALUE, false) <> '');
    CREATE DOMAIN dom_over AS dom;
    CREATE TYPE pair AS (a int, b dom);
    CREATE TABLE with_dom (n dom);
    CREATE TABLE with_dom_builtin (n dom_builtin);
    CREATE TABLE with_dom_over (n dom_over);
    CREATE TABLE with_doms (n dom[]);
    CREATE TABLE with_pair (n pair);
    CREATE TABLE policed (n text);
    ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON policed USING (leaves(n));
    CREATE TABLE policed_builtin (n text);
    ALTER TABLE policed_builtin ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON policed_builtin WITH CHECK (set_config('work_mem', n, false) <> '');
    CREATE TABLE indexed (n int);
    CREATE INDEX ON indexed (leaves_int(n));
    CREATE TABLE partly (n int);
    CREATE INDEX ON partly (n) WHERE leaves_int(n) > 0;
    CREATE TABLE made (n int, m int GENERATED ALWAYS AS (leaves_int(n)) STORED);
    CREATE TABLE noted (n text);
    CREATE TRIGGER t BEFORE INSERT ON noted FOR EACH ROW
        WHEN (set_config('work_mem', NEW.n, false) <> '') EXECUTE FUNCTION nothing();
    CREATE TYPE kind AS ENUM ('1');
    CREATE FUNCTION to_kind(v int) RETURNS kind LANGUAGE sql AS
        $$ SELECT CASE WHEN hidden.leaves_int(v) > 0 THEN '1'::hidden.kind END $$;
    CREATE CAST (int AS kind) WITH FUNCTION to_kind(int) AS ASSIGNMENT;
    CREATE TABLE kinds (k kind);
    CREATE FUNCTION plus(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT hidden.leaves_int(a) + b';
    CREATE OPERATOR <+> (FUNCTION = plus, LEFTARG = int, RIGHTARG = int);
    CREATE FUNCTION same(a kind, b int) RETURNS boolean LANGUAGE sql AS $$ SELECT hidden.leaves('') $$;
    CREATE OPERATOR = (FUNCTION = same, LEFTARG = kind, RIGHTARG = int);
    CREATE AGGREGATE total (int) (SFUNC = plus, STYPE = int, INITCOND = '0');
    CREATE FUNCTION by_total() RETURNS int LANGUAGE sql AS
        'SELECT hidden.total(n) FROM generate_series(1, 2) n';
    CREATE FUNCTION by_operator() RETURNS int LANGUAGE sql AS 'SELECT 1 OPERATOR(hidden.<+>) 2';
    CREATE FUNCTION by_table() RETURNS void LANGUAGE sql AS 'INSERT INTO hidden.checked VALUES (1)';
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
    CREATE TRIGGER t BEFORE DELETE ON child FOR EACH ROW
        WHEN (set_config('work_mem', OLD.id || 'MB', false) <> '') EXECUTE FUNCTION nothing();
    INSERT INTO parent VALUES (7);
    INSERT INTO child VALUES (7);
    CREATE TABLE whole (n int) PARTITION BY RANGE (n);
    CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (10);
    ALTER TABLE part ADD CHECK (leaves_int(n) >= 0);
    CREATE TABLE strict_child (id int REFERENCES plain, n text CHECK (leaves(n)));

    GRANT ALL ON ALL TABLES IN SCHEMA hidden TO PUBLIC;
    INSERT INTO policed VALUES ('x');
    RESET ALL;
"""

_NAMES: Final = """
    leaves leaves_int checked checked_builtin over_checked dom dom_builtin dom_over pair with_dom with_dom_builtin
    with_dom_over with_doms with_pair policed policed_builtin indexed partly made noted kind to_kind kinds plus <+>
    same total by_total by_operator by_table parent child whole part strict_child
"""
"""What is found of the schema: all but what is plain, or called nothing or quiet."""

CASES: Final = {
    "a check constraint": "INSERT INTO hidden.checked VALUES ('x')",
    "a check constraint that calls set_config": "INSERT INTO hidden.checked_builtin VALUES ('7MB')",
    "a table behind a view": "INSERT INTO hidden.over_checked VALUES ('x')",
    "a domain": "SELECT 'x'::hidden.dom",
    "a domain over a domain": "SELECT 'x'::hidden.dom_over",
    "a column with a domain": "INSERT INTO hidden.with_dom VALUES ('x')",
    "a column with a domain that calls set_config": "INSERT INTO hidden.with_dom_builtin VALUES ('7MB')",
    "a column with a domain over a domain": "INSERT INTO hidden.with_dom_over VALUES ('x')",
    "a column with an array of a domain": "INSERT INTO hidden.with_doms VALUES ('{x}')",
    "a column with a composite type": "INSERT INTO hidden.with_pair VALUES ('(1,x)')",
    "a policy": "SELECT count(*) FROM hidden.policed",
    "a policy that calls set_config": "INSERT INTO hidden.policed_builtin VALUES ('7MB')",
    "an index": "INSERT INTO hidden.indexed VALUES (1)",
    "an index of a part": "INSERT INTO hidden.partly VALUES (1)",
    "a generated column": "INSERT INTO hidden.made VALUES (1)",
    "the condition of a trigger": "INSERT INTO hidden.noted VALUES ('7MB')",
    "a cast": "SELECT 1::hidden.kind",
    "a cast by an assignment": "INSERT INTO hidden.kinds VALUES (1)",
    "an operator": "SELECT 1 OPERATOR(hidden.<+>) 2",
    "an operator with a usual name": "SELECT k OPERATOR(hidden.=) 1 FROM (VALUES ('1'::hidden.kind)) t (k)",
    "an aggregate": "SELECT hidden.total(n) FROM generate_series(1, 2) n",
    "a function with an aggregate": "SELECT hidden.by_total()",
    "a function with an operator": "SELECT hidden.by_operator()",
    "a function with a table": "SELECT hidden.by_table()",
    "a foreign key that cascades": "DELETE FROM hidden.parent",
    "a partition": "INSERT INTO hidden.whole VALUES (1)",
}


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """In a database whose functions set what nobody sees."""
    with _pg.admin(DATABASE) as admin:
        admin.execute(_SCHEMA)
        yield make_module_pooler(config_for(_pg, DATABASE))
        admin.execute("DROP SCHEMA hidden CASCADE")


@pytest.mark.parametrize("statement", CASES.values(), ids=CASES)
def test_a_setting_follows_its_client(sharing: Sharing, statement: str) -> None:
    """The client finds it on each server, and nobody else does."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    assert all(got.kind != b"E" for got in client.ask(statement))
    assert sharing.everywhere(client, "SHOW work_mem") == "7MB"
    state = sharing.everywhere(other)
    assert state == plain, differences(state, plain)


@pytest.mark.usefixtures("sharing")
def test_what_the_database_tells(pg: PostgresCluster) -> None:
    """All that may come to call such a function, and nothing besides; in whatever session it is asked."""
    for settings in ("", "SET LOCAL standard_conforming_strings = off; SET LOCAL search_path = '';"):
        with pg.admin(DATABASE) as admin, admin.cursor() as cursor:
            cursor.execute((settings + catalog.CATALOG_QUERY).encode())
            while cursor.nextset():
                pass
            rows = cursor.fetchall()
        found = set(catalog.names(rows))
        assert found == set(_NAMES.split())
        assert "hidden.total" in catalog.parameters(rows)
