"""Prepared statements of clients that share servers: one situation at a time, compared with PostgreSQL itself.

Random ones are in `test_differential`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.support import pgscripts_cases as cases
from tests.support import rawclient as raw
from tests.support.pglanguage import frame
from tests.support.pgscripts import Script, Step
from tests.support.pgscripts_compare import Comparison, config_for
from tests.support.postgres import TRUDY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.pgscripts import Message
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only  # pgbouncer has errors of its own, and knows nothing of DEALLOCATE

_DATABASE = "other"  # where a pooler may stay longer than a test
_SERVERS = {"session": 8, "transaction": 3}
_INT4, _TEXT = 23, 25  # OIDs


@pytest.fixture(scope="module", params=list(_SERVERS))
def _pooler(
    _pg: PostgresCluster, make_module_pooler: PoolerFactory, request: pytest.FixtureRequest
) -> Pooler:
    return make_module_pooler(config_for(_pg, request.param, _SERVERS[request.param], database=_DATABASE))


@pytest.fixture(scope="module")
def _narrow_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Pooler:
    return make_module_pooler(
        config_for(_pg, "transaction", 2, database=_DATABASE, max_prepared_statements=3),
    )


@pytest.fixture
def comparison(
    pg: PostgresCluster, _pooler: Pooler, watch: Callable[[Pooler], Pooler]
) -> Iterator[Comparison]:
    """Compares PostgreSQL with a pooler in session mode, and with one in transaction mode that has three servers."""
    servers = _SERVERS[_pooler.config["pooler"]["pool_mode"]]
    with Comparison(pg, watch(_pooler), servers, database=_DATABASE) as comparison:
        yield comparison


@pytest.fixture
def narrow_pooler(_narrow_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler in transaction mode that keeps three statements on each of two servers."""
    return watch(_narrow_pooler)


@pytest.fixture
def narrow(pg: PostgresCluster, narrow_pooler: Pooler) -> Iterator[Comparison]:
    """Compares PostgreSQL with that pooler."""
    with Comparison(pg, narrow_pooler, 2, database=_DATABASE) as comparison:
        yield comparison


def _check(comparison: Comparison, script: str) -> None:
    """Compare a script, sent step by step and in pieces."""
    for chunks in (0, 1):
        comparison.check(Script.of(script, chunks))


@pytest.mark.parametrize("script", cases.USED.values(), ids=cases.USED)
def test_statements_are_used(comparison: Comparison, script: str) -> None:
    """A client uses what it has prepared, wherever it has prepared it, whatever others do with the same names."""
    _check(comparison, script)


@pytest.mark.parametrize("script", cases.ERRORS.values(), ids=cases.ERRORS)
def test_errors(comparison: Comparison, script: str) -> None:
    """Errors come where and as PostgreSQL alone would make them, and speak of the client's own names."""
    _check(comparison, script)


@pytest.mark.parametrize("script", cases.DEALLOCATE.values(), ids=cases.DEALLOCATE)
def test_deallocate(comparison: Comparison, script: str) -> None:
    """DEALLOCATE and DISCARD ALL mean the client's own statements, and nobody else's."""
    _check(comparison, script)


@pytest.mark.parametrize("script", cases.UNNAMED.values(), ids=cases.UNNAMED)
def test_the_unnamed_statement(comparison: Comparison, script: str) -> None:
    """The unnamed statement is the client's own, too, until it is replaced."""
    _check(comparison, script)


@pytest.mark.parametrize("script", cases.PORTALS.values(), ids=cases.PORTALS)
def test_portals(comparison: Comparison, script: str) -> None:
    """Portals last as long as their transaction, whatever becomes of their statement."""
    _check(comparison, script)


def test_what_a_text_means_depends_on_the_session(comparison: Comparison) -> None:
    """The same text is not the same statement for clients with other settings: constants are read when it is parsed."""
    _check(
        comparison,
        """
        0: Q set DateStyle = 'ISO, MDY'; set TimeZone = 'America/New_York'
        1: Q set DateStyle = 'ISO, DMY'; set TimeZone = 'Asia/Tokyo'
        0: Pa: select date '02/03/2000', timestamptz '2000-01-01 00:00' at time zone 'UTC' | S
        1: Pa: select date '02/03/2000', timestamptz '2000-01-01 00:00' at time zone 'UTC' | S
        0: Ba | E | S
        1: Ba | E | S
        0: Q begin
        1: Ba | E | S
        0: Ba | E | S
        """,
    )


def test_the_unnamed_statement_keeps_its_constants_in_a_block(comparison: Comparison) -> None:
    """It is not parsed once more, with settings that have changed behind it within the block."""
    _check(
        comparison,
        """
        0: Pset: set DateStyle = 'ISO, DMY' | S
        0: Q begin
        0: P: select date '02/03/2000' | B | E | S
        0: Bset | E | S
        0: B | E | S
        0: Q rollback
        """,
    )


def _parse(name: bytes, text: bytes, *types: int) -> bytes:
    return frame(b"P", name + b"\0" + text + b"\0" + struct.pack(f"!h{len(types)}I", len(types), *types))


def _bind(name: bytes, *values: bytes) -> bytes:
    parts = b"".join(struct.pack("!i", len(value)) + value for value in values)
    return frame(
        b"B", b"\0" + name + b"\0" + struct.pack("!hh", 0, len(values)) + parts + struct.pack("!h", 0)
    )


def _step(client: int, *messages: Message) -> Step:
    return Step(client, messages)


def test_the_same_bytes_in_two_encodings(comparison: Comparison) -> None:
    """The same bytes are not the same statement for clients with other encodings."""
    text = "select 'é', length('é')".encode()
    comparison.check(
        Script.made_of(
            _step(0, "Q set client_encoding = 'LATIN1'"),
            _step(1, "Q set client_encoding = 'UTF8'"),
            *(_step(client, _parse(b"a", text), "S") for client in (0, 1)),
            *(_step(client, "Ba", "E", "S") for client in (0, 1)),
            _step(0, "Q begin"),
            *(_step(client, "Ba", "E", "S") for client in (1, 0)),
            _step(0, _parse("é".encode("latin-1"), b"select 1"), "S"),
            _step(0, _bind(b"\xc3"), "S"),
            _step(0, _bind("é".encode("latin-1")), "E", "S"),
        )
    )


def test_parameter_types_belong_to_a_statement(comparison: Comparison) -> None:
    """One text with several declarations of its parameters is several statements."""
    text = b"select $1, pg_typeof($1)::text"
    comparison.check(
        Script.made_of(
            _step(0, _parse(b"a", text, _INT4), "DSa", "S"),
            _step(1, _parse(b"a", text, _TEXT), "DSa", "S"),
            _step(2, _parse(b"a", text, 0), "DSa", "S"),
            _step(3, _parse(b"a", text), "DSa", "S"),
            *(_step(client, "Ba=7", "DP", "E", "S") for client in range(4)),
            _step(0, "Q begin"),
            *(_step(client, "Ba=7x", "DP", "E", "S") for client in (1, 2, 3)),
            _step(0, "Ba=7x", "S"),
        )
    )


@pytest.mark.parametrize(
    "name",
    [
        "é".encode(),
        b"with spaces, \"quotes\" and 'quotes'",
        b"%s %n \\ $1",
        b"HYPERPOOL_1",
        b"\x01\x7f",
        b"\xff\xfe",
        b"x" * 200,
        b"x" * 9_900,  # PostgreSQL ends a session that sends a Describe of more than 10,000 bytes
    ],
    ids=lambda name: repr(name[:20]) + f" ({len(name)})",
)
def test_strange_names(comparison: Comparison, name: bytes) -> None:
    """Every name is as good as any other, and comes back in errors as it was."""
    comparison.check(
        Script.made_of(
            _step(0, _parse(name, b"select $1::int"), "S"),
            _step(1, _parse(name, b"select 'other'"), "S"),
            _step(2, "Q begin"),
            _step(0, _bind(name, b"7"), "E", frame(b"D", b"S" + name + b"\0"), "S"),
            _step(0, _bind(name, b"7", b"8"), "E", "S"),
            _step(0, _parse(name, b"select 1"), "S"),
            _step(1, _bind(name), "E", "S"),
            _step(1, frame(b"C", b"S" + name + b"\0"), "S"),
            _step(1, _bind(name), "E", "S"),
            _step(0, _bind(name, b"8"), "E", "S"),
        )
    )


@pytest.mark.parametrize("size", [20_000, 100_000, 300_000, 2 << 20])
@pytest.mark.parametrize("name", ["", "a"])
def test_large_texts(comparison: Comparison, name: str, size: int) -> None:
    """A text may be longer than any buffer."""
    _check(
        comparison,
        f"""
        0: P{name}: select $1::int #{size} | S
        0: B{name}=1 | E | S
        1: Q begin
        0: B{name}=2 | E | DS{name} | S
        0: P{name}: select 1 #{size} | S
        0: CS{name} | P{name}: select 2 #{size} | B{name} | E | S
        1: P{name}: selec #{size} | B{name} | S
        0: B{name} | E | S
        """,
    )


@pytest.mark.parametrize("script", cases.MANY.values(), ids=cases.MANY)
def test_more_statements_than_a_server_keeps(narrow: Comparison, script: str) -> None:
    """`max_prepared_statements` bounds what is on a server, not what a client may have."""
    _check(narrow, script)


def test_very_many_statements(comparison: Comparison) -> None:
    """A client has 20,000 statements, and uses some of them on another server."""
    batch, count = 1000, 20_000
    steps = [
        _step(0, *(f"P{n}: select {n}" for n in range(first, first + batch)), "S")
        for first in range(0, count, batch)
    ]
    used = range(0, count, 97)
    comparison.check(
        Script.made_of(
            *steps,
            _step(0, *(message for n in used for message in (f"B{n}", "E")), "S"),
            _step(1, "Q begin"),
            _step(0, *(message for n in reversed(used) for message in (f"B{n}", "DP", "E")), "S"),
            _step(0, f"B{count}", "S"),
        )
    )


@pytest.mark.parametrize("who", ["the client itself", "another client", "somebody past the pooler"])
@pytest.mark.parametrize(
    ("change", "columns"),
    [
        ("alter table changing add column t text default 'new'", [b"1", b"new"]),
        ("alter table changing alter column n type text using n || '!'", [b"1!"]),
        ("drop table changing; create table changing as select 2 as x, 3 as y", [b"2", b"3"]),
    ],
)
def test_the_result_of_a_statement_changes(
    pg: PostgresCluster,
    narrow_pooler: Pooler,
    who: str,
    change: str,
    columns: list[bytes],
) -> None:
    """A prepared SELECT * returns what the table has now; PostgreSQL would fail ("cached plan must not change ...")."""
    execution = raw.bind(name="a") + raw.describe_portal() + raw.execute() + raw.SYNC
    with narrow_pooler.raw("changing", TRUDY) as client, narrow_pooler.raw("changing", TRUDY) as other:
        assert raw.kinds(client.ask("create table changing as select 1 as n")) == b"CZ"
        try:
            for one in (client, other):
                one.send(raw.parse("select * from changing", "a"), execution)
                assert raw.kinds(one.receive_until()) == b"12TDCZ"
            if who == "somebody past the pooler":
                pg.sql(f"set role {TRUDY.name}; {change}", dbname=_DATABASE)
            else:
                assert raw.kinds((client if who == "the client itself" else other).ask(change)).endswith(
                    b"CZ"
                )
            for one in (client, other):
                one.send(execution)
                frames = one.receive_until()
                assert raw.kinds(frames) == b"2TDCZ"
                assert frames[2].columns == columns
        finally:
            client.ask("drop table changing")
