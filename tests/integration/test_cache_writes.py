"""Which tables statements change, as the catalog stage of the result cache tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from hyperpool.cache.catalog_writes import Reach
from hyperpool.sql.reader import QueryReader
from tests.support.cachecatalog import catalog_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from hyperpool.cache.catalog import Catalog
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_READER: Final = QueryReader()

_SCHEMA: Final = """
CREATE SCHEMA written;
CREATE SCHEMA aside;
SET search_path = written;
CREATE TABLE plain (a int PRIMARY KEY, b text);
CREATE FUNCTION wild(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION writes(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM written.plain; RETURN $1; END';
CREATE FUNCTION writes_by_sql(int) RETURNS int LANGUAGE sql AS 'DELETE FROM written.plain RETURNING 1';
CREATE FUNCTION writes_by_body(int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT written.wild($1); END;
CREATE FUNCTION writes_by_call(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN writes($1); END';
CREATE FUNCTION writes_by_view(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(a) FROM w); END';
CREATE FUNCTION writes_dynamically(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN 1; END';
CREATE FUNCTION writes_by_a_stable_one(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes($1); END';
CREATE FUNCTION writes_by_an_immutable_one(int) RETURNS int LANGUAGE sql IMMUTABLE
  AS 'SELECT writes_by_a_stable_one($1)';
CREATE FUNCTION writes_by_a_stable_body(int) RETURNS int LANGUAGE sql STABLE
  BEGIN ATOMIC SELECT written.writes_by_a_stable_one($1); END;
CREATE FUNCTION stable_dynamic(text) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN EXECUTE $1; RETURN 1; END';
CREATE FUNCTION reads_by_default(int) RETURNS int LANGUAGE plpgsql AS
  'BEGIN RETURN (SELECT max(a) FROM written.plain JOIN written.v USING (a)); END';
CREATE FUNCTION "Writes"(int) RETURNS int LANGUAGE sql AS 'DELETE FROM written.plain RETURNING 1';
CREATE FUNCTION stable_quoted(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN written."Writes"($1); END';
CREATE FUNCTION reads_quoted(int) RETURNS int LANGUAGE plpgsql STABLE AS
  'BEGIN RETURN (SELECT max("a") FROM "written"."plain" WHERE "b" <> ''it is "writes"''); END';
CREATE FUNCTION between_comments(int) RETURNS int LANGUAGE plpgsql AS $f$BEGIN
  -- don't
  DELETE FROM written.plain; -- don't
  RETURN 1; END$f$;
CREATE FUNCTION between_escapes(int) RETURNS int LANGUAGE plpgsql AS
  $f$BEGIN PERFORM E'\\'', writes(1), ' '; RETURN 1; END$f$;
CREATE FUNCTION within_a_comment(int) RETURNS int LANGUAGE plpgsql AS
  $f$BEGIN /* don't DELETE */ -- "writes" /* 'x'
  RETURN 1; END$f$;
CREATE FUNCTION stable_recursive(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN stable_recursive($1); END';
CREATE FUNCTION alters() RETURNS int LANGUAGE plpgsql AS
  'BEGIN ALTER TABLE written.plain ENABLE ROW LEVEL SECURITY; RETURN 1; END';
CREATE FUNCTION alters_dynamically() RETURNS int LANGUAGE plpgsql AS
  $$BEGIN EXECUTE 'CREATE TABLE written.more (a int)'; RETURN 1; END$$;
CREATE FUNCTION alters_by_call() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN alters(); END';
CREATE FUNCTION makes_a_table() RETURNS int LANGUAGE sql AS 'SELECT a INTO written.made FROM written.plain; SELECT 1';
CREATE FUNCTION stores(int) RETURNS int LANGUAGE sql AS 'INSERT INTO written.plain VALUES ($1) RETURNING a';
CREATE PROCEDURE does(int) LANGUAGE plpgsql AS 'BEGIN DELETE FROM written.plain; END';
CREATE PROCEDURE does_nothing() LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
CREATE FUNCTION quoted(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN "writes"($1); END';
CREATE FUNCTION reads(int) RETURNS int LANGUAGE plpgsql STABLE AS
  'BEGIN RETURN (SELECT max(a) FROM written.plain); END';
CREATE FUNCTION recursive(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN recursive($1); END';
CREATE TABLE child (a int REFERENCES plain ON DELETE CASCADE, id int PRIMARY KEY);
CREATE TABLE grandchild (id int REFERENCES child ON UPDATE SET NULL);
CREATE TABLE strict (a int REFERENCES plain);
CREATE DOMAIN by_default AS int DEFAULT written.writes(1);
CREATE DOMAIN by_inherited_default AS by_default;
CREATE TABLE of_domain (a int, b by_default);
CREATE TABLE of_other_domain (a int, b by_inherited_default);
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE elsewhere (a int) SERVER nowhere;
CREATE TABLE parted (a int) PARTITION BY RANGE (a);
CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (a);
CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (1);
CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TABLE stamped (a int, at timestamptz);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
  -- UPDATE is only a word here
  BEGIN
    IF TG_OP = 'UPDATE' AND NEW.a IS DISTINCT FROM OLD.a THEN NEW.at := now(); END IF;
    PERFORM pg_notify('changes', 'DELETE');
    RETURN NEW;
  END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE audited (a int);
CREATE TABLE audit (a int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO written.audit VALUES (1); RETURN NEW; END';
CREATE TRIGGER note AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note();
CREATE TABLE ruled (a int);
CREATE TABLE shadow (a int);
CREATE RULE copy AS ON INSERT TO ruled DO ALSO INSERT INTO shadow VALUES (NEW.a);
CREATE TABLE defaulted (a int DEFAULT written.writes(1), b int);
CREATE TABLE numbered (a serial, b uuid DEFAULT gen_random_uuid(), c float DEFAULT random(),
  d int DEFAULT written.wild(1));
CREATE TABLE checked (a int CHECK (written.writes(a) > 0));
CREATE VIEW v AS SELECT a, b FROM plain;
CREATE VIEW w AS SELECT written.writes(a) AS a FROM plain;
CREATE MATERIALIZED VIEW stored AS SELECT a FROM plain;
CREATE MATERIALIZED VIEW computed AS SELECT a FROM w WITH NO DATA;
CREATE TABLE aside.plain (a int);
CREATE TABLE suppressed (a int);
CREATE TRIGGER same BEFORE UPDATE ON suppressed FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
RESET search_path;
"""

_DROP: Final = (
    "DROP FOREIGN DATA WRAPPER nothing CASCADE; DROP SCHEMA written CASCADE; DROP SCHEMA aside CASCADE"
)

_CHILDREN: Final = {"plain", "child", "grandchild"}
_PARTED: Final = {"parted", "low", "lowest", "high"}

_WRITES: Final[list[tuple[str, set[str] | None]]] = [
    ("SELECT 1", set()),
    ("SELECT * FROM plain WHERE a = 1", set()),
    ("SELECT now(), random(), nextval('numbered_a_seq'), gen_random_uuid(), clock_timestamp()", set()),
    ("SELECT wild(1), reads(1)", set()),
    ("SELECT writes(1)", None),
    ("SELECT writes_by_sql(1)", None),
    ("SELECT writes_by_body(1)", None),
    ("SELECT writes_by_call(1)", None),
    ("SELECT writes_by_view(1)", None),
    ("SELECT writes_dynamically('DELETE FROM plain')", None),
    ("SELECT quoted(1)", None),
    ("SELECT recursive(1)", set()),
    ("SELECT stable_recursive(1), reads_by_default(1)", set()),
    ("SELECT reads_quoted(1), within_a_comment(1)", set()),
    ("SELECT stable_quoted(1)", None),
    ("SELECT between_comments(1)", None),
    ("SELECT between_escapes(1)", None),
    ("SELECT writes_by_a_stable_one(1)", None),
    ("SELECT writes_by_an_immutable_one(1)", None),
    ("SELECT writes_by_a_stable_body(1)", None),
    ("SELECT stable_dynamic('SELECT written.writes(1)')", None),
    ("SELECT nobody_knows(1)", None),
    ("CALL does(1)", None),
    ("CALL does_nothing()", set()),
    ("SELECT written.writes(1)", None),
    ("SELECT query_to_xml('SELECT written.writes(1)', true, true, '')", None),
    ("SELECT * FROM v", set()),
    ("SELECT * FROM w", None),
    ("BEGIN", set()),
    ("INSERT INTO plain VALUES (1)", _CHILDREN),
    ("UPDATE plain SET b = 'x'", _CHILDREN),
    ("DELETE FROM plain", _CHILDREN),
    ("DELETE FROM written.plain", _CHILDREN),
    ("WITH x AS (DELETE FROM strict RETURNING *) SELECT * FROM x", {"strict"}),
    ("MERGE INTO child USING plain ON plain.a = child.a WHEN MATCHED THEN DELETE", {"child", "grandchild"}),
    ("TRUNCATE strict", {"strict"}),
    ("TRUNCATE plain CASCADE", None),
    ("INSERT INTO of_domain (a) VALUES (1)", None),
    ("INSERT INTO of_other_domain (a) VALUES (1)", None),
    ("INSERT INTO elsewhere VALUES (1)", None),
    ("UPDATE pg_catalog.pg_proc SET provolatile = 'i'", None),
    ("SELECT table_to_xml('written.w', true, true, '')", None),
    ("SELECT pg_temp.wild(1)", None),
    ("COPY w TO STDOUT", None),
    ("COPY strict FROM STDIN", {"strict"}),
    ("INSERT INTO strict SELECT a FROM plain ON CONFLICT DO NOTHING", {"strict"}),
    ("EXPLAIN ANALYZE DELETE FROM strict", {"strict"}),
    ("INSERT INTO parted VALUES (1)", _PARTED),
    ("INSERT INTO lowest VALUES (0)", _PARTED),
    ("UPDATE stamped SET a = 1", {"stamped"}),
    ("UPDATE suppressed SET a = 1", {"suppressed"}),
    ("INSERT INTO audited VALUES (1)", None),
    ("INSERT INTO ruled VALUES (1)", {"ruled", "shadow"}),
    ("INSERT INTO defaulted (b) VALUES (1)", None),
    ("INSERT INTO checked VALUES (1)", None),
    ("INSERT INTO numbered DEFAULT VALUES", {"numbered"}),
    ("INSERT INTO shadow VALUES (writes(1))", None),
    ("UPDATE v SET b = 'x'", {"v", *_CHILDREN}),
    ("REFRESH MATERIALIZED VIEW stored", None),
    ("REFRESH MATERIALIZED VIEW computed", None),
    ("INSERT INTO missing VALUES (1)", None),
    ("INSERT INTO pg_temp.own VALUES (1)", set()),
    ("DO $$ BEGIN END $$", None),
    ("CALL anything()", None),
    ("CREATE TABLE x (a int)", None),
    ("ALTER TABLE plain ADD COLUMN c int", None),
    ("GRANT SELECT ON plain TO public", None),
    ("not sql at all", None),
]


@pytest.fixture(scope="module")
def database(_pg: PostgresCluster) -> Iterator[psycopg.Connection[Any]]:
    """The objects that the statements speak of."""
    with _pg.admin("app") as connection:
        connection.execute(_SCHEMA)
        yield connection
        connection.execute(_DROP)


@pytest.fixture(scope="module")
def catalog(database: psycopg.Connection[Any]) -> Catalog:
    """What the database says of itself."""
    return catalog_of(database)


def _touched(catalog: Catalog, text: str, path: tuple[str, ...] = ("written",)) -> frozenset[int] | None:
    return catalog.touched(_READER.read(text.encode()).reading, path).tables


@pytest.mark.parametrize(("text", "tables"), _WRITES)
def test_what_a_statement_changes(catalog: Catalog, text: str, tables: set[str] | None) -> None:
    """Its own tables, and those that foreign keys, rules, views, partitions and functions add."""
    found = _touched(catalog, text)
    names = None if found is None else set(catalog.names(found))
    wanted = None if tables is None else {f"written.{name}" for name in tables}
    assert names == wanted


_REACHES: Final = {
    "SELECT wild(1)": Reach.NOTHING,
    "SELECT writes(1)": Reach.ROWS,
    "SELECT stores(1)": Reach.ROWS,
    "CALL does(1)": Reach.ROWS,
    "INSERT INTO audited VALUES (1)": Reach.ROWS,
    "SELECT writes_dynamically('DELETE FROM plain')": Reach.UNKNOWN,
    "SELECT nobody_knows(1)": Reach.UNKNOWN,
    "SELECT alters()": Reach.SCHEMA,
    "SELECT alters_dynamically()": Reach.SCHEMA,
    "SELECT alters_by_call()": Reach.SCHEMA,
    "SELECT makes_a_table()": Reach.SCHEMA,
    "INSERT INTO shadow SELECT alters()": Reach.SCHEMA,
    "UPDATE pg_class SET relrowsecurity = true": Reach.SCHEMA,
    "TRUNCATE plain CASCADE": Reach.NOTHING,
}


@pytest.mark.parametrize("text", _REACHES)
def test_how_far_a_statement_goes(catalog: Catalog, text: str) -> None:
    """Whether what it calls changes what there is, by the words of its source."""
    assert catalog.touched(_READER.read(text.encode()).reading, ("written",)).reach is _REACHES[text]


def test_a_name_means_everything_along_the_search_path(catalog: Catalog) -> None:
    """Which of several tables of a name is meant depends on what a role may see, so that all of them count."""
    aside = catalog.find("aside.plain")
    assert _touched(catalog, "DELETE FROM plain", ("aside",)) == aside
    both = _touched(catalog, "DELETE FROM plain", ("written", "aside"))
    assert both is not None
    assert both > aside
    assert _touched(catalog, "DELETE FROM aside.plain", ("written",)) == aside


@pytest.mark.parametrize(
    ("make", "undo"),
    [
        (
            "CREATE OPERATOR written.@@@ (RIGHTARG = int, FUNCTION = written.writes)",
            "DROP OPERATOR written.@@@ (NONE, int)",
        ),
        (
            "CREATE DOMAIN written.guarded AS int CHECK (written.writes(VALUE) > 0)",
            "DROP DOMAIN written.guarded",
        ),
        (
            """CREATE TYPE written.enum AS ENUM ('a');
            CREATE FUNCTION written.of_enum(written.enum) RETURNS int LANGUAGE sql
              AS 'DELETE FROM written.plain RETURNING 1';
            CREATE CAST (written.enum AS int) WITH FUNCTION written.of_enum(written.enum)""",
            "DROP TYPE written.enum CASCADE",
        ),
    ],
)
def test_what_calls_a_function_unseen_makes_every_statement_one_that_may_write(
    database: psycopg.Connection[Any], make: str, undo: str
) -> None:
    """Operators, casts and domains call functions without their names."""
    database.execute(make)
    try:
        assert _touched(catalog_of(database), "SELECT 1") is None
    finally:
        database.execute(undo)
    assert _touched(catalog_of(database), "SELECT 1") == frozenset()
