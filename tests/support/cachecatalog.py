"""A database for the judge of the result cache, and what PostgreSQL itself makes of queries there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg

from hyperpool.cache.catalog import Catalog, question
from hyperpool.cache.judge_settings import SETTINGS_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

PATH: Final = ("judged", "public")

SCHEMA: Final = """
CREATE SCHEMA judged;
CREATE SCHEMA other;
SET search_path = judged, public;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN timely AS timestamptz CHECK (VALUE > now());
CREATE TYPE pair AS (x int, y text);
CREATE TABLE t (a int, b text, c timestamptz, d date, e timestamp, f numeric, g bigint, h mood, i positive, j jsonb,
  k int[], l text[], m interval, n time, o bool, p varchar(10), q float8, r pair, s uuid, u bytea, v int4range);
CREATE TABLE wide (a int, r regclass);
CREATE TABLE zoned (a int, z timetz);
CREATE TABLE parted (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TABLE mother (a int);
CREATE TABLE daughter (b int) INHERITS (mother);
CREATE UNLOGGED TABLE quick (a int);
CREATE VIEW quick_view AS SELECT a FROM quick;
CREATE TABLE tenants (a int, tenant text);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON tenants USING (tenant = current_setting('app.tenant', true));
CREATE TABLE owned (a int, owner text);
ALTER TABLE owned ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON owned USING (owner = current_user);
CREATE TABLE odd (a int, at timestamptz);
ALTER TABLE odd ENABLE ROW LEVEL SECURITY;
CREATE POLICY recent ON odd USING (at > now());
CREATE TABLE linked (a int, tenant text);
ALTER TABLE linked ENABLE ROW LEVEL SECURITY;
CREATE POLICY known ON linked USING (EXISTS (SELECT FROM owned w WHERE w.a = linked.a));
CREATE SEQUENCE counter;
CREATE VIEW plain AS SELECT a, b, max(g) OVER (PARTITION BY a) AS top FROM t WHERE d > '2020-01-01';
CREATE VIEW deep AS SELECT p.a, count(*) AS n FROM plain p JOIN parted q USING (a) GROUP BY 1;
CREATE VIEW clocked AS SELECT * FROM t WHERE c > now();
CREATE VIEW reads_text AS SELECT b::date AS d FROM t;
CREATE VIEW who AS SELECT a, current_user AS u FROM t;
CREATE VIEW schemed AS SELECT a, current_schema AS s FROM t;
CREATE VIEW physical AS SELECT a, xmax FROM t;
CREATE TABLE locked (a int);
ALTER TABLE locked ENABLE ROW LEVEL SECURITY;
CREATE POLICY unlocked ON locked USING (xmax = 0);
CREATE VIEW drawn AS SELECT * FROM t TABLESAMPLE BERNOULLI (50);
CREATE VIEW catalogued AS SELECT relname FROM pg_class;
CREATE MATERIALIZED VIEW stored AS SELECT a, now() AS at FROM t;
CREATE FUNCTION pure(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION steady(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION wild(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
CREATE FUNCTION mixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION mixed(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION opened(wanted int) RETURNS text LANGUAGE sql AS 'SELECT b FROM t WHERE a = wanted';
CREATE FUNCTION opened_body(wanted int) RETURNS text LANGUAGE sql
  BEGIN ATOMIC SELECT b FROM judged.t WHERE a = wanted; END;
CREATE FUNCTION opened_writes(int) RETURNS int LANGUAGE sql AS 'INSERT INTO t (a) VALUES ($1) RETURNING a';
CREATE FUNCTION opened_clock(int) RETURNS timestamptz LANGUAGE sql AS 'SELECT now()';
CREATE FUNCTION opened_literal(int) RETURNS bool LANGUAGE sql AS 'SELECT c > ''today'' FROM t WHERE a = $1';
CREATE FUNCTION opened_escape(int) RETURNS text LANGUAGE sql AS 'SELECT ''\\n''::text';
CREATE FUNCTION defaulted(a int DEFAULT 1 + 1) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN a; END';
CREATE FUNCTION defaulted_wild(a float DEFAULT random()) RETURNS int LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN a; END';
CREATE FUNCTION of_domain(positive) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION of_domain(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION on_domain(positive) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE FUNCTION of_timely(timely) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1; END';
CREATE FUNCTION opened_rows(int) RETURNS SETOF t LANGUAGE sql STABLE AS 'SELECT * FROM t WHERE a = $1';
CREATE FUNCTION opened_columns(OUT one int, OUT two text) RETURNS SETOF record LANGUAGE sql STABLE
  AS 'SELECT a, b FROM t';
CREATE FUNCTION trusted(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT current_setting(''x.y'') || $1';
CREATE FUNCTION endless(int) RETURNS int LANGUAGE sql AS 'SELECT judged.endless($1)';
CREATE FUNCTION computed(t) RETURNS float8 LANGUAGE sql VOLATILE AS 'SELECT random()';
CREATE FUNCTION computed_well(t) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.a + 1';
CREATE FUNCTION sfunc(int, int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1 + $2; END';
CREATE AGGREGATE wild_sum(int) (SFUNC = sfunc, STYPE = int, INITCOND = '0');
CREATE FUNCTION moving(int, int) RETURNS int LANGUAGE plpgsql STRICT AS 'BEGIN RETURN $1 + $2; END';
CREATE AGGREGATE moving_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', MSFUNC = moving, MSTYPE = int,
  MINVFUNC = int4mi, MINITCOND = '0');
CREATE AGGREGATE calm_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE FUNCTION wild_eq(text, text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 = $2; END';
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = wild_eq);
CREATE FUNCTION to_pair(mood) RETURNS pair LANGUAGE plpgsql AS 'BEGIN RETURN row(1, $1)::pair; END';
CREATE CAST (mood AS pair) WITH FUNCTION to_pair(mood) AS IMPLICIT;
CREATE TABLE other.t (a int, b text);
CREATE TABLE other.alone (a int);
CREATE FUNCTION other.pure(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
RESET search_path;
"""

DROP: Final = "DROP SCHEMA judged CASCADE; DROP SCHEMA other CASCADE"

_FUNCTIONS: Final = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")
_OPERATORS: Final = re.compile(r":(?:opno|eqop|sortop) (\d+)")
_LISTED: Final = re.compile(r":opnos \(o ([\d ]+)\)")
_TABLES: Final = re.compile(r":relid (\d+)")
_BY_TEXT: Final = re.compile(r":resulttype (\d+) :resultcollid")

_CLOCKS: Final = {1082, 1083, 1114, 1184, 1266, 1182, 1183, 1115, 1185, 1270}


def fetch(connection: psycopg.Connection[Any], version: str = "") -> list[list[str | None]]:
    """Ask a database as the pooler does: one text in the simple protocol, its rows as text."""
    result = connection.pgconn.exec_(question(version).encode())
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise AssertionError(result.error_message.decode())
    values = [
        [result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)
    ]
    return [[None if value is None else value.decode() for value in row] for row in values]


def catalog_of(connection: psycopg.Connection[Any]) -> Catalog:
    """What a database says of itself."""
    return Catalog(fetch(connection))


@attrs.frozen
class Analysis:
    """What PostgreSQL has made of a query, found in the rule of a view.

    Attributes:
        unfit: functions that are neither IMMUTABLE nor known to look at settings alone; conversions of texts to times.
        tables: oids of the tables and views that the query itself reads.
    """

    unfit: tuple[str, ...]
    tables: frozenset[int]


class Oracle:
    """Asks PostgreSQL what a query calls.

    Args:
        connection: of a user who may make views.
        path: the search_path.

    Attributes:
        signatures: volatility and ``name(types of arguments)`` of all functions, by their oids.
    """

    def __init__(self, connection: psycopg.Connection[Any], path: Sequence[str] = PATH) -> None:
        self._connection = connection
        connection.execute(f"SET search_path = {', '.join(path)}")
        self.signatures: dict[int, tuple[str, str]] = {
            oid: (volatility, signature)
            for oid, volatility, signature in connection.execute(
                "SELECT p.oid::int8, provolatile::text, concat(proname, '(',"
                " (SELECT string_agg(y.typname, ',' ORDER BY o)"
                " FROM unnest(proargtypes) WITH ORDINALITY u (k, o) JOIN pg_type y ON y.oid = k), ')') FROM pg_proc p"
            )
        }
        self._operators: dict[int, int] = dict(
            connection.execute("SELECT oid::int8, oprcode::oid::int8 FROM pg_operator").fetchall()
        )

    def analyse(self, query: str) -> Analysis | None:
        """What PostgreSQL makes of a query; None if it refuses it."""
        with self._connection.transaction(force_rollback=True):
            try:
                with self._connection.transaction():
                    # All columns of a view must have names of their own.
                    self._connection.execute(
                        f"CREATE VIEW analysed AS SELECT 1 AS one WHERE EXISTS ({query})"
                    )
            except psycopg.Error:
                return None
            row = self._connection.execute(
                "SELECT ev_action::text, 'analysed'::regclass::oid::int8 FROM pg_rewrite"
                " WHERE ev_class = 'analysed'::regclass"
            ).fetchone()
        assert row is not None
        return self._read(row[0], row[1])

    def _read(self, tree: str, itself: int) -> Analysis:
        functions = {int(oid) for oid in _FUNCTIONS.findall(tree)}
        operators = {int(oid) for oid in _OPERATORS.findall(tree)}
        operators.update(int(oid) for listed in _LISTED.findall(tree) for oid in listed.split())
        functions.update(self._operators[oid] for oid in operators if oid)
        unfit = [
            signature
            for volatility, signature in (self.signatures[oid] for oid in sorted(functions) if oid)
            if volatility != "i" and signature not in SETTINGS_ONLY
        ]
        if "{SQLVALUEFUNCTION" in tree:
            unfit.append("SQLVALUEFUNCTION")
        unfit.extend(f"text to {oid}" for oid in _BY_TEXT.findall(tree) if int(oid) in _CLOCKS)
        return Analysis(tuple(unfit), frozenset(int(oid) for oid in _TABLES.findall(tree)) - {0, itself})
