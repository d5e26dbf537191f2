"""In place of pgbouncer: its files, its command line and its log, in front of a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import launch, targets
from tests.support.network import free_port
from tests.support.postgres import ANN, BOB
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_HYPERPOOL = [sys.executable, "-W", "error", "-c", "from hyperpool.pgbouncer import main; main()"]


class Site:
    """A directory with the files of a pgbouncer, and a database server behind it.

    Attributes:
        ini: the settings.
        log: the log file.
        pidfile: the pid file.
        port: the port.
    """

    def __init__(self, directory: Path, pg: PostgresCluster) -> None:
        self.port = free_port()
        self.ini = directory / "pgbouncer.ini"
        self.log = directory / "pgbouncer.log"
        self.pidfile = directory / "pgbouncer.pid"
        directory.chmod(0o777)
        (directory / "userlist.txt").write_text(
            "".join(f'"{role.name}" "{role.password}"\n' for role in (ANN, BOB))
        )
        (directory / "databases.ini").write_text(
            f"; one of them under another name\nshop = host={pg.host} port={pg.port} dbname='app'\n"
        )
        self.ini.write_text(f"""
[databases]
%include {directory}/databases.ini
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir = {directory}
auth_type = md5
auth_file = {directory}/userlist.txt
admin_users = {ANN.name}
pool_mode = transaction
stats_period = 1
logfile = {self.log}
pidfile = {self.pidfile}
pkt_buf = 8192
""")

    def start(self, *program: str) -> None:
        """Start a program as a daemon on the settings, and wait until it can be used."""
        started = subprocess.run(
            [*program, "-d", str(self.ini)],
            env=targets.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 0, started.stderr
        eventually(self.answer, what="it answers", despite=(psycopg.OperationalError,))

    def connect(self, database: str = "shop") -> psycopg.Connection[tuple[object, ...]]:
        """Connect, as an application does that knows of nothing."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=ANN.name,
            password=ANN.password,
            dbname=database,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=10,
        )

    def answer(self) -> bool:
        """Have a query answered."""
        with self.connect() as connection:
            return connection.execute("SELECT current_database()").fetchone() == ("app",)

    @property
    def pid(self) -> int:
        """The process in the pid file; 0 for none."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.pidfile.read_text())
        return 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Have the process end, and wait for that."""
        pid = self.pid
        os.kill(pid, how)
        self.wait_for_end(pid)

    def wait_for_end(self, pid: int) -> None:
        """Wait until a process has gone."""
        eventually(lambda: not _is_there(pid), what=f"{pid} ends")

    def lines(self) -> list[str]:
        """The log, without time and process."""
        return [line.partition("] ")[2] for line in self.log.read_text().splitlines()]


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def site(pg: PostgresCluster) -> Iterator[Site]:
    """Files of a pgbouncer; what runs on them ends with the test. Another user can get at them, unlike at pytest's."""
    directory = Path(tempfile.mkdtemp(prefix="hpt-pgbouncer-"))
    found = Site(directory, pg)
    yield found
    if found.pid and _is_there(found.pid):
        os.kill(found.pid, signal.SIGKILL)
    shutil.rmtree(directory)


def test_pgbouncer_is_replaced(site: Site) -> None:
    """Pgbouncer is stopped, hyperpool is started on the same files, and the application does not know."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    site.start(program, *(["-u", "postgres"] if os.geteuid() == 0 else []))
    site.stop()
    site.log.unlink()
    site.start(*_HYPERPOOL)
    site.stop()
    assert not site.pidfile.exists()
    assert not list(site.ini.parent.glob(".s.PGSQL.*"))


def test_the_log_has_what_others_look_for(site: Site) -> None:
    """A login, its end, a server connection, statistics, and what has no effect; SIGHUP opens the file anew."""
    site.start(*_HYPERPOOL)
    eventually(lambda: any(line.startswith("LOG stats: ") for line in site.lines()), what="statistics")
    rotated = site.log.rename(site.log.with_suffix(".1"))
    os.kill(site.pid, signal.SIGHUP)
    eventually(lambda: site.log.exists() and "reloaded" in site.log.read_text(), what="a new log")
    size = rotated.stat().st_size
    site.answer()
    site.stop()
    assert rotated.stat().st_size == size
    text = re.sub(r"(?m)^.*?] ", "", rotated.read_text())
    for form in (
        r"^WARNING settings: note=.*pgbouncer\.ini:\d+: pkt_buf: has no effect: ",
        r"^LOG process up: ",
        r"^LOG C-0x[0-9a-f]+: shop/ann@127\.0\.0\.1:\d+ login attempt: db=shop user=ann tls=no replication=no$",
        r"^LOG S-0x[0-9a-f]+: shop/ann@[\d.]+:\d+ new connection to server \(from 127\.0\.0\.1:\d+\)$",
        r"^LOG C-0x[0-9a-f]+: shop/ann@127\.0\.0\.1:\d+ closing because: client close request \(age=0s\)$",
        r"^LOG stats: \d+ xacts/s, \d+ queries/s, .* in \d+ B/s, out \d+ B/s, xact \d+ us, query \d+ us, wait \d+ us$",
    ):
        assert re.search(form, text, re.MULTILINE), form


def test_two_of_a_kind(site: Site) -> None:
    """A second process does not start, and whoever started it learns why; the first one stays."""
    site.start(*_HYPERPOOL)
    pid = site.pid
    second = subprocess.run(
        [*_HYPERPOOL, "-d", str(site.ini)],
        env=targets.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"process {pid} is running already" in second.stderr
    assert site.pid == pid
    assert site.answer()
    site.stop()


@pytest.mark.parametrize("has_control", [True, False])
def test_taking_over(site: Site, has_control: bool) -> None:
    """With -R, new clients go to the new process, and those that were there stay with the old one until they leave.

    Without a way to the old process, both need to be allowed to have the port.
    """
    if not has_control:
        site.ini.write_text(f"{site.ini.read_text()}so_reuseport = 1\n")
    site.start(*_HYPERPOOL)
    old = site.pid
    if not has_control:
        Path(f"{site.pidfile}.control").unlink()
    with site.connect() as before:
        site.start(*_HYPERPOOL, "-R")
        assert site.pid != old
        assert before.execute("SELECT 1").fetchone() == (1,)
        eventually(
            lambda: any("waiting for clients to leave" in line for line in site.lines()),
            what="the old one knows",
        )
        assert _is_there(old)
    site.wait_for_end(old)
    assert site.answer()
    assert list(site.ini.parent.glob(".s.PGSQL.*"))
    site.stop()


def test_a_daemon_is_replaced(site: Site) -> None:
    """By a command, with its own options, and while a client works."""
    site.start(*_HYPERPOOL, "-v")
    old = site.pid
    with site.connect() as before:
        done = launch.run("restart", str(site.ini), "--timeout", "60")
        assert done.returncode == 0, done.stderr
        assert site.pid != old
        command = Path(f"/proc/{site.pid}/cmdline").read_bytes().split(b"\0")
        assert command[-5:-1] == [b"-R", b"-q", b"-v", str(site.ini).encode()]
        assert before.execute("SELECT 1").fetchone() == (1,)
    site.wait_for_end(old)
    assert site.answer()
    site.stop()


def test_the_console_reloads_the_files(site: Site) -> None:
    """Also those that are included; a mistake changes nothing, and is told with its line."""
    site.start(*_HYPERPOOL)
    databases = site.ini.parent / "databases.ini"
    text = databases.read_text()
    with site.connect("pgbouncer") as console:
        databases.write_text(f"{text}more = {text.rpartition('shop = ')[2]}")
        console.execute("RELOAD")
        with site.connect("more") as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
        databases.write_text("shop = port=x\n")
        with pytest.raises(psycopg.Error, match=r"databases\.ini:1: databases\.shop\.port"):
            console.execute("RELOAD")
    assert site.answer()
    site.stop()
