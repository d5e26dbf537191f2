"""Proof that the relay turns."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from hyperpool.relay.transient import TransientConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.relay.loop import Relay
    from hyperpool.service.systemd import Notifier

_BEATS: Final = 3
"""Signs of life within the time in which one is wanted."""


async def prove_life(relay: Relay, notifier: Notifier) -> None:
    """Prove to the service manager that the relay turns, until cancelled, if it wants proofs."""
    if notifier.manager.watchdog:
        heartbeat = Heartbeat(relay)
        relay.welcome(heartbeat)
        await heartbeat.run(notifier.manager.watchdog, notifier.alive)


class Heartbeat(TransientConnection):
    """A connection in the relay that is there to be read from: what is written to its other end must come out.

    A relay that hangs, or has lost its epoll object, reads nothing; and Trio has to turn for the rest.

    Args:
        relay: the data plane.
    """

    __slots__ = ("_far", "_seen")

    def __init__(self, relay: Relay) -> None:
        near, self._far = socket.socketpair()
        near.setblocking(False)
        super().__init__(relay, near, float("inf"))
        self._seen = trio.Event()

    async def run(self, within: float, alive: Callable[[], None]) -> None:
        """Call `alive` for each proof, until cancelled or until the relay closes.

        Args:
            within: seconds in which one is wanted.
            alive: must not block.
        """
        while not self.closed:
            self._seen = trio.Event()
            self._far.send(b"\0")
            await self._seen.wait()
            alive()
            await trio.sleep(within / _BEATS)

    def readable(self, mask: int) -> None:  # noqa: ARG002 - there is one kind of event
        """The relay turns."""
        with suppress(BlockingIOError):
            self.sock.recv(64)
        self._seen.set()

    def flushed(self) -> None:
        """Nothing is sent this way."""

    def timed_out(self) -> None:
        """It has no deadline."""

    def gone(self, reason: str) -> None:  # noqa: ARG002 - the relay ends
        """The pooler ends."""
        self._far.close()
        self._seen.set()
