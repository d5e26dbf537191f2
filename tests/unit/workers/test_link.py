"""A link takes messages without waiting, and ends with a plain error when the other side does what it must not."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from hyperpool.errors import ProtocolError
from hyperpool.workers import link as module
from hyperpool.workers import messages
from hyperpool.workers.link import Link
from hyperpool.workers.messages import Deed

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 5.0
_LONG = messages.Do(1, [Deed("explain cache", "x" * 1_000_000)])
"""More than a socket's buffer takes."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_messages_arrive_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    """However long they are, and whenever the other side reads; then the other side leaves."""
    near, far = map(Link, pair)
    sent: list[messages.Message] = [messages.Ready(), _LONG, messages.Filled()]
    found: list[messages.Message] = []

    def take(message: messages.Message) -> None:
        found.append(message)
        if len(found) == len(sent):
            near.close()

    for one in sent:
        near.post(one)
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near._write)
            await far.run(take)
            nursery.cancel_scope.cancel()
    assert found == sent


async def test_who_reads_nothing_is_given_up(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as too much is held for it, and not only when it reads again; nothing more is held then."""
    monkeypatch.setattr(module, "_MAX_HELD", 3_000_000)
    near = Link(pair[0])
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_post_until_given_up, near)
            with pytest.raises(ProtocolError, match="takes no messages"):
                await near.run(lambda _: None)
            nursery.cancel_scope.cancel()
    assert not near._held
    near.post(_LONG)
    assert not near._held


async def _post_until_given_up(link: Link) -> None:
    # What waits for the other side is waiting already, when there is too much of it.
    for _ in range(5):
        await trio.testing.wait_all_tasks_blocked()
        link.post(_LONG)


async def test_given_up_before_it_runs(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is not forgotten."""
    monkeypatch.setattr(module, "_MAX_HELD", 10_000)
    near = Link(pair[0])
    near.post(_LONG)
    with trio.fail_after(_PATIENCE), pytest.raises(ProtocolError):
        await near.run(lambda _: None)


async def test_nothing_is_held_for_who_has_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    """Also of what was held before."""
    near = Link(pair[0])
    near.post(_LONG)
    assert near._held
    pair[1].close()
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near._write)
            await trio.testing.wait_all_tasks_blocked()
            near.post(_LONG)
            assert not near._held
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("frame", [b"\0\0\0\4null", b"\xff\xff\xff\xff"], ids=["no message", "too long"])
async def test_what_is_no_message(pair: tuple[socket.socket, socket.socket], frame: bytes) -> None:
    """A plain error, and no group of errors, comes out."""
    pair[1].sendall(frame)
    with trio.fail_after(_PATIENCE), pytest.raises(ProtocolError, match="frame"):
        await Link(pair[0]).run(lambda _: None)


async def test_what_the_reader_refuses(pair: tuple[socket.socket, socket.socket]) -> None:
    """The same for a message that this side is never sent."""
    pair[1].sendall(messages.encode(messages.Ready()))

    def refuse(message: messages.Message) -> None:
        raise ProtocolError(f"sent {type(message).__name__}")

    with trio.fail_after(_PATIENCE), pytest.raises(ProtocolError, match="sent Ready"):
        await Link(pair[0]).run(refuse)
