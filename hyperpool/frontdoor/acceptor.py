"""Accepting connections, whatever happens."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.relay.system import accept
from hyperpool.relay.transient import TransientConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.frontdoor.listener import Listener
    from hyperpool.relay.loop import Relay

log = structlog.get_logger("listener")

_ACCEPT_BATCH: Final = 64
_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE: Final = frozenset(
    {
        *(errno.ECONNABORTED, errno.ECONNRESET, errno.ENOTCONN, errno.EPROTO, errno.ENOPROTOOPT),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENONET),
    }
)
"""What is wrong with one connection that was waiting (accept(2)); whatever else it is, the next one has it, too.

So has EPERM: what filters system calls, or asks a security module, does so before a connection leaves the queue.
"""
_MORE_FILES: Final = "raise the limit on open files (ulimit -n, LimitNOFILE=) or lower max_client_conn"


class Acceptor(TransientConnection):
    """Accepts a listener's connections in the relay's loop: a trip through Trio would cost more than a login.

    It is told for as long as somebody waits, and does not try to find out whether anybody else does: the kernel makes a
    file for each accept(2), also for one that finds nobody. While it is told in every wakeup, since more come than it
    takes, it takes twice as many each time.

    When that cannot be done, as when the system has no descriptors or memory left, it says so, is told no more, and
    tries again at every sweep.

    Args:
        relay: the data plane.
        listener: closed with the acceptor.
        handle: called with each accepted socket and the peer's address, and owns the socket.

    Attributes:
        local: it is a Unix socket.
    """

    __slots__ = ("_batch", "_complained", "_handle", "_listener", "_wakeup", "_watched", "local")

    def __init__(
        self, relay: Relay, listener: Listener, handle: Callable[[socket.socket, str], None]
    ) -> None:
        super().__init__(relay, listener.sock, float("inf"))
        self._listener = listener
        self._handle = handle
        self.local = listener.sock.family == socket.AF_UNIX
        self._complained = False
        self._watched = False
        self._batch = 1
        self._wakeup = 0

    def start(self) -> None:
        """Begin to accept connections."""
        self.relay.transients[self] = None
        self.relay.attend(self)
        self._watched = True

    def readable(self, mask: int) -> None:  # noqa: ARG002 - a listener has one kind of event
        """Accept some of those that wait; the relay tells again if there are more."""
        wakeup = self.relay.wakeups
        if self._complained:
            # The trouble is over when nobody waits any more, which has to be seen.
            self._batch = _ACCEPT_BATCH
        elif wakeup != self._wakeup + 1:
            self._batch = 1
        self._wakeup = wakeup
        if self._accept(self._batch):
            self._batch = min(self._batch * 2, _ACCEPT_BATCH)

    def accept_all(self, backlog: int) -> None:
        """Accept everybody that waits, but not all who come meanwhile: who is sent away may come again at once.

        Args:
            backlog: of the listener; the kernel keeps one more.
        """
        self._accept(backlog + 1)

    def _accept(self, most: int) -> bool:
        """Accept some connections.

        Args:
            most: how many.

        Returns:
            Whether there may be more.
        """
        sock, raw = self.sock, self.raw
        for _ in range(most):
            try:
                arrival = accept(sock, raw)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._complain(error)
                return False
            except MemoryError:
                self._complain(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
                return False
            if arrival is None:
                self._complained = False
                return False
            accepted, address = arrival
            try:
                self._handle(accepted, address)
            except Exception as error:
                # The trouble of one connection is not the listener's.
                log.error("cannot take a connection over", listener=self._listener.name, exc_info=error)
                accepted.close()
        return True

    def timed_out(self) -> None:
        """Try again."""
        self.deadline = float("inf")
        self._accept(_ACCEPT_BATCH)
        if self.deadline == float("inf"):
            self.relay.attend(self)

    def flushed(self) -> None:
        """A listener sends nothing."""

    def lost(self, reason: str) -> None:
        """Accept no more. Another process may hold the same socket, so closing it does not take it out of epoll."""
        if self._watched:
            self.relay.unwatch(self)
            self._watched = False
        TransientConnection.lost(self, reason)  # `super()` alone does not work in methods that C calls

    def gone(self, reason: str) -> None:  # noqa: ARG002 - whatever it is
        """No more connections."""
        self._listener.close()

    def _complain(self, error: OSError) -> None:
        self.relay.neglect(self)
        self.deadline = self.relay.now
        if not self._complained:
            self._complained = True
            remedy = {"remedy": _MORE_FILES} if error.errno in _FULL else {}
            log.error(
                "cannot accept connections",
                listener=self._listener.name,
                error=error.strerror or str(error),
                **remedy,
            )
