"""Starting hyperpool as a process, without the time that its interpreter takes to import it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import pwd
import select
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from tests.support import targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_INTERPRETER: Final = tuple(targets.hyperpool_command())
_MAX_ANSWER: Final = 64
_CLOSE_LIMIT: Final = 10.0  # seconds


class Process(Protocol):
    """What tests want of a process; `subprocess.Popen` has it, too."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def returncode(self) -> int | None:
        """The exit code, once `poll` or `wait` has seen the end; minus the signal that has ended it."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the end has been seen."""

    def kill(self) -> None:
        """Send SIGKILL."""


def start(command: Sequence[str], log: BinaryIO, cwd: Path, user: str | None = None) -> Process:
    """Start a process in a session of its own.

    One of hyperpool's commands is forked off a process that has imported hyperpool already; any other command line,
    such as one that sets limits first, is started as it is.

    Args:
        command: the command line.
        log: where its outputs go; the caller may close it.
        cwd: the working directory.
        user: who runs it, and in no group but that user's own; by default whoever runs the tests.
    """
    environment = targets.environment()
    words = len(_INTERPRETER)
    if tuple(command[:words]) == _INTERPRETER:
        return _forked(command[words:], [log, log], cwd, environment, user)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        cwd=cwd,
        start_new_session=True,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
    )


def run(
    *arguments: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 50.0,
) -> subprocess.CompletedProcess[str]:
    """Run one of hyperpool's commands to its end.

    Args:
        arguments: of the command line, behind the program's name.
        cwd: the working directory, if not that of the tests.
        environment: more variables.
        timeout: seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        whole = {**targets.environment(), **(environment or {})}
        process = _forked(arguments, [out, err], cwd or Path.cwd(), whole)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(arguments, code, *texts)


def _forked(
    arguments: Sequence[str],
    outputs: Sequence[BinaryIO],
    cwd: Path,
    environment: dict[str, str],
    user: str | None = None,
) -> _Fork:
    request = {"arguments": list(arguments), "cwd": str(cwd), "environment": environment, "user": user}
    return _forks(_decisive(environment)).start(request, outputs)


def _decisive(environment: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What decides how hyperpool is imported."""
    return frozenset(
        (name, value) for name, value in environment.items() if name.startswith(("HYPERPOOL", "PYTHON"))
    )


@functools.cache
def _forks(decisive: frozenset[tuple[str, str]]) -> _Forks:
    forks = _Forks(dict(decisive))
    atexit.register(forks.close)
    return forks


class _Forks:
    """A running `tests.support.forks`.

    Args:
        decisive: variables of its environment.
    """

    def __init__(self, decisive: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*_INTERPRETER[:-1], "tests.support.forks", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**targets.environment(), **decisive},
                cwd=Path(__file__).parents[2],
                start_new_session=True,
            )

    def start(self, request: Mapping[str, object], outputs: Sequence[BinaryIO]) -> _Fork:
        """Fork off a process."""
        return _Fork(self, self._ask(request, [file.fileno() for file in outputs]))

    def exit_code(self, pid: int) -> int:
        """The exit code of a process that has ended."""
        return self._ask({"pid": pid})

    def _ask(self, request: Mapping[str, object], files: Sequence[int] = ()) -> int:
        with self._lock, contextlib.suppress(ConnectionError):
            number = next(self._numbers)
            socket.send_fds(self._wire, [json.dumps({"number": number, **request}).encode()], files)
            # A test that ran out of time may have left an answer unread.
            while answer := self._wire.recv(_MAX_ANSWER):
                answered, value = map(int, answer.split())
                if answered == number:
                    return value
        raise RuntimeError(f"tests.support.forks has ended with {self._process.wait()}")

    def close(self) -> None:
        """End it, and all that it has started."""
        self._wire.close()
        self._process.wait(_CLOSE_LIMIT)


class _Fork:
    """A process that `_Forks` has started; the interface is that of `subprocess.Popen`."""

    def __init__(self, forks: _Forks, pid: int) -> None:
        self.pid: Final = pid
        self.returncode: int | None = None
        self._forks = forks
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._awaited(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._awaited(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(["hyperpool"], timeout)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _awaited(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                self.returncode = self._forks.exit_code(self.pid)
                os.close(self._handle)
        return self.returncode
