"""How old an answer of the result cache may be, when many clients read and write at once, or somebody writes elsewhere.

Each row has a version that only grows. What an answer says of a row tells when it was true.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from random import Random
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import rawclient as raw
from tests.support.cached import DATABASE, Stage, config_for, rows, tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.cached import Client
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_ROWS: Final = 3
_MAX_AGE: Final = 0.3
_STALE: Final = 0.2

_CREATE: Final = f"""
DROP TABLE IF EXISTS cached.clock;
CREATE TABLE cached.clock (id int PRIMARY KEY, version int NOT NULL);
INSERT INTO cached.clock SELECT i, 0 FROM generate_series(1, {_ROWS}) i;
GRANT ALL ON cached.clock TO PUBLIC;
"""
_READ: Final = "SELECT id, version FROM cached.clock WHERE id = "
_WRITE: Final = "UPDATE cached.clock SET version = version + 1 WHERE id = {} RETURNING id, version"


@pytest.fixture
def server(pg: PostgresCluster) -> Iterator[PostgresCluster]:
    """A table with versions, and those of `Stage`."""
    with tables(pg):
        pg.sql(_CREATE, dbname=DATABASE)
        yield pg


def _read(random: Random, client: Client, key: int) -> tuple[int, int]:
    """Read a row, in one of the ways that drivers have."""
    how = random.randrange(3)
    if how == 0:
        frames = client.frames(raw.query(f"{_READ}{key}"))
    elif how == 1:
        frames = client.frames(raw.extended(f"{_READ}$1", b"%d" % key), raw.SYNC)
    else:
        frames = client.frames(
            raw.parse(f"{_READ}{key}"), raw.bind(), raw.describe_portal(), raw.execute(), raw.SYNC
        )
    return _row(frames)


def _write(random: Random, client: Client, key: int) -> tuple[int, int]:
    """Write a row, in one of the ways that there are."""
    how = random.randrange(4)
    sql = _WRITE.format(key)
    if how == 0:
        return _row(client.frames(raw.query(sql)))
    if how == 1:
        return _row(client.frames(raw.extended(sql), raw.SYNC))
    if how == 2:
        return _row(client.frames(raw.query(f"BEGIN; {sql}; COMMIT")))
    client.frames(raw.query("BEGIN"))
    row = _row(client.frames(raw.query(sql)))
    client.frames(raw.query("COMMIT"))
    return row


def _row(frames: list[raw.Frame]) -> tuple[int, int]:
    ((key, version),) = rows(frames)
    assert key is not None
    assert version is not None
    return int(key), int(version)


def test_what_has_been_committed_is_seen_by_all(server: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """With many clients at once: who asks after a commit was acknowledged, to whomever, is told of it."""
    acknowledged: Counter[int] = Counter()
    wrong: list[tuple[Any, ...]] = []
    lock = threading.Lock()

    def work(number: int, client: Client) -> None:
        random = Random(number)
        for _ in range(250):
            key = random.randint(1, _ROWS)
            if random.random() < 0.15:
                found, version = _write(random, client, key)
                with lock:
                    acknowledged[key] = max(acknowledged[key], version)
            else:
                before = acknowledged[key]
                found, version = _read(random, client, key)
                if version < before:
                    wrong.append((number, key, version, before))
            assert found == key

    with Stage(make_pooler(config_for(server)), server) as stage:
        _all_at_once(work, [stage.client() for _ in range(8)])
    assert not wrong
    assert sum(acknowledged.values()) > 100


def _all_at_once(work: Any, clients: list[Client]) -> None:
    failed: list[BaseException] = []

    def guarded(number: int, client: Client) -> None:
        try:
            work(number, client)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=arguments) for arguments in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def test_no_answer_is_older_than_promised(server: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """What is written elsewhere is seen in time; what the pooler has seen being written, at once."""
    random = Random(1)
    replaced: dict[int, dict[int, float]] = defaultdict(dict)
    newest: Counter[int] = Counter()
    known: Counter[int] = Counter()
    seen: Counter[str] = Counter()
    config = config_for(server, {"max_age": f"{_MAX_AGE}s", "stale_while_revalidate": f"{_STALE}s"})
    with Stage(make_pooler(config), server) as stage, server.admin(DATABASE) as elsewhere:
        clients = [stage.client() for _ in range(4)]
        until = time.monotonic() + 4
        while time.monotonic() < until:
            key = random.randint(1, _ROWS)
            chance = random.random()
            if chance < 0.02:
                (row,) = elsewhere.execute(_WRITE.format(key))
                replaced[key][row[1] - 1] = time.monotonic()
                newest[key] = row[1]
            elif chance < 0.025:
                _, version = _write(random, random.choice(clients), key)
                replaced[key][version - 1] = time.monotonic()
                newest[key] = known[key] = version
            else:
                began = time.monotonic()
                found, version = _read(random, random.choice(clients), key)
                assert found == key
                assert version >= known[key]
                if version < newest[key]:
                    seen["old"] += 1
                    assert began - replaced[key][version] <= _MAX_AGE + _STALE
                else:
                    seen["new"] += 1
    assert seen["old"] > 10, "the cache has not answered much"
    assert seen["new"] > 10
