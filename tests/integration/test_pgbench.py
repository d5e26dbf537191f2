"""pgbench through the pooler: many clients over few servers, without one failed transaction."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.poolers import MODES, config_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

_SERVERS = 8  # of each pool


def _run(pgbench: str, url: str, *arguments: str) -> str:
    done = subprocess.run(
        [pgbench, *arguments, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "ERROR" not in done.stderr, done.stderr
    assert "FATAL" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def _pooler(make_module_pooler: PoolerFactory, _pg: PostgresCluster, pgbench: str) -> Pooler:
    """Make pgbench's tables past the pooler; return a pooler with a database per pool mode, named by it."""
    url = f"postgresql://postgres@/other?host={_pg.socket_dir}&port={_pg.port}"
    _run(pgbench, url, "-i", "-q", "-s", "1")
    _pg.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", dbname="other")
    config = config_for(_pg, default_pool_size=_SERVERS)
    config["databases"] = {
        mode: {"dbname": "other", "host": _pg.host, "port": _pg.port, "pool_mode": mode} for mode in MODES
    }
    return make_module_pooler(config)


@pytest.fixture
def pooler(_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler with databases `session`, `transaction` and `statement` of 8 servers each."""
    return watch(_pooler)


@pytest.mark.parametrize(
    ("mode", "protocol", "script"),
    [
        ("session", "simple", "tpcb-like"),
        ("session", "prepared", "select-only"),
        ("transaction", "simple", "tpcb-like"),
        ("transaction", "extended", "tpcb-like"),
        ("transaction", "extended", "select-only"),
        ("statement", "simple", "select-only"),
        ("statement", "extended", "select-only"),
    ],
)
def test_every_transaction_succeeds(
    pgbench: str,
    pooler: Pooler,
    pg: PostgresCluster,
    mode: str,
    protocol: str,
    script: str,
) -> None:
    """30 clients over 8 servers process all their transactions in each pool mode and query protocol."""
    clients = _SERVERS if mode == "session" else 30  # a session client keeps its server until it leaves
    load = ["-n", "-b", script, "-M", protocol, "-c", str(clients), "-j", "2", "-t", "20"]
    out = _run(pgbench, pooler.url(mode), *load)
    assert f"{clients * 20}/{clients * 20}" in out
    assert len(pg.backends("other")) <= _SERVERS * len(MODES)


def test_a_connection_per_transaction(pgbench: str, pooler: Pooler, pg: PostgresCluster, mode: str) -> None:
    """`pgbench -C` logs in for each transaction; the pooler serves all of them and keeps its servers."""
    out = _run(pgbench, pooler.url(mode), "-n", "-S", "-C", "-c", "8", "-j", "2", "-t", "15")
    assert "actually processed: 120/120" in out
    assert len(pg.backends("other")) <= _SERVERS * len(MODES)


def test_balances_add_up(pgbench: str, pooler: Pooler, pg: PostgresCluster) -> None:
    """After TPC-B in transaction mode the sums of all tables agree: no transaction was torn or doubled."""
    pg.sql(
        "TRUNCATE pgbench_history; UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0;"
        "UPDATE pgbench_tellers SET tbalance = 0; UPDATE pgbench_branches SET bbalance = 0",
        dbname="other",
    )
    _run(pgbench, pooler.url("transaction"), "-n", "-M", "extended", "-c", "20", "-j", "2", "-t", "15")
    ((history, accounts, tellers, branches, count),) = pg.sql(
        "SELECT (SELECT sum(delta) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts),"
        " (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches),"
        " (SELECT count(*) FROM pgbench_history)",
        dbname="other",
    )
    assert history == accounts == tellers == branches
    assert count == 300
