"""A worker's part in the pooler: what it does when the supervisor says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from hyperpool.cache.board import Board, board_size
from hyperpool.service.member import Member, Parts
from hyperpool.workers import messages
from hyperpool.workers.messages import Deed, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.workers.link import Link


class _Link:
    """The supervisor's end.

    Attributes:
        outbox: what the worker has said.
        tell: has the worker told something.
    """

    def __init__(self) -> None:
        self.outbox: list[messages.Message] = []
        self.tell: Callable[[messages.Message], None]

    def post(self, message: messages.Message) -> None:
        """As `Link.post`."""
        self.outbox.append(message)

    async def run(self, handle: Callable[[messages.Message], None]) -> None:
        """As `Link.run`."""
        self.tell = handle
        await trio.sleep_forever()


def _member(link: _Link, over: Callable[[], bool], *cached: str) -> Member:
    """A worker whose PAUSE takes its time, and whose RESUME fails; it is told that databases are cached."""
    parts: Any = SimpleNamespace(
        around=SimpleNamespace(
            relay=SimpleNamespace(clock=trio.current_time),
            cache=SimpleNamespace(databases={}),
            operations=SimpleNamespace(pause=lambda _: over, resume_if_stopped=lambda: None),
        ),
        door=SimpleNamespace(access=SimpleNamespace()),
        warmer=SimpleNamespace(demand=None),
        consoles=SimpleNamespace(views=None, process=None),
        notes=Board(bytearray(board_size(1)), 1, 0),
    )
    welcome = messages.Welcome(0, 1, "", "", False, 0, [], [], list(cached), False)
    return Member(cast("Link", link), welcome, cast("Parts", parts))


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "later"])
async def test_what_is_called_off_is_not_waited_for(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock, begun: bool
) -> None:
    """However soon; it would be looked at again and again, since what is resumed is never closed."""
    link = _Link()
    looked: list[float] = []

    def over() -> bool:
        looked.append(trio.current_time())
        return False

    nursery.start_soon(_member(link, over).run)
    await trio.testing.wait_all_tasks_blocked()
    link.tell(messages.Do(1, [Deed("pause")]))
    if begun:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
    link.tell(messages.Quit(1))
    await trio.testing.wait_all_tasks_blocked()
    times = len(looked)
    mock_clock.jump(1.0)
    await trio.testing.wait_all_tasks_blocked()
    assert len(looked) == times
    assert link.outbox == []


async def test_what_is_over_is_answered(nursery: trio.Nursery, mock_clock: trio.testing.MockClock) -> None:
    """When it is."""
    link = _Link()
    done: list[bool] = []
    nursery.start_soon(_member(link, lambda: bool(done)).run)
    await trio.testing.wait_all_tasks_blocked()
    link.tell(messages.Do(1, [Deed("pause")]))
    await trio.testing.wait_all_tasks_blocked()
    assert link.outbox == []
    done.append(True)
    mock_clock.jump(0.1)
    await trio.testing.wait_all_tasks_blocked()
    assert link.outbox == [messages.Did(1, [Outcome("PAUSE")])]


async def test_what_fails_as_nobody_has_foreseen(nursery: trio.Nursery) -> None:
    """All workers are asked the same: it costs the answer, and not all clients."""
    link = _Link()

    def over() -> bool:
        raise KeyError("whatever")

    nursery.start_soon(_member(link, over, "no JSON").run)
    await trio.testing.wait_all_tasks_blocked()
    for number, verb in enumerate(("metrics", "cached", "resume", "pause")):
        link.tell(messages.Do(number, [Deed(verb)]))
        await trio.testing.wait_all_tasks_blocked()
        (said,) = link.outbox
        assert isinstance(said, messages.Did)
        assert [(one.error, one.sqlstate) for one in said.outcomes] == [("internal error", "XX000")]
        link.outbox.clear()
