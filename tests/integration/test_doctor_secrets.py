"""`hyperpool doctor` where the password of the user is not known, or only a hash of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import farend
from tests.support.doctor import Doctor, hop, kinds, settings
from tests.support.postgres import ANN, BOB, SUPERUSER, PostgresCluster

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def verifier(pg: PostgresCluster) -> str:
    """What the server stores about ann."""
    ((stored,),) = pg.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", ANN.name)
    return str(stored)


def test_a_scram_secret(doctor: Doctor, pg: PostgresCluster, verifier: str) -> None:
    """No failure, as the pooler waits for a client's login; how far the way is good, and how to see all of it."""
    config = settings(pg)
    config["users"] = {ANN.name: {"password": verifier}}

    done = doctor.run(config)
    server = doctor.server(config)

    assert done.returncode == 0
    assert verifier not in done.stdout
    assert (server["status"], server["failure"], kinds(server)[-1]) == ("warning", None, "login")
    login = hop(server, "login")
    assert (login["error"], login["remedy"], login["facts"]["method"]) == (None, None, "SCRAM-SHA-256")
    (warning,) = login["warnings"]
    assert "only a SCRAM secret of this user is known" in warning
    assert "--user" in warning


@pytest.mark.parametrize(
    ("pooler", "database"),
    [
        pytest.param({"auth_type": "trust"}, {}, id="clients show nothing"),
        pytest.param({}, {"user": ANN.name}, id="clients are others"),
    ],
)
def test_a_scram_secret_that_nobody_has_keys_for(
    doctor: Doctor, pg: PostgresCluster, verifier: str, pooler: dict[str, Any], database: dict[str, Any]
) -> None:
    """The pooler could not log in, either."""
    config = settings(pg, **database)
    config["pooler"] |= pooler
    config["users"] = {ANN.name: {"password": verifier}}

    failure = doctor.server(config)["failure"]
    assert failure["hop"] == "login"
    assert "only a hash of it is known" in failure["cause"]
    assert failure["remedy"] is None


def test_users_whom_the_server_knows(doctor: Doctor, pg: PostgresCluster) -> None:
    """With auth_query, what is good for the server comes with a client's login."""
    config = settings(pg, auth_user=SUPERUSER)
    config["users"] = {ANN.name: {"password": ANN.password}}

    server = doctor.server(config, "--user", BOB.name)
    (warning,) = hop(server, "login")["warnings"]
    assert (server["status"], server["failure"]) == ("warning", None)
    assert "no password of this user is known" in warning

    del config["databases"]["app"]["auth_user"]
    assert doctor.server(config, "--user", BOB.name)["status"] == "failed"


def test_through_the_pooler(
    doctor: Doctor, pg: PostgresCluster, verifier: str, make_pooler: PoolerFactory
) -> None:
    """There the doctor is a client, which needs a password: nothing was seen of what is behind the pooler."""
    config = settings(pg, transport=[{"agent": {"name": "site"}}])
    config["users"] = {ANN.name: {"password": verifier}}
    config["agents"] = farend.agents()
    make_pooler(config)

    failure = doctor.server(config)["failure"]
    assert failure["hop"] == "login"
    assert "--user" in failure["remedy"]
