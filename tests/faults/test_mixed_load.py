"""Many clients of all kinds at once over few servers: each reads its own answers, whatever the others do."""

from __future__ import annotations

import random
import select
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.rawclient import RawClient

_CLIENTS = 16
_STEPS = 60


def _values(frames: list[raw.Frame]) -> list[bytes | None]:
    return [got.columns[0] for got in frames if got.kind == b"D"]


def _simple(client: RawClient, token: str, dice: random.Random) -> None:
    assert client.value(f"SELECT '{token}'") == token


def _several(client: RawClient, token: str, dice: random.Random) -> None:
    client.send(raw.query(f"SELECT '{token}a'; SELECT '{token}b'"))
    assert _values(client.receive_until()) == [f"{token}a".encode(), f"{token}b".encode()]


def _pipeline(client: RawClient, token: str, dice: random.Random) -> None:
    bad = {n for n in range(12) if dice.random() < 0.3}
    for n in range(12):
        sql = "SELECT 1 / (SELECT 0)" if n in bad else f"SELECT '{token}.{n}'"
        client.send(raw.extended(sql), raw.SYNC)
    for n in range(12):
        frames = client.receive_until()
        assert (b"E" in raw.kinds(frames)) == (n in bad)
        if n not in bad:
            assert _values(frames) == [f"{token}.{n}".encode()]


def _block(client: RawClient, token: str, dice: random.Random) -> None:
    client.ask("BEGIN")
    pid = client.value("SELECT pg_backend_pid()")
    if dice.random() < 0.3:
        assert raw.kinds(client.ask("SELECT 1 / 0")) == b"EZ"
        client.ask("ROLLBACK")
        return
    assert client.value("SELECT pg_backend_pid()") == pid
    assert client.value(f"SELECT '{token}'") == token
    assert client.ask("COMMIT")[-1].body == b"I"


def _large(client: RawClient, token: str, dice: random.Random) -> None:
    size = dice.randrange(10_000, 400_000)
    assert client.value(f"SELECT repeat('{token[0]}', {size})") == token[0] * size


def _copy_out(client: RawClient, token: str, dice: random.Random) -> None:
    client.send(raw.query(f"COPY (SELECT '{token}' FROM generate_series(1, 200)) TO STDOUT"))
    data = [got.body for got in client.receive_until() if got.kind == b"d"]
    assert data == [token.encode() + b"\n"] * 200


def _copy_in(client: RawClient, token: str, dice: random.Random) -> None:
    client.send(
        raw.query("COPY mixed FROM STDIN"), *(raw.copy_data(f"{token}\n".encode()) for _ in range(30))
    )
    client.send(raw.COPY_DONE)
    assert client.receive_until()[-2].body == b"COPY 30\0"


def _flush(client: RawClient, token: str, dice: random.Random) -> None:
    client.send(raw.extended(f"SELECT '{token}'"), raw.FLUSH)
    assert _values(client.receive_until(b"C")) == [token.encode()]
    client.send(raw.SYNC)
    assert raw.kinds(client.receive_until()) == b"Z"


def _notices(client: RawClient, token: str, dice: random.Random) -> None:
    frames = client.ask(f"DO $$ BEGIN RAISE NOTICE '{token}'; END $$")
    assert [got.fields["M"] for got in frames if got.kind == b"N"] == [token]


def _cancel(client: RawClient, token: str, dice: random.Random) -> None:
    client.ask("BEGIN")
    client.send(raw.query(f"SELECT pg_sleep(10), '{token}'"))
    # A cancel that comes before the query is lost, as always with PostgreSQL; so ask again.
    while not select.select([client.sock], [], [], 0.02)[0]:
        with raw.RawClient(client.sock.getpeername()) as other:
            other.send(raw.cancel_packet(client.pid, client.secret))
            assert other.receive_all() == []
    frames = client.receive_until()
    assert [got.fields["C"] for got in frames if got.kind == b"E"] == ["57014"]
    # The last of the cancels may still hit the ROLLBACK.
    while client.ask("ROLLBACK")[-1].body != b"I":
        pass


STEPS: list[Callable[[RawClient, str, random.Random], None]] = [
    _simple,
    _several,
    _pipeline,
    _block,
    _large,
    _copy_out,
    _copy_in,
    _flush,
    _notices,
    _cancel,
]


def _vanish(pooler: Pooler, token: str, dice: random.Random) -> None:
    """Be a client that breaks off in the middle of what it does."""
    client = pooler.raw()
    whole = raw.query("BEGIN") + raw.extended(f"SELECT '{token} leaked'") + raw.SYNC
    whole += raw.query(f"INSERT INTO mixed VALUES ('{token} leaked')")
    client.send(whole[: dice.randrange(len(whole))])
    client.abort()


def _work(pooler: Pooler, number: int) -> int:
    dice = random.Random(number)
    done = 0
    client = pooler.raw(application_name=f"client {number}")
    for turn in range(_STEPS):
        dice.choice(STEPS)(client, f"{number}.{turn}", dice)
        done += 1
        if dice.random() < 0.1:
            client.close()
            _vanish(pooler, f"{number}.{turn}", dice)
            client = pooler.raw(application_name=f"client {number}")
        if dice.random() < 0.2:
            assert client.value("SHOW application_name") == f"client {number}"
    client.close()
    return done


@pytest.mark.parametrize(("mode", "servers"), [("transaction", 1), ("transaction", 3), ("session", 4)])
def test_everyone_gets_their_own(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    mode: str,
    servers: int,
) -> None:
    """16 clients with random steps, among them some that cancel and some that vanish, over few servers."""
    pg.sql(
        "DROP TABLE IF EXISTS mixed; CREATE TABLE mixed (t text); GRANT ALL ON mixed TO PUBLIC", dbname="app"
    )
    pooler = make_pooler(pool_mode=mode, default_pool_size=servers)
    with ThreadPoolExecutor(_CLIENTS) as executor:
        done = list(executor.map(lambda number: _work(pooler, number), range(_CLIENTS)))
    assert done == [_STEPS] * _CLIENTS
    assert pg.sql("SELECT count(*) FROM mixed WHERE t LIKE '%leaked'", dbname="app") == [(0,)]
    eventually(lambda: set(pg.states()) <= {"idle"}, what="every server is idle and in no transaction")
    eventually(
        lambda: len(pg.backends()) <= servers, what="the backends of servers that were closed have ended"
    )
    pg.sql("DROP TABLE mixed", dbname="app")
