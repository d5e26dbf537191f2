"""Signals that come too late."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


_OBEYED: Final = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGQUIT),
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
)
"""The signals that a pooler obeys while it runs."""


def ignore() -> None:
    """Ignore signals from here on: a pooler that has come to its end would be ended by them with another exit code."""
    for number in _OBEYED:
        signal.signal(number, signal.SIG_IGN)


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
