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


def _member(
    link: _Link, over: Callable[[], bool], *cached: str, followed: list[tuple[str, str]] | None = None
) -> Member:
    """A worker whose PAUSE takes its time, and whose RESUME fails.

    Args:
        link: to the supervisor.
        over: whether the PAUSE is over.
        cached: what it is told of what others cache.
        followed: gets the pools of which it is said that what is written through them is followed.
    """
    followed = [] if followed is None else followed
    parts: Any = SimpleNamespace(
        hold=lambda _: followed.clear(),
        around=SimpleNamespace(
            relay=SimpleNamespace(time=trio.current_time),
            cache=SimpleNamespace(databases={}, lane=followed.append),
            pools=SimpleNamespace(attach=lambda: None),
            settings=lambda: SimpleNamespace(pool_for=lambda *names: names),
            operations=SimpleNamespace(pause=lambda _: over, resume_if_stopped=lambda: None),
        ),
        door=SimpleNamespace(access=SimpleNamespace()),
        warmer=SimpleNamespace(demand=None),
        consoles=SimpleNamespace(views=None, process=None),
        notes=Board(bytearray(board_size(1)), 1, 0),
        tally=None,
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


async def test_what_others_have_cached_before_is_followed_when_nothing_is_held_any_more(
    nursery: trio.Nursery,
) -> None:
    """A worker that has come meanwhile could not begin to: others answer again, and it tells them of its writes."""
    link = _Link()
    followed: list[tuple[str, str]] = []
    nursery.start_soon(_member(link, lambda: True, '["app", "ann", ""]', followed=followed).run)
    await trio.testing.wait_all_tasks_blocked()
    link.tell(messages.HoldCache(True))
    assert followed == []
    link.tell(messages.HoldCache(False))
    assert followed == [("app", "ann")]
