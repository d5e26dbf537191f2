"""Signals that come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def drop(signals: AsyncIterator[int], kinds: int) -> None:
    """Take the signals that came too late to matter: Trio would deliver them again, to their default handlers.

    Args:
        signals: what `trio.open_signal_receiver` yields.
        kinds: how many kinds of signals it receives.
    """

    async def take() -> None:
        async for _ in signals:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        # One step for each kind of signal, one to begin, and one to spare.
        for _ in range(kinds + 2):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
