"""What has been published against poolers: the inputs, and what becomes of them here.

The numbers are those of pgbouncer's, found in its release notes; CVE-2021-23214 is PostgreSQL's own of the same kind.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support.certificates import issue
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, SUPERUSER, Role

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

STARTUP = raw.startup_packet({"user": "ann", "database": "app"})
SSL_REQUEST = struct.pack("!II", 8, 80877103)


def is_alive(pooler: Pooler, database: str = "session") -> bool:
    """Whether the next client is served."""
    with pooler.raw(database) as client:
        return client.value("SELECT 'alive'") == "alive"


@pytest.mark.parametrize(
    "first",
    [
        raw.frame(b"p", b"secret\0"),
        raw.frame(b"p"),
        b"p" + struct.pack("!I", 2**31 - 1),
        raw.query("SELECT 1"),
    ],
    ids=["password", "empty password", "endless password", "query"],
)
def test_cve_2015_4054(pooler: Pooler, first: bytes) -> None:
    """A password before the startup message: crashed pgbouncer before 1.5.5."""
    with pooler.open_raw() as client:
        client.send(first)
        assert all(frame.kind == b"E" for frame in client.receive_all())
    assert is_alive(pooler)


@pytest.mark.parametrize("length", [63, 64, 127, 128, 4000])
def test_cve_2012_4575(make_pooler: PoolerFactory, pg: PostgresCluster, length: int) -> None:
    """A long name of a database, with an entry for every name: crashed pgbouncer before 1.5.3."""
    config = config_for(pg)
    config["databases"] = {"*": {"host": pg.host, "port": pg.port}, "app": {"host": pg.host, "port": pg.port}}
    pooler = make_pooler(config)
    fields = pooler.refused("x" * length).fields
    assert fields["C"] == "3D000"
    assert is_alive(pooler, "app")


@pytest.mark.parametrize("user", ["nobody_at_all", "", "asker\0", "a" * 5000])
@pytest.mark.parametrize("password", ["", "asker's secret", "wrong"])
def test_cve_2015_6817(make_pooler: PoolerFactory, pg: PostgresCluster, user: str, password: str) -> None:
    """An unknown user, where `auth_user` is set: was let in as that one by pgbouncer 1.6.0."""
    config = config_for(pg, auth_user=SUPERUSER, auth_dbname="directory", auth_type="md5")
    config["databases"]["directory"] = {"host": str(pg.socket_dir), "port": pg.port, "dbname": "postgres"}
    config["users"] = {SUPERUSER: {"password": "asker's secret"}}
    pooler = make_pooler(config)
    with pooler.open_raw() as client:
        frames = client.login("app", user, password)
        assert frames[-1].kind == b"E"
        assert frames[-1].fields["C"] in {"28P01", "28000", "08P01"}
        assert not any(frame.kind in b"ZK" for frame in frames)


@pytest.mark.parametrize("behind", [b"\0", STARTUP, raw.query("SELECT 1")])
def test_cve_2021_3935(
    make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path, behind: bytes
) -> None:
    """Plain bytes behind the request for TLS, put there by somebody in the middle: were taken for the client's."""
    files = issue(tmp_path / "pooler", "localhost")
    pooler = make_pooler(
        config_for(
            pg,
            client_tls_sslmode="verify-full",
            client_tls_ca_file=str(files.ca),
            client_tls_cert_file=str(files.cert),
            client_tls_key_file=str(files.key),
            auth_type="cert",
        )
    )
    with pooler.open_raw() as client:
        client.send(SSL_REQUEST + behind)
        (frame,) = client.receive_all()
        assert frame.fields["M"] == "received unencrypted data after SSL request"


EVIL = """\
CREATE SCHEMA evil;
CREATE TABLE evil.seen (x int);
CREATE VIEW evil.pg_authid AS SELECT name 'ann' AS rolname, 'known to all'::text AS rolpassword,
    true AS rolcanlogin, null::timestamptz AS rolvaliduntil;
CREATE FUNCTION evil.lower(name) RETURNS text LANGUAGE sql AS 'INSERT INTO evil.seen VALUES (1); SELECT $1::text';
"""


@pytest.mark.parametrize(
    "parameters",
    [
        {"search_path": "evil, pg_catalog"},
        {"options": "-c search_path=evil,pg_catalog"},
        {"options": "--search_path=evil,pg_catalog -c role=ann"},
        {"search_path": "evil'; SELECT evil.lower('x'); --"},
    ],
    ids=["by name", "in options", "in long options", "with SQL in it"],
)
@pytest.mark.parametrize("tracked", ["IntervalStyle", "IntervalStyle, search_path"])
def test_cve_2025_12819(
    make_pooler: PoolerFactory, pg: PostgresCluster, parameters: dict[str, str], tracked: str
) -> None:
    """A search path in the startup message: pgbouncer before 1.25.1 set it on the connection of `auth_query`."""
    pg.sql(EVIL, dbname="app")
    try:
        unqualified = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND lower(rolname) <> ''"
        config = config_for(pg, auth_user=SUPERUSER, auth_query=unqualified, track_extra_parameters=tracked)
        config["databases"]["app"] = {"host": str(pg.socket_dir), "port": pg.port}
        config["users"] = {}
        pooler = make_pooler(config)
        fields = pooler.refused("app", Role("ann", "known to all", ""), **parameters).fields
        assert fields["C"] in {"28P01", "22023"}
        assert pg.sql("SELECT count(*) FROM evil.seen", dbname="app") == [(0,)]
        assert all(
            "search_path" not in line for line in pooler.log_text().splitlines() if "auth_query" in line
        )
        with pooler.raw("app", ANN) as client:
            assert client.value("SELECT current_user") == "ann"
    finally:
        pg.sql("DROP SCHEMA evil CASCADE", dbname="app")


def test_cve_2025_2291(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A password that is not valid any more, with the default `auth_query`: was good for pgbouncer before 1.24.1."""
    config = config_for(pg, auth_user=SUPERUSER, auth_dbname="directory")
    config["databases"]["directory"] = {"host": str(pg.socket_dir), "port": pg.port, "dbname": "postgres"}
    config["databases"]["app"] |= {"user": ANN.name, "password": ANN.password}
    config["users"] = {}
    pooler = make_pooler(config)
    with pooler.raw("app", BOB):
        pass
    pg.sql("ALTER ROLE bob VALID UNTIL '2001-01-01'")
    try:
        assert pooler.refused("app", BOB).fields["C"] == "28P01"
    finally:
        pg.sql("ALTER ROLE bob VALID UNTIL 'infinity'")
    with pooler.raw("app", BOB):
        pass
