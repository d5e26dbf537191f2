"""Keys that are pressed while the screen is shown."""

from __future__ import annotations

import os
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = (b"q", b"Q", b"\x1b", b"\x04")


class Keys:
    """What the user has chosen.

    Attributes:
        chosen: number of the panel that is shown alone; 0 for all.
        quit: the user has seen enough.
    """

    def __init__(self) -> None:
        self.chosen = 0
        self.quit = False
        self._pressed = trio.Event()

    async def wait(self) -> None:
        """Wait for the next key that means something."""
        await self._pressed.wait()
        self._pressed = trio.Event()

    async def run(self, fileno: int) -> None:
        """Read keys until the input ends or the user has seen enough."""
        while not self.quit:
            await trio.lowlevel.wait_readable(fileno)
            data = os.read(fileno, 64)
            if not data:
                return
            self.take(data)

    def take(self, data: bytes) -> None:
        """Do what keys mean; each byte is one, but for those that begin with an escape."""
        if data in _END or data[:1] in _END[:2]:
            self.quit = True
        elif data[:1].isdigit():
            self.chosen = int(data[:1])
        else:
            return
        self._pressed.set()


@contextmanager
def at_once() -> Iterator[int | None]:
    """Have keys come without Enter, and unseen.

    Returns:
        Where they come from; None if standard input is no terminal, or closed.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        yield None
        return
    fileno = sys.stdin.fileno()
    before = termios.tcgetattr(fileno)
    try:
        tty.setcbreak(fileno)
        yield fileno
    finally:
        termios.tcsetattr(fileno, termios.TCSADRAIN, before)
