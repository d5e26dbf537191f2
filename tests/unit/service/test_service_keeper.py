"""Workers are kept running: whatever one of them does, the others notice nothing, and another one takes its place.

The processes are real, but do nothing; the tests say in their place what workers say.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
import structlog
import trio
import trio.testing

from hyperpool.errors import StartupError
from hyperpool.service.keeper import Keeper
from hyperpool.workers import messages
from tests.support.checkpoints import no_descriptor_left
from tests.support.logbook import LogBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hyperpool.workers.link import Link

_WORKERS = 2


class Forks:
    """Starts processes that do nothing.

    Attributes:
        ended: a descriptor that is readable once `end` was called.
        wires: the processes' ends of their socket pairs, the newest last.
        problem: raised in place of starting one.
    """

    def __init__(self) -> None:
        self._alive, self._ended = socket.socketpair()
        self.ended = self._ended.fileno()
        self.wires: list[socket.socket] = []
        self.problem: Exception | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, sockets: Sequence[socket.socket]) -> int:
        """As `service.forks.Forks.start`."""
        if self.problem is not None:
            raise self.problem
        self.wires.append(sockets[0].dup())
        process = subprocess.Popen(["sleep", "1000"])
        self._processes[process.pid] = process
        return process.pid

    def exit_code(self, pid: int) -> int:
        """As `service.forks.Forks.exit_code`."""
        return self._processes.pop(pid).wait()

    def end(self) -> None:
        """The process that starts others ends."""
        self._alive.close()

    def close(self) -> None:
        """Let go of everything; no process may be left."""
        for wire in (*self.wires, self._alive, self._ended):
            wire.close()
        assert not self._processes


class Overseer:
    """Takes down what it is told.

    Attributes:
        wires: their ends of the socket pairs, by number.
        pids: of those that are there, by number.
        started: the numbers of those that have been started.
        ended: the numbers of those that have ended.
        heard: what they have said.
        refuse: raised when they say something.
        news: set when anything of this changes.
    """

    def __init__(self, keeper: Callable[[], Keeper], forks: Forks) -> None:
        self._keeper = keeper
        self._forks = forks
        self.wires: dict[int, socket.socket] = {}
        self.pids: dict[int, int] = {}
        self.started: list[int] = []
        self.ended: list[int] = []
        self.heard: list[tuple[int, messages.Message]] = []
        self.refuse: Exception | None = None
        self.news = trio.Event()

    def sockets(self, worker: int) -> list[socket.socket]:
        """As `Overseer.sockets`."""
        del worker
        return []

    def greet(self, worker: int, link: Link, pid: int) -> None:
        """As `Overseer.greet`."""
        del link
        self.wires[worker] = self._forks.wires[-1]
        self.pids[worker] = pid
        self.started.append(worker)
        self.news.set()

    def handle(self, worker: int, message: messages.Message) -> None:
        """As `Overseer.handle`."""
        self.heard.append((worker, message))
        self.news.set()
        if self.refuse is not None:
            raise self.refuse

    def has_heard(self, worker: int, count: int) -> bool:
        """Whether a worker has said so much."""
        return sum(one == worker for one, _ in self.heard) == count

    def gone(self, worker: int) -> None:
        """As `Overseer.gone`."""
        self.pids.pop(worker, None)
        self.ended.append(worker)
        self.news.set()

    def lost(self) -> None:
        """As the supervisor: all end."""
        self._keeper().end(now=True)


class Stage:
    """A keeper that runs, and has started its workers."""

    def __init__(self, forks: Forks, book: LogBook) -> None:
        self.forks = forks
        self.book = book
        self.overseer = Overseer(lambda: self.keeper, forks)
        self.keeper = Keeper(forks, _WORKERS, self.overseer)
        self.over = trio.Event()

    async def start(self, nursery: trio.Nursery) -> None:
        """Run it."""
        nursery.start_soon(self._run)
        await self.until(lambda: len(self.overseer.started) == _WORKERS)
        self.keeper.served = True

    async def _run(self) -> None:
        await self.keeper.run()
        self.over.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; it can only become so when the overseer is told something."""
        while not condition():
            self.overseer.news = trio.Event()
            await self.overseer.news.wait()

    async def until_anew(self, worker: int) -> None:
        """Wait until a worker has been started for the second time, and nobody else has."""
        await self.until(lambda: self.overseer.started.count(worker) == 2)
        assert self.overseer.ended == [worker]
        assert set(self.overseer.pids) == set(range(_WORKERS))

    async def end(self) -> None:
        """Have all end."""
        self.keeper.end(now=False)
        for pid in self.overseer.pids.values():
            os.kill(pid, signal.SIGTERM)
        await self.over.wait()

    def say(self, worker: int, data: bytes = messages.encode(messages.Ready())) -> None:
        """A worker says something."""
        self.overseer.wires[worker].sendall(data)

    def entry(self, event: str) -> dict[str, object]:
        """The only log entry of an event."""
        (found,) = (entry for entry in self.book.entries if entry["event"].startswith(event))
        return found


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A keeper that does not run yet."""
    before = structlog.get_config()
    book = LogBook()
    structlog.configure(processors=[book])
    with no_descriptor_left():
        forks = Forks()
        try:
            yield Stage(forks, book)
        finally:
            structlog.configure(**before)
            forks.close()


async def test_one_that_is_killed(stage: Stage, nursery: trio.Nursery) -> None:
    """With kill -9, or by the kernel for want of memory: it is started anew at once."""
    await stage.start(nursery)
    os.kill(stage.overseer.pids[0], signal.SIGKILL)
    await stage.until_anew(0)
    entry = stage.entry("a worker has died")
    assert (entry["worker"], entry["exit"]) == (0, -signal.SIGKILL)
    await stage.end()


@pytest.mark.parametrize("talks", [False, True], ids=["from the beginning", "after a while"])
async def test_one_that_hangs(
    stage: Stage, nursery: trio.Nursery, mock_clock: trio.testing.MockClock, talks: bool
) -> None:
    """It is killed when it has been silent for 30 s, also if it has never said anything; one that talks is not."""
    await stage.start(nursery)
    for second in range(30):
        stage.say(1)
        if talks and second == 0:
            stage.say(0)
        await stage.until(partial(stage.overseer.has_heard, 1, second + 1))
        assert stage.overseer.ended == []
        mock_clock.jump(1.0)
        await trio.testing.wait_all_tasks_blocked()
    assert stage.overseer.ended == []
    mock_clock.jump(1.0)
    await stage.until_anew(0)
    assert stage.entry("a worker hangs")["worker"] == 0
    assert stage.entry("a worker has died")["exit"] == -signal.SIGKILL
    await stage.end()


@pytest.mark.parametrize("frame", [b"\0\0\0\4null", b"\xff\xff\xff\xff", messages.encode(messages.Ready())])
async def test_one_that_does_not_keep_to_the_protocol(
    stage: Stage, nursery: trio.Nursery, frame: bytes
) -> None:
    """It is killed, and started anew; what it has said is no reason for anybody else to end."""
    stage.overseer.refuse = KeyError("whatever")
    await stage.start(nursery)
    stage.say(1, frame)
    await stage.until_anew(1)
    assert stage.entry("a worker does not keep to the protocol")["level"] == "error"
    stage.overseer.refuse = None
    stage.say(0)
    await stage.until(lambda: stage.overseer.heard[-1:] == [(0, messages.Ready())])
    await stage.end()


async def test_one_that_hangs_up_and_goes_on(
    stage: Stage, nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    """It is given a while."""
    await stage.start(nursery)
    wire = stage.overseer.wires[0]
    wire.shutdown(socket.SHUT_RDWR)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(4.9)
    await trio.testing.wait_all_tasks_blocked()
    assert stage.overseer.ended == []
    mock_clock.jump(0.2)
    await stage.until(lambda: stage.overseer.ended == [0])
    mock_clock.jump(1.0)
    await stage.until_anew(0)
    await stage.end()


async def test_the_process_that_starts_them_ends(stage: Stage, nursery: trio.Nursery) -> None:
    """All are told to end, since none could be started anew, and nothing hangs."""
    await stage.start(nursery)
    stage.forks.end()
    # They have not been told anything here: they are killed when they do not end.
    for pid in list(stage.overseer.pids.values()):
        os.kill(pid, signal.SIGTERM)
    await stage.over.wait()
    assert sorted(stage.overseer.started) == sorted(stage.overseer.ended) == [0, 1]
    assert stage.keeper.failure is None
    assert stage.entry("the process that starts workers has ended")["level"] == "critical"


async def test_one_that_ends_before_it_has_served(stage: Stage, nursery: trio.Nursery) -> None:
    """That is no accident: the pooler cannot start."""
    await stage.start(nursery)
    stage.keeper.served = False
    os.kill(stage.overseer.pids[0], signal.SIGTERM)
    await stage.over.wait()
    assert str(stage.keeper.failure).startswith("a worker has ended (-15) before it could serve")


@pytest.mark.parametrize("problem", [OSError(11, "no more processes"), StartupError("too many addresses")])
async def test_none_can_be_started(stage: Stage, problem: Exception) -> None:
    """It says why, and no group of errors comes out."""
    stage.forks.problem = problem
    await stage.keeper.run()
    assert stage.keeper.failure is not None
    assert (problem.args[-1]) in str(stage.keeper.failure)
