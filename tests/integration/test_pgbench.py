"""pgbench through the pooler: many clients over few servers, without one failed transaction."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.poolers import config_for

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

_CLIENTS = 40
_TRANSACTIONS = 25


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


def _start(make_pooler: PoolerFactory, pg: PostgresCluster, mode: str) -> Pooler:
    config = config_for(pg, pool_mode=mode, default_pool_size=8, max_client_conn=_CLIENTS + 10)
    return make_pooler(config)


@pytest.fixture
def tables(pgbench: str, pg: PostgresCluster) -> None:
    """Make the tables of pgbench in the database `app`, past the pooler, unless they are there."""
    if pg.sql("SELECT 1 FROM pg_class WHERE relname = 'pgbench_accounts'", dbname="app"):
        return
    url = f"postgresql://postgres@/app?host={pg.socket_dir}&port={pg.port}"
    _run(pgbench, url, "-i", "-q", "-s", "1")
    pg.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", dbname="app")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("mode", "protocol", "script"),
    [
        ("session", "simple", "tpcb-like"),
        ("session", "extended", "select-only"),
        ("session", "prepared", "tpcb-like"),
        ("transaction", "simple", "tpcb-like"),
        ("transaction", "extended", "tpcb-like"),
        ("transaction", "simple", "select-only"),
        ("transaction", "extended", "select-only"),
        ("statement", "simple", "select-only"),
        ("statement", "extended", "select-only"),
    ],
)
def test_every_transaction_succeeds(
    pgbench: str,
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    mode: str,
    protocol: str,
    script: str,
) -> None:
    """40 clients over 8 servers process all their transactions in each pool mode and query protocol."""
    pooler = _start(make_pooler, pg, mode)
    clients = 8 if mode == "session" else _CLIENTS  # a session client keeps its server until it leaves
    load = ["-n", "-b", script, "-M", protocol, "-c", str(clients), "-j", "2", "-t", str(_TRANSACTIONS)]
    out = _run(pgbench, pooler.url(), *load)
    assert f"{clients * _TRANSACTIONS}/{clients * _TRANSACTIONS}" in out
    assert len(pg.backends()) <= 8


@pytest.mark.usefixtures("tables")
def test_a_connection_per_transaction(
    pgbench: str,
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    mode: str,
) -> None:
    """`pgbench -C` logs in for each transaction; the pooler serves all of them and keeps its servers."""
    pooler = _start(make_pooler, pg, mode)
    load = ["-n", "-S", "-C", "-c", "8", "-j", "2", "-t", "20"]
    out = _run(pgbench, pooler.url(), *load)
    assert re.search(r"actually processed: 160/160", out)
    assert len(pg.backends()) <= 8


@pytest.mark.usefixtures("tables")
def test_balances_add_up(pgbench: str, make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """After TPC-B in transaction mode the sums of all tables agree: no transaction was torn or doubled."""
    pg.sql("TRUNCATE pgbench_history", dbname="app")
    pg.sql("UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0", dbname="app")
    pg.sql("UPDATE pgbench_tellers SET tbalance = 0", dbname="app")
    pg.sql("UPDATE pgbench_branches SET bbalance = 0", dbname="app")
    pooler = _start(make_pooler, pg, "transaction")
    _run(pgbench, pooler.url(), "-n", "-M", "extended", "-c", "20", "-j", "2", "-t", "20")
    ((history, accounts, tellers, branches, count),) = pg.sql(
        "SELECT (SELECT sum(delta) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts),"
        " (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches),"
        " (SELECT count(*) FROM pgbench_history)",
        dbname="app",
    )
    assert history == accounts == tellers == branches
    assert count == 400
