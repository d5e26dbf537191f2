"""The command: ``python -m tests.systemd``. The exit code is 0 if everything held, 1 if something did not.

It needs root, and changes nothing on the machine that it runs on: see `tests.systemd.machine`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import psycopg
from rich.console import Console
from rich.table import Table

from tests.support.network import free_port
from tests.support.postgres import ANN, PostgresCluster, find_binaries
from tests.support.waiting import eventually
from tests.systemd.machine import Machine, obstacle

if TYPE_CHECKING:
    from collections.abc import Callable

_WIDTH: Final = 150
_OVERRIDE: Final = """\
[Service]
LoadCredential=ann:/etc/hyperpool/credentials/ann
WatchdogSec=2s
"""
_SETTINGS: Final = """\
pooler:
  listen_addr: 127.0.0.1
  listen_port: {listen}
  unix_socket_dir: /run/hyperpool
  auth_type: scram-sha-256
  admin_users: [ann]
  server_check_delay: {delay}
  drain_timeout: 20s
databases:
  app: {{host: 127.0.0.1, port: {port}, user: ann, min_pool_size: 2}}
users:
  ann: {{password_file: credential:ann}}
"""
_SOCKET: Final = """\
[Socket]
ListenStream=127.0.0.1:{listen}
ListenStream=/run/hyperpool-clients/.s.PGSQL.6432
SocketMode=0777
"""
_STATUS: Final = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")


class Trial:
    """What is tried, one thing after the other.

    Args:
        machine: where.
        pg: the server, outside.
    """

    def __init__(self, machine: Machine, pg: PostgresCluster) -> None:
        self.machine = machine
        self.pg = pg
        self.listen = free_port()

    def client(self, database: str = "app") -> psycopg.Connection[tuple[object, ...]]:
        """A client of the pooler."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.listen,
            user=ANN.name,
            password=ANN.password,
            dbname=database,
            autocommit=True,
            connect_timeout=30,
        )

    def ask(self, query: str, database: str = "app") -> list[tuple[object, ...]]:
        """One query of one client."""
        with self.client(database) as client:
            # The console takes simple queries.
            return psycopg.ClientCursor(client).execute(query).fetchall()

    def configure(self, delay: str = "30s") -> None:
        """Write the settings."""
        text = _SETTINGS.format(listen=self.listen, port=self.pg.port, delay=delay)
        self.machine.write("/etc/hyperpool/pooler.yaml", text)

    def main_pid(self) -> int:
        """The service's main process, as systemd knows it; 0 for none."""
        return int(self.machine.show("MainPID"))

    # -- what is tried -------------------------------------------------------------------------------------------------

    def installs(self) -> str:
        """install-service writes unit, user and settings, and systemd reads them."""
        first = self.machine.run("/opt/hyperpool/bin/hyperpool install-service")
        assert "user hyperpool is made" in first
        assert "systemd has read the unit" in first
        again = self.machine.run("/opt/hyperpool/bin/hyperpool install-service")
        assert "is written" not in again
        return f"{len(first.splitlines())} lines; done twice, it changes nothing"

    def verifies(self) -> str:
        """systemd-analyze has nothing to say against the unit, and rates it."""
        assert not self.machine.run("systemd-analyze verify hyperpool.service").strip()
        told = self.machine.run("systemd-analyze security --no-pager hyperpool.service")
        (line,) = (line for line in told.splitlines() if "Overall exposure" in line)
        level = float(line.split(":")[1].split()[0])
        assert level < 2.0
        return f"exposure {level}"

    def starts(self) -> str:
        """It is active when it serves and min_pool_size is warm; the password is a credential."""
        self.machine.write("/etc/hyperpool/credentials/ann", ANN.password, 0o600)
        self.machine.write("/etc/systemd/system/hyperpool.service.d/test.conf", _OVERRIDE)
        self.configure()
        self.machine.run("systemctl daemon-reload && systemctl start hyperpool")
        assert self.machine.show("ActiveState") == "active"
        row = self.ask("SHOW POOLS", "pgbouncer")
        assert any(one[0] == "app" for one in row)
        assert (
            len(self.pg.sql("SELECT 1 FROM pg_stat_activity WHERE datname = 'app' AND usename = 'ann'")) >= 2
        )
        assert self.ask("SELECT 42") == [(42,)]
        eventually(lambda: self.machine.show("StatusText").startswith("Serving"), what="a status line")
        return self.machine.show("StatusText")

    def is_confined(self) -> str:
        """It runs as a user of its own, without capabilities."""
        status = self.machine.run(f"cat /proc/{self.main_pid()}/status")
        found = {
            name: rest.split()[0]
            for name, _, rest in (line.partition(":") for line in status.splitlines())
            if name in _STATUS
        }
        assert found["Uid"] != "0"
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        return ", ".join(f"{name} {value}" for name, value in found.items())

    def reloads(self) -> str:
        """A reload takes settings over; a mistake in them changes nothing."""
        pid = self.main_pid()
        self.configure("7s")
        self.machine.run("systemctl reload hyperpool")

        def delay() -> str:
            return next(
                str(row[1]) for row in self.ask("SHOW CONFIG", "pgbouncer") if row[0] == "server_check_delay"
            )

        eventually(lambda: delay() == "7", what="the new setting")
        self.configure("many")
        self.machine.run("systemctl reload hyperpool", check=False)
        eventually(
            lambda: "many" in self.machine.run("journalctl -u hyperpool --no-pager"),
            what="the mistake in the log",
        )
        assert delay() == "7"
        assert self.main_pid() == pid
        self.configure()
        self.machine.run("systemctl reload hyperpool")
        eventually(lambda: delay() == "30", what="the old setting")
        return "server_check_delay 30 -> 7 -> (mistake) 7 -> 30"

    def restarts(self) -> str:
        """While systemd restarts it, nobody who connects is refused: the sockets stay with systemd."""
        return self._under_clients("systemctl restart hyperpool")

    def is_replaced(self) -> str:
        """Replaced by another process (hyperpool restart), clients stay, and systemd follows it."""
        with self.client() as client:
            told = self._under_clients("/opt/hyperpool/bin/hyperpool restart")
            assert client.execute("SELECT 43").fetchone() == (43,)
        return told

    def _under_clients(self, command: str) -> str:
        pid, done, failures, served = self.main_pid(), threading.Event(), [], []

        def work() -> None:
            while not done.is_set():
                try:
                    served.append(self.ask("SELECT 1"))
                except psycopg.Error as error:
                    failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(served) > 20, within=60, what="clients at work")
            self.machine.run(command)
            before = len(served)
            eventually(lambda: len(served) > before + 20, within=60, what="clients at work afterwards")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not failures, failures[:3]
        assert self.machine.show("ActiveState") == "active"
        assert self.main_pid() != pid
        return f"0 of {len(served)} connections failed; main process {pid} -> {self.main_pid()}"

    def is_watched(self) -> str:
        """One that hangs is killed, and there is another one."""
        pid, began = self.main_pid(), time.monotonic()
        assert pid
        self.machine.run(f"kill -STOP {pid}")
        eventually(
            lambda: self.main_pid() not in {0, pid} and self.machine.show("ActiveState") == "active",
            within=30,
            what="another process",
        )
        assert self.ask("SELECT 44") == [(44,)]
        assert "Watchdog timeout" in self.machine.run("journalctl -u hyperpool --no-pager")
        return f"serves again after {time.monotonic() - began:.1f} s (WatchdogSec=2s)"

    def drains(self) -> str:
        """A stop waits for the transaction that is open."""
        with self.client() as client:
            client.execute("BEGIN")
            client.execute("CREATE TABLE drained (id int)")
            stopping = threading.Thread(target=self.machine.run, args=("systemctl stop hyperpool",))
            stopping.start()
            eventually(lambda: self.machine.show("ActiveState") == "deactivating", what="a stop")
            client.execute("COMMIT")
            stopping.join()
        assert self.machine.show("Result") == "success"
        assert self.pg.sql("SELECT count(*) FROM drained", dbname="app") == [(0,)]
        return f"{self.machine.show('ActiveState')}, Result={self.machine.show('Result')}"

    def is_activated(self) -> str:
        """With a socket unit, the first client starts it, over TCP and over a Unix socket."""
        self.machine.write("/etc/systemd/system/hyperpool.socket", _SOCKET.format(listen=self.listen))
        self.machine.run("systemctl daemon-reload && systemctl start hyperpool.socket")
        assert self.machine.show("ActiveState") == "inactive"
        assert self.ask("SELECT 45") == [(45,)]
        self._becomes_active()
        self.machine.run("systemctl stop hyperpool")
        way = "psql -h /run/hyperpool-clients -p 6432 -U ann -tAc 'SELECT 46' app"
        assert self.machine.run(f"PGPASSWORD={shlex.quote(ANN.password)} {way}").strip() == "46"
        self._becomes_active()
        return "started by a client of TCP, and by one of the Unix socket"

    def _becomes_active(self) -> None:
        """Clients are served as soon as there are listeners; it is ready when pools are warm."""
        eventually(lambda: self.machine.show("ActiveState") == "active", what="a service that is ready")


TRIED: Final[tuple[Callable[[Trial], str], ...]] = (
    Trial.installs,
    Trial.verifies,
    Trial.starts,
    Trial.is_confined,
    Trial.reloads,
    Trial.restarts,
    Trial.is_replaced,
    Trial.is_watched,
    Trial.drains,
    Trial.is_activated,
)


def main() -> int:
    """Try everything, and print a table."""
    argparse.ArgumentParser(prog="python -m tests.systemd", description=__doc__).parse_args()
    console = Console(width=_WIDTH)
    why, binaries = obstacle(), find_binaries()
    if why or binaries is None:
        console.print(f"cannot be tried here: {why or 'no PostgreSQL'}")
        return 1
    table = Table("what", "seen", "", title="hyperpool under systemd as PID 1")
    pg = PostgresCluster(binaries)
    good = True
    try:
        pg.create()
        with Machine() as machine:
            trial = Trial(machine, pg)
            for one in TRIED:
                what = (one.__doc__ or "").splitlines()[0]
                console.print(what, style="dim")
                try:
                    seen, holds = one(trial), True
                except Exception as error:  # noqa: BLE001 - the table says it
                    seen, holds = (
                        f"{type(error).__name__}: {error} {getattr(error, 'stdout', '') or ''}",
                        False,
                    )
                    console.print(
                        machine.run("journalctl -u hyperpool --no-pager | tail -20", check=False),
                        markup=False,
                    )
                table.add_row(what, seen, "good" if holds else "BAD")
                good = good and holds
            table.caption = machine.run("systemctl --version").splitlines()[0]
    finally:
        pg.destroy()
    console.print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
