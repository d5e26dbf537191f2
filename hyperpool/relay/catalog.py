"""Asking a database which of its functions may change the state of a session.

A text shows what it calls, not what that does. So a pool asks its database once in a while for the functions whose
sources mention session state, for those that call them, and for the tables and views that use such functions (triggers,
defaults, rules). A text that
names one of them makes the pooler ask afterwards what it has done.

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

CATALOG_QUERY: Final = r"""SET LOCAL statement_timeout = 0; SET LOCAL client_encoding = 'UTF8';
WITH RECURSIVE sources AS MATERIALIZED (
  SELECT p.oid, pg_catalog.lower(p.proname) AS name, pg_catalog.lower(p.prosrc) AS source,
    pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'prosqlbody' AS body
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
  WHERE l.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['internal', 'c'])
    AND p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
), stateful AS (
  SELECT oid, name FROM sources
  WHERE source OPERATOR(pg_catalog.~) E'%s' OR body OPERATOR(pg_catalog.~) E':funcid (2078|288\\d|289[0-2])\\M'
  UNION
  SELECT caller.oid, caller.name FROM stateful s JOIN sources caller
    ON pg_catalog.strpos(caller.source, s.name) OPERATOR(pg_catalog.>) 0
)
SELECT name, NULL FROM stateful
UNION
SELECT pg_catalog.lower(c.relname), NULL FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid
  JOIN stateful s ON s.oid OPERATOR(pg_catalog.=) t.tgfoid
UNION
SELECT pg_catalog.lower(c.relname), NULL FROM stateful s
  JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) s.oid
    AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_rewrite r ON r.oid OPERATOR(pg_catalog.=) d.objid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_attrdef a ON a.oid OPERATOR(pg_catalog.=) d.objid
    AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) COALESCE(r.ev_class, a.adrelid)
UNION
SELECT pg_catalog.lower(c.relname), NULL FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
  WHERE r.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND r.ev_action::pg_catalog.text OPERATOR(pg_catalog.~) E':funcid (2078|288\\d|289[0-2])\\M'
UNION
SELECT pg_catalog.lower(c.relname), NULL FROM pg_catalog.pg_attrdef a
  JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.adrelid
  WHERE a.adbin::pg_catalog.text OPERATOR(pg_catalog.~) E':funcid (2078|288\\d|289[0-2])\\M'
UNION
SELECT NULL, (pg_catalog.regexp_matches(s.source, E'([a-z_]\\w*\\.[a-z_][\\w.]*)', 'g'))[1]
  FROM sources s JOIN stateful f ON f.oid OPERATOR(pg_catalog.=) s.oid
LIMIT 5000
""".replace("%s", _STATEFUL.replace("\\", "\\\\"))
"""It runs in any session, whoever it is and whatever is set there.

One row for each name of a function or a table, and (in the second column) for each word with a dot in the sources of
such functions, which may be a parameter's name; in lower case."""

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
