"""What two processes say to each other while one steps into the place of the other, and commands to a pooler."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.service import control as control_module
from hyperpool.service import handover
from hyperpool.service.control import Control, command, control_path
from hyperpool.service.handover import PREDECESSOR, Predecessor, decode, encode, follow
from hyperpool.service.succession import Succession
from hyperpool.transport.passed import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.service.systemd import Descriptor


pytestmark = pytest.mark.usefixtures("nothing_left_open")


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another task or process does."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of Trio
            await trio.sleep(0.001)


class Old:
    """A process that another one may follow.

    Attributes:
        problem: why it may not.
        stranger: why it may not be the one that wants to.
        events: what it was told.
        expected: whether somebody may serve clients beside it, each time that it was told.
        canceled: the cancel requests that it got, with what is to be called.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.stranger = ""
        self.events: list[str] = []
        self.expected: list[bool] = []
        self.canceled: list[tuple[int, bytes, Callable[[], None]]] = []
        self.sock = socket.create_server(("127.0.0.1", 0))

    def obstacle(self) -> str:
        """Why not."""
        return self.problem

    def expect(self, *, somebody: bool) -> None:
        """Take note."""
        self.expected.append(somebody)

    def listening(self) -> list[tuple[str, bool, Descriptor]]:
        """One socket."""
        return [(CLIENTS, True, self.sock)]

    async def announce(self, pid: int) -> str:
        """Take note."""
        await trio.lowlevel.checkpoint()
        self.events.append(f"announce {pid}")
        return self.stranger

    def leave(self) -> None:
        """Take note."""
        self.events.append("leave")

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Take note."""
        self.canceled.append((pid, secret, done))


@pytest.fixture
def old() -> Iterator[Old]:
    """A process that another one may follow."""
    found = Old()
    yield found
    found.sock.close()


@pytest.fixture
def succession(old: Old) -> Succession:
    """How that goes."""
    return Succession(old, (sys.executable, "-ISc", "pass"), dict)


class Conversation:
    """Both ends of a hand-over.

    Attributes:
        new: the new process's end.
    """

    def __init__(self, succession: Succession, nursery: trio.Nursery) -> None:
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.new = Predecessor(theirs)
        nursery.start_soon(self._talk, succession, trio.socket.from_stdlib_socket(ours))

    @staticmethod
    async def _talk(succession: Succession, sock: trio.socket.SocketType) -> None:
        await succession.talk(sock, decode(await sock.recv(100)))

    async def ask(self) -> None:
        """Get the sockets."""
        await trio.to_thread.run_sync(self.new.ask)


async def test_sockets_change_hands(old: Old, succession: Succession, nursery: trio.Nursery) -> None:
    """Then the old one leaves, and gets the cancel requests of those that have stayed with it."""
    talk = Conversation(succession, nursery)
    await talk.ask()
    (sock,) = talk.new.passed.fixed(CLIENTS)
    with sock:
        assert sock.getsockname() == old.sock.getsockname()
        assert not os.get_inheritable(sock.fileno())
    assert old.events == []
    assert old.expected == [True]
    await talk.new.step_in()
    await _until(lambda: len(old.events) == 2)
    assert old.events == [f"announce {os.getpid()}", "leave"]
    assert old.expected == [True]
    done: list[int] = []
    nursery.start_soon(talk.new.run)
    for number in (1, 2):
        talk.new.cancel(number, b"secret", lambda number=number: done.append(number))  # type: ignore[misc]
    await _until(lambda: len(old.canceled) == 2)
    assert [one[:2] for one in old.canceled] == [(1, b"secret"), (2, b"secret")]
    old.canceled[1][2]()
    await _until(lambda: bool(done))
    assert done == [2]
    nursery.cancel_scope.cancel()
    talk.new.close()


async def test_what_waits_is_let_go_when_the_old_process_ends(
    old: Old, succession: Succession, nursery: trio.Nursery
) -> None:
    """Nobody can be hit any more; nor by what comes later."""
    done: list[int] = []
    async with trio.open_nursery() as inner:
        talk = Conversation(succession, inner)
        await talk.ask()
        await talk.new.step_in()
        nursery.start_soon(talk.new.run)
        talk.new.cancel(1, b"", lambda: done.append(1))
        inner.cancel_scope.cancel()
    await _until(lambda: talk.new.gone)
    talk.new.cancel(2, b"", lambda: done.append(2))
    assert done == [1, 2]
    talk.new.close()


async def test_an_obstacle(old: Old, succession: Succession, nursery: trio.Nursery) -> None:
    """It is told, at the start and when the new process is ready."""
    old.problem = "not today"
    talk = Conversation(succession, nursery)
    with pytest.raises(StartupError, match="cannot take over: not today"):
        await talk.ask()
    talk.new.close()
    old.problem = ""
    talk = Conversation(succession, nursery)
    await talk.ask()
    other = Conversation(succession, nursery)
    with pytest.raises(StartupError, match="another process is about to follow"):
        await other.ask()
    other.new.close()
    old.problem = "too late"
    with pytest.raises(StartupError, match="cannot take over: too late"):
        await talk.new.step_in()
    talk.new.close()
    assert [event for event in old.events if event.startswith("announce")] == []


async def test_a_process_that_the_service_manager_would_not_take(
    old: Old, succession: Succession, nursery: trio.Nursery
) -> None:
    """It ends, and the old one goes on."""
    old.stranger = "from elsewhere"
    talk = Conversation(succession, nursery)
    await talk.ask()
    with pytest.raises(StartupError, match="cannot take over: from elsewhere"):
        await talk.new.step_in()
    talk.new.close()
    assert "leave" not in old.events


async def test_a_new_process_that_ends_early(old: Old, succession: Succession, nursery: trio.Nursery) -> None:
    """The old one goes on, and another one may follow."""
    for _ in range(2):
        talk = Conversation(succession, nursery)
        await talk.ask()
        talk.new.close()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
    assert old.events == []
    assert old.expected == [True, False] * 2


def test_there_is_nobody_to_follow(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket, or with one that nobody listens on; one that says nothing is a failure."""
    monkeypatch.setattr(handover, "_PATIENCE", 0.05)
    assert follow("", {}) is None
    assert follow(str(directory / "none"), {}) is None
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far, near:
        environ = {PREDECESSOR: str(os.dup(near.fileno()))}
        with pytest.raises(StartupError, match="cannot take over: timed out"):
            follow("", environ)
        assert environ == {}
        far.recv(100)
        far.send(b"[]")
        with pytest.raises(StartupError, match="cannot take over: the other process has ended"):
            follow("", {PREDECESSOR: str(os.dup(near.fileno()))})


def test_messages() -> None:
    """What is none is empty."""
    assert decode(encode(want="sockets")) == {"want": "sockets"}
    for data in (b"", b"{", b"[1]", b"\xff"):
        assert decode(data) == {}


def test_where_the_control_socket_is() -> None:
    """As set, where systemd has made a directory, or beside the pid file."""
    environ = {"RUNTIME_DIRECTORY": "/run/hyperpool:/run/other"}
    own = PoolerSettings(control_socket="/c", pidfile="/p")
    assert control_path(own, environ) == "/c"
    assert control_path(PoolerSettings(pidfile="/p"), environ) == "/run/hyperpool/control"
    assert control_path(PoolerSettings(pidfile="/run/p.pid"), {}) == "/run/p.pid.control"
    assert control_path(PoolerSettings(pidfile=f"/{'p' * 120}"), {}) == ""
    assert control_path(PoolerSettings(), {}) == ""


class Site:
    """A control socket.

    Attributes:
        path: of it.
        control: who listens on it.
        modes: how it was ended.
    """

    def __init__(self, directory: Path, succession: Succession) -> None:
        self.path = str(directory / "control")
        self.modes: list[ShutdownMode] = []
        self.control = Control(self.path, succession, self.modes.append)


@pytest.fixture
def site(directory: Path, succession: Succession) -> Iterator[Site]:
    """A control socket that is open."""
    found = Site(directory, succession)
    found.control.open()
    yield found
    found.control.close()


def test_two_poolers_cannot_have_one_control_socket(site: Site, succession: Succession) -> None:
    """The second one does not start, unless it takes the place; what a crash has left is replaced."""
    assert Path(site.path).stat().st_mode & 0o777 == 0o600
    second = Control(site.path, succession, site.modes.append)
    with pytest.raises(StartupError, match=r"another pooler takes commands at .*; see control_socket"):
        second.open()
    second.open(in_place=True)
    site.control.close()
    assert Path(site.path).exists()
    second.close()
    assert not Path(site.path).exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as crashed:
        crashed.bind(site.path)
    second.open()
    second.close()


def test_a_control_socket_that_cannot_be(directory: Path, succession: Succession) -> None:
    """The setting is named."""
    control = Control(str(directory / "none" / "control"), succession, lambda mode: None)
    with pytest.raises(
        StartupError, match=r"cannot listen on .*: No such file or directory; see control_socket"
    ):
        control.open()


async def test_commands(site: Site, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their answers, and the end of the process, which is the answer to one of them."""
    async with trio.open_nursery() as inner:
        inner.start_soon(site.control.run)

        async def ask(want: str, timeout: float | None = 5.0) -> str:
            return await trio.to_thread.run_sync(command, site.path, want, timeout)

        ended = "the process that was to follow has ended at its start; its log says why"
        assert await ask("restart") == ended
        assert await ask("dance") == "unknown command"
        assert await ask("drain", 0.05) == "not done within 0.05 s"
        assert site.modes == [ShutdownMode.WAIT_FOR_CLIENTS]
        with monkeypatch.context() as patch:
            patch.setattr(control_module, "_is_trusted", lambda sock: False)
            assert (await ask("restart")).startswith("the pooler has ended")
        answers: list[str] = []

        async def drain() -> None:
            answers.append(await ask("drain"))

        nursery.start_soon(drain)
        await _until(lambda: len(site.modes) == 2)
        inner.cancel_scope.cancel()
    await _until(lambda: bool(answers))
    assert answers == [""]
