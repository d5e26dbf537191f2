"""Cancelling at every checkpoint, and finding descriptors that were left open."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_MOST_CHECKPOINTS = 200


def open_descriptors() -> dict[int, str]:
    """What each open descriptor of this process refers to."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            found[int(link.name)] = str(link.readlink())
    return found


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fail when a descriptor is open at the end that was not open at the beginning."""
    before = open_descriptors()
    yield
    left = {fd: what for fd, what in open_descriptors().items() if before.get(fd) != what}
    assert not left, f"descriptors left open: {left}"


class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope in a given step of a task and its descendants; delivered at that step's checkpoint."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int) -> None:
        self._task = task
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._belongs(task):
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()

    def _belongs(self, task: trio.lowlevel.Task) -> bool:
        while task is not self._task:
            if task.parent_nursery is None:
                return False
            task = task.parent_nursery.parent_task
        return True


async def cancel_everywhere(action: Callable[[], Awaitable[object]]) -> int:
    """Run an action again and again, cancelled at its first checkpoint, at its second, and so on.

    Args:
        action: what is cancelled; called anew each time. What it asserts about a cancelled run it asserts itself.

    Returns:
        At how many checkpoints it was cancelled; the run after the last of them was not, and ended by itself.
    """
    for step in range(_MOST_CHECKPOINTS):
        with trio.CancelScope() as scope:
            instrument = _CancelAtStep(trio.lowlevel.current_task(), scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                if step == 0:
                    scope.cancel()
                await action()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        if not scope.cancelled_caught:
            return step
    raise AssertionError(f"the action has more than {_MOST_CHECKPOINTS} checkpoints")
