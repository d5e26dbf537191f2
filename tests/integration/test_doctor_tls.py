"""What `hyperpool doctor` tells of TLS, and of certificates that are not accepted."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import OTHER_CA, issue
from tests.support.doctor import Doctor, hop, kinds, settings
from tests.support.postgres import PostgresCluster
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.certificates import Files

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture(scope="module")
def tls_pg(_pg: PostgresCluster) -> Iterator[PostgresCluster]:
    """A PostgreSQL of this module's own, which has TLS as soon as `certify` has been called."""
    cluster = PostgresCluster(_pg._binaries)
    try:
        cluster.create()
        if not cluster.sql("SELECT 1 FROM pg_settings WHERE name = 'ssl_library' AND setting <> ''"):
            pytest.skip("this PostgreSQL has no TLS")
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def certify(tls_pg: PostgresCluster) -> Callable[..., Files]:
    """Gives the server a certificate, and waits until it shows it."""

    def give(*names: str, **options: Any) -> Files:
        files = issue(tls_pg._data / "tls", *(names or ("localhost", "127.0.0.1")), **options)
        for path in (files.cert.parent, files.cert, files.key):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres", "postgres")
        for name, value in (("ssl_cert_file", files.cert), ("ssl_key_file", files.key), ("ssl", "on")):
            tls_pg.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        tls_pg.stop()
        tls_pg.start()
        return files

    return give


def test_tls(doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files]) -> None:
    """What was negotiated, the certificate, and channel binding."""
    files = certify(common_name="db")
    config = settings(tls_pg, host="localhost", sslmode="verify-full", sslrootcert=str(files.ca))

    server = doctor.server(config)

    facts = hop(server, "postgresql tls")["facts"]
    assert server["status"] == "ok"
    assert (facts["version"], facts["verified"]) == ("TLSv1.3", "certificate and name")
    assert facts["cipher"].startswith("TLS_")
    assert facts["subject"].endswith("db")
    assert facts["issuer"]
    assert facts["names"] == "localhost, 127.0.0.1"
    assert dt.datetime.fromisoformat(facts["not_after"]) > dt.datetime.now(dt.UTC)
    facts = hop(server, "login")["facts"]
    assert (facts["method"], facts["channel_binding"]) == ("SCRAM-SHA-256-PLUS", "tls-server-end-point")


def test_a_certificate_that_ends_soon(
    doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files]
) -> None:
    """A warning, also where nobody verifies it; the exit code stays 0."""
    certify(expires=dt.datetime.now(dt.UTC) + dt.timedelta(days=9, hours=1))

    server = doctor.server(settings(tls_pg, sslmode="require"))

    assert server["status"] == "warning"
    found = hop(server, "postgresql tls")
    assert found["warnings"] == ["the certificate ends in 9 days: renew it"]
    assert found["facts"]["verified"] == "no"


def test_an_expired_certificate(
    doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files]
) -> None:
    """Refused, and shown: when it ended, and who it is."""
    files = certify(expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))

    server = doctor.server(settings(tls_pg, sslmode="verify-ca", sslrootcert=str(files.ca)))

    assert server["failure"]["hop"] == "postgresql tls"
    assert "has expired" in server["failure"]["cause"]
    facts = hop(server, "postgresql tls")["facts"]
    assert facts["not_after"].startswith("2020-01-01T00:00:00")
    assert "verified" not in facts
    unverified = doctor.server(settings(tls_pg, sslmode="require"))
    assert unverified["status"] == "warning"
    assert hop(unverified, "postgresql tls")["warnings"][0].startswith("the certificate has expired ")


def test_a_certificate_for_another_name(
    doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files]
) -> None:
    """Refused, and the names that it is for are shown."""
    files = certify("db.example.com")
    config = settings(tls_pg, host="localhost", sslmode="verify-full", sslrootcert=str(files.ca))

    server = doctor.server(config)
    table = doctor.run(config).stdout

    assert server["failure"]["hop"] == "postgresql tls"
    assert "not valid for 'localhost'" in server["failure"]["cause"]
    assert hop(server, "postgresql tls")["facts"]["names"] == "db.example.com"
    assert "for db.example.com: not accepted" in " ".join(table.split())


def test_a_certificate_of_an_unknown_authority(
    doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files], tmp_path: Path
) -> None:
    """Refused; who has issued it is shown."""
    certify()
    other = issue(tmp_path / "other", "localhost", ca=OTHER_CA)

    server = doctor.server(settings(tls_pg, sslmode="verify-ca", sslrootcert=str(other.ca)))

    assert server["failure"]["hop"] == "postgresql tls"
    assert hop(server, "postgresql tls")["facts"]["issuer"]


def test_what_is_overcome(doctor: Doctor, tls_pg: PostgresCluster, certify: Callable[..., Files]) -> None:
    """With sslmode prefer, a handshake that fails is no failure, but is told."""
    certify()
    config = settings(tls_pg, sslmode="prefer")
    config["pooler"]["server_tls_protocols"] = "tlsv1.2"
    tls_pg.sql("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.3'")
    tls_pg.sql("SELECT pg_reload_conf()")
    try:
        eventually(
            lambda: tls_pg.sql("SHOW ssl_min_protocol_version") == [("TLSv1.3",)], what="the server reloads"
        )
        server = doctor.server(config)
        table = doctor.run(config).stdout
    finally:
        tls_pg.sql("ALTER SYSTEM RESET ssl_min_protocol_version")
        tls_pg.sql("SELECT pg_reload_conf()")

    assert (server["status"], server["failure"]) == ("warning", None)
    assert kinds(server) == ["resolve", "tcp", "postgresql tls", "resolve", "tcp", "login", "query"]
    assert hop(server, "postgresql tls")["status"] == "warning"
    assert "then it was tried without TLS" in table
