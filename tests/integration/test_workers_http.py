"""HTTP of two workers: one address, and what is shown there is of both."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_http import get
from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.team import Team, config
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_TOKEN: Final = "t" * 32


@pytest.fixture
def port() -> int:
    """Where requests come in."""
    return free_port()


@pytest.fixture
def team(make_pooler: PoolerFactory, pg: PostgresCluster, port: int) -> Iterator[Team]:
    """Both workers, ready."""
    own = config(config_for(pg))
    own["http"] = {"listen_port": port, "admin_token": _TOKEN}
    pooler = make_pooler(own)
    eventually(lambda: get(port, "/readyz")[0] == 200, what="it is ready", despite=(OSError,))
    with Team(pooler) as team:
        yield team


def _metric(port: int, name: str, **labels: str) -> float:
    status, text = get(port, "/metrics")
    assert status == 200
    samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def _do(port: int, **order: str) -> Any:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/dashboard/do", json.dumps(order), headers)
    response = connection.getresponse()
    text = json.loads(response.read())["text"]
    connection.close()
    return response.status, text


def test_metrics_of_both(team: Team, port: int) -> None:
    """Counters and gauges are sums, and go on when a worker is started anew."""
    clients = team.clients()
    for client in clients:
        for _ in range(5):
            client.value("SELECT 1")
    assert _metric(port, "hyperpool_query_seconds_count", database="app") >= 10
    assert _metric(port, "hyperpool_connections") >= 2
    before = _metric(port, "hyperpool_query_seconds_count", database="app")
    pids = team.pids()
    os.kill(pids[1], signal.SIGKILL)
    eventually(
        lambda: team.pids().get(1, pids[1]) != pids[1],
        within=30,
        what="the worker is back",
        despite=(Exception,),
    )
    assert _metric(port, "hyperpool_query_seconds_count", database="app") >= before


def test_the_dashboard_shows_both_and_acts_on_both(team: Team, port: int) -> None:
    """Whoever looks sees one pooler."""
    clients = team.clients()
    status, text = get(port, "/dashboard/overview")
    assert status == 200
    assert "app" in text
    assert _do(port, command="reload") == (200, "RELOAD")
    status, text = _do(port, command="pause", database="app")
    assert status == 200
    for client in clients:
        client.send(raw.query("SELECT 1"))

    def all_wait() -> bool:
        # The order has begun, and takes a moment to be everywhere: who was faster asks again.
        for client in clients:
            if select.select([client.sock], [], [], 0)[0]:
                client.receive_until()
                client.send(raw.query("SELECT 1"))
        return bool(sum(row["cl_waiting"] for row in team.show("POOLS")) == len(clients))

    eventually(all_wait, what="all clients wait")
    assert _do(port, command="resume", database="app") == (200, "RESUME")
    for client in clients:
        client.receive_until()
    assert _do(port, command="resume", database="app")[0] == 409


def test_health_while_clients_of_any_worker_are_left(team: Team, port: int) -> None:
    """Whoever looks whether the pooler is alive finds it so until its end."""
    clients = team.clients()
    team.pooler.process.send_signal(signal.SIGTERM)
    eventually(lambda: get(port, "/readyz")[0] == 503, what="it is not ready any more")
    clients[0].close()
    assert clients[1].value("SELECT 1") == "1"
    assert get(port, "/healthz")[0] == 200
    clients[1].close()
    assert team.pooler.wait_exit() == 0
