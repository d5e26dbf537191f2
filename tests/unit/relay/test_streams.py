"""Long answers and COPY: a connection that streams is looked at every now and then, not told of each piece."""

from __future__ import annotations

import struct
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

import attrs
import pytest

from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame
from tests.support.relayworld import POOL, WELCOME, World

if TYPE_CHECKING:
    from hyperpool.relay.connection import Connection
    from tests.support.relaypeers import SimClient, SimServer

_ROW = frame(b"D", b"\0\1" + struct.pack("!i", 300) + b"<c1q1>".ljust(300, b"."))
_BEGIN = _ROW[:-100]
_PIECE = _ROW[-100:] + _ROW[:-100]
_END = _ROW[-100:] + frame(b"C", b"SELECT 1\0") + WELCOME
"""PostgreSQL sends what fills its buffer, wherever that cuts a row."""


@pytest.fixture
def world(world: World) -> World:
    """A relay that has seen a stream with the fourth read."""
    world.relay.much, world.relay.stream = 256, 4
    return world


def _is_told(world: World, connection: Connection) -> bool:
    """Whether the relay is told when there is something to read."""
    return bool(world.watched()[connection.fd] & EPOLLIN)


def _ask(world: World) -> tuple[SimClient, SimServer]:
    """A client has asked, and its server has begun to answer; from now on, a turn of the relay is a look or two."""
    client = world.connect()
    client.pending += pp.query("rows 1 5 c1q1")
    client.send()
    world.turn()
    world.dial()
    world.turn()
    client.receive()
    (server,) = world.servers
    _say(world, server, _BEGIN)
    client.receive()
    assert client.received == WELCOME + _BEGIN
    client.received.clear()
    _hold(world)
    return client, server


def _say(world: World, server: SimServer, data: bytes) -> None:
    """The server sends something, and the relay has its turn."""
    server.out += data
    server.push()
    world.turn()


def _hold(world: World) -> None:
    """From now on, a turn looks once, and a connection that streams stays what it is until the next one."""
    world.relay._slice = 0.0


def _stream(world: World, server: SimServer, pieces: int = 4) -> bytes:
    """The server sends so many pieces, one after the other; returns them."""
    for _ in range(pieces):
        _say(world, server, _PIECE)
    return _PIECE * pieces


def test_a_long_answer(world: World) -> None:
    """It is a stream with the fourth piece, and none any more when a look finds nothing."""
    client, server = _ask(world)
    expected = _stream(world, server, 3)
    assert _is_told(world, server.conn)
    expected += _stream(world, server, 1)
    assert not _is_told(world, server.conn)
    expected += _stream(world, server, 2)
    assert not _is_told(world, server.conn)
    client.receive()
    assert client.received == expected
    world.turn()
    assert _is_told(world, server.conn)
    _say(world, server, _END)
    client.receive()
    assert client.received == expected + _END


def test_its_end(world: World) -> None:
    """The end of an answer is a little piece, and with it the stream is over, before anybody else has the server."""
    client, server = _ask(world)
    expected = _stream(world, server)
    assert not _is_told(world, server.conn)
    _say(world, server, _END)
    assert _is_told(world, server.conn)
    assert server.conn in world.pool.idle
    client.receive()
    assert client.received == expected + _END


def test_pieces_that_are_small_are_no_stream(world: World) -> None:
    """However many there are."""
    client, server = _ask(world)
    for at in range(0, 10 * len(_PIECE), 200):
        _say(world, server, (_PIECE * 10)[at : at + 200])
        assert _is_told(world, server.conn)
    client.receive()
    assert client.received == _PIECE * 10


def test_a_small_piece_begins_anew(world: World) -> None:
    """Reads in a row make a stream."""
    _, server = _ask(world)
    _stream(world, server, 3)
    _say(world, server, _ROW[-100:] + _ROW[:50])
    _say(world, server, _ROW[50:-100])
    _stream(world, server, 3)
    assert _is_told(world, server.conn)
    _stream(world, server, 1)
    assert not _is_told(world, server.conn)


def test_an_answer_begins_anew(world: World) -> None:
    """Answers that are not long, one after the other, are no stream: nobody sends anything between them."""
    client, server = _ask(world)
    expected = b""
    for _ in range(4):
        expected += _stream(world, server, 2)
        end = _ROW[-100:] + _ROW + _END[100:]
        _say(world, server, end)
        assert _is_told(world, server.conn)
        client.pending += pp.query("rows 1 5 c1q1")
        client.send()
        world.turn()
        server.pull()
        server.out.clear()
        _say(world, server, _BEGIN)
        expected += end + _BEGIN
    client.receive()
    assert client.received == expected


def test_a_copy_of_the_clients(world: World) -> None:
    """The same in the other direction."""
    client = world.connect()
    client.pending += pp.query("copyin c1q1")
    world.flow(rounds=3)
    conn = world.relay.clients[client.pid]
    (server,) = world.servers
    _hold(world)
    piece = pp.copy_data(300)
    client.pending += piece[:100]
    client.send()
    world.turn()
    for told in (True, True, True, False, False):
        client.pending += piece[100:] + piece[:100]
        client.send()
        world.turn()
        assert _is_told(world, conn) is told
        server.pull()
    client.pending += piece[100:] + pp.COPY_DONE
    client.send()
    world.turn()
    assert _is_told(world, conn)
    world.finish()


def test_a_client_that_does_not_take_it(world: World) -> None:
    """Its server is not read, and so it is no stream, until the client takes it again."""
    client, server = _ask(world)
    client.reading = False
    conn = world.relay.clients[client.pid]
    expected = b""
    while not conn.outbox:
        expected += _stream(world, server, 1)
    world.turn()
    assert _is_told(world, server.conn)
    assert world.watched()[conn.fd] & EPOLLOUT
    server.out += _END
    expected += _END
    client.reading = True
    while client.receive() or server.push():
        world.turn()
    assert client.received == expected


def test_a_client_that_leaves(world: World) -> None:
    """Its server is closed, as at any other time within an answer."""
    client, server = _ask(world)
    _stream(world, server)
    world.leave(client, "close")
    world.turn()
    world.check()
    assert server.conn.closed


def test_a_client_that_streams_and_is_sent_away(world: World) -> None:
    """It is told why, and what it still sends is dropped until it has gone."""
    client = world.connect()
    client.pending += pp.query("copyin c1q1")
    world.flow(rounds=3)
    conn = world.relay.clients[client.pid]
    _hold(world)
    piece = pp.copy_data(300)
    client.pending += piece[:100]
    for _ in range(5):
        client.send()
        world.turn()
        client.pending += piece[100:] + piece[:100]
    assert not _is_told(world, conn)
    conn.refuse("not any more", "57P01")
    assert world.watched()[conn.fd] & EPOLLIN
    client.pending += pp.copy_data(300)
    client.send()
    client.receive()
    assert b"not any more" in client.received
    client.left = True
    client.sock.close()
    world.turn()
    world.check()


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_server_that_dies(world: World, how: str) -> None:
    """The next look finds out."""
    client, server = _ask(world)
    _stream(world, server)
    if how == "reset":
        world.kill(server)
    else:
        server.pull()
        server.out.clear()
        server.die()
    world.turn()
    client.receive()
    client.receive()
    assert client.eof
    world.check()


def test_others_are_served_meanwhile() -> None:
    """The relay is told of everybody else at once."""
    world = World(attrs.evolve(POOL, pool_size=2))
    try:
        world.relay.much, world.relay.stream = 256, 4
        client, server = _ask(world)
        world.relay.beat = 0.0009
        expected = _stream(world, server)
        assert not _is_told(world, server.conn)
        other = world.connect()
        other.pending += pp.query("rows 1 5 c2q1")
        other.send()
        world.turn()
        world.dial()
        (another,) = (one for one in world.servers if one is not server)
        another.pull()
        another.push()
        world.turn()
        other.receive()
        assert other.received.endswith(WELCOME)
        assert not _is_told(world, server.conn)
        client.receive()
        assert client.received == expected
    finally:
        world.close()


def test_looks_are_a_beat_apart(world: World) -> None:
    """What has come meanwhile waits for the next one."""
    client, server = _ask(world)
    world.relay.beat = 0.0009
    expected = _stream(world, server)
    world.turn()
    client.receive()
    assert client.received == expected
    _say(world, server, _PIECE)
    assert not client.receive()
    world.clock.now += world.relay.beat
    world.turn()
    client.receive()
    assert client.received == expected + _PIECE


def test_a_turn_goes_on_behind_a_stream(world: World) -> None:
    """That it is over is no reason to wait in Trio at once: whoever has been answered may ask again."""
    _, server = _ask(world)
    _stream(world, server)
    assert not _is_told(world, server.conn)
    world.clock.now += world.relay.beat
    assert world.relay.turn()
    assert _is_told(world, server.conn)
    assert not world.relay.turn()


def test_the_control_plane_has_its_turn(world: World) -> None:
    """While it talks to somebody, a turn is one look, and another one may follow at once."""
    client, server = _ask(world)
    with world.relay.attention():
        expected = _stream(world, server)
        world.relay._slice = 0.5
        world.relay.beat = 0.0009
        world.relay._due = world.clock.now + 1
        assert world.relay.turn()
        assert not _is_told(world, server.conn)
    client.receive()
    assert client.received == expected


def test_suspended_meanwhile(world: World) -> None:
    """Nothing is read until it is over, and then everything."""
    client, server = _ask(world)
    expected = _stream(world, server)
    world.relay.suspend(iter([server.conn]))
    assert not world.relay._polled
    server.out += _PIECE * 3
    server.push()
    world.turn()
    client.receive()
    assert client.received == expected
    world.relay.unsuspend()
    assert _is_told(world, server.conn)
    world.turn()
    client.receive()
    assert client.received == expected + _PIECE * 3


def test_nothing_streams_while_others_are_suspended(world: World) -> None:
    """What is not suspended itself may be read then; it is told of what comes."""
    client, server = _ask(world)
    world.relay.suspend(iter([]))
    expected = _stream(world, server, 5)
    assert _is_told(world, server.conn)
    world.relay.unsuspend()
    expected += _stream(world, server, 4)
    assert not _is_told(world, server.conn)
    client.receive()
    assert client.received == expected
