"""Moving bytes between two streams until one of them ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE: Final = 64 * 1024
"""Bytes that are received at once, at most."""

_LAST_WORDS: Final = 2.0
"""Seconds that one side's last bytes may take when the other side takes no more."""


@attrs.define
class Traffic:
    """What was moved.

    Attributes:
        inward: bytes from the tunnel to its target.
        outward: bytes from the target to the tunnel.
        ended_by: which side ended it: "peer" or "target".
    """

    inward: int = 0
    outward: int = 0
    ended_by: str = ""


async def forward(tunnel: trio.abc.Stream, target: trio.abc.Stream, traffic: Traffic) -> None:
    """Move bytes both ways until one side ends; what it said before has been passed on then.

    A WebSocket cannot be closed in one direction only, so the end of one direction is the end of both. No more than
    one piece per direction is held: a side that does not read stops the other one.

    Args:
        tunnel: one side; stays the caller's, to be closed.
        target: the other side; likewise.
        traffic: counts as it goes.
    """

    def inward(count: int) -> None:
        traffic.inward += count

    def outward(count: int) -> None:
        traffic.outward += count

    async def copy(
        source: trio.abc.Stream, sink: trio.abc.Stream, count: Callable[[int], None], name: str
    ) -> None:
        try:
            while data := await source.receive_some(_PIECE):
                try:
                    await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    # What the sink said before it went may still be on its way.
                    nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS
                    return
                count(len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        traffic.ended_by = traffic.ended_by or name
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, tunnel, target, inward, "peer")
        nursery.start_soon(copy, target, tunnel, outward, "target")
