"""`hyperpool doctor` on the way through gateways, ingresses and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import farend
from tests.support.doctor import WRONG, Doctor, hop, kinds, settings
from tests.support.farend import FarEnd
from tests.support.gateways import OTHER_TOKEN, Nginx, Websockify, find_program
from tests.support.network import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture(scope="module")
def nginx(_pg: PostgresCluster) -> Iterator[Nginx]:
    """Nginx, which checks the token, in front of websockify."""
    for program in ("nginx", "websockify"):
        if not find_program(program):
            pytest.skip(f"no {program} on this machine")
    with Websockify(_pg.port) as websockify, Nginx(websockify.port) as running:
        yield running


def test_a_gateway(doctor: Doctor, pg: PostgresCluster, nginx: Nginx) -> None:
    """The gateway's TLS, and the answer to the upgrade."""
    server = doctor.server(settings(pg, transport=nginx.steps()))

    assert (server["status"], server["via"]) == ("ok", "tcp > tls > websocket")
    assert kinds(server) == ["resolve", "tcp", "tls", "websocket", "postgresql tls", "login", "query"]
    assert hop(server, "tls")["facts"]["names"] == "localhost"
    assert hop(server, "websocket")["facts"] == {"status": "101 Switching Protocols", "token": "sent"}


def test_a_gateway_that_refuses_the_token(doctor: Doctor, pg: PostgresCluster, nginx: Nginx) -> None:
    """Found at the upgrade, with the remedy in the message."""
    server = doctor.server(settings(pg, transport=nginx.steps(token=OTHER_TOKEN)))

    assert server["failure"]["hop"] == "websocket"
    assert "refused the service token" in server["failure"]["cause"]
    assert "check token_id" in server["failure"]["cause"]
    assert hop(server, "websocket")["facts"]["status"] == "302 Found"


def test_a_gateway_that_is_not_trusted(doctor: Doctor, pg: PostgresCluster, nginx: Nginx) -> None:
    """Found at its TLS; the certificate is shown."""
    steps = nginx.steps()
    del steps[1]["tls"]["ca_file"]

    server = doctor.server(settings(pg, transport=steps, sslmode="disable"))

    assert server["failure"]["hop"] == "tls"
    assert hop(server, "tls")["facts"]["names"] == "localhost"


def test_a_server_that_is_down_behind_a_gateway(doctor: Doctor, pg: PostgresCluster) -> None:
    """The way is good up to its end, and it is the end that has to be looked at; nobody claims to know its address."""
    if not find_program("websockify"):
        pytest.skip("no websockify on this machine")
    with Websockify(free_port()) as websockify:
        config = settings(pg, transport=f"ws://127.0.0.1:{websockify.port}/db")
        server = doctor.server(config)
        table = doctor.run(config, COLUMNS="80").stdout

    assert server["name"] == f"PostgreSQL behind 127.0.0.1:{websockify.port}/db"
    assert server["failure"]["hop"] == "login"
    assert {one["status"] for one in server["hops"] if one["kind"] == "websocket"} == {"ok"}
    assert "closed the connection during login: the WebSocket gateway" in server["failure"]["cause"]
    assert "see whether PostgreSQL runs where it leads to" in server["failure"]["remedy"]
    assert "127.0.0.1:5432" not in table
    assert max(map(len, table.splitlines())) <= 80


def test_an_ingress(doctor: Doctor, pg: PostgresCluster) -> None:
    """Hyperpool's own far end; a wrong token fails at the upgrade."""
    with FarEnd(farend.ingress(pg.port)) as far:
        far.wait_for("tunnel is up")
        good = doctor.server(settings(pg, transport=farend.to_ingress(far.port)))
        bad = doctor.server(settings(pg, transport=farend.to_ingress(far.port, WRONG * 2)))

    assert (good["status"], good["name"]) == ("ok", f"PostgreSQL behind 127.0.0.1:{far.port}")
    assert bad["failure"]["hop"] == "websocket"


def test_agents(doctor: Doctor, pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Agents are connected to the pooler, so the way leads through it; it must run, and so must they."""
    section = farend.agents(wait_timeout=0.2)
    config = settings(pg, dbname="app", transport=[{"agent": {"name": "site"}}])
    config["agents"] = section

    down = doctor.server(config)
    assert down["failure"]["hop"] == "tcp"
    assert "start the pooler" in down["failure"]["remedy"]

    pooler = make_pooler(config)
    absent = doctor.server(config)
    assert absent["status"] == "failed"
    assert "agent site is not connected" in absent["failure"]["cause"]

    with FarEnd(farend.agent(pg.port, section)):
        eventually(lambda: "agent came" in pooler.log_text(), what="the agent comes")
        (database,) = doctor.json(config)["databases"]
    assert "through it, as a client" in database["note"]
    (served,) = database["servers"]
    assert (served["status"], served["name"]) == ("ok", "PostgreSQL behind agent site")
    assert served["via"] == f"pooler 127.0.0.1:{pooler.port} > agent"
