"""TLS towards a real PostgreSQL: every mode, certificates, channel binding, fallbacks, cancel requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.certificates import OTHER_CA, issue
from tests.support.poolers import config_for
from tests.support.postgres import ANN, MIRA
from tests.support.tlspostgres import CERTIFIED, COVERED, OPEN, TlsPostgres

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.certificates import Files
    from tests.support.postgres import PostgresCluster, Role

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def ours(tmp_path: Path) -> Files:
    """A certificate of ours, and the authority's."""
    return issue(tmp_path / "ours", "hyperpool")


def settings(
    pg: PostgresCluster, role: Role = ANN, *, host: str = "localhost", **database: str
) -> dict[str, Any]:
    """A pooler with one database, whose servers are asked for as one role."""
    config = config_for(pg, server_connect_timeout=5)
    config["databases"] = {
        "app": {"host": host, "port": pg.port, "user": role.name, "password": role.password, **database}
    }
    return config


_TLS = "SELECT ssl, version, cipher IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def refusal(config: dict[str, Any], make_pooler: PoolerFactory) -> str:
    """What a client is told that cannot be served."""
    pooler = make_pooler(config)
    with pytest.raises(psycopg.OperationalError) as caught:
        pooler.connect()
    return str(caught.value)


@pytest.mark.parametrize(
    ("mode", "encrypted"),
    [
        ("disable", False),
        ("allow", False),
        ("prefer", True),
        ("require", True),
        ("verify-ca", True),
        ("verify-full", True),
    ],
)
def test_modes(
    tls_pg: TlsPostgres, ours: Files, make_pooler: PoolerFactory, mode: str, encrypted: bool
) -> None:
    """Each mode of libpq, with a server that has TLS and takes both."""
    pooler = make_pooler(settings(tls_pg, sslmode=mode, sslrootcert=str(ours.ca)))
    with pooler.connect() as connection:
        row = connection.execute(_TLS).fetchone()

    assert row == ((True, "TLSv1.3", True) if encrypted else (False, None, False))


@pytest.mark.parametrize("mode", ["prefer", "allow", "disable"])
def test_a_server_without_tls(pg: PostgresCluster, make_pooler: PoolerFactory, mode: str) -> None:
    """Modes that do not insist go on without."""
    pooler = make_pooler(settings(pg, host="127.0.0.1", sslmode=mode))
    with pooler.connect() as connection:
        assert connection.execute(_TLS).fetchone() == (False, None, False)


def test_a_server_without_tls_where_it_is_required(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """The error says what to do."""
    said = refusal(settings(pg, host="127.0.0.1", sslmode="require"), make_pooler)

    assert "server 127.0.0.1 has no TLS, and sslmode require wants it: turn ssl on in its settings" in said


def test_another_name(tls_pg: TlsPostgres, ours: Files, make_pooler: PoolerFactory) -> None:
    """A certificate for another name is found out by verify-full, and by it alone."""
    root = str(ours.ca)
    said = refusal(settings(tls_pg, host="127.0.0.1", sslmode="verify-full", sslrootcert=root), make_pooler)
    assert "server 127.0.0.1: the certificate is not accepted: IP address mismatch" in said
    assert "see the names in the certificate, and the host in the settings" in said

    config = settings(tls_pg, host="127.0.0.1", sslmode="verify-ca", sslrootcert=root)
    with make_pooler(config).connect() as connection:
        assert connection.execute(_TLS).fetchone() == (True, "TLSv1.3", True)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_another_authority(
    tls_pg: TlsPostgres, tmp_path: Path, make_pooler: PoolerFactory, mode: str
) -> None:
    """A certificate that does not lead to one that is trusted."""
    other = issue(tmp_path, "localhost", ca=OTHER_CA)
    said = refusal(settings(tls_pg, sslmode=mode, sslrootcert=str(other.ca)), make_pooler)

    assert "server localhost: the certificate is not accepted: " in said
    assert "let the settings name the certificate of its authority" in said


def test_the_system_does_not_trust_it(tls_pg: TlsPostgres, make_pooler: PoolerFactory) -> None:
    """sslrootcert=system means the system's certificates."""
    said = refusal(settings(tls_pg, sslmode="verify-full", sslrootcert="system"), make_pooler)

    assert "server localhost: the certificate is not accepted: " in said


def test_our_certificate(tls_pg: TlsPostgres, ours: Files, make_pooler: PoolerFactory) -> None:
    """A server that wants a certificate gets it; without one it says so."""
    config = settings(tls_pg, CERTIFIED, sslmode="require", sslcert=str(ours.cert), sslkey=str(ours.key))
    with make_pooler(config).connect() as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("certified",)

    without = settings(tls_pg, CERTIFIED, sslmode="require")
    assert "connection requires a valid client certificate" in refusal(without, make_pooler)


def test_defaults_of_the_pooler(tls_pg: TlsPostgres, ours: Files, make_pooler: PoolerFactory) -> None:
    """Pgbouncer's settings hold for every database."""
    config = settings(tls_pg, CERTIFIED)
    config["pooler"] |= {
        "server_tls_sslmode": "verify-full",
        "server_tls_ca_file": str(ours.ca),
        "server_tls_cert_file": str(ours.cert),
        "server_tls_key_file": str(ours.key),
        "server_tls_protocols": "tlsv1.2",
        "server_tls_ciphers": "ECDHE+AESGCM",
    }
    with make_pooler(config).connect() as connection:
        assert connection.execute(_TLS).fetchone() == (True, "TLSv1.2", True)


@pytest.mark.parametrize(("mode", "role", "encrypted"), [("allow", COVERED, True), ("prefer", OPEN, False)])
def test_the_other_way(
    tls_pg: TlsPostgres, make_pooler: PoolerFactory, mode: str, role: Role, encrypted: bool
) -> None:
    """What pg_hba.conf refuses with TLS is tried without, and the other way round, where the mode allows it."""
    pooler = make_pooler(settings(tls_pg, role, sslmode=mode))
    with pooler.connect() as connection:
        row = connection.execute(_TLS).fetchone()

    assert row is not None
    assert row[0] is encrypted


@pytest.mark.parametrize(("mode", "role"), [("disable", COVERED), ("require", OPEN)])
def test_no_other_way(tls_pg: TlsPostgres, make_pooler: PoolerFactory, mode: str, role: Role) -> None:
    """Where the mode does not allow it, the server's refusal stands, in its own words."""
    said = refusal(settings(tls_pg, role, sslmode=mode), make_pooler)

    assert f'pg_hba.conf rejects connection for host "127.0.0.1", user "{role.name}"' in said


def test_a_wrong_password_is_tried_once(tls_pg: TlsPostgres, make_pooler: PoolerFactory) -> None:
    """It would be as wrong without TLS."""
    mark = tls_pg.log_size()
    said = refusal(settings(tls_pg, sslmode="prefer", password="wrong"), make_pooler)

    assert 'password authentication failed for user "ann"' in said
    assert tls_pg.log_text(mark).count("password authentication failed") == 1


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_channel_binding(tls_pg: TlsPostgres, ours: Files, make_pooler: PoolerFactory, binding: str) -> None:
    """PostgreSQL and we agree about the certificate's hash."""
    config = settings(tls_pg, sslmode="require", channel_binding=binding)
    with make_pooler(config).connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_required_channel_binding_needs_scram(tls_pg: TlsPostgres, make_pooler: PoolerFactory) -> None:
    """A server that asks for an MD5 password gets none."""
    said = refusal(settings(tls_pg, MIRA, sslmode="require", channel_binding="require"), make_pooler)

    assert "channel binding is required, but the server asks for another kind of authentication" in said


def test_direct_tls_with_an_older_server(tls_pg: TlsPostgres, make_pooler: PoolerFactory) -> None:
    """Before version 17, PostgreSQL takes the handshake for a startup packet."""
    if int(tls_pg.sql("SHOW server_version_num")[0][0]) >= 170000:
        pytest.skip("this PostgreSQL knows direct TLS")
    said = refusal(settings(tls_pg, sslmode="require", sslnegotiation="direct"), make_pooler)

    assert "server localhost: the handshake failed" in said


def test_a_cancel_request(tls_pg: TlsPostgres, make_pooler: PoolerFactory) -> None:
    """It reaches a server that is connected with TLS."""
    pooler = make_pooler(settings(tls_pg, sslmode="require"))
    statement = "SELECT pg_sleep(30) /* to be canceled at a server with TLS */"
    with pooler.connect() as connection:
        with (
            tls_pg.when_asleep(statement, connection.cancel_safe),
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            connection.execute(statement)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_new_certificate_of_a_server(
    tls_pg: TlsPostgres, ours: Files, tmp_path: Path, make_pooler: PoolerFactory
) -> None:
    """The authority's file is read again when it has changed, without a reload."""
    config = settings(tls_pg, sslmode="verify-full", sslrootcert=str(ours.ca))
    config["pooler"] |= {"server_lifetime": 0, "pool_mode": "transaction", "server_login_retry": 0.1}
    pooler = make_pooler(config)
    with pooler.connect() as connection:
        connection.execute("SELECT 1")
    try:
        tls_pg.show(tmp_path / "new", "localhost", ca=OTHER_CA)
        tls_pg.sql("SELECT pg_reload_conf()")
        issue(tmp_path / "ours", "hyperpool", ca=OTHER_CA)
        with pooler.connect() as connection:
            assert connection.execute(_TLS).fetchone() == (True, "TLSv1.3", True)
    finally:
        tls_pg.show(tmp_path / "old", "localhost")
        tls_pg.sql("SELECT pg_reload_conf()")
