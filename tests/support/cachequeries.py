"""Queries drawn at random that PostgreSQL mostly takes, for the database of `tests.support.cachecatalog`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

_COLUMNS: Final = {
    "int": ("t.a", "a", "i", "p.a", "(r).x", "s.n"),
    "bigint": ("g",),
    "text": ("t.b", "p.b", "t.p", "(r).y", "s.word", "l[1]"),
    "numeric": ("f",),
    "float8": ("q",),
    "timestamptz": ("c", "t.c", "s.at"),
    "timestamp": ("e",),
    "date": ("d", "t.d"),
    "interval": ("m",),
    "time": ("n",),
    "bool": ("o",),
    "mood": ("h",),
    "jsonb": ("j",),
    "int[]": ("k",),
    "text[]": ("l",),
    "int4range": ("v",),
    "bytea": ("u",),
    "uuid": ("t.s",),
    "record": ("t", "r", "s", "ROW(a, c)"),
}

_LITERALS: Final = {
    "int": ("1", "'2'"),
    "bigint": ("3", "10000000000"),
    "text": ("'x'", "'1'", "$$it$$"),
    "numeric": ("1.5", "2"),
    "timestamptz": ("'2024-01-01'", "timestamptz '2024-01-01'"),
    "timestamp": ("'2024-01-01'", "timestamp '2024-01-01'"),
    "date": ("'2024-01-01'", "date '2024-01-01'"),
    "interval": ("'1 day'", "interval '2 hours'"),
    "time": ("'10:00'", "time '10:00'"),
    "bool": ("true", "NULL"),
    "mood": ("'sad'",),
    "jsonb": ("'{}'", "'[1]'::jsonb"),
    "int[]": ("'{1}'", "ARRAY[1, 2]"),
    "text[]": ("'{a}'", "ARRAY['a']"),
    "int4range": ("'[1,5)'",),
}

_MADE: Final = """
int: int + int | int * int | abs(int) | length(text) | pure(int) | mixed(int) | other.pure(int) | steady(int)
int: wild(int)
int: int[][1] | coalesce(int, int) | greatest(int, int) | nullif(int, int) | array_length(int[], 1)
int: date - date
int: CASE WHEN bool THEN int ELSE int END | (SELECT max(a) FROM parted) | bigint::int | text::int | numeric::int
int: int::positive
int: position(text IN text) | computed_well(t) | t.computed_well | lower(int4range) | (jsonb ->> 'a')::int
int: judged.opened_writes(int)
int: jsonb_array_length(jsonb) | strpos(text, text) | ascii(text) | to_pair(mood)::text::int | (mood::pair).x
int: wild(int)
bigint: bigint + int | (SELECT count(*) FROM plain) | (SELECT sum(a) FROM t) | int::bigint | abs(bigint)
bigint: txid_current()
text: text || text | text || int | int || text | text || timestamptz | lower(text) | concat(int, text, date)
text: int::text
text: timestamptz::text | to_char(timestamptz, 'YYYY') | to_char(numeric, '999') | format('%s', timestamptz)
text: mood::text
text: substring(text FROM 1 FOR 2) | coalesce(text, text) | opened(int) | judged.opened_body(int)
text: trusted(text)
text: mixed(text) | jsonb ->> 'a' | array_to_string(text[], ',') | current_setting('app.tenant', true)
text: quote_literal(date)
text: trim(text) | md5(text) | CASE int WHEN int THEN text ELSE text END | (SELECT max(b) FROM t)
text: text::varchar(3)
text: record::text | int[]::text | interval::text | current_user | version() | int::regclass::text
text: left(text, int)
text: (SELECT u::text FROM who LIMIT 1) | timestamptz || text | bytea::text | encode(bytea, 'hex')
text: pg_typeof(date)::text
numeric: numeric + int | round(numeric, 1) | int::numeric | numeric * numeric | extract(epoch FROM timestamptz)
numeric: extract(year FROM date) | to_number(text, '99') | random()::numeric | '1'::money::numeric
float8: float8 * float8 | sqrt(float8) | int::float8 | random() | t.computed | date_part('day', timestamptz)
timestamptz: timestamptz + interval | date_trunc('day', timestamptz) | date::timestamptz
timestamptz: timestamp::timestamptz | now()
timestamptz: text::timestamptz | timestamp AT TIME ZONE 'UTC' | coalesce(timestamptz, now())
timestamptz: to_timestamp(float8)
timestamptz: (SELECT max(c) FROM clocked) | opened_clock(int) | greatest(timestamptz, date) | clock_timestamp()
timestamptz: to_timestamp(text, 'YYYY') | '2030-01-01'::timely | make_timestamptz(2020, 1, 1, 1, 1, 1)
timestamptz: timestamptz(text)
timestamp: timestamptz AT TIME ZONE 'UTC' | timestamp + interval | date + time | timestamptz::timestamp
timestamp: text::timestamp
timestamp: date_trunc('day', timestamp) | date + interval | localtimestamp
date: date + int | timestamptz::date | timestamp::date | text::date | to_date(text, 'YYYY') | date(timestamptz)
date: current_date
date: (SELECT d FROM reads_text LIMIT 1) | make_date(2020, 1, 1) | (SELECT min(d) FROM t)
interval: timestamptz - timestamptz | age(timestamptz) | age(timestamptz, timestamptz) | interval + interval
interval: text::interval
interval: timestamp - timestamp | interval * float8 | timestamptz - timestamp | timestamptz - date
time: timestamptz::time | time + interval | timestamp::time | '10:00'::timetz::time | time::timetz::time
bool: int = int | int < bigint | text = text | text LIKE text | timestamptz > date | timestamptz > timestamp
bool: date < date
bool: timestamp < date | int === int | text === text | int === text | int IN (int, int) | text IN (text, 'y')
bool: NOT bool
bool: bool AND bool | bool OR bool | int BETWEEN int AND int | timestamptz BETWEEN date AND timestamptz
bool: record = record
bool: int = ANY (int[]) | text = ANY ('{a,b}') | EXISTS (SELECT FROM deep WHERE n > int)
bool: int IN (SELECT a FROM parted)
bool: (int, text) IN (SELECT a, b FROM plain) | text IS NULL | int IS DISTINCT FROM bigint | bool IS TRUE
bool: mood = 'sad'
bool: jsonb @> jsonb | jsonb ? 'a' | int[] @> int[] | int4range @> int | text ~ text | timestamptz = 'epoch'
bool: time < time
bool: to_tsvector(text) @@ to_tsquery('english', text) | text @@ text | isfinite(timestamptz)
bool: (int, date) < (int, timestamptz)
bool: '10:00'::timetz < time | mood < mood | uuid = uuid | timestamptz > ALL (SELECT c FROM t)
bool: interval > interval
mood: text::mood | coalesce(mood, 'happy') | enum_last(mood) | CASE WHEN bool THEN mood END
jsonb: to_jsonb(timestamptz) | jsonb_build_object('a', date) | jsonb -> 'a' | row_to_json(record)::jsonb
jsonb: text::jsonb
jsonb: to_jsonb(record) | jsonb || jsonb | (SELECT jsonb_agg(t) FROM t) | jsonb #> text[] | jsonb['a']
jsonb: json_build_array(mood)::jsonb
int[]: array_append(int[], int) | ARRAY[int, int] | ARRAY(SELECT a FROM t) | int[] || int
int[]: (SELECT array_agg(a) FROM parted)
text[]: string_to_array(text, ',') | text[] || text[] | ARRAY[text, 'x'] | regexp_split_to_array(text, text)
text[]: text[][1:2]
int4range: int4range * int4range | int4range(int, int) | int4range + '[1,2)'
record: ROW(int, text) | ROW(timestamptz, now())
"""


def _rules() -> dict[str, list[str]]:
    rules: dict[str, list[str]] = {}
    for line in _MADE.strip().splitlines():
        kind, _, made = line.partition(": ")
        rules.setdefault(kind, []).extend(one.strip() for one in made.split(" | "))
    return rules


_RULES: Final = _rules()

_KINDS: Final = (*_RULES, "uuid", "bytea")
_PLACE: Final = re.compile(
    r"(?<![\w.:])(?:"
    + "|".join(re.escape(kind) for kind in sorted(_KINDS, key=len, reverse=True))
    + r")(?![\w(])"
)
"""An operand's type in a rule: not what is cast to, nor the name of a function."""

_FROM: Final = (
    "t JOIN parted p USING (a), (SELECT g::int AS n, b AS word, c AS at FROM t) s",
    "t, parted p, LATERAL (SELECT t.a AS n, p.b AS word, t.c AS at) AS s",
    "t LEFT JOIN parted p ON t.a = p.a CROSS JOIN (VALUES (1, 'x', timestamptz '2024-01-01')) AS s (n, word, at)",
)
_HOLE: Final = re.compile(r"\{(\w+)\}")
_WITH: Final = ("", "", "WITH w AS (SELECT a, c FROM t WHERE {bool}) ")
_BEHIND: Final = (
    *("", " ORDER BY 1", " ORDER BY {int}, {text}", " LIMIT {int}", " GROUP BY 1", " UNION SELECT {same}"),
    *(" UNION ALL SELECT NULL", " ORDER BY {timestamptz} DESC NULLS LAST", " FETCH FIRST 2 ROWS ONLY"),
)


def draw_query(random: Random) -> str:
    """Draw a query; PostgreSQL takes most of them."""
    kind = random.choice(list(_RULES))
    pieces = (
        random.choice(_WITH),
        "SELECT {same} AS z FROM ",
        random.choice(_FROM),
        random.choice(("", " WHERE {bool}")),
        random.choice(_BEHIND),
    )
    return _HOLE.sub(
        lambda hole: draw_expression(random, kind if hole[1] == "same" else hole[1], 2), "".join(pieces)
    )


def draw_expression(random: Random, kind: str, depth: int) -> str:
    """Draw an expression that has some type, with so many levels of others inside."""
    rules = _RULES.get(kind)
    if rules is None or depth == 0 or random.random() < 0.25:
        return random.choice((*_COLUMNS.get(kind, ()), *_LITERALS.get(kind, ())))
    return (
        "("
        + _PLACE.sub(lambda place: draw_expression(random, place[0], depth - 1), random.choice(rules))
        + ")"
    )
