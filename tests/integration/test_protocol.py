"""Exact byte sequences of the simple and the extended protocol, and what exactly comes back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.poolers import Pooler
    from tests.support.rawclient import Frame, RawClient


@pytest.fixture
def client(pooler: Pooler, mode: str) -> Iterator[RawClient]:
    """A logged-in client on the database of each pool mode."""
    with pooler.raw(mode) as client:
        yield client


def _first_columns(frames: list[Frame]) -> list[bytes | None]:
    return [got.columns[0] for got in frames if got.kind == b"D"]


def test_a_simple_query(client: RawClient) -> None:
    """A Query is answered by RowDescription, DataRow, CommandComplete and ReadyForQuery (idle)."""
    frames = client.ask("SELECT 'x'")
    assert raw.kinds(frames) == b"TDCZ"
    assert frames[-1].body == b"I"


def test_queries_sent_ahead(client: RawClient) -> None:
    """Simple queries sent in one write, without waiting, are answered one by one in order."""
    client.send(*(raw.query(f"SELECT {n}") for n in range(200)))
    for n in range(200):
        frames = client.receive_until()
        assert (raw.kinds(frames), _first_columns(frames)) == (b"TDCZ", [str(n).encode()])


def test_an_empty_query(client: RawClient) -> None:
    """An empty Query is answered by EmptyQueryResponse and ReadyForQuery."""
    assert raw.kinds(client.ask("")) == b"IZ"


def test_extended_query_with_describe(client: RawClient) -> None:
    """Parse, Bind, Describe, Execute and Sync are each answered, in order."""
    client.send(raw.parse("SELECT $1::int"), raw.bind(b"7"), raw.describe_portal(), raw.execute(), raw.SYNC)
    frames = client.receive_until()
    assert raw.kinds(frames) == b"12TDCZ"
    assert _first_columns(frames) == [b"7"]


def test_flush_brings_answers_before_sync(client: RawClient) -> None:
    """Flush makes the server answer what came so far; the pooler passes it on without waiting for the Sync."""
    client.send(raw.extended("SELECT 'early'"), raw.FLUSH)
    assert _first_columns(client.receive_until(b"C")) == [b"early"]
    client.send(raw.extended("SELECT 'late'"), raw.SYNC)
    assert _first_columns(client.receive_until()) == [b"late"]


def test_an_error_skips_to_sync(client: RawClient) -> None:
    """After an error the server ignores everything up to the Sync; the next group works."""
    client.send(
        raw.extended("SELECT 1"),
        raw.extended("SELECT 1 / 0"),
        raw.extended("SELECT 'skipped'"),
        raw.SYNC,
        raw.extended("SELECT 'next'"),
        raw.SYNC,
    )
    first = client.receive_until()
    assert raw.kinds(first) in {
        b"12DC12EZ",
        b"12DC1EZ",
    }  # the division is folded at planning, that is at Bind
    assert next(got for got in first if got.kind == b"E").fields["C"] == "22012"
    second = client.receive_until()
    assert (raw.kinds(second), _first_columns(second)) == (b"12DCZ", [b"next"])


def test_every_other_group_fails(client: RawClient) -> None:
    """In a deep pipeline with many failing groups each group gets its own answer, none shifts."""
    groups = [f"SELECT {n}" if n % 2 else f"SELECT {n} FROM nowhere" for n in range(300)]
    client.send(*(raw.extended(sql) + raw.SYNC for sql in groups))
    for n in range(300):
        frames = client.receive_until()
        if n % 2:
            assert (raw.kinds(frames), _first_columns(frames)) == (b"12DCZ", [str(n).encode()])
        else:
            assert raw.kinds(frames) == b"EZ"


def test_simple_and_extended_mixed(client: RawClient) -> None:
    """Both protocols alternate within one write."""
    client.send(raw.query("SELECT 1"), raw.extended("SELECT 2"), raw.SYNC, raw.query("SELECT 3; SELECT 4"))
    answers = [_first_columns(client.receive_until()) for _ in range(3)]
    assert answers == [[b"1"], [b"2"], [b"3", b"4"]]


def test_sync_alone(client: RawClient) -> None:
    """Each Sync is answered by exactly one ReadyForQuery."""
    client.send(raw.SYNC * 5)
    assert raw.kinds([client.receive() for _ in range(5)]) == b"Z" * 5
    assert client.value("SELECT 'ok'") == "ok"


def test_portal_in_portions(client: RawClient) -> None:
    """A portal executed with a row limit is suspended and goes on until it is complete."""
    client.send(
        raw.parse("SELECT generate_series(1, 5)"), raw.bind(), raw.execute(rows=2), raw.execute(rows=2)
    )
    client.send(raw.execute(rows=2), raw.SYNC)
    frames = client.receive_until()
    assert raw.kinds(frames) == b"12DDsDDsDCZ"
    assert _first_columns(frames) == [b"1", b"2", b"3", b"4", b"5"]


def test_close_and_describe_of_what_does_not_exist(client: RawClient) -> None:
    """Close of an unknown portal succeeds and Describe of one is the server's error, as without a pooler."""
    client.send(raw.frame(b"C", b"Pnone\0"), raw.describe_portal("none"), raw.SYNC)
    frames = client.receive_until()
    assert raw.kinds(frames) == b"3EZ"
    assert frames[1].fields["C"] == "34000"


def test_function_call(client: RawClient) -> None:
    """The obsolete FunctionCall message still works (drivers use it for large objects)."""
    oid = int(client.value("SELECT 'pg_catalog.int4pl'::regproc::oid"))
    call = struct.pack("!ihhh", oid, 1, 1, 2) + struct.pack("!iiii", 4, 40, 4, 2) + struct.pack("!h", 1)
    client.send(raw.frame(b"F", call))
    frames = client.receive_until()
    assert raw.kinds(frames) == b"VZ"
    assert frames[0].body == struct.pack("!ii", 4, 42)


def test_copy_in(pooler: Pooler, mode: str) -> None:
    """COPY FROM STDIN by the simple protocol: CopyInResponse, then data, CopyDone, CommandComplete."""
    table = f"protocol_copy_{mode}"
    with pooler.raw(mode) as client:
        client.ask(f"CREATE TABLE {table} (n int)")
        client.send(raw.query(f"COPY {table} FROM STDIN"))
        assert client.receive().kind == b"G"
        client.send(*(raw.copy_data(b"%d\n" % n) for n in range(1000)), raw.COPY_DONE)
        frames = client.receive_until()
        assert (raw.kinds(frames), frames[0].body) == (b"CZ", b"COPY 1000\0")
        client.ask(f"DROP TABLE {table}")


@pytest.mark.hyperpool_only  # pgbouncer 1.18 loses count
def test_copy_in_sent_ahead(pooler: Pooler, mode: str) -> None:
    """Query, CopyData, CopyDone and a further Query in one write, without waiting for CopyInResponse."""
    table = f"protocol_ahead_{mode}"
    with pooler.raw(mode) as client:
        client.ask(f"CREATE TABLE {table} (n int)")
        client.send(
            raw.query(f"COPY {table} FROM STDIN"),
            raw.copy_data(b"1\n"),
            raw.COPY_DONE,
            raw.query(f"SELECT count(*) FROM {table}"),
        )
        assert raw.kinds(client.receive_until()) == b"GCZ"
        assert _first_columns(client.receive_until()) == [b"1"]
        client.ask(f"DROP TABLE {table}")


def test_copy_data_after_the_server_gave_up(pooler: Pooler, mode: str) -> None:
    """CopyData and CopyDone that cross the server's error are ignored by it; the next query is answered."""
    table = f"protocol_late_{mode}"
    with pooler.raw(mode) as client:
        client.ask(f"CREATE TABLE {table} (n int)")
        client.send(raw.query(f"COPY {table} FROM STDIN"), raw.copy_data(b"wrong\n"))
        assert raw.kinds(client.receive_until()) == b"GEZ"
        client.send(*(raw.copy_data(b"%d\n" % n) for n in range(10)), raw.COPY_DONE)
        assert client.value("SELECT 'goes on'") == "goes on"
        client.ask(f"DROP TABLE {table}")
    with pooler.raw(mode) as other:
        assert other.value("SELECT 'clean'") == "clean"


def test_copy_fail(pooler: Pooler, mode: str) -> None:
    """CopyFail ends the COPY with the client's reason in the server's error."""
    table = f"protocol_fail_{mode}"
    with pooler.raw(mode) as client:
        client.ask(f"CREATE TABLE {table} (n int)")
        client.send(raw.query(f"COPY {table} FROM STDIN"), raw.copy_data(b"1\n"))
        client.receive_until(b"G")
        client.send(raw.frame(b"f", raw.cstring("changed my mind")))
        frames = client.receive_until()
        assert raw.kinds(frames) == b"EZ"
        assert "changed my mind" in frames[0].fields["M"]
        assert client.value(f"SELECT count(*) FROM {table}") == "0"
        client.ask(f"DROP TABLE {table}")


def test_extended_copy(pooler: Pooler, mode: str) -> None:
    """COPY through the extended protocol, in both directions."""
    table = f"protocol_extcopy_{mode}"
    with pooler.raw(mode) as client:
        client.ask(f"CREATE TABLE {table} (n int)")
        client.send(raw.extended(f"COPY {table} FROM STDIN"), raw.SYNC)
        client.receive_until(b"G")
        client.send(raw.copy_data(b"1\n2\n"), raw.COPY_DONE, raw.SYNC)
        assert raw.kinds(client.receive_until()) == b"CZ"
        client.send(raw.extended(f"COPY {table} TO STDOUT"), raw.SYNC)
        assert raw.kinds(client.receive_until()) == b"12HddcCZ"
        client.ask(f"DROP TABLE {table}")


def test_transaction_status_is_passed_on(pooler: Pooler, block_mode: str) -> None:
    """ReadyForQuery tells T inside a block, E in a failed one and I outside, as PostgreSQL says it."""
    with pooler.raw(block_mode) as client:
        states = [client.ask(sql)[-1].body for sql in ("BEGIN", "SELECT 1 / 0", "ROLLBACK", "SELECT 1")]
    assert states == [b"T", b"E", b"I", b"I"]


def test_byte_by_byte(pooler: Pooler, mode: str) -> None:
    """A client that sends one byte per packet is served like any other."""
    with pooler.raw(mode) as client:
        for byte in raw.extended("SELECT $1::text || '!'", b"slow") + raw.SYNC + raw.query("SELECT 'Q'"):
            client.send(bytes([byte]))
        assert _first_columns(client.receive_until()) == [b"slow!"]
        assert _first_columns(client.receive_until()) == [b"Q"]


def test_answers_do_not_mix(pooler: Pooler, mode: str) -> None:
    """Twelve clients with pipelines in flight at once over few servers each receive exactly their own answers."""
    count = 4 if mode == "session" else 12
    clients = [pooler.raw(mode) for _ in range(count)]
    try:
        for turn in range(20):
            for number, client in enumerate(clients):
                client.send(*(raw.extended(f"SELECT '{number}.{turn}.{k}'") + raw.SYNC for k in range(5)))
            for number, client in enumerate(clients):
                answers = [_first_columns(client.receive_until()) for _ in range(5)]
                assert answers == [[f"{number}.{turn}.{k}".encode()] for k in range(5)]
    finally:
        for client in clients:
            client.close()
