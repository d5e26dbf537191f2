"""Both poolers on the same ``pgbouncer.ini``, and clients that play a script on each of them."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.support.network import free_port
from tests.support.postgres import ANN, BOB, CLARA, MIRA
from tests.support.rawclient import TERMINATE, ConnectionEnded, Frame, RawClient, cancel_packet, query
from tests.support.targets import environment, hyperpool_command
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.postgres import PostgresCluster

NEWEST_KNOWN: Final = (1, 24)
"""pgbouncer is compared from this version on: before, its console had other columns."""
PASSWORDS: Final = {role.name: role.password for role in (ANN, BOB, CLARA, MIRA)} | {"wrong": "wrong"}
_ROOT: Final = Path(__file__).parents[2]
_START: Final = 30.0
_PATIENCE: Final = 6.0
"""Seconds after which an answer is missing."""

_NOTICE: Final = 2.0
"""Seconds in which a pooler takes notice that a client has left."""


def pgbouncer_command() -> list[str] | None:
    """How to start a pgbouncer that is new enough: HYPERPOOL_TEST_PGBOUNCER, the one in ``.peers``, or the system's."""
    unpacked = _ROOT / ".peers/pgbouncer/usr"
    libraries = unpacked / "lib/x86_64-linux-gnu"
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    for command in (
        shlex.split(os.environ.get("HYPERPOOL_TEST_PGBOUNCER", "")),
        # It was built for another system: it runs with that system's loader and libraries.
        [
            str(libraries / "ld-linux-x86-64.so.2"),
            "--library-path",
            str(libraries),
            str(unpacked / "sbin/pgbouncer"),
        ],
        [found or ""],
    ):
        version = _version(command)
        if version is not None and version >= NEWEST_KNOWN:
            return command
    return None


def _version(command: list[str]) -> tuple[int, int] | None:
    with contextlib.suppress(OSError, IndexError):
        told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
        if numbers := re.search(r"PgBouncer (\d+)\.(\d+)", told):
            return int(numbers[1]), int(numbers[2])
    return None


def _part(client: RawClient) -> None:
    """Leave, and wait until the pooler has taken notice: it counts for what comes next."""
    with client.sock, contextlib.suppress(ConnectionEnded, OSError):
        client.send(TERMINATE)
        client.sock.shutdown(socket.SHUT_WR)
        client.sock.settimeout(_NOTICE)
        while client.sock.recv(65536):
            pass


class Side:
    """One of the two poolers.

    Args:
        name: ``pgbouncer`` or ``hyperpool``.
        command: starts it, with the settings' file as the last argument.
        ini: the file's text, with ``{directory}`` and ``{port}`` in it.
        files: more files for the directory, by name.
    """

    def __init__(self, name: str, command: list[str], ini: str, files: dict[str, str]) -> None:
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix=f"hpt-{name}-"))
        self.directory.chmod(0o777)
        self.port = free_port()
        self._clients: dict[str, RawClient] = {}
        for file, text in {"pooler.ini": ini, **files}.items():
            path = self.directory / file
            path.write_text(
                text.replace("{directory}", str(self.directory)).replace("{port}", str(self.port))
            )
            path.chmod(0o644)
        user = ["-u", "postgres"] if name == "pgbouncer" and os.geteuid() == 0 else []
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *user, str(self.directory / "pooler.ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it listens."""

        def listens() -> bool:
            if self._process.poll() is not None:
                raise AssertionError(
                    f"{self.name} has ended:\n{(self.directory / 'log').read_text()[-4000:]}"
                )
            RawClient(("127.0.0.1", self.port)).sock.close()
            return True

        eventually(listens, within=_START, what=f"{self.name} listens", despite=(OSError,))

    def close(self) -> None:
        """End it."""
        for client in self._clients.values():
            client.sock.close()
        self._process.terminate()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def play(self, script: str) -> list[str]:
        """Play a script, and return what came of each line.

        Each line is for the client whose name stands in front::

            a connect app ann       log in; more parameters as key=value, host=unix for the Unix socket, patience=1 for
                                    the seconds after which an answer is missing
            a: SELECT 1             run a query and tell its answer
            a& SELECT 1             send a query
            a?                      wait for an answer
            a!                      wait for the end of the connection
            a.                      leave
            a cancel                send a cancel request for it

        ``{port}`` is the pooler's port. Clients that are left at the end are closed, but for ``console``.
        """
        told = []
        try:
            for line in filter(None, map(str.strip, script.strip().splitlines())):
                outcome = self._step(line.replace("{port}", str(self.port)))
                if outcome is not None:
                    told.append(f"{line} -> {self._plain(outcome)}")
        finally:
            for name in [name for name in self._clients if name != "console"]:
                _part(self._clients.pop(name))
        return told

    def _step(self, line: str) -> str | None:
        found = re.fullmatch(r"(\w+)(:|&|\?|!|\.| connect| cancel)\s*(.*)", line)
        if found is None:
            raise AssertionError(f"no step: {line}")
        name, verb, rest = found[1], found[2].strip(), found[3]
        if verb == "connect":
            return self._connect(name, *rest.split())
        if name == "console" and name not in self._clients:
            self._connect("console", "pgbouncer", "ann")
        client = self._clients.get(name)
        if client is None:
            return "not connected"
        if verb == "&":
            client.send(query(rest))
            return None
        if verb == ".":
            _part(self._clients.pop(name))
            return None
        if verb == "cancel":
            with RawClient(("127.0.0.1", self.port)) as other:
                other.send(cancel_packet(client.pid, client.secret))
                other.receive_all()
            return None
        if verb == ":":
            try:
                client.send(query(rest))
            except ConnectionEnded:
                return "END"
        return self._answer(client, to_the_end=verb == "!")

    def _connect(self, name: str, database: str, user: str, *options: str) -> str:
        parameters = dict(option.split("=", 1) for option in options)
        password = parameters.pop("password", PASSWORDS.get(user, ""))
        local = parameters.pop("host", "") == "unix"
        path = str(self.directory / f".s.PGSQL.{self.port}")
        client = RawClient(path if local else ("127.0.0.1", self.port))
        client.sock.settimeout(float(parameters.pop("patience", _PATIENCE)))
        try:
            frames = client.login(database, user, password, **parameters)
        except (ConnectionEnded, TimeoutError) as error:
            client.sock.close()
            return "END" if isinstance(error, ConnectionEnded) else "TIMEOUT"
        if frames[-1].kind == b"E":
            client.sock.close()
        else:
            self._clients[name] = client
        asked = [struct.unpack_from("!i", frame.body)[0] for frame in frames if frame.kind == b"R"]
        return f"{asked[0] if asked else ''} {_spell([frames[-1]])}".strip()

    def _answer(self, client: RawClient, *, to_the_end: bool) -> str:
        frames: list[Frame] = []
        try:
            while not frames or to_the_end or frames[-1].kind != b"Z":
                frames.append(client.receive())
        except ConnectionEnded:
            return f"{_spell(frames)} END".strip()
        except TimeoutError:
            return f"{_spell(frames)} TIMEOUT".strip()
        return _spell(frames)

    def _plain(self, text: str) -> str:
        return text.replace(str(self.directory), "DIRECTORY").replace(str(self.port), "PORT")

    def rows(self, what: str) -> tuple[str, list[list[str]]]:
        """What the console shows: the columns with their types, and the rows."""
        if "console" not in self._clients:
            self._connect("console", "pgbouncer", "ann")
        frames = self._clients["console"].ask(f"SHOW {what}")
        shape = next((_columns(frame.body) for frame in frames if frame.kind == b"T"), "none")
        rows = [
            ["NULL" if value is None else self._plain(value.decode()) for value in frame.columns]
            for frame in frames
            if frame.kind == b"D"
        ]
        return shape, rows


def _columns(body: bytes) -> str:
    (count,) = struct.unpack_from("!h", body)
    at, words = 2, []
    for _ in range(count):
        end = body.index(0, at)
        (oid,) = struct.unpack_from("!I", body, end + 7)
        words.append(f"{body[at:end].decode()}:{oid}")
        at = end + 19
    return " ".join(words)


def _spell(frames: list[Frame]) -> str:
    words = []
    for frame in frames:
        if frame.kind in {b"E", b"N"}:
            fields = frame.fields
            words.append(f"{fields.get('S')} {fields.get('C')} {fields.get('M')}")
        elif frame.kind == b"D":
            words.append("|".join("NULL" if value is None else value.decode() for value in frame.columns))
        elif frame.kind in {b"C", b"Z"}:
            words.append(frame.body.rstrip(b"\0").decode())
        elif frame.kind not in {b"T", b"S", b"R", b"K"}:
            words.append(frame.kind.decode())
    return ", ".join(words)


class Stage:
    """Both poolers, on the same settings.

    Args:
        pg: the PostgreSQL that they pool.
        ini: the file's text; ``{server}`` stands for host and port of PostgreSQL.
        files: more files for the directory, by name.
    """

    def __init__(self, pg: PostgresCluster, ini: str, files: dict[str, str]) -> None:
        command = pgbouncer_command()
        if command is None:
            raise AssertionError("no pgbouncer")
        text = ini.replace("{server}", f"host={pg.host} port={pg.port}")
        self.sides = (
            Side("pgbouncer", command, text, files),
            Side("hyperpool", hyperpool_command("serve"), text, files),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for side in self.sides:
            side.close()

    def wait(self) -> None:
        """Wait until both listen."""
        for side in self.sides:
            side.wait()
