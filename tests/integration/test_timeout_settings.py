"""Where time limits are set, how long clients may wait for a server, and what they are told meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support import timelimits as tl
from tests.support.postgres import ANN, BOB, TRUDY
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster, Role

pytestmark = pytest.mark.hyperpool_only

SITUATIONS: Final[dict[str, Callable[[tl.Client], None]]] = {
    "query_timeout": tl.query,
    "transaction_timeout": tl.transaction,
    "idle_transaction_timeout": tl.idle_transaction,
    "client_idle_timeout": tl.idle,
}
"""A situation for each limit but query_wait_timeout, whose situation takes two clients."""


LIMITS: Final[dict[str, float]] = {
    "query_timeout": 0.6,
    "transaction_timeout": 1.2,
    "idle_transaction_timeout": 0.8,
    "client_idle_timeout": 1.0,
    "query_wait_timeout": 0.4,
}
"""Seconds that let each of them be the first one in its situation."""


def _run(pooler: Pooler, limit: str, role: Role, seconds: float) -> tl.Outcome:
    """Exceed a limit in the database of its name."""
    run = partial(tl.run_waiting, pooler, limit, role)
    if limit in SITUATIONS:
        run = partial(tl.run, pooler, limit, SITUATIONS[limit], role)
    return tl.in_time(run, seconds)


def test_limits_of_the_pooler(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Limits of `pooler` hold for each database and user without their own; of several, the first one counts."""
    pooler = make_pooler(tl.config(pg, "app", {limit: {} for limit in LIMITS}, None, **LIMITS))
    with ThreadPoolExecutor(len(LIMITS)) as threads:
        ends = {
            limit: threads.submit(_run, pooler, limit, TRUDY, seconds) for limit, seconds in LIMITS.items()
        }
        for limit, end in ends.items():
            tl.check(end.result(timeout=30), limit, LIMITS[limit])


def test_limits_of_databases_and_users(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A database's limit goes before the pooler's, and a user's before the database's; 0 is no limit."""
    users: dict[str, dict[str, object]] = {
        TRUDY.name: {limit: f"{seconds * 1000:.0f}ms" for limit, seconds in LIMITS.items()},
        BOB.name: dict.fromkeys(LIMITS, 0),
    }
    pooler = make_pooler(tl.config(pg, "app", {limit: {limit: 0.5} for limit in LIMITS}, users))
    with ThreadPoolExecutor(3 * len(LIMITS)) as threads:
        own = {
            limit: threads.submit(_run, pooler, limit, TRUDY, seconds) for limit, seconds in LIMITS.items()
        }
        database = {limit: threads.submit(_run, pooler, limit, ANN, 0.5) for limit in LIMITS}
        none = {limit: threads.submit(_has_no_limit, pooler, limit) for limit in LIMITS}
        for limit, seconds in LIMITS.items():
            tl.check(own[limit].result(timeout=30), limit, seconds)
            tl.check(database[limit].result(timeout=30), limit, 0.5)
            assert none[limit].result(timeout=30)


def _has_no_limit(pooler: Pooler, limit: str) -> bool:
    """Go further than the limit of the others. Returns whether the client can go on."""
    if limit == "query_wait_timeout":
        with pooler.raw(limit, BOB) as holder, pooler.raw(limit, BOB) as client:
            holder.ask("BEGIN")
            client.send(raw.query("SELECT 1"))
            holder.ask("SELECT pg_sleep(1.2)")
            holder.ask("COMMIT")
            return client.receive_until()[-1].body == b"I"
    situation = {
        "query_timeout": tl.long_query,
        "transaction_timeout": tl.busy_in_a_transaction,
        "idle_transaction_timeout": tl.long_transaction,
        "client_idle_timeout": tl.long_rest,
    }[limit]
    with pooler.raw(limit, BOB) as client:
        situation(tl.Client(client))
        return client.ask("SELECT 1")[-1].body == b"I"


def test_limits_change_with_a_reload(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A limit that comes with a reload counts for clients that are there already."""
    pooler = make_pooler(tl.config(pg, "app", {"app": {}}))
    with pooler.raw("app", TRUDY) as client:
        client.ask("BEGIN")
        elapsed = Stopwatch()
        pooler.reload(
            {
                **pooler.config,
                "databases": {"app": {**pooler.config["databases"]["app"], "idle_transaction_timeout": 0.3}},
            }
        )
        (error,) = client.receive_all()
        assert error.fields["C"] == "25P03"
        assert 0.3 <= elapsed.seconds < 5


# -- waiting for a server ----------------------------------------------------------------------------------------------


def test_a_client_is_told_that_it_waits(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """After `query_wait_notify` a client gets a notice, once for each wait; then its query is served."""
    pooler = make_pooler(tl.config(pg, "app", {"app": {}}, query_wait_notify=0.3))
    with pooler.raw("app", TRUDY) as holder, pooler.raw("app", TRUDY) as client:
        for _ in range(2):
            holder.ask("BEGIN")
            elapsed = Stopwatch()
            client.send(raw.query("SELECT 'served'"))
            notice = client.receive()
            seconds = elapsed.seconds
            assert (notice.kind, notice.fields["S"], notice.fields["C"]) == (b"N", "NOTICE", "01000")
            assert "no server connection is free" in notice.fields["M"]
            assert 0.28 <= seconds < 3
            client.sock.settimeout(0.4)
            with pytest.raises(TimeoutError):
                client.receive()
            client.sock.settimeout(10)
            holder.ask("COMMIT")
            assert raw.kinds(client.receive_until()) == b"TDCZ"


def test_a_client_that_waits_shortly_is_not_told(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """No notice comes before its time, nor with `query_wait_notify` 0, nor to a client that logs in."""
    pooler = make_pooler(tl.config(pg, "app", {"app": {}}, query_wait_notify=0.3, query_wait_timeout=0.7))
    with pooler.raw("app", TRUDY) as holder, pooler.raw("app", TRUDY) as client, pooler.open_raw() as login:
        for _ in range(4):
            holder.ask("BEGIN")
            client.send(raw.query("SELECT 'served'"))
            holder.ask("SELECT pg_sleep(0.1)")
            holder.ask("COMMIT")
            assert raw.kinds(client.receive_until()) == b"TDCZ"
        holder.ask("BEGIN")
        login.send(raw.startup_packet({"user": TRUDY.name, "database": "app", "work_mem": "7MB"}))
        frames = login.receive_all()
        assert [got.kind for got in frames if got.kind in b"NE"] == [b"E"]
        assert frames[-1].fields["C"] == "08P01"
        holder.ask("COMMIT")
    silent = make_pooler(tl.config(pg, "app", {"app": {}}, query_wait_notify=0))
    with silent.raw("app", TRUDY) as holder, silent.raw("app", TRUDY) as client:
        holder.ask("BEGIN")
        client.send(raw.query("SELECT 'served'"))
        client.sock.settimeout(0.4)
        with pytest.raises(TimeoutError):
            client.receive()


def test_who_waits_too_long_leaves_the_queue(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Whoever is turned away is out of the queue; those behind him are served in their order."""
    pooler = make_pooler(tl.config(pg, "app", {"app": {}}, query_wait_timeout=3))
    with (
        pooler.raw("app", TRUDY) as holder,
        pooler.raw("app", TRUDY) as early,
        pooler.raw("app", TRUDY) as late,
    ):
        holder.ask("BEGIN")
        early.send(raw.query("SELECT 'not to be seen'"))
        holder.ask("SELECT pg_sleep(1.5)")
        late.send(raw.query("SELECT 'served'"))
        *_, error = early.receive_all()
        assert (error.fields["C"], error.fields["M"]) == ("08P01", "query_wait_timeout")
        holder.ask("COMMIT")
        assert raw.kinds(late.receive_until()) == b"TDCZ"
        assert (
            late.value(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%not to be seen%' AND pid <> pg_backend_pid()"
            )
            == "0"
        )


def test_limits_do_not_add_up(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Time in the queue counts neither as a query nor as a transaction."""
    limits = {
        "query_timeout": 1.5,
        "transaction_timeout": 1.5,
        "idle_transaction_timeout": 1.5,
        "client_idle_timeout": 1.5,
    }
    pooler = make_pooler(tl.config(pg, "app", {"app": limits}, {BOB.name: dict.fromkeys(limits, 0)}))
    config = {**pooler.config["databases"]["app"], "user": TRUDY.name}
    pooler.reload({**pooler.config, "databases": {"app": config}})
    eventually(lambda: " reloaded " in pooler.log_text(), what="the settings are read")
    with pooler.raw("app", TRUDY) as one, pooler.raw("app", TRUDY) as two, pooler.raw("app", TRUDY) as three:
        for client in (one, two, three):
            client.send(raw.query("SELECT pg_sleep(0.9)"))
        for client in (one, two, three):
            assert raw.kinds(client.receive_until()) == b"TDCZ"
