"""Which settings texts set, and which they reset."""

from __future__ import annotations

from typing import Final

import attrs
import pytest

from hyperpool.sql.effects import EffectReader, Effects

_UNKNOWN_SETTINGS: Final = Effects(unknown_settings=True)
_RESETS_ALL: Final = Effects(unknown_settings=True, resets_all=True)
_DISCARDS_ALL: Final = Effects(
    unknown_settings=True, releases=True, deallocates_all=True, discards_all=True, resets_all=True
)


def _sets(*names: str) -> Effects:
    return Effects(settings=frozenset(names), sets=frozenset(names))


def _resets(*names: str, sets: tuple[str, ...] = ()) -> Effects:
    return Effects(settings=frozenset(names + sets), resets=frozenset(names), sets=frozenset(sets))


def _read(text: str) -> Effects | None:
    return EffectReader().read(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "SET LOCAL search_path TO a",
        "SET LOCAL ROLE a",
        "SET LOCAL SESSION AUTHORIZATION a",
        "SET LOCAL TIME ZONE 'UTC'",
        "SELECT set_config('a.b', 'x', true)",
        "SELECT set_config($1, $2, true), set_config('search_path', $3, 't')",
        "SELECT set_config('role', 'x', true::boolean)",
    ],
)
def test_what_changes_the_transaction_alone(text: str) -> None:
    """Nothing is left behind, but texts may be read otherwise until the transaction ends."""
    assert _read(text) == Effects(local=True)


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("SET Search_Path TO a, b", _sets("search_path")),
        ("set session x.Y = 1;", _sets("x.y")),
        ('SET "Work_Mem" TO DEFAULT', _resets("work_mem")),
        ("SET sort_mem = 1", _sets("work_mem")),
        ("SET vacuum_mem = 1", _sets("maintenance_work_mem")),
        ("RESET x", _resets("x")),
        ("SET SESSION X.y = DEFAULT", _resets("x.y")),
        ("RESET sort_mem", _resets("work_mem")),
        ("SET TIME ZONE 'UTC'", _sets("timezone")),
        ("SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", _sets("timezone")),
        ("SET TIME ZONE LOCAL", _resets("timezone")),
        ("SET TIME ZONE DEFAULT", _resets("timezone")),
        ("RESET TIME ZONE", _resets("timezone")),
        ("SET NAMES 'utf8'", _sets("client_encoding")),
        ("SET NAMES DEFAULT", _resets("client_encoding")),
        ("SET SCHEMA 'a'", _sets("search_path")),
        ("SET XML OPTION DOCUMENT", _sets("xmloption")),
        ("SET ROLE a", _sets("role")),
        ("SET SESSION ROLE NONE", _sets("role")),
        ("RESET ROLE", _resets("role")),
        ("SET SESSION AUTHORIZATION a", _sets("session_authorization", "role")),
        ("SET SESSION AUTHORIZATION DEFAULT", _resets("session_authorization", "role")),
        ("RESET SESSION AUTHORIZATION", _resets("session_authorization", "role")),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
            _sets("default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"),
        ),
        ("RESET ALL", _RESETS_ALL),
        ("SET a = 1; SET LOCAL b = 1; RESET c", attrs.evolve(_resets("c", sets=("a",)), local=True)),
        ("SET a = 1; RESET ALL", attrs.evolve(_RESETS_ALL, settings=frozenset({"a"}))),
        ("BEGIN; SET a = 1; COMMIT", _sets("a")),
        ("SET a TO ';'; SELECT 1", _sets("a")),
    ],
)  # fmt: skip
def test_settings(text: str, effects: Effects) -> None:
    """SET and RESET change the settings that they name, by the names that the server knows them by."""
    assert _read(text) == effects


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("SET a = 1; RESET a", _resets("a")),
        ("RESET a; SET a = 1", _sets("a")),
        ("RESET a; SET b = 1; RESET b; SET a = 1; RESET c", _resets("b", "c", sets=("a",))),
        ("RESET A; SET LOCAL a = 1", attrs.evolve(_resets("a"), local=True)),
        ("RESET a; SELECT set_config('A', '1', false)", _sets("a")),
        ("SELECT set_config('a', '1', false); SET a TO DEFAULT", _resets("a")),
        ("RESET SESSION AUTHORIZATION; SET ROLE r", _resets("session_authorization", sets=("role",))),
        ("SET SESSION AUTHORIZATION s; RESET ROLE", _resets("role", sets=("session_authorization",))),
        ("SET a = 1; RESET ALL; SET b = 1", attrs.evolve(_RESETS_ALL, settings=frozenset("ab"), sets=frozenset("b"))),
        ("DISCARD ALL", _DISCARDS_ALL),
        ("SET a = 1; SET b = 1; DISCARD ALL; RESET b; SET a = 2", attrs.evolve(
            _DISCARDS_ALL, settings=frozenset("ab"), resets=frozenset("b"), sets=frozenset("a")
        )),
        ("RESET transaction_isolation; SET seed TO DEFAULT", None),
        ("SET LOCAL a TO DEFAULT", Effects(local=True)),
    ],
)  # fmt: skip
def test_what_is_reset_and_what_is_set_behind_it(text: str, effects: Effects | None) -> None:
    """What counts is the last word about a setting; RESET ALL is one about each."""
    assert _read(text) == effects


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("SELECT set_config('A.b', 'x', false)", _sets("a.b")),
        ("SELECT set_config('a', 'x', $1)", _sets("a")),
        ("SELECT set_config('role', 'x', 'f')", _sets("role")),
        ("SELECT set_config('session_authorization', 'x', false)", _sets("session_authorization", "role")),
        ("SELECT set_config('a'::text, 'x', 0::bool)", _sets("a")),
        ("SELECT set_config(CAST('a' AS text), 'x', NULL)", _sets("a")),
        ("SELECT set_config($$a$$, 'x', false)", _sets("a")),
        ("SELECT set_config(E'\\x61', 'x', false)", _sets("a")),
        ("SELECT set_config('a\\x61', 'x', false)", _UNKNOWN_SETTINGS),
        ("SELECT set_config($1, $2, $3)", _UNKNOWN_SETTINGS),
        ("SELECT set_config('a' || 'b', 'x', false)", _UNKNOWN_SETTINGS),
        ("SELECT set_config(a, b, false) FROM t", _UNKNOWN_SETTINGS),
        ("SELECT set_config(new_value => 'x', setting_name => 'y', is_local => true)", _UNKNOWN_SETTINGS),
        ("SELECT set_config(VARIADIC a)", _UNKNOWN_SETTINGS),
        (
            "SELECT set_config('a', 'x', true), set_config('b', 'x', false)",
            attrs.evolve(_sets("b"), local=True),
        ),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'y'", _UNKNOWN_SETTINGS),
        ('update Pg_Catalog."pg_settings" p SET setting = 1', _UNKNOWN_SETTINGS),
        ("WITH x AS (UPDATE pg_settings SET setting = 1 RETURNING *) SELECT * FROM x", _UNKNOWN_SETTINGS),
    ],
)
def test_set_config(text: str, effects: Effects) -> None:
    """Settings that queries change: those named by a constant, or unknown ones."""
    assert _read(text) == effects
