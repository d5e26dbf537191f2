"""The processes of a benchmark run and the directory they live in; both are gone when the run ends.

PostgreSQL refuses to run as root and pgbouncer as good as refuses it, so a run that is started by root gives
these programs to an ordinary user of the system (`service_user`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

_LOG_LINES = 30


class BenchError(Exception):
    """The benchmark, or one cell of it, cannot go on; the message is for the person at the terminal."""


def service_user() -> str | None:
    """The user that runs PostgreSQL and pgbouncer when root starts the benchmark; None for ordinary users.

    Raises:
        BenchError: root runs the benchmark and neither ``postgres`` nor ``nobody`` exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise BenchError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def raise_open_files_limit() -> int:
    """Raise the soft limit on open files to the hard limit, for this process and its children.

    Returns:
        The limit now in force.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without libpq's variables, which would change what is measured.

    Args:
        extra: variables to add.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | extra


@define(eq=False)
class Child:
    """A process of the run.

    Attributes:
        name: how messages call it.
        process: the process itself.
        log_path: where its standard output and error go.
        stop_signal: the signal that asks it to end.
    """

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """The last lines of the log, under a heading that names the process."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        tail = text.splitlines()[-lines:]
        return "\n".join([f"--- last lines of the log of {self.name} ---", *(tail or ["(empty)"])])

    def stop(self, patience: float = 5.0) -> None:
        """End the process: its own signal first, SIGKILL to its whole group after `patience` seconds."""
        if self.alive:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


@define(eq=False)
class Workspace:
    """A temporary directory and the processes started in it. A context manager: leaving it ends them all.

    Attributes:
        directory: the temporary directory.
        user: who runs what does not run as root; None if that is whoever runs the benchmark.
        children: the processes that run, in the order in which they were started.
    """

    directory: Path = field(init=False)
    user: str | None = field(factory=service_user)
    children: list[Child] = field(factory=list, init=False)

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="hyperpool-bench-"))
        # The service user must be able to walk into it.
        self.directory.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _uninterrupted():
            for child in reversed(self.children):
                child.stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def owned_directory(self, name: str) -> Path:
        """A new directory that belongs to the service user."""
        path = self.directory / name
        path.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(path, self.user)
        return path

    def spawn(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        as_service_user: bool = False,
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start a process whose output goes to a log file of its own.

        Args:
            name: how messages and the log file call it.
            command: program and arguments.
            as_service_user: run it as `service_user` where root runs the benchmark.
            environment: its environment; None is `clean_environment`.
            stop_signal: the signal that asks it to end.

        Raises:
            BenchError: the program cannot be started.
        """
        log_path = self.directory / f"{name}-{len(list(self.directory.glob(f'{name}-*.log')))}.log"
        user = self.user if as_service_user else None
        try:
            with log_path.open("wb") as log:
                # A session of its own: Ctrl-C reaches the benchmark alone, which ends its processes in order.
                process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(environment if environment is not None else clean_environment()),
                    cwd=self.directory if as_service_user else None,
                    start_new_session=True,
                    user=user,
                    group=None if user is None else pwd.getpwnam(user).pw_gid,
                    extra_groups=None if user is None else [],
                )
        except OSError as error:
            raise BenchError(f"cannot start {name}: {error}") from error
        child = Child(name, process, log_path, stop_signal)
        self.children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """End one process and forget it."""
        child.stop()
        self.children.remove(child)

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        timeout: float,
        as_service_user: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a process to its end.

        Args:
            name: how messages call it.
            command: program and arguments.
            timeout: seconds after which it is killed.
            as_service_user: as in `spawn`.
            environment: as in `spawn`.

        Returns:
            What it wrote.

        Raises:
            BenchError: it cannot be started, fails, or takes longer than `timeout`.
        """
        child = self.spawn(
            name,
            command,
            as_service_user=as_service_user,
            environment=environment,
            stop_signal=signal.SIGKILL,
        )
        try:
            code = child.process.wait(timeout)
        except subprocess.TimeoutExpired:
            line = shlex.join(map(str, command))
            raise BenchError(f"{name} did not end in {timeout:g} s: {line}\n{child.log_tail()}") from None
        finally:
            self.stop(child)
        if code != 0:
            raise BenchError(f"{name} failed with exit code {code}\n{child.log_tail()}")
        text = child.log_path.read_text(errors="replace")
        child.log_path.unlink()
        return text


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def interrupt_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the run the way Ctrl-C does, so that everything is cleaned up."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold off signals: an impatient second Ctrl-C must not leave processes behind (stopping is bounded)."""
    previous = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
