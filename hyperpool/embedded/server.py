"""One embedded database, from the first start to the stop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.embedded import account as accounts
from hyperpool.embedded import binaries as programs
from hyperpool.embedded import postmaster as postmasters
from hyperpool.embedded.cluster import PORT, SUPERUSER, Cluster
from hyperpool.embedded.session import Session, identifier, literal
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError, StartupError

if TYPE_CHECKING:
    from pathlib import Path

    from hyperpool.config import Secret
    from hyperpool.embedded.postmaster import Postmaster

START_TIMEOUT: Final = 60
"""Seconds until a PostgreSQL that was started must answer; the default of ``pg_ctl --timeout``."""

_POLL: Final = 0.02
"""Seconds between two attempts to log in while PostgreSQL starts."""

_RESTART_PAUSE: Final = 0.5
"""Seconds before a PostgreSQL that died is started again; doubled while that fails."""

_LONGEST_RESTART_PAUSE: Final = 10.0

_CANNOT_CONNECT_NOW: Final = "57P03"

_log = structlog.get_logger("hyperpool.embedded")


class EmbeddedPostgres:
    """A PostgreSQL that belongs to this pooler and listens on a private Unix socket only.

    Args:
        name: what the settings call the database.
        user: a role that can log in and is a superuser; made if missing.
        password: the password that the role is given.
        dbname: the name of the database in PostgreSQL; made if missing.
        state_dir: the directory of all embedded databases; this one lives in a subdirectory.

    Attributes:
        host: the directory of the Unix socket, complete after `start`.
        port: the number in the name of the socket.
        data_dir: PostgreSQL's data directory.
        log_path: PostgreSQL's log file.
    """

    def __init__(self, name: str, *, user: str, password: Secret, dbname: str, state_dir: Path) -> None:
        self.name = name
        self._user = user
        self._password = password
        self._dbname = dbname
        self._state_dir = state_dir
        self._cluster = Cluster.of(name, state_dir)
        self._lock: int | None = None
        self._postmaster: Postmaster | None = None
        self.host = str(self._cluster.run)
        self.port = PORT
        self.data_dir = self._cluster.data
        self.log_path = self._cluster.log

    @property
    def bin_dir(self) -> Path:
        """The directory of PostgreSQL's programs.

        Raises:
            StartupError: they are not installed.
        """
        return programs.installed()

    @property
    def psql_path(self) -> Path:
        """The program ``psql``; raises as `bin_dir` does."""
        return self.bin_dir / "psql"

    @property
    def pgbench_path(self) -> Path:
        """The program ``pgbench``; raises as `bin_dir` does."""
        return self.bin_dir / "pgbench"

    async def start(self) -> None:
        """Make the database if it is missing, and run it, or keep the one that a killed pooler left running.

        Returns when role and database can be used. If this fails or is cancelled, nothing is left running.

        Raises:
            StartupError: with the reason and the remedy.
        """
        if self._lock is not None:
            raise RuntimeError("already started")
        try:
            self._lock = self._cluster.lock()
            await self._run()
        except OSError as error:
            await self.stop()
            raise StartupError(
                f"embedded database {self.name}: {error.filename or self._cluster.home}: {error.strerror}; "
                "set pooler.state_dir to a directory that hyperpool can write"
            ) from error
        except StartupError as error:
            await self.stop()
            raise StartupError(f"embedded database {self.name}: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End PostgreSQL, and let others use its directory. Cancellation does not interrupt this."""
        postmaster, self._postmaster = self._postmaster, None
        if postmaster is not None:
            await postmaster.stop()
            self._cluster.remove_socket_directory()
            _log.info("embedded database stopped", database=self.name)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def keep_running(self) -> None:
        """Start PostgreSQL again whenever it dies; call it after `start`, and cancel it before `stop`.

        A data directory that has vanished is not made anew: it may come back, with whatever was unmounted.
        """
        pause = _RESTART_PAUSE
        while (postmaster := self._postmaster) is not None:
            await postmaster.wait()
            if self._postmaster is not postmaster:
                return
            _log.error("embedded database died", database=self.name, log=str(self.log_path))
            await trio.sleep(pause)
            try:
                await self._run(may_make=False)
            except (OSError, StartupError) as error:
                _log.error("embedded database does not start", database=self.name, reason=str(error))
                pause = min(2 * pause, _LONGEST_RESTART_PAUSE)
            else:
                pause = _RESTART_PAUSE

    async def _run(self, *, may_make: bool = True) -> None:
        """Get PostgreSQL to run with the role and the database that the settings ask for."""
        account = accounts.choose(self.data_dir)
        binaries = await programs.usable_by(account, self._state_dir.resolve())
        if not self._cluster.exists(binaries):
            if not may_make:
                raise StartupError(f"{self.data_dir} has vanished")
            _log.info("making an embedded database", database=self.name, data=str(self.data_dir))
            await self._cluster.make(binaries, account)
        socket_dir = self._cluster.socket_directory(account)
        self.host = str(socket_dir)
        command = postmasters.command_for(self._cluster, binaries, account, socket_dir)
        adopted = await self._adopt(command)
        if not adopted:
            self._postmaster = await postmasters.launch(command, self._cluster, account)
            await self._provide()
        _log.info(
            "embedded database runs",
            database=self.name,
            postgresql=binaries.version,
            account=account.name,
            adopted=adopted,
            data=str(self.data_dir),
            socket=self.host,
            log=str(self.log_path),
        )

    async def _adopt(self, command: list[str]) -> bool:
        """Take over a PostgreSQL that was left running.

        Returns:
            False if there is none: there was none, it ran with another command line and was ended, or it was
            about to end.
        """
        found = postmasters.find(self._cluster)
        if found is None:
            return False
        self._postmaster = found
        if found.command != command:
            await found.stop()
            return False
        try:
            await self._provide()
        except StartupError:
            if found.alive():
                raise
            return False
        return True

    async def _provide(self) -> None:
        """Wait until PostgreSQL answers, and make the role and the database match the settings."""
        user, dbname = self._user, self._dbname
        try:
            with trio.fail_after(START_TIMEOUT):
                session = await self._first_session()
                try:
                    if not await session.execute(f"SELECT FROM pg_roles WHERE rolname = {literal(user)}"):
                        await session.execute(f"CREATE ROLE {identifier(user)}")
                    password = literal(self._password.reveal())
                    await session.execute(
                        f"ALTER ROLE {identifier(user)} LOGIN SUPERUSER PASSWORD {password}"
                    )
                    if not await session.execute(
                        f"SELECT FROM pg_database WHERE datname = {literal(dbname)}"
                    ):
                        await session.execute(
                            f"CREATE DATABASE {identifier(dbname)} OWNER {identifier(user)}"
                        )
                finally:
                    await session.close()
        except trio.TooSlowError:
            raise StartupError(
                f"PostgreSQL did not answer in {START_TIMEOUT} s: {self._last_words()}"
            ) from None
        except (ConnectFailed, LoginFailed, ProtocolError) as error:
            raise StartupError(f"PostgreSQL says: {error}; see {self.log_path}") from error

    async def _first_session(self) -> Session:
        while True:
            try:
                return await Session.open(f"{self.host}/.s.PGSQL.{PORT}", SUPERUSER, "postgres")
            except ConnectFailed:
                pass
            except LoginFailed as error:
                if error.sqlstate != _CANNOT_CONNECT_NOW:
                    raise
            if self._postmaster is None or not self._postmaster.alive():
                raise StartupError(f"PostgreSQL ended while it started: {self._last_words()}")
            await trio.sleep(_POLL)

    def _last_words(self) -> str:
        """The newest lines of the log file, and where to read more."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").splitlines()
        return "; ".join([*lines[-3:], f"see {self.log_path}"])
