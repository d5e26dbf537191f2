"""A descriptor that is closed in the middle of a batch of events, and is another connection's at once."""

from __future__ import annotations

import os
import socket
from select import EPOLLIN
from typing import TYPE_CHECKING

import pytest

from hyperpool.relay.transient import TransientConnection
from tests.support.relayworld import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.relay.loop import Relay


class _Peer(TransientConnection):
    """Takes down what it is told."""

    def __init__(self, relay: Relay, sock: socket.socket, then: Callable[[], None] = lambda: None) -> None:
        super().__init__(relay, sock, float("inf"))
        self.told: list[int] = []
        self._then = then

    def readable(self, mask: int) -> None:
        self.told.append(mask)
        self._then()

    def flushed(self) -> None:
        pass

    def timed_out(self) -> None:
        pass

    def gone(self, reason: str) -> None:
        pass


@pytest.fixture
def world() -> Iterator[World]:
    """A relay."""
    made = World()
    try:
        yield made
    finally:
        made.close()


def test_a_newcomer_is_not_told_of_the_one_before(world: World) -> None:
    """That the other one's peer has gone says nothing of this one, which has sent something."""
    relay = world.relay
    newcomers: list[_Peer] = []
    pairs = [socket.socketpair() for _ in range(3)]

    def replace() -> None:
        fd = second.fd
        second.lost("closed")
        os.dup2(pairs[2][0].fileno(), fd)
        newcomers.append(_Peer(relay, socket.socket(fileno=fd)))
        relay.welcome(newcomers[0])

    first, second = _Peer(relay, pairs[0][0], replace), _Peer(relay, pairs[1][0])
    relay.welcome(first)
    relay.welcome(second)
    world.turn()
    pairs[0][1].send(b"x")
    pairs[1][1].close()
    pairs[2][1].send(b"x")
    world.turn()
    assert (first.told, second.told) == ([EPOLLIN], [])
    assert newcomers[0].told == [EPOLLIN]
    for one in (first, *newcomers):
        one.lost("over")
    for pair in pairs:
        for sock in pair:
            sock.close()
