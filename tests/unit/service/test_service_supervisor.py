"""The supervisor of several workers, without any: what they are told, and how all of them end."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.cache.board import board_size
from hyperpool.config import load
from hyperpool.service.control import Control
from hyperpool.service.place import Place, keeps_answers
from hyperpool.service.process import Manner
from hyperpool.service.supervisor import Supervisor
from hyperpool.service.systemd import Notifier, ServiceManager
from hyperpool.transport.passed import PassedSockets
from hyperpool.workers import messages
from hyperpool.workers.tally import tally_size
from tests.support.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hyperpool.service.forks import Forks
    from hyperpool.service.handover import Predecessor
    from tests.support.logbook import LogBook

_SETTINGS = """
pooler: {listen_addr: 127.0.0.1, auth_type: trust, workers: 2}
databases: {app: {host: 127.0.0.1}}
users: {ann: {}}
"""


class _Forks:
    """Starts nobody."""

    memory = bytearray(board_size(2) + tally_size(2))


class _Predecessor:
    """Makes way.

    Attributes:
        asked: how often it was asked to.
    """

    gone = True
    passed = PassedSockets()

    def __init__(self) -> None:
        self.asked = 0

    async def step_in(self) -> None:
        """As `Predecessor.step_in`."""
        await trio.lowlevel.checkpoint()
        self.asked += 1

    async def run(self) -> None:
        """As `Predecessor.run`: it has ended."""
        await trio.lowlevel.checkpoint()

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """As `Predecessor.cancel`."""
        del pid, secret
        done()


class _Stage:
    """A supervisor and one worker."""

    def __init__(
        self,
        path: Path,
        *,
        beside: int = 0,
        predecessor: _Predecessor | None = None,
        caches: bool = True,
    ) -> None:
        path.write_text(_SETTINGS)
        notifier = Notifier(ServiceManager())
        self.place = Place(notifier, cast("Predecessor | None", predecessor), (), beside, caches=caches)
        self.serves: list[bool] = []
        self.supervisor = Supervisor(
            load(path),
            path,
            Manner(),
            lambda: self.serves.append(True),
            PassedSockets(),
            notifier,
            self.place,
            cast("Forks", _Forks()),
        )
        self.worker = Inbox()
        self.supervisor.greet(0, self.worker.link, 1)
        self.place.settle(self.supervisor)


@pytest.mark.parametrize("beside", [0, 1])
async def test_nothing_is_answered_from_memory_beside_another_pooler(tmp_path: Path, beside: int) -> None:
    """From the very first moment, since workers let clients in before all of them are ready."""
    stage = _Stage(tmp_path / "pooler.yaml", beside=beside)
    assert set(stage.worker.held) == {bool(beside)}


async def test_nothing_is_answered_from_memory_while_somebody_follows(tmp_path: Path) -> None:
    """A process that does not after all leaves it as it was."""
    stage = _Stage(tmp_path / "pooler.yaml")
    stage.place.expect(somebody=True)
    stage.place.expect(somebody=False)
    assert stage.worker.held == [False, True, False]
    stage.place.leave()
    assert stage.worker.held[3:] == [True]
    assert isinstance(stage.worker.inbox[-1], messages.Leave)
    assert stage.place.obstacle() == "the process is ending already"


async def test_nothing_is_answered_from_memory_while_it_drains(tmp_path: Path) -> None:
    """Somebody else may serve already; it stays like that when one that wanted to follow does not."""
    stage = _Stage(tmp_path / "pooler.yaml")
    stage.supervisor._shut_down(ShutdownMode.WAIT_FOR_CLIENTS)
    stage.place.expect(somebody=False)
    assert stage.worker.held == [False, True, True]
    assert messages.End("WAIT_FOR_CLIENTS") in stage.worker.inbox


@pytest.mark.parametrize("mode", list(ShutdownMode))
async def test_none_is_started_any_more(tmp_path: Path, mode: ShutdownMode) -> None:
    """However it ends."""
    stage = _Stage(tmp_path / "pooler.yaml")
    stage.supervisor._shut_down(mode)
    with trio.fail_after(5):
        for worker in range(2):
            await stage.supervisor._keeper._keep(worker)
    assert stage.supervisor._keeper.failure is None


@pytest.mark.parametrize("mode", [None, *ShutdownMode])
async def test_one_that_ends_while_it_starts_takes_nobodys_place(
    tmp_path: Path, mode: ShutdownMode | None
) -> None:
    """Whoever serves goes on: it is told to make way only by one that stays."""
    predecessor = _Predecessor()
    stage = _Stage(tmp_path / "pooler.yaml", predecessor=predecessor)
    if mode is not None:
        stage.supervisor._shut_down(mode)
    for worker in range(2):
        stage.supervisor.handle(worker, messages.Ready())
    async with trio.open_nursery() as nursery:
        await stage.place.take(nursery)
    assert stage.serves == [True] * (mode is None)
    assert predecessor.asked == (mode is None)
    assert stage.place.failure is None


async def test_one_that_has_taken_a_place_goes_on_without_commands(tmp_path: Path) -> None:
    """The one before accepts nobody any more, so that there would be none."""
    stage = _Stage(tmp_path / "pooler.yaml", predecessor=_Predecessor())
    path = str(tmp_path / "none" / "control")
    stage.place._control = Control(path, stage.place._succession, stage.supervisor._shut_down)
    async with trio.open_nursery() as nursery:
        await stage.place.take(nursery)
    assert stage.place.failure is None
    assert not stage.supervisor.ending
    assert stage.supervisor._exchange.elsewhere is not None


@pytest.mark.parametrize(
    ("caches", "told"),
    [
        (
            True,
            [
                "the result cache is held until the process before has ended",
                "the process before has ended: answers are cached from now on",
            ],
        ),
        (False, ["the process before has ended"]),
    ],
)
async def test_what_is_said_of_the_cache_beside_another_pooler(
    tmp_path: Path, book: LogBook, caches: bool, told: list[str]
) -> None:
    """Nothing where nothing is cached; workers are told in any case, as a reload may bring a cache."""
    stage = _Stage(tmp_path / "pooler.yaml", predecessor=_Predecessor(), caches=caches)
    async with trio.open_nursery() as nursery:
        await stage.place.take(nursery)
    assert [entry["event"] for entry in book.entries if "process before" in entry["event"]] == told
    assert stage.worker.held[-1] is False


@pytest.mark.parametrize("cache", ["true", "false", "{max_age: 1s}"])
def test_settings_with_which_answers_are_kept(tmp_path: Path, cache: str) -> None:
    """One database with a cache is enough."""
    path = tmp_path / "pooler.yaml"
    path.write_text(f"""
pooler: {{listen_addr: 127.0.0.1, pool_mode: transaction}}
databases: {{app: {{host: 127.0.0.1}}, shop: {{host: 127.0.0.1, cache: {cache}}}}}
users: {{ann: {{password: secret}}}}
""")
    assert keeps_answers(load(path)) == (cache != "false")
