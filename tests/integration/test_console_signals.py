"""Signals and SHUTDOWN, as pgbouncer has them: who is waited for, who is still let in."""

from __future__ import annotations

import signal
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.poolers import config_for
from tests.support.postgres import ANN
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def start(make_pooler: PoolerFactory, pg: PostgresCluster) -> Iterator[Callable[..., Pooler]]:
    """Starts poolers with a console and a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:

        def make(**more: Any) -> Pooler:
            config = config_for(pg, admin_users="ann", unix_socket_dir=directory, **more)
            config["databases"]["app"]["pool_mode"] = "transaction"
            return make_pooler(config)

        yield make


def _local(pooler: Pooler, database: str = "pgbouncer") -> psycopg.Connection[Any]:
    """Through the Unix socket."""
    where = {"host": pooler.config["pooler"]["unix_socket_dir"]}
    return psycopg.connect(**{**pooler.conninfo(database, ANN), **where}, autocommit=True)


def _state(console: psycopg.Connection[Any]) -> str:
    return str(next(row[0] for row in console.execute("SHOW STATE") if row[1] == "yes"))


def test_usr1_pauses_and_usr2_resumes(start: Callable[..., Pooler]) -> None:
    """As PAUSE and RESUME; one too many is no harm."""
    pooler = start()
    with _local(pooler) as console, pooler.connect() as client:
        client.execute("SELECT 1")
        for number, state in ((signal.SIGUSR1, "paused"), (signal.SIGUSR2, "active")):
            pooler.process.send_signal(number)
            eventually(lambda state=state: _state(console) == state, what=f"it is {state}")  # type: ignore[misc]
            pooler.process.send_signal(number)
        eventually(lambda: pooler.log_text().count("signal ignored") == 2, what="both were ignored")
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_quit_ends_at_once(start: Callable[..., Pooler]) -> None:
    """Whatever clients are doing."""
    pooler = start()
    with pooler.connect(autocommit=False) as client:
        client.execute("SELECT 1")
        pooler.stop(signal.SIGQUIT)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


@pytest.mark.parametrize("how", ["signal", "command"])
def test_shutdown_waits_for_clients(start: Callable[..., Pooler], how: str) -> None:
    """Meanwhile, the Unix socket is open for the console alone, which nobody waits for."""
    pooler = start()
    with pooler.connect() as client, _local(pooler) as console:
        client.execute("SELECT 1")
        if how == "signal":
            pooler.process.send_signal(signal.SIGTERM)
            eventually(lambda: "waiting for clients" in pooler.log_text(), what="it waits")
        else:
            assert console.execute("SHUTDOWN WAIT_FOR_CLIENTS").statusmessage == "SHUTDOWN"
        with pytest.raises(psycopg.OperationalError, match="refused"):
            pooler.connect()
        with pytest.raises(psycopg.OperationalError, match="pooler is shutting down"):
            _local(pooler, "app")
        with _local(pooler) as second:
            assert len(second.execute("SHOW CLIENTS").fetchall()) == 3
            with pytest.raises(psycopg.Error, match="pooler is shutting down"):
                second.execute("RESUME")
        assert client.execute("SELECT 2").fetchone() == (2,)
        client.close()
        assert pooler.wait_exit() == 0


def test_shutdown_waits_for_servers(start: Callable[..., Pooler]) -> None:
    """Transactions come to their end, and nobody gets a server any more."""
    pooler = start()
    with pooler.connect(autocommit=False) as client, pooler.connect() as other, _local(pooler) as console:
        client.execute("SELECT 1")
        assert console.execute("SHUTDOWN WAIT_FOR_SERVERS").statusmessage == "SHUTDOWN"
        caught: list[Exception] = []

        def ask() -> None:
            try:
                other.execute("SELECT 1")
            except psycopg.OperationalError as error:
                caught.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert _state(console) == "paused"
        client.commit()
        assert pooler.wait_exit() == 0
        thread.join(10)
        assert len(caught) == 1


def test_shutdown_at_once_is_not_answered(start: Callable[..., Pooler]) -> None:
    """The connection ends when the pooler does."""
    pooler = start()
    with _local(pooler) as console:
        with pytest.raises(psycopg.OperationalError, match="shutting down"):
            console.execute("SHUTDOWN")
        assert pooler.wait_exit() == 0
