"""A connection that is there for a while only, and has a deadline."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from hyperpool.relay.connection import Connection

if TYPE_CHECKING:
    import socket

    from hyperpool.relay.loop import Relay


class TransientConnection(Connection):
    """A connection that has a deadline; the relay's sweep finds it.

    Attributes:
        deadline: monotonic seconds.
    """

    __slots__ = ("deadline",)

    def __init__(self, relay: Relay, sock: socket.socket, deadline: float) -> None:
        super().__init__(relay, sock)
        self.deadline = deadline

    @abstractmethod
    def timed_out(self) -> None:
        """The deadline has passed."""

    def lost(self, reason: str) -> None:
        """The connection broke: close it."""
        if not self.closed:
            self.end()
            self.relay.forget(self)
            self.sock.close()
            self.gone(reason)

    @abstractmethod
    def gone(self, reason: str) -> None:
        """The connection has been closed."""
