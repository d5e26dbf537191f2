"""Where workers come from: a process that has all of hyperpool in memory and runs nothing, and so may fork.

An interpreter that starts takes a second to read all of it; a fork takes milliseconds, and shares the memory. The
supervisor itself cannot fork once it runs Trio. It starts this process before, and asks it for each worker.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Final

from hyperpool.errors import StartupError
from hyperpool.service.shutdown import SIGNALS
from hyperpool.service.worker import work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap

_IGNORED: Final = (*SIGNALS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""The supervisor alone is signaled; who signals a whole group of processes means that one."""

_MAX_MESSAGE: Final = 64
_MAX_SOCKETS: Final = 253
"""What Linux passes at once (SCM_MAX_FD)."""

_PATIENCE: Final = 10.0
"""Seconds to wait for an answer."""

_FORK: Final = b"fork"
EXIT_FAILED: Final = 70
"""What nobody has foreseen (EX_SOFTWARE)."""


class Forks:
    """The supervisor's end of it. To be made while the process has one thread and no event loop.

    Args:
        leave: called in the new process: closes what it has no business with.
        memory: shared by all workers.

    Attributes:
        memory: as given.
        ended: a descriptor that is readable when the process has ended.
    """

    def __init__(self, leave: Callable[[], None], memory: mmap) -> None:
        self.memory = memory
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if not self._pid:
            self._wire.close()
            _become(lambda: _serve(theirs, leave, memory))
        theirs.close()
        self.ended = os.pidfd_open(self._pid)
        self._wire.settimeout(_PATIENCE)

    def start(self, sockets: Sequence[socket.socket]) -> int:
        """Start a worker.

        Args:
            sockets: what it gets: its end of the socket pair, and where clients come in.

        Returns:
            Its process id, which is nobody else's until `exit_code` has been called.

        Raises:
            OSError: it cannot be started.
        """
        if len(sockets) > _MAX_SOCKETS:
            raise StartupError(
                f"a worker can listen on {_MAX_SOCKETS - 1} addresses at most; see listen_addr"
            )
        socket.send_fds(self._wire, [_FORK], [one.fileno() for one in sockets])
        return self._answer()

    def exit_code(self, pid: int) -> int:
        """The exit code of a worker that has ended; the number of the signal that has ended it, negative.

        Raises:
            OSError: it is not known.
        """
        self._wire.send(b"%d" % pid)
        return self._answer()

    def close(self) -> None:
        """End the process; workers are left to end by themselves."""
        self._wire.close()
        if not select.select([self.ended], [], [], _PATIENCE)[0]:
            os.kill(self._pid, signal.SIGKILL)
        os.close(self.ended)
        os.waitpid(self._pid, 0)

    def _answer(self) -> int:
        try:
            answer = self._wire.recv(_MAX_MESSAGE)
        except TimeoutError:
            # What it answers later would be taken for the answer to something else.
            os.kill(self._pid, signal.SIGKILL)
            raise
        if not answer:
            raise OSError(0, "the process that starts workers has ended")
        code, value = map(int, answer.split())
        if code:
            raise OSError(code, os.strerror(code))
        return value


def _become(what: Callable[[], int]) -> None:
    """In a fork: do something else from now on, and end."""
    code = EXIT_FAILED
    try:
        code = what()
    except BaseException:  # noqa: BLE001 - nothing may go on as if it were the parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(wire: socket.socket, leave: Callable[[], None], memory: mmap) -> int:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    leave()
    while True:
        message, descriptors, _, _ = socket.recv_fds(wire, _MAX_MESSAGE, _MAX_SOCKETS)
        if not message:
            return 0
        try:
            value = _fork(wire, descriptors, memory) if message == _FORK else _reap(int(message))
        except OSError as error:
            wire.send(b"%d 0" % (error.errno or 1))
        else:
            wire.send(b"0 %d" % value)


def _fork(wire: socket.socket, descriptors: list[int], memory: mmap) -> int:
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        pid = os.fork()
        if not pid:
            wire.close()
            _become(lambda: work(sockets[0], sockets[1:], memory))
        return pid
    finally:
        for sock in sockets:
            sock.close()


def _reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
