"""The process that is PostgreSQL (its "postmaster"): finding, starting and stopping it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import attrs
import structlog
import trio

from hyperpool.embedded.account import environment
from hyperpool.embedded.cluster import PORT, seen_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.embedded.account import Account
    from hyperpool.embedded.binaries import Binaries
    from hyperpool.embedded.cluster import Cluster

_POLL: Final = 0.02
"""Seconds between two looks at something that the kernel does not tell."""

_PATIENCE: Final = ((signal.SIGINT, 30), (signal.SIGQUIT, 15), (signal.SIGKILL, 15))
"""PostgreSQL's signals for a fast and an immediate shutdown, each with the seconds until the next is sent.
After SIGQUIT PostgreSQL itself kills what does not obey within 5 seconds (SIGKILL_CHILDREN_AFTER_SECS)."""

_ORPHANS_TIMEOUT: Final = 30
"""Seconds that the server processes of a killed postmaster get to end by themselves. Most notice at once; one
that computes does so when its query ends."""


_log = structlog.get_logger("hyperpool.embedded")


@attrs.frozen
class PidFile:
    """What ``postmaster.pid`` says (PostgreSQL docs, "Database File Layout").

    Attributes:
        pid: the postmaster.
        segment: key and id of its System V shared memory segment, to which all its processes are attached;
            empty if it was not made yet.
    """

    pid: int
    segment: list[str]

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """Read it; None if there is none or it is torn."""
        try:
            lines = (data_dir / "postmaster.pid").read_text("utf-8", "replace").splitlines()
            return cls(abs(int(lines[0])), lines[6].split() if len(lines) > 6 else [])
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def attached(self) -> int:
        """How many processes are attached to the segment (``/proc/sysvipc/shm``, see proc(5))."""
        with suppress(OSError), Path("/proc/sysvipc/shm").open() as table:
            columns = next(table).split()
            for line in table:
                row = dict(zip(columns, line.split(), strict=False))
                if [row["key"], row["shmid"]] == self.segment:
                    return int(row["nattch"])
        return 0


class Postmaster:
    """A postmaster that runs, started by this process or by one before it.

    Args:
        pid: its process id.
        command: its command line, by which a process that was not started here is known.
        process: the child process, if it is one.
    """

    def __init__(self, pid: int, command: list[str], process: trio.Process | None = None) -> None:
        self.pid = pid
        self.command = command
        self._process = process

    def alive(self) -> bool:
        """Whether it still runs."""
        if self._process is not None:
            return self._process.poll() is None
        return command_of(self.pid) == self.command

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            await self._process.wait()
            return
        with suppress(OSError):  # Linux before 5.3 has no such descriptors
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.alive():  # else the number is another process's by now
                    await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        await _wait_while(self.alive)

    async def stop(self) -> None:
        """End it: fast at first, at last by force. Cancellation does not interrupt this."""
        with trio.CancelScope(shield=True):
            for number, patience in _PATIENCE:
                if self.alive():
                    with suppress(ProcessLookupError):
                        os.kill(self.pid, number)
                with trio.move_on_after(patience):
                    await self.wait()
                    return


def command_of(pid: int) -> list[str]:
    """The command line of process `pid`; empty if there is no such process, or it is a zombie."""
    try:
        return [os.fsdecode(part) for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except OSError:
        return []


def command_for(cluster: Cluster, binaries: Binaries, account: Account, socket_dir: Path) -> list[str]:
    """The command line of the postmaster. Two that are equal make the same postmaster.

    ``hyperpool.directory`` is a setting without a meaning to PostgreSQL. It names the data directory where
    ``-D`` cannot, to us and to the reader of a process list.
    """
    data = cluster.data
    return [
        *(str(binaries.directory / "postgres"), "-D", seen_from(data, data, account)),
        *("-k", seen_from(data, socket_dir, account), "-p", str(PORT), "-c", "listen_addresses="),
        *("-c", f"hyperpool.directory={data}"),
    ]


def find(cluster: Cluster) -> Postmaster | None:
    """Find the postmaster that runs on the data directory, whoever started it."""
    pid_file = PidFile.read(cluster.data)
    if pid_file is None:
        return None
    command = command_of(pid_file.pid)
    names = {str(cluster.data), f"-D{cluster.data}", f"hyperpool.directory={cluster.data}"}
    if not command or Path(command[0]).name != "postgres" or names.isdisjoint(command):
        return None
    return Postmaster(pid_file.pid, command)


async def launch(command: list[str], cluster: Cluster, account: Account) -> Postmaster:
    """Start a postmaster on a data directory on which `find` found none.

    It gets its own session, so that Ctrl-C on a terminal reaches the pooler alone, which then ends PostgreSQL
    when its clients are done.

    Raises:
        OSError: the program or the log file cannot be opened.
    """
    variables = environment()
    if (stale := PidFile.read(cluster.data)) is not None:
        await _wait_for_orphans(stale)
        # Another program may have got the number by now, and PostgreSQL would take that for a postmaster.
        # This is PostgreSQL's own way to be told otherwise; it still checks the shared memory segment.
        variables["PG_GRANDPARENT_PID"] = str(stale.pid)
    log = cluster.open_log()
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=cluster.data,
            env=variables,
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
            start_new_session=True,
        )
    finally:
        os.close(log)
    return Postmaster(process.pid, command, process)


async def _wait_while(condition: Callable[[], object]) -> None:
    while condition():  # noqa: ASYNC110 - other processes set no event
        await trio.sleep(_POLL)


async def _wait_for_orphans(stale: PidFile) -> None:
    """Give server processes of a killed postmaster time to end; PostgreSQL does not start beside them."""
    if stale.attached():
        _log.warning("waiting for server processes of a killed PostgreSQL", postmaster=stale.pid)
        with trio.move_on_after(_ORPHANS_TIMEOUT):
            await _wait_while(stale.attached)
