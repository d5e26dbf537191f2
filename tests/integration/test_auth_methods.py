"""Ways to prove who one is: HBA files, certificates, Unix peers, PAM, LDAP and none at all; and guessing."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.certificates import issue
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, CLARA, TRUDY, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only

SYSTEM_USER = pwd.getpwuid(os.getuid()).pw_name
EVE = Role("eve", "eve's secret", "")


def forced(pg: PostgresCluster, **pooler: object) -> Config:
    """Settings with which the server is always logged in to as Trudy, who needs no password."""
    config = config_for(pg, **pooler)
    config["databases"]["app"] |= {"user": TRUDY.name}
    return config


def with_hba(pg: PostgresCluster, directory: Path, rules: str, ident: str = "", **pooler: object) -> Config:
    """Settings with an HBA file."""
    (directory / "hba.conf").write_text(rules)
    (directory / "ident.conf").write_text(ident)
    files = {"auth_hba_file": str(directory / "hba.conf"), "auth_ident_file": str(directory / "ident.conf")}
    return forced(pg, auth_type="hba", **files, **pooler)


def code(pooler: Pooler, role: Role, **parameters: str) -> str:
    """Log in; returns the SQLSTATE of the refusal, or nothing."""
    with pooler.open_raw() as client:
        last = client.login("app", role.name, role.password, **parameters)[-1]
        return last.fields["C"] if last.kind == b"E" else ""


# -- HBA files ---------------------------------------------------------------------------------------------------------


def test_rules_decide(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """Each client meets the first rule that is about it; a reload changes the rules, and a bad file changes nothing."""
    (tmp_path / "staff").write_text("clara\n")
    rules = (
        "host all bob all reject\nhost app ann 127.0.0.1/32 scram-sha-256\nhost app @staff all password\n"
        "host nothing all all trust\n"
    )
    config = with_hba(pg, tmp_path, rules)
    config["users"]["eve"] = {"password": EVE.password}
    pooler = make_pooler(config)
    assert [code(pooler, role) for role in (ANN, CLARA, BOB, EVE)] == ["", "", "28000", "28000"]
    assert code(pooler, Role("ann", "wrong", "")) == "28P01"
    said = {role.name: pooler.refused("app", role).fields["M"] for role in (BOB, EVE)}
    about = 'for host "127.0.0.1", user "{}", database "app", no encryption'
    assert said["bob"] == "auth_hba_file rejects connection " + about.format("bob")
    assert said["eve"] == "no entry in auth_hba_file " + about.format("eve")

    mark = pooler.log_size()
    (tmp_path / "hba.conf").write_text("host all all all trust\nhsot all all all trust\n")
    pooler.reload(config)
    eventually(lambda: "line 2: expected local" in pooler.log_text(mark), what="the problem is told")
    assert [code(pooler, role) for role in (ANN, EVE)] == ["", "28000"]
    mark = pooler.log_size()
    (tmp_path / "hba.conf").write_text("host all all all trust\n")
    pooler.reload(config)
    eventually(lambda: "reloaded" in pooler.log_text(mark), what="the settings are read")
    assert [code(pooler, Role(role.name, "", "")) for role in (ANN, EVE)] == ["", ""]


def test_replication_has_rules_of_its_own(
    make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path
) -> None:
    """As in PostgreSQL, `all` is not about physical replication."""
    pooler = make_pooler(with_hba(pg, tmp_path, "host all all all trust\n"))
    fields = pooler.refused("app", ANN, replication="true").fields
    assert fields["M"].endswith('user "ann", replication connection, no encryption')


def test_peers_of_a_unix_socket(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """The system says who is there, and a map as whom that one may log in."""
    directory = tmp_path / "run"
    directory.mkdir()
    rules = "local all bob peer\nlocal all all peer map=people\n"
    ident = f"people nobody_else eve\npeople {SYSTEM_USER} ann\n"
    config = with_hba(pg, tmp_path, rules, ident, listen_addr="", unix_socket_dir=str(directory))
    config["users"]["eve"] = {"password": EVE.password}
    pooler = make_pooler(config)
    assert [code(pooler, role) for role in (ANN, EVE, BOB, Role("stranger", "", ""))] == [
        "",
        "28000",
        "28000",
        "28000",
    ]
    assert pooler.refused("app", EVE).fields["M"] == 'Peer authentication failed for user "eve"'


def test_certificates(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """The common name says who is there, and a map as whom that one may log in; others need a password."""
    files = issue(tmp_path / "pooler", "127.0.0.1")
    tls = {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": str(files.cert),
        "client_tls_key_file": str(files.key),
        "client_tls_ca_file": str(files.ca),
    }
    rules = (
        "hostssl all bob all cert\nhostssl all clara all scram-sha-256\nhostssl all all all cert map=people\n"
    )
    pooler = make_pooler(with_hba(pg, tmp_path, rules, "people Ann ann\n", **tls))

    def log_in(role: Role, name: str = "", password: str = "") -> str:
        shown: dict[str, Any] = {"sslcert": "", "sslkey": ""}
        if name:
            own = issue(tmp_path / name, "client.example", common_name=name)
            own.key.chmod(0o600)
            shown = {"sslcert": str(own.cert), "sslkey": str(own.key)}
        try:
            with pooler.connect(
                "app", Role(role.name, password, ""), sslmode="require", **shown
            ) as connection:
                row = connection.execute("SELECT current_user").fetchone()
                return str(row and row[0])
        except psycopg.OperationalError as error:
            return str(error).partition("FATAL:  ")[2].strip()

    failed = 'certificate authentication failed for user "{}"'
    assert log_in(BOB, "bob") == TRUDY.name
    assert log_in(ANN, "Ann") == TRUDY.name
    assert log_in(ANN, "ann") == failed.format("ann")
    assert log_in(BOB, "Ann") == failed.format("bob")
    assert log_in(BOB) == failed.format("bob")
    assert log_in(CLARA, password=CLARA.password) == TRUDY.name
    assert log_in(Role("stranger", "", ""), "stranger") == failed.format("stranger")


def test_auth_type_cert(make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path) -> None:
    """Without rules, the common name is the user's, and a user must be known."""
    files = issue(tmp_path / "pooler", "127.0.0.1")
    pooler = make_pooler(
        forced(
            pg,
            auth_type="cert",
            client_tls_sslmode="verify-full",
            client_tls_cert_file=str(files.cert),
            client_tls_key_file=str(files.key),
            client_tls_ca_file=str(files.ca),
        )
    )
    for name, expected in (("ann", ""), ("stranger", 'role "stranger" does not exist')):
        own = issue(tmp_path / name, "client.example", common_name=name)
        own.key.chmod(0o600)
        shown: dict[str, Any] = {"sslmode": "require", "sslcert": str(own.cert), "sslkey": str(own.key)}
        if expected:
            with pytest.raises(psycopg.OperationalError, match=expected):
                pooler.connect("app", Role(name, "", ""), **shown)
        else:
            pooler.connect("app", Role(name, "", ""), **shown).close()


def test_auth_type_any(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Whoever comes is let in as the database's user; a database without one lets nobody in."""
    config = forced(pg, auth_type="any")
    config["databases"]["open"] = {"host": pg.host, "port": pg.port}
    pooler = make_pooler(config)
    with pooler.raw("app", Role("whoever", "", "")) as client:
        assert client.value("SELECT current_user") == TRUDY.name
    fields = pooler.refused("open", ANN).fields
    assert (fields["C"], fields["M"]) == ("28000", 'database "open" lets nobody in with auth_type any')
    assert fields["H"] == "set user of the database: as whom all clients are let in"


# -- others who know passwords ---------------------------------------------------------------------------------------


@pytest.fixture
def pam_service(tmp_path: Path) -> Iterator[str]:
    """A service of PAM that takes what a program takes."""
    directory = Path("/etc/pam.d")
    if not os.access(directory, os.W_OK):
        pytest.skip("only root can make a service of PAM")
    script = tmp_path / "check"
    script.write_text('#!/bin/sh\nread -r password\n[ "$PAM_USER:$password" = "ann:by pam" ]\n')
    script.chmod(0o755)
    name = f"hyperpool-test-{os.getpid()}"
    service = directory / name
    service.write_text(
        f"auth required pam_exec.so expose_authtok quiet {script}\naccount required pam_permit.so\n"
    )
    yield name
    service.unlink()


def test_pam(make_pooler: PoolerFactory, pg: PostgresCluster, pam_service: str) -> None:
    """PAM says who is let in, of whom nothing is stored; others are served meanwhile."""
    config = forced(pg, auth_type="pam", auth_pam_service=pam_service)
    config["users"] = {}
    pooler = make_pooler(config)
    with pooler.raw("app", Role("ann", "by pam", "")) as client:
        assert client.value("SELECT current_user") == TRUDY.name
    for role in (Role("ann", "wrong", ""), Role("ann", "", ""), Role("bob", "by pam", "")):
        fields = pooler.refused("app", role).fields
        assert (fields["C"], fields["M"]) == ("28000", f'PAM authentication failed for user "{role.name}"')
    assert "by pam" not in pooler.log_text()


SLAPD = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {directory}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
{tls}
database mdb
suffix "dc=example,dc=net"
rootdn "cn=root,dc=example,dc=net"
rootpw root's
directory {directory}
access to attrs=userPassword by anonymous auth
access to * by dn.exact="cn=searcher,dc=example,dc=net" read
"""
ENTRIES = """\
dn: dc=example,dc=net
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: cn=searcher,dc=example,dc=net
objectClass: person
cn: searcher
sn: searcher
userPassword: searcher's

dn: uid=ann,dc=example,dc=net
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: Ann
mail: ann@example.net
userPassword: by ldap
"""


@pytest.fixture(scope="module")
def ldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An LDAP server, with TLS for those that ask for it; gives its URL."""
    slapd = shutil.which("slapd", path=f"{os.environ['PATH']}:/usr/sbin")
    slapadd = shutil.which("slapadd", path=f"{os.environ['PATH']}:/usr/sbin")
    if slapd is None or slapadd is None:
        pytest.skip("slapd is not installed")
    directory = tmp_path_factory.mktemp("slapd")
    files = issue(directory / "tls", "localhost", "127.0.0.1")
    tls = (
        f"TLSCACertificateFile {files.ca}\nTLSCertificateFile {files.cert}\nTLSCertificateKeyFile {files.key}"
    )
    config = directory / "slapd.conf"
    config.write_text(SLAPD.format(directory=directory, tls=tls))
    subprocess.run([slapadd, "-f", config], input=ENTRIES, text=True, check=True, capture_output=True)
    url = f"ldap://127.0.0.1:{free_port()}"
    server = subprocess.Popen([slapd, "-f", config, "-h", url, "-d", "0"], stderr=subprocess.DEVNULL)
    try:
        yield f"{url} {files.ca}"
    finally:
        server.terminate()
        server.wait(10)


SEARCH = (
    'ldapbasedn="dc=example,dc=net" ldapbinddn="cn=searcher,dc=example,dc=net" ldapbindpasswd="searcher\'s"'
)
LDAP_WAYS = {
    "bind": ('ldapprefix="uid=" ldapsuffix=",dc=example,dc=net"', "ann"),
    "search": (SEARCH, "ann"),
    "search another attribute": (f"{SEARCH} ldapsearchattribute=mail", "ann@example.net"),
    "search with a filter": (
        f'{SEARCH} ldapsearchfilter="(|(uid=$username)(mail=$username))"',
        "ann@example.net",
    ),
    "StartTLS": ('ldaptls=1 ldapprefix="uid=" ldapsuffix=",dc=example,dc=net"', "ann"),
    "two servers": ('ldapprefix="uid=" ldapsuffix=",dc=example,dc=net"', "ann"),
}


@pytest.mark.parametrize("way", LDAP_WAYS)
def test_ldap(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    ldap: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An LDAP server says who is let in; neither a missing password nor a filter in a name gets past it."""
    url, ca = ldap.split()
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    options, user = LDAP_WAYS[way]
    host, port = url.removeprefix("ldap://").split(":")
    servers = f'ldapserver="{"127.0.0.2 " if way == "two servers" else ""}{host}" ldapport={port}'
    config = forced(pg, auth_type="ldap", auth_ldap_options=f"{servers} {options}")
    config["users"] = {}
    pooler = make_pooler(config)
    with pooler.raw("app", Role(user, "by ldap", "")) as client:
        assert client.value("SELECT current_user") == TRUDY.name
    strangers = ((user, "wrong"), (user, ""), ("bob", "by ldap"), ("*", "by ldap"), ("ann)(uid=*", "by ldap"))
    for name, password in strangers:
        fields = pooler.refused("app", Role(name, password, "")).fields
        assert (fields["C"], fields["M"]) == ("28000", f'LDAP authentication failed for user "{name}"')
    for secret in ("by ldap", "searcher's"):
        assert secret not in pooler.log_text()


def test_an_ldap_server_that_cannot_be_asked(
    make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path
) -> None:
    """Clients are told to come again, and the log says why; by another way they get in meanwhile."""
    rules = f"host all ann all ldap ldapserver=127.0.0.1 ldapport={free_port()} ldapprefix=x\nhost all all all md5\n"
    pooler = make_pooler(with_hba(pg, tmp_path, rules))
    fields = pooler.refused("app", ANN).fields
    assert (fields["C"], fields["M"]) == ("57P03", "the LDAP server cannot be asked")
    assert "LDAP cannot be asked" in pooler.log_text()
    assert code(pooler, BOB) == ""


def test_passwords_that_clients_send_are_passed_on(
    make_pooler: PoolerFactory, pg: PostgresCluster, tmp_path: Path
) -> None:
    """A hash is stored, and the server wants the password itself: it has the one that the client has shown."""
    import hashlib

    config = config_for(pg, auth_type="plain")
    digest = hashlib.md5(f"{CLARA.password}{CLARA.name}".encode()).hexdigest()
    config["users"] = {CLARA.name: {"password": f"md5{digest}"}}
    pooler = make_pooler(config)
    with pooler.raw("app", CLARA) as client:
        assert client.value("SELECT current_user") == CLARA.name


# -- guessing --------------------------------------------------------------------------------------------------------


def test_guessing_is_slow(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """After a few failures each more takes its time; other users, and clients that are there, notice nothing."""
    pooler = make_pooler(forced(pg, auth_failure_burst=3, auth_failure_interval="400ms"))
    with pooler.raw("app", BOB) as other:
        began = time.monotonic()
        for _ in range(3):
            assert code(pooler, Role("ann", "wrong", "")) == "28P01"
        quick = time.monotonic() - began
        with contextlib.ExitStack() as stack:
            guesses = [stack.enter_context(pooler.open_raw()) for _ in range(3)]
            began = time.monotonic()
            for guess in guesses:
                begin_to_guess(guess)
            assert other.value("SELECT 1") == "1"
            assert code(pooler, CLARA) == ""
            assert time.monotonic() - began < 0.4 or quick > 0.4
            for guess in guesses:
                assert guess.receive_all()[-1].fields["C"] == "28P01"
            assert time.monotonic() - began > 0.8
        assert code(pooler, ANN) == ""


def begin_to_guess(client: Any) -> None:
    """Go through a SCRAM exchange with a wrong password, up to the message that decides."""
    import scramp

    from tests.support import rawclient as raw

    client.send(raw.startup_packet({"user": "ann", "database": "app"}))
    assert client.receive().kind == b"R"
    exchange = scramp.ScramClient(["SCRAM-SHA-256"], "ann", "wrong")
    first = exchange.get_client_first().encode()
    client.send(raw.frame(b"p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first))
    exchange.set_server_first(client.receive().body[4:].decode())
    client.send(raw.frame(b"p", exchange.get_client_final().encode()))
