"""HTTP of a running pooler."""

from __future__ import annotations

import http.client
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


def get(port: int, path: str, token: str = "") -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _pooler(make_pooler: PoolerFactory, pg: PostgresCluster, **section: Any) -> tuple[Pooler, int]:
    config: Any = config_for(pg)
    port = free_port()
    config["http"] = {"listen_port": port, **section}
    pooler = make_pooler(config)
    eventually(lambda: get(port, "/readyz")[0] == 200, what="it is ready", despite=(OSError,))
    return pooler, port


def test_health_of_a_pooler_that_drains(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It is alive, and not ready, until its last client has left."""
    pooler, port = _pooler(make_pooler, pg)
    assert get(port, "/healthz") == (200, "ok\n")
    with pooler.raw():
        pooler.process.send_signal(signal.SIGTERM)
        eventually(lambda: get(port, "/readyz")[0] == 503, what="it is not ready any more")
        assert get(port, "/healthz")[0] == 200
    assert pooler.wait_exit() == 0


def test_tokens_come_from_files(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """They are asked for beyond this machine, and everybody may look whether the pooler is well."""
    file = tmp_path / "token"
    file.write_text("t" * 32 + "\n")
    pooler, port = _pooler(make_pooler, pg, listen_addr="*", token_file=str(file))
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/metrics")[0] == 401
    assert get(port, "/metrics", "t" * 32)[0] == 200
    assert file.read_text().strip() not in pooler.log_text()


def test_what_a_reload_changes(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Not where it listens: that is said."""
    pooler, port = _pooler(make_pooler, pg)
    config = pooler.config
    pooler.reload({**config, "http": {"listen_port": port + 1}})
    eventually(lambda: "setting=http.listen_port" in pooler.log_text(), what="it is said")
    assert get(port, "/healthz")[0] == 200


def test_metrics_of_real_queries(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """They are counted where they pass."""
    pooler, port = _pooler(make_pooler, pg)
    with pooler.connect() as connection:
        for _ in range(3):
            connection.execute("SELECT 1")
    samples = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in get(port, "/metrics")[1].splitlines()
        if not line.startswith("#")
    }
    assert samples['hyperpool_query_seconds_count{database="app",user="ann"}'] >= 3
    assert samples['hyperpool_query_seconds_sum{database="app",user="ann"}'] > 0
    assert samples['hyperpool_login_seconds_count{database="app"}'] == 1
    for hop in ("tcp", "login"):
        assert samples[f'hyperpool_server_connect_seconds_count{{database="app",hop="{hop}"}}'] >= 1
