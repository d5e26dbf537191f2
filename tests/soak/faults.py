"""What is done to the pooler, to PostgreSQL, to the tunnel and to clients while all work."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import urllib.request
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.rows import dict_row

from tests.soak.journal import LOST
from tests.soak.site import DIRECT, ROUTES, TUNNELED
from tests.support import rawclient as raw
from tests.support.postgres import find_client_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.soak.site import Site

SERVER_ENDS: Final = frozenset({LOST, "57P01", "57P02", "57P03", "08006", "08001", "58000"})
"""How clients may learn that a server connection is gone, or that none can be had."""

CLIENT_KILLED: Final = frozenset({LOST, "57P01"})


class Faults:
    """Makes faults, one after the other, at random.

    Args:
        site: where.
        interval: seconds between two, on average.
    """

    def __init__(self, site: Site, interval: float) -> None:
        self._site = site
        self._interval = interval
        self._dice = random.Random(f"{site.seed} faults")
        self._kinds: list[Callable[[], None]] = [
            self.reload,
            self.restart_postgres,
            self.crash_postgres,
            self.cut_tunnel,
            self.terminate_servers,
            self.kill_clients,
            self.reset_logins,
            self.kill_database,
            self.kill_client,
            self.pause,
            self.reconnect,
            self.purge,
            self.look,
        ]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._live, name="faults", daemon=True)

    def _live(self) -> None:
        """Each kind once, in an order of its own, and then again."""
        while not self.stopped.is_set():
            for make in self._dice.sample(self._kinds, len(self._kinds)):
                if self.stopped.wait(self._dice.uniform(0.5, 1.5) * self._interval):
                    return
                try:
                    make()
                except Exception as error:  # noqa: BLE001 - whatever it is, the report has it
                    self._site.journal.mistake("faults", make.__name__, f"{type(error).__name__}: {error}")

    def stop(self) -> None:
        """Make no more, and wait for the last one."""
        self.stopped.set()
        self.thread.join(120)
        assert not self.thread.is_alive(), "a fault does not come to its end"

    def reload(self) -> None:
        """Other settings."""
        with self._site.journal.fault("reload of changed settings"):
            self._site.change_settings()

    def restart_postgres(self) -> None:
        """PostgreSQL is shut down and started."""
        with self._site.journal.fault("restart of PostgreSQL", SERVER_ENDS, ROUTES):
            self._site.pg.stop()
            self._site.ended.wait(self._dice.uniform(0, 1))
            self._site.pg.start()

    def crash_postgres(self) -> None:
        """All processes of PostgreSQL are killed at once."""
        with self._site.journal.fault("crash of PostgreSQL", SERVER_ENDS, ROUTES):
            self._site.pg.kill()
            self._site.pg.start()

    def cut_tunnel(self) -> None:
        """The far end is killed and started again."""
        with self._site.journal.fault("cut of the tunnel", SERVER_ENDS, frozenset(TUNNELED)):
            seen = self._site.far.log_text().count("listening")
            self._site.far.kill()
            self._site.ended.wait(self._dice.uniform(0, 1))
            self._site.far.start()
            self._site.far.wait_for("listening", seen + 1)

    def terminate_servers(self) -> None:
        """Some backends are terminated."""
        with self._site.journal.fault("backends terminated", SERVER_ENDS, ROUTES):
            for pid in self._site.pg.backends():
                if self._dice.random() < 0.3:
                    self._site.pg.sql("SELECT pg_terminate_backend(%s)", pid)

    def kill_clients(self) -> None:
        """A process with several clients is killed."""
        program = find_client_program("pgbench")
        assert program is not None, "no pgbench on this machine"
        with self._site.journal.fault("clients killed (SIGKILL)"):
            info = self._site.conninfo(self._dice.choice(DIRECT + TUNNELED))
            url = f"host={info['host']} port={info['port']} dbname={info['dbname']} user={info['user']}"
            mode = self._dice.choice(["simple", "extended", "prepared"])
            with subprocess.Popen(
                [program, "-n", "-f", "-", "-c", "4", "-T", "60", "--rate", "40", "-M", mode, url],
                env={"PGPASSWORD": info["password"]},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdin is not None
                process.stdin.write(b"BEGIN;\nSELECT pg_sleep(0.02);\nSELECT 1;\nCOMMIT;\n")
                process.stdin.close()
                self._site.ended.wait(self._dice.uniform(0.5, 2))
                assert process.poll() is None, f"pgbench has ended with {process.returncode}"
                process.kill()

    def reset_logins(self) -> None:
        """Many connections, reset in the middle of the login."""
        with self._site.journal.fault("connections reset in their login"):
            whole = raw.startup_packet({"user": "ann", "database": "direct"}) + raw.frame(
                b"p", b"SCRAM-SHA-256\0"
            )
            for _ in range(30):
                with contextlib.suppress(raw.ConnectionEnded):
                    client = raw.RawClient(("127.0.0.1", self._site.pooler.port))
                    client.send(whole[: self._dice.randrange(len(whole))])
                    client.abort()

    def kill_database(self) -> None:
        """KILL, and RESUME."""
        route = self._dice.choice(DIRECT + TUNNELED)
        with self._site.journal.fault("KILL and RESUME", CLIENT_KILLED, frozenset({route})):
            self._site.command(f"KILL {route}")
            self._site.command(f"RESUME {route}")

    def kill_client(self) -> None:
        """KILL_CLIENT of one of them."""
        with self._site.console() as console:
            console.row_factory = dict_row
            clients = [row for row in console.execute("SHOW CLIENTS").fetchall() if row["database"] in ROUTES]
        if not clients:
            return
        victim = self._dice.choice(clients)
        fault = self._site.journal.fault("KILL_CLIENT", CLIENT_KILLED, frozenset({victim["database"]}))
        with fault, contextlib.suppress(psycopg.Error):  # it may have left meanwhile
            self._site.command(f"KILL_CLIENT {victim['id']}")

    def pause(self) -> None:
        """PAUSE, and RESUME after a while; only where no client keeps its server, which PAUSE would wait for."""
        route = self._dice.choice(["cached", "cachedtunnel"])
        with self._site.journal.fault("PAUSE and RESUME"), self._resumed(route):
            self._site.command(f"PAUSE {route}")
            self._site.ended.wait(self._dice.uniform(0, 2))

    @contextlib.contextmanager
    def _resumed(self, route: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._site.command(f"RESUME {route}")

    def reconnect(self) -> None:
        """RECONNECT of all."""
        with self._site.journal.fault("RECONNECT"):
            self._site.command("RECONNECT")

    def purge(self) -> None:
        """The cache is emptied."""
        with self._site.journal.fault("PURGE CACHE"):
            self._site.command("PURGE CACHE")

    def look(self) -> None:
        """All that the console shows, and the metrics."""
        with self._site.journal.fault("SHOW of all views, and a scrape"):
            for view in (
                "POOLS",
                "CLIENTS",
                "SERVERS",
                "STATS",
                "LATENCIES",
                "CACHE",
                "FDS",
                "MEM",
                "CONFIG",
            ):
                self._site.command(f"SHOW {view}")
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._site.http_port}/metrics", timeout=20
            ) as answer:
                assert b"hyperpool" in answer.read()
