"""Functions of PostgreSQL that it calls STABLE, and whose results depend on settings of the session alone.

Those settings (TimeZone, DateStyle, IntervalStyle, lc_monetary, lc_numeric, lc_time, extra_float_digits, bytea_output,
default_text_search_config, timezone_abbreviations) are part of what the cache tells apart. Nothing here looks at the
clock, the catalog, or other state: ``age(timestamptz)``, ``timetz(time)`` and ``timezone(text, timetz)`` take the
current date, ``enum_range`` and the types named ``reg...`` read the catalog, and so they are not here.

Source: PostgreSQL's ``pg_proc.dat`` and the functions behind it; a test holds each line against a server.
"""

from __future__ import annotations

from typing import Final

_CLOCKLESS: Final = """
date(timestamptz) time(timestamptz) timestamp(timestamptz) timetz(timestamptz)
timestamptz(timestamp) timestamptz(date) timestamptz(date,time)
date_cmp_timestamptz(date,timestamptz) timestamptz_cmp_date(timestamptz,date)
timestamp_cmp_timestamptz(timestamp,timestamptz) timestamptz_cmp_timestamp(timestamptz,timestamp)
timestamptz_pl_interval(timestamptz,interval) timestamptz_mi_interval(timestamptz,interval)
interval_pl_timestamptz(interval,timestamptz)
date_add(timestamptz,interval) date_subtract(timestamptz,interval)
date_trunc(text,timestamptz) date_trunc(text,timestamptz,text) date_part(text,timestamptz) extract(text,timestamptz)
generate_series(timestamptz,timestamptz,interval) in_range(timestamptz,timestamptz,interval,bool,bool)
overlaps(timestamptz,interval,timestamptz,interval) overlaps(timestamptz,interval,timestamptz,timestamptz)
overlaps(timestamptz,timestamptz,timestamptz,interval)
make_timestamptz(int4,int4,int4,int4,int4,float8) make_timestamptz(int4,int4,int4,int4,int4,float8,text)
timezone(timestamp) timezone(timestamptz)
to_char(float4,text) to_char(float8,text) to_char(int4,text) to_char(int8,text) to_char(numeric,text)
to_char(interval,text) to_char(timestamp,text) to_char(timestamptz,text)
to_date(text,text) to_timestamp(text,text) to_number(text,text)
money(int4) money(int8) money(numeric) numeric(money)
get_current_ts_config() to_tsvector(text) to_tsvector(json) to_tsvector(jsonb) to_tsquery(text) plainto_tsquery(text)
phraseto_tsquery(text) websearch_to_tsquery(text) ts_match_tt(text,text) ts_match_tq(text,tsquery)
"""

_PRINTING: Final = """
concat(any) concat_ws(text,any) format(text) format(text,any) textanycat(text,anynonarray) anytextcat(anynonarray,text)
array_to_string(anyarray,text) array_to_string(anyarray,text,text) quote_literal(anyelement) quote_nullable(anyelement)
array_to_json(anyarray) array_to_json(anyarray,bool) row_to_json(record) row_to_json(record,bool)
to_json(anyelement) to_jsonb(anyelement) json_agg(anyelement) jsonb_agg(anyelement)
json_agg_strict(anyelement) jsonb_agg_strict(anyelement)
json_build_array() json_build_array(any) json_build_object() json_build_object(any)
jsonb_build_array() jsonb_build_array(any) jsonb_build_object() jsonb_build_object(any)
json_object_agg(any,any) jsonb_object_agg(any,any) json_object_agg_strict(any,any) jsonb_object_agg_strict(any,any)
json_object_agg_unique(any,any) jsonb_object_agg_unique(any,any)
json_object_agg_unique_strict(any,any) jsonb_object_agg_unique_strict(any,any)
"""

_COMPARED: Final = (
    ("date", "timestamptz"),
    ("timestamp", "timestamptz"),
    ("timestamptz", "date"),
    ("timestamptz", "timestamp"),
)

PRINTING: Final = frozenset(_PRINTING.split())
"""Those that turn values of any type into text, by the output functions of the types; ``json`` and ``jsonb`` also by
users' casts."""

SETTINGS_ONLY: Final = (
    frozenset(_CLOCKLESS.split())
    | PRINTING
    | {f"{a}_{sign}_{b}({a},{b})" for a, b in _COMPARED for sign in ("lt", "le", "eq", "ge", "gt", "ne")}
)
"""``name(argument types)``, all in pg_catalog."""
