"""SIGHUP: what a far end and a pooler take over while streams are open."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.certificates import issue
from tests.support.farend import NEW_SECRET, FarEnd, agent, agents, ingress, to_ingress
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


def _settings(pg: PostgresCluster, transport: list[dict[str, Any]], **sections: Any) -> Any:
    config = config_for(pg, pool_mode="transaction", server_login_retry=0.2, query_wait_timeout=5)
    config["databases"]["app"] = {"dbname": "app", "transport": transport}
    return {**config, **sections}


def _answers(pooler: Pooler) -> bool:
    with pooler.connect() as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def _refusal(pooler: Pooler) -> str:
    """Why a client gets no answer; empty if it does."""
    try:
        _answers(pooler)
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def test_a_bad_file_changes_nothing(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Its problems are logged; streams, tokens and targets stay as they are."""
    document = ingress(pg.port)
    with FarEnd(document) as far:
        far.wait_for("tunnel is up")
        pooler = make_pooler(_settings(pg, to_ingress(far.port)))
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            far.reload({**document, "targets": {"db": {"port": "x"}}})
            assert "reload: settings are unchanged" in far.log_text()
            assert "targets.db.port" in far.log_text()
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert _answers(pooler)


def test_a_target_is_taken_away(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Streams to what is not a target any more end, and there are no new ones."""
    document = ingress(pg.port)
    with FarEnd(document) as far:
        far.wait_for("tunnel is up")
        pooler = make_pooler(_settings(pg, to_ingress(far.port, path="/db")))
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            far.reload({**document, "targets": {"other": {"port": 1}}})
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        far.wait_for("ended_by='reload: the target was changed or taken away'")
        # A login that was under way has another reason.
        eventually(lambda: "404" in _refusal(pooler), what="there is no such target")


def test_a_target_is_taken_from_a_token(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Streams that came in with it end, though the token is good for others."""
    document = ingress(pg.port)
    document["targets"]["other"] = {"port": 1}
    (token,) = document["ingress"]["tokens"].values()
    with FarEnd(document) as far:
        far.wait_for("tunnel is up")
        pooler = make_pooler(_settings(pg, to_ingress(far.port, path="/db")))
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            token["targets"] = ["db"]
            far.reload(document)
            assert connection.execute("SELECT 1").fetchone() == (1,)
            token["targets"] = ["other"]
            far.reload(document)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        eventually(lambda: "404" in _refusal(pooler), what="there is no such target for the token")


def test_certificates(pg: PostgresCluster, make_pooler: PoolerFactory, tmp_path: Path) -> None:
    """A new certificate is shown from the reload on; a pair that does not match is refused, and the old one kept."""
    files = issue(tmp_path / "tls", "127.0.0.1")
    document = ingress(pg.port, tls_cert_file=str(files.cert), tls_key_file=str(files.key))

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", far.port), ca_certs=str(files.ca), timeout=10)

    with FarEnd(document) as far:
        far.wait_for("tunnel is up")
        step = to_ingress(far.port)[0]["websocket"]
        transport: list[dict[str, Any]] = [
            {"tcp": {"host": "127.0.0.1", "port": far.port}},
            {"tls": {"ca_file": str(files.ca)}},
            {"websocket": {name: value for name, value in step.items() if name != "url"}},
        ]
        pooler = make_pooler(_settings(pg, transport))
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            first = shown()
            issue(tmp_path / "tls", "127.0.0.1")
            far.reload(document)
            second = shown()
            assert second != first
            files.key.write_bytes(issue(tmp_path / "other", "127.0.0.1").key.read_bytes())
            far.reload(document)
            assert "ingress.tls_" in far.log_text()
            assert shown() == second
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_agent_is_sent_away(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """When the pooler does not accept an agent's token any more, its streams end; with a new one it comes back."""
    section = agents(wait_timeout=0.2)
    transport = [{"agent": {"name": "site"}}]
    pooler = make_pooler(_settings(pg, transport, agents=section))
    document = agent(pg.port, section)
    with FarEnd(document) as far:
        far.wait_for("connected to the pooler")
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            new = {**section, "tokens": {"site": {"id": "site.access", "secret": NEW_SECRET}}}
            pooler.reload(_settings(pg, transport, agents=new) | {"pooler": pooler.config["pooler"]})
            far.wait_for("refused the service token")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        assert "its token is revoked" in pooler.log_text()
        with pytest.raises(psycopg.OperationalError, match="agent site is not connected: the last one left"):
            _answers(pooler)
        far.reload(agent(pg.port, section, secret=NEW_SECRET))
        eventually(lambda: _answers(pooler), what="the agent is back", despite=(psycopg.OperationalError,))
    assert NEW_SECRET not in pooler.log_text()


@pytest.mark.parametrize("change", ["narrowed", "removed"])
def test_a_target_is_taken_from_a_pooler(
    pg: PostgresCluster, make_pooler: PoolerFactory, change: str
) -> None:
    """An agent's streams end, though the agent stays: those that the pooler may not have any more."""
    section = agents(wait_timeout=0.2)
    pooler = make_pooler(_settings(pg, [{"agent": {"name": "site", "target": "db"}}], agents=section))
    document = agent(pg.port, section)
    document["targets"]["other"] = {"port": 1}
    document["poolers"]["second"] = document["poolers"]["main"] | {"targets": ["other"]}
    with FarEnd(document) as far:
        far.wait_for("connected to the pooler")
        with pooler.connect() as connection:
            connection.execute("BEGIN")
            document["poolers"]["main"]["targets"] = ["db", "other"]
            far.reload(document)
            assert connection.execute("SELECT 1").fetchone() == (1,)
            if change == "narrowed":
                document["poolers"]["main"]["targets"] = ["other"]
            else:
                del document["poolers"]["main"]
            far.reload(document)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        far.wait_for("ended_by='reload: the target was changed or taken away'")
        eventually(lambda: "target 'db' is not in" in _refusal(pooler), what="it is refused from then on")
