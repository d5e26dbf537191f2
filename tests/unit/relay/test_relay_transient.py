"""Connections that are only there for a while: deadlines, and last messages that arrive."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from hyperpool.relay.leaving import LeavingConnection
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.transient import TransientConnection
from tests.support.checkpoints import no_descriptor_left
from tests.support.relayworld import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

FAREWELL = b"goodbye"


class Visitor(TransientConnection):
    """A connection that notes what happens to it, and reads only when told so."""

    def __init__(self, relay: Relay, sock: socket.socket, deadline: float) -> None:
        super().__init__(relay, sock, deadline)
        self.events: list[str] = []

    def readable(self, mask: int) -> None:
        """Not now."""

    def flushed(self) -> None:
        """Fine."""

    def timed_out(self) -> None:
        """Its time is over."""
        self.events.append("timed out")
        self.lost("timed out")

    def gone(self, reason: str) -> None:
        """It is closed."""
        self.events.append(f"gone: {reason}")


class Station:
    """A relay, and connections to it over TCP, whose resets are real."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.relay = Relay(RelayOptions(linger=0.0, slice=60.0), ParameterTracker(), self.clock)
        self._peers: list[socket.socket] = []

    def visit(self, deadline: float = float("inf")) -> tuple[Visitor, socket.socket]:
        """A visitor comes; returns the other end, too."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            sock, _ = listener.accept()
        self._peers.append(peer)
        sock.setblocking(False)
        visitor = Visitor(self.relay, sock, deadline)
        self.relay.welcome(visitor)
        peer.settimeout(5.0)
        return visitor, peer

    def see_off(self, visitor: Visitor, farewell: bytes = FAREWELL) -> LeavingConnection:
        """Its owner gives the visitor up, as those who call the relay do."""
        visitor.end()
        self.relay.forget(visitor)
        self.relay.see_off(visitor, farewell)
        (leaving,) = self.relay.transients
        assert isinstance(leaving, LeavingConnection)
        return leaving

    def sweep(self, seconds: float) -> None:
        """Time passes, and the relay sweeps."""
        self.clock.now += seconds
        self.relay.sweep(iter(()))

    def close(self) -> None:
        """Close everything."""
        self.relay.close()
        for peer in self._peers:
            peer.close()


@pytest.fixture
def station() -> Iterator[Station]:
    """A station; in the end no descriptor is left open."""
    with no_descriptor_left():
        found = Station()
        yield found
        found.close()


def read_all(peer: socket.socket) -> bytes:
    """Read until the end of the stream."""
    return b"".join(iter(lambda: peer.recv(65536), b""))


def stuff(visitor: Visitor) -> int:
    """Send the peer zeros until no more is taken; returns how many."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += visitor.sock.send(bytes(65536))
    return sent


# -- deadlines -----------------------------------------------------------------------------------------------------


def test_a_deadline(station: Station) -> None:
    """The first sweep after it says so, and not before."""
    visitor, _ = station.visit(deadline=station.clock.now + 10)
    other, _ = station.visit()
    station.sweep(9.9)
    assert visitor.events == []
    station.sweep(0.1)
    assert visitor.events == ["timed out", "gone: timed out"]
    assert list(station.relay.transients) == [other]
    assert visitor.sock.fileno() == -1


def test_lost_twice(station: Station) -> None:
    """The second time says nothing new."""
    visitor, peer = station.visit()
    visitor.lost("first")
    visitor.lost("second")
    assert visitor.events == ["gone: first"]
    assert read_all(peer) == b""


# -- the socket ----------------------------------------------------------------------------------------------------


class _Loud(socket.socket):
    """A socket around a descriptor that has a say in what is sent."""

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """In capitals."""
        return super().send(bytes(data).upper(), flags)


def test_a_socket_around_the_same_descriptor(station: Station) -> None:
    """From then on, everything goes through it, as through one with TLS."""
    visitor, peer = station.visit()
    visitor.transmit(b"plain ")
    visitor.speak(_Loud(fileno=visitor.sock.detach()))
    visitor.transmit(b"loud")
    assert peer.recv(100) == b"plain LOUD"


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_descriptor_that_is_somebody_elses(station: Station, handed_over: bool) -> None:
    """What is sent to a connection that has been closed reaches nobody, and nothing is read from there."""
    near, far = socket.socketpair()
    visitor, _ = station.visit()
    if handed_over:
        station.see_off(visitor).lost("gone")
    else:
        visitor.lost("gone")
    with near, far, socket.socket(fileno=os.dup2(near.fileno(), visitor.fd)):
        far.setblocking(False)
        visitor.transmit(b"not for you")
        with pytest.raises(BlockingIOError):
            far.recv(100)
        far.send(b"not for it")
        with pytest.raises(OSError, match="Bad file descriptor"):
            visitor.receive(station.relay.view)
    station.relay.turn()


# -- last messages -------------------------------------------------------------------------------------------------


def test_a_last_message(station: Station) -> None:
    """The peer reads it, and the end of the stream behind it; when it closes, so do we."""
    visitor, peer = station.visit()
    leaving = station.see_off(visitor)
    assert read_all(peer) == FAREWELL
    station.relay.turn()
    assert list(station.relay.transients) == [leaving]
    peer.close()
    station.relay.turn()
    assert not station.relay.transients
    assert leaving.closed
    assert visitor.events == []


def test_a_last_message_arrives_although_we_have_not_read_everything(station: Station) -> None:
    """To close with bytes unread would reset the connection, and destroy the message on its way."""
    visitor, peer = station.visit()
    peer.sendall(bytes(100_000))
    leaving = station.see_off(visitor)
    station.relay.turn()
    peer.sendall(bytes(1000))
    station.relay.turn()
    peer.shutdown(socket.SHUT_WR)
    station.relay.turn()
    assert leaving.closed
    assert read_all(peer) == FAREWELL


@pytest.mark.parametrize("farewell", [FAREWELL, b"", bytes(range(256)) * 20_000], ids=len)
def test_a_peer_that_reads_late(station: Station, farewell: bytes) -> None:
    """What it has not taken before stays in front of the last message, and all of it arrives."""
    visitor, peer = station.visit()
    stuffed = stuff(visitor)
    visitor.transmit(b"pending ")
    leaving = station.see_off(visitor, farewell)
    received = bytearray()
    while chunk := peer.recv(1 << 20):
        received += chunk
        station.relay.turn()
    assert bytes(received[stuffed:]) == b"pending " + farewell
    peer.close()
    station.relay.turn()
    assert leaving.closed


def test_a_peer_that_never_closes(station: Station) -> None:
    """It has two seconds."""
    visitor, peer = station.visit()
    leaving = station.see_off(visitor)
    station.sweep(1.9)
    assert list(station.relay.transients) == [leaving]
    station.sweep(0.1)
    assert leaving.closed
    assert read_all(peer) == FAREWELL


def test_a_peer_that_never_reads(station: Station) -> None:
    """It has two seconds, too, and what it did not take is dropped."""
    visitor, _ = station.visit()
    stuff(visitor)
    leaving = station.see_off(visitor)
    station.sweep(2.0)
    assert leaving.closed


def test_a_peer_that_never_stops(station: Station) -> None:
    """It may send a megabyte."""
    visitor, peer = station.visit()
    leaving = station.see_off(visitor)
    sent = 0
    while not leaving.closed:
        assert sent < 1 << 20
        sent += peer.send(bytes(65536))
        station.relay.turn()
    assert sent == 1 << 20


def test_a_peer_that_has_half_closed_already(station: Station) -> None:
    """Nothing more can come from it: nobody waits for that."""
    visitor, peer = station.visit()
    peer.send(b"the end")
    peer.shutdown(socket.SHUT_WR)
    station.relay.turn()
    leaving = station.see_off(visitor)
    station.relay.turn()
    assert leaving.closed
    assert read_all(peer) == FAREWELL


def test_a_peer_that_is_gone_already(station: Station) -> None:
    """It gets nothing, and nothing is left of it."""
    visitor, peer = station.visit()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    leaving = station.see_off(visitor)
    station.relay.turn()
    assert not station.relay.transients
    assert leaving.closed


def test_a_peer_that_resets(station: Station) -> None:
    """While it leaves: that is an end like any other."""
    visitor, peer = station.visit()
    leaving = station.see_off(visitor)
    station.relay.turn()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    station.relay.turn()
    assert leaving.closed
