"""Asking a database which of its functions may change the state of a session.

A text shows what it calls, not what that does. So a pool asks its database once in a while for the functions whose
sources mention session state, and for whatever uses such a function, however indirectly: other functions, aggregates,
operators, types (domains with a constraint, casts), tables and views (triggers, defaults, constraints, policies,
indexes, rules, foreign keys that cascade, partitions). A text that names one of them makes the pooler ask afterwards
what it has done.

The sources are searched, not understood: what they do by dynamic SQL that is put together from pieces, or in languages
that keep no source, is not found. ``pin_functions`` names such functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_STATEFUL: Final = (
    r"set_config|advisory_lock|advisory_unlock|dblink_connect|pg_temp"
    r"|\m(un)?listen\M|\mtemp(orary)?\M|\mprepare\M|\mdeallocate\M|\mhold\M|\mdiscard\M|\mload\M"
    r"""|(;|''|\mbegin|\mthen|\melse|\mloop)\s*(set|reset)\M(?!\s+(local|constraints|transaction)\M)"""
)
"""A regular expression of PostgreSQL's; matched without regard to case."""

_BUILTIN: Final = r":funcid (2078|288\d|289[0-2])\M"
"""A call of set_config, or of a function for advisory locks, as PostgreSQL keeps expressions (pg_node_tree)."""

CATALOG_QUERY: Final = r"""SET LOCAL statement_timeout = 0; SET LOCAL client_encoding = 'UTF8';
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off;
WITH RECURSIVE sources AS MATERIALIZED (
  SELECT p.oid, lower(p.proname) AS name, lower(p.prosrc) AS source, to_jsonb(p) ->> 'prosqlbody' AS body
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  WHERE l.lanname <> ALL (ARRAY['internal', 'c']) AND p.oid >= 16384
), objects (class, oid, name) AS MATERIALIZED (
  SELECT 'pg_proc'::regclass, oid, lower(proname) FROM pg_proc WHERE oid >= 16384
  UNION ALL SELECT 'pg_class', oid, lower(relname) FROM pg_class
    WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
  UNION ALL SELECT 'pg_type', oid, lower(typname) FROM pg_type
    WHERE oid >= 16384 AND typcategory <> 'A' AND typrelid = 0
  UNION ALL SELECT 'pg_operator', oid, oprname FROM pg_operator o
    WHERE oid >= 16384 AND NOT EXISTS (SELECT FROM pg_operator b WHERE b.oprname = o.oprname AND b.oid < 16384)
), words AS MATERIALIZED (
  SELECT DISTINCT oid, word FROM sources, regexp_split_to_table(source, E'[^\\w$]+') word
), odd AS MATERIALIZED (
  SELECT * FROM objects WHERE name ~ E'[^\\w$]'
), uses (class, oid, user_class, user_oid) AS MATERIALIZED (
  SELECT o.class, o.oid, 'pg_proc'::regclass, w.oid FROM objects o JOIN words w ON w.word = o.name
  UNION ALL
  SELECT o.class, o.oid, 'pg_proc', s.oid FROM odd o JOIN sources s ON strpos(s.source, o.name) > 0
  UNION ALL
  SELECT d.refclassid, d.refobjid, made.class::regclass, made.oid
  FROM pg_depend d
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid AND k.contype = 'c'
    LEFT JOIN pg_policy q ON d.classid = 'pg_policy'::regclass AND q.oid = d.objid
    LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid AND NOT g.tgisinternal
    LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
    LEFT JOIN pg_cast f ON d.classid = 'pg_cast'::regclass AND f.oid = d.objid AND f.castfunc = d.refobjid
    LEFT JOIN pg_operator o ON d.classid = 'pg_operator'::regclass AND o.oid = d.objid AND o.oprcode = d.refobjid
    CROSS JOIN LATERAL (VALUES
      ('pg_class', COALESCE(r.ev_class, a.adrelid, k.conrelid, q.polrelid, g.tgrelid, i.indrelid)),
      ('pg_class', CASE WHEN d.classid = 'pg_class'::regclass AND d.refclassid <> 'pg_class'::regclass
        THEN d.objid END),
      ('pg_proc', CASE d.classid WHEN 'pg_proc'::regclass THEN d.objid END),
      ('pg_type', CASE d.classid WHEN 'pg_type'::regclass THEN d.objid END),
      ('pg_type', k.contypid), ('pg_type', f.castsource), ('pg_type', f.casttarget),
      ('pg_operator', o.oid), ('pg_type', o.oprleft), ('pg_type', o.oprright)
    ) made (class, oid)
  WHERE d.refobjid >= 16384 AND made.oid >= 16384
    AND d.refclassid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass)
  UNION ALL
  SELECT 'pg_class', oid, 'pg_type', reltype FROM pg_class WHERE relkind = 'c'
  UNION ALL
  SELECT 'pg_class', inhrelid, 'pg_class', inhparent FROM pg_inherits
  UNION ALL
  SELECT 'pg_class', conrelid, 'pg_class', confrelid FROM pg_constraint
    WHERE contype = 'f' AND NOT (confdeltype IN ('a', 'r') AND confupdtype IN ('a', 'r'))
), stateful (class, oid) AS (
  SELECT 'pg_proc'::regclass, oid FROM sources WHERE source ~ E'%s' OR body ~ E'%b'
  UNION SELECT 'pg_class', ev_class FROM pg_rewrite WHERE oid >= 16384 AND ev_action::text ~ E'%b'
  UNION SELECT 'pg_class', adrelid FROM pg_attrdef WHERE adbin::text ~ E'%b'
  UNION SELECT 'pg_class', conrelid FROM pg_constraint WHERE conrelid <> 0 AND conbin::text ~ E'%b'
  UNION SELECT 'pg_type', contypid FROM pg_constraint WHERE contypid <> 0 AND conbin::text ~ E'%b'
  UNION SELECT 'pg_class', polrelid FROM pg_policy WHERE concat(polqual::text, polwithcheck::text) ~ E'%b'
  UNION SELECT 'pg_class', tgrelid FROM pg_trigger WHERE tgqual::text ~ E'%b'
  UNION SELECT u.user_class, u.user_oid FROM stateful s JOIN uses u ON u.class = s.class AND u.oid = s.oid
)
SELECT o.name, NULL FROM stateful s JOIN objects o ON o.class = s.class AND o.oid = s.oid
UNION
SELECT NULL, (regexp_matches(s.source, E'([a-z_]\\w*\\.[a-z_][\\w.]*)', 'g'))[1]
  FROM sources s JOIN stateful f ON f.oid = s.oid AND f.class = 'pg_proc'::regclass
LIMIT 5000
""".replace("%s", _STATEFUL.replace("\\", "\\\\")).replace("%b", _BUILTIN.replace("\\", "\\\\"))
"""It runs in any session, whoever it is and whatever is set there.

What uses what is told by the catalog's dependencies (pg_depend), and by the words in the sources of functions. The
catalog knows no dependency on what comes with PostgreSQL: calls of such functions are searched for in expressions.
An operator has no name here if PostgreSQL has one that is spelt the same; its operands' types do, then.

One row for each name, and (in the second column) for each word with a dot in the sources of functions, which may be a
parameter's name; in lower case.

It takes 0.01 s in an empty database; with 2000 tables, 500 views and 2000 functions of 2 kB each, 0.7 s if 20 of the
functions change session state, and 0.8 s if 1000 tables have a constraint that calls one of them (PostgreSQL 15)."""

RETRY: Final = 5.0
"""Seconds after which a pool asks again that got an error."""

INTERVAL: Final = 300.0
"""Seconds after which a pool asks again; a change of the schema that the pooler has seen makes it ask at once."""


_MAX_PARAMETERS: Final = 200


def parameters(rows: Sequence[Sequence[str | None]]) -> frozenset[str]:
    """The words in the answer that may be parameters."""
    return frozenset([row[1] for row in rows if len(row) > 1 and row[1]][:_MAX_PARAMETERS])


def names(rows: Sequence[Sequence[str | None]]) -> list[str]:
    """The names in the answer."""
    return [row[0] for row in rows if row[0]]
