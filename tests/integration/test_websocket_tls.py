"""PostgreSQL's own TLS inside of a WebSocket, inside of the gateway's TLS: nobody on the way reads along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.gateways import Nginx, Websockify, find_program
from tests.support.poolers import config_for
from tests.support.postgres import find_binaries
from tests.support.tlspostgres import TlsPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[TlsPostgres, Config]]:
    """A database with TLS, and settings where it is `app` behind websockify and nginx."""
    binaries = find_binaries()
    if binaries is None or "pixeltable" in str(binaries):
        pytest.skip("there is no PostgreSQL that was built with TLS")
    if not find_program("websockify") or not find_program("nginx"):
        pytest.skip("no websockify or no nginx on this machine")
    cluster = TlsPostgres(binaries)
    try:
        cluster.create()
        cluster.switch_on(tmp_path / "server")
        with Websockify(cluster.port) as websockify, Nginx(websockify.port) as nginx:
            config = config_for(cluster)
            config["databases"]["app"] |= {
                "host": "localhost",
                "sslmode": "verify-full",
                "sslrootcert": str(nginx.files.ca),
                "channel_binding": "require",
                "transport": nginx.steps(),
            }
            yield cluster, config
    finally:
        cluster.destroy()


def test_verified_to_the_database(behind: tuple[TlsPostgres, Config], make_pooler: PoolerFactory) -> None:
    """Encrypted and bound to the database's certificate all the way; results and cancel requests come through."""
    cluster, config = behind
    pooler = make_pooler(config)
    with pooler.connect() as connection:
        encrypted = connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
        assert encrypted == (True,)
        (large,) = connection.execute("SELECT repeat('x', 5000000)").fetchone() or ("",)
        assert large == "x" * 5_000_000
        (length,) = connection.execute("SELECT length(%s)", [large]).fetchone() or (0,)
        assert length == 5_000_000
        statement = "SELECT pg_sleep(30)"
        with (
            cluster.when_asleep(statement, connection.cancel_safe),
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            connection.execute(statement)


def test_the_database_s_certificate_is_what_counts(
    behind: tuple[TlsPostgres, Config], make_pooler: PoolerFactory
) -> None:
    """A gateway that leads to another database is found out."""
    _, config = behind
    config["databases"]["app"]["host"] = "elsewhere.example.com"
    pooler = make_pooler(config)
    with pytest.raises(psycopg.OperationalError, match=r"elsewhere\.example\.com"):
        pooler.connect()
