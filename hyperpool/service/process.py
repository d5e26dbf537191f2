"""What makes a pooler a process of the system's: its user, its pid file, and life in the background.

As in pgbouncer: the user is changed before anything is opened, and a pid file whose process is still there stops
another one from starting.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from hyperpool.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config import Settings


_PID: Final = re.compile(r"\s*[0-9]{1,9}\s*", re.ASCII)


@attrs.frozen
class Manner:
    """How the process runs, as the command line says.

    Attributes:
        daemon: in the background.
        quiet: without a log to standard error.
        take_over: in the place of another process (``-R``, ``--take-over``): once this one serves, that one lets nobody
            in any more, and ends when its clients have left.
        user: goes before the setting of that name.
        verbose: is added to the setting of that name.
        command: how to start another process of this kind, which takes over; empty for one that others look after: it
            has no control socket.
    """

    daemon: bool = False
    quiet: bool = False
    take_over: bool = False
    user: str = ""
    verbose: int = 0
    command: tuple[str, ...] = ()

    def adjusted(self, settings: Settings) -> Settings:
        """The settings, with what the command line says in place of what the file does."""
        pooler = settings.pooler
        changed = attrs.evolve(pooler, user=self.user or pooler.user, verbose=pooler.verbose + self.verbose)
        return settings if changed == pooler else attrs.evolve(settings, pooler=changed)


def become(name: str) -> None:
    """Go on as another user, with that one's groups; nothing happens when the process is that user already.

    Args:
        name: the user's name or number; empty for no change.

    Raises:
        StartupError: there is no such user, or the process may not become it.
    """
    if not name:
        return
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise StartupError(f"there is no user {name!r}; see the setting user") from None
    if user.pw_uid == os.getuid():
        return
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    except OSError as error:
        raise StartupError(
            f"cannot become user {name!r}: {error.strerror}; start as root, or as that user, or remove the setting user"
        ) from error
    if not os.access(os.__file__, os.R_OK):
        raise StartupError(
            f"user {name!r} cannot read {os.__file__}: install Python and hyperpool where that user can read them"
        )


def check_manner(settings: Settings, manner: Manner) -> None:
    """Look whether the process can run in this way.

    Raises:
        StartupError: a setting that it needs is missing.
    """
    pooler = settings.pooler
    if manner.daemon and not pooler.pidfile:
        raise StartupError("a daemon needs a pidfile: set it, so that the process can be found")
    if manner.daemon and not (pooler.logfile or pooler.syslog):
        raise StartupError("a daemon needs a log: set logfile or syslog")


def check_ports(settings: Settings) -> None:
    """Look whether two processes can have the same ports while one takes over from another that has no control socket.

    Raises:
        StartupError: a setting that they need is missing.
    """
    pooler = settings.pooler
    if running(pooler.pidfile) and not pooler.so_reuseport:
        raise StartupError(
            f"process {running(pooler.pidfile)}, as {pooler.pidfile} says, gives its sockets to nobody: it needs a "
            "control_socket, or both need so_reuseport = 1"
        )


def running(pidfile: str) -> int:
    """The process that a pid file names, if there is one; 0 for none."""
    try:
        text = Path(pidfile).read_text("utf-8")
    except (OSError, ValueError):
        return 0
    # What is no number of a single process would be sent signals for many (kill(2)).
    pid = int(text) if _PID.fullmatch(text) else 0
    return pid if pid not in {0, os.getpid()} and _is_there(pid) else 0


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except OSError:
        return False
    return not _has_ended(pid)


def _has_ended(pid: int) -> bool:
    """Whether it is a zombie: it has ended, and has its number until its parent asks how."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The name before the state may hold what it likes.
    return text.rpartition(b")")[2].split()[:1] in ([b"Z"], [b"X"])


@contextmanager
def pid_file(path: str, *, take_over: bool) -> Iterator[None]:
    """Hold a pid file; it is removed in the end, unless it names another process by then.

    If the process that held it before is still there, it gets it back.

    Args:
        path: the file; empty for none.
        take_over: another process may hold it already.

    Raises:
        StartupError: another process holds it, or it cannot be written.
    """
    if not path:
        yield
        return
    file, own, other = Path(path), f"{os.getpid()}\n", running(path)
    if other and not take_over:
        raise StartupError(
            f"process {other} is running already, as {path} says; stop it, or give this one another pidfile"
        )
    try:
        file.write_text(own, "utf-8")
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}; see pidfile") from error
    try:
        yield
    finally:
        with suppress(OSError):
            if file.read_text("utf-8") == own:
                _give_back(file, other)


def _give_back(file: Path, other: int) -> None:
    if other and _is_there(other):
        file.write_text(f"{other}\n", "utf-8")
    else:
        file.unlink()


def tell_to_end(pid: int) -> None:
    """Have another pooler end when its clients have left."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


class Daemon:
    """A process that goes to the background: the one that was started waits until it serves, and tells how that went.

    `detach` returns in the background process only.
    """

    def __init__(self) -> None:
        self._fd = -1

    def detach(self) -> None:
        """Go on in the background, in a session of its own, with nothing on the standard streams."""
        reading, self._fd = os.pipe2(os.O_CLOEXEC)
        if os.fork():
            os.close(self._fd)
            _wait(reading)
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.close(null)

    def leave(self) -> None:
        """In another process of the pooler: this is not its business."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def report(self, problem: str = "") -> None:
        """Tell the process that was started that this one serves, or what the problem is; once."""
        if self._fd >= 0:
            with suppress(BrokenPipeError):
                os.write(self._fd, problem.encode() or b"\0")
            os.close(self._fd)
            self._fd = -1


def _wait(reading: int) -> NoReturn:
    """End as the background process says."""
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    if told == b"\0":
        os._exit(0)
    sys.stderr.write(f"hyperpool: cannot start: {told.decode() or 'the process has ended'}\n")
    sys.stderr.flush()
    os._exit(1)
