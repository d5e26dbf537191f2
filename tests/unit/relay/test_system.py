"""System calls of the relay, in both forms."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from select import EPOLLIN, EPOLLOUT, select
from typing import TYPE_CHECKING, Final

import pytest

from hyperpool.transport.sockets import address_name
from tests.support.forms import compiled, pure
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture(params=["pure", "compiled"])
def system(request: pytest.FixtureRequest) -> ModuleType:
    """The module in one form."""
    return pure("relay/system") if request.param == "pure" else compiled("relay/system")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection that do not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class _Wrapped(socket.socket):
    """What is no plain socket."""


def test_raw_descriptors(system: ModuleType) -> None:
    """Only of plain sockets: any other kind has a say in what is received and sent."""
    with socket.socket() as plain, _Wrapped() as other:
        assert system.raw_descriptor(plain) == plain.fileno()
        assert system.raw_descriptor(other) == -1


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("made", [bytes, bytearray, memoryview])
def test_sending_and_receiving(
    system: ModuleType, ends: tuple[socket.socket, socket.socket], raw: bool, made: type
) -> None:
    """The beginning of what is given, and as much as there is room for."""
    ours, theirs = ends
    fds = [sock.fileno() if raw else -1 for sock in ends]
    room = memoryview(bytearray(4))
    assert system.receive(theirs, fds[1], room) == -1, "nothing is there"
    assert system.send(ours, fds[0], made(b"abcdefgh"), 6) == 6
    assert system.receive(theirs, fds[1], room) == 4
    assert bytes(room) == b"abcd"
    assert system.receive(theirs, fds[1], room[1:]) == 2
    assert bytes(room) == b"aefd"
    ours.close()
    assert system.receive(theirs, fds[1], room) == 0, "the end"


@pytest.mark.parametrize("raw", [True, False])
def test_a_full_socket(system: ModuleType, ends: tuple[socket.socket, socket.socket], raw: bool) -> None:
    """It takes a part, and then nothing."""
    ours, _ = ends
    fd = ours.fileno() if raw else -1
    data = bytes(1 << 24)
    assert 0 < system.send(ours, fd, data, len(data)) < len(data)
    assert system.send(ours, fd, data, len(data)) == 0


@pytest.mark.parametrize("raw", [True, False])
def test_a_broken_connection(
    system: ModuleType, ends: tuple[socket.socket, socket.socket], raw: bool
) -> None:
    """Errors are told as sockets tell them; no signal ends the process."""
    ours, theirs = ends
    fd = ours.fileno() if raw else -1
    theirs.close()
    with pytest.raises(BrokenPipeError, match="Broken pipe"):
        system.send(ours, fd, b"x", 1)
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.receive(ours, fd, memoryview(bytearray(1)))


def test_never_beyond_the_end(system: ModuleType, ends: tuple[socket.socket, socket.socket]) -> None:
    """However long it is said to be."""
    ours, theirs = ends
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abcd")[:3]):
        assert system.send(ours, ours.fileno(), data, 1000) == 3
        assert theirs.recv(100) == b"abc"


def test_waiting_for_events(system: ModuleType, ends: tuple[socket.socket, socket.socket]) -> None:
    """As an epoll object tells of them."""
    ours, theirs = ends
    with closing(system.Poller()) as poller:
        assert os.fstat(poller.fileno())
        assert poller.wait(0) == 0
        poller.register(ours.fileno(), EPOLLIN)
        assert poller.wait(0.001) == 0
        theirs.send(b"x")
        assert poller.wait(5) == 1
        assert (poller.fd(0), poller.mask(0)) == (ours.fileno(), EPOLLIN)
        for number in (-1, 1):
            if number > 0 or system.__name__.startswith("hyperpool"):
                with pytest.raises(IndexError):
                    poller.fd(number)
                with pytest.raises(IndexError):
                    poller.mask(number)
        poller.modify(ours.fileno(), EPOLLOUT)
        assert poller.wait(0) == 1
        assert poller.mask(0) == EPOLLOUT
        poller.forget(theirs.fileno())
        assert poller.fd(0) == ours.fileno()
        poller.forget(ours.fileno())
        assert poller.fd(0) == -1
        poller.unregister(ours.fileno())
        assert poller.wait(0) == 0
        assert not poller.closed
    assert poller.closed


def test_the_time_of_a_wait_is_no_event(ends: tuple[socket.socket, socket.socket]) -> None:
    """In C, one timer in the epoll object is for many waits: it is over once nothing has come for that long."""
    ours, theirs = ends
    system = compiled("relay/system")
    with closing(system.Poller()) as poller:
        poller.register(ours.fileno(), EPOLLIN)
        for _ in range(3):
            theirs.send(b"x")
            assert poller.wait(0.05) == 1
            assert poller.fd(0) == ours.fileno()
            assert ours.recv(1) == b"x"
        for look in (poller.wait, poller.rest):
            assert select([poller.fileno()], [], [], 5)[0], "the timer runs"
            assert look(0) == 0
            assert not select([poller.fileno()], [], [], 0)[0]
            theirs.send(b"x")
            assert poller.wait(0.05) == 1
            ours.recv(1)
        assert select([poller.fileno()], [], [], 5)[0]
        theirs.send(b"x")
        assert poller.wait(0.05) == 1
        assert (poller.fd(0), poller.mask(0)) == (ours.fileno(), EPOLLIN)
        ours.recv(1)
        assert poller.wait(0.05) == 0


def test_resting_for_a_moment(system: ModuleType, ends: tuple[socket.socket, socket.socket]) -> None:
    """As for waiting, with a time that an epoll object would round up."""
    ours, theirs = ends
    with closing(system.Poller()) as poller:
        poller.register(ours.fileno(), EPOLLIN)
        assert poller.rest(0.00003) == 0
        theirs.send(b"x")
        assert poller.rest(0.00003) == 1
        assert (poller.fd(0), poller.mask(0)) == (ours.fileno(), EPOLLIN)
        poller.unregister(ours.fileno())
        assert poller.rest(0) == 0


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_resting_where_the_system_call_is_refused(
    system: ModuleType, ends: tuple[socket.socket, socket.socket], number: int
) -> None:
    """By a Linux that does not have it, or by a filter that does not know it: what comes is seen when time is over."""
    ours, theirs = ends

    def rest() -> list[int]:
        _refuse(_EPOLL_PWAIT2, number)
        before = time.monotonic()
        counts = [poller.rest(0.0009)]
        assert time.monotonic() - before >= 0.0009
        theirs.send(b"x")
        return [*counts, poller.rest(0.0009)]

    with closing(system.Poller()) as poller, ThreadPoolExecutor(1) as alone:
        poller.register(ours.fileno(), EPOLLIN)
        # The filter is the thread's own, and ends with it.
        assert alone.submit(rest).result() == [0, 1]


_EPOLL_PWAIT2: Final = 441
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000


def _refuse(call: int, number: int) -> None:
    """From now on, a system call fails in this thread."""
    steps = (
        (_LOAD_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, call),
        (_RETURN, 0, 0, _ERROR | number),
        (_RETURN, 0, 0, _ALLOW),
    )
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(filters)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0
    if prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program):
        pytest.skip("this kernel filters no system calls")


def test_clocks(system: ModuleType) -> None:
    """The usual one, and any other."""
    before = time.monotonic()
    assert before <= system.read(system.monotonic) <= time.monotonic()
    assert system.read(lambda: 7.5) == 7.5
    with pytest.raises(ZeroDivisionError):
        system.read(lambda: 1 / 0)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest.mark.parametrize("raw", [True, False])
def test_accepting(system: ModuleType, tmp_path: Path, family: int, raw: bool) -> None:
    """A socket as Python itself would make it, that does not block, and where it comes from."""
    address = str(tmp_path / "s") if family == socket.AF_UNIX else (LOOPBACK[family], 0)
    with socket.socket(family) as listening, socket.socket(family) as client:
        listening.bind(address)
        listening.listen()
        listening.setblocking(False)
        descriptor = listening.fileno() if raw else -1
        assert system.accept(listening, descriptor) is None
        client.connect(listening.getsockname())
        accepted, place = eventually(lambda: system.accept(listening, descriptor), what="a connection")
        with accepted:
            assert type(accepted) is socket.socket
            assert (accepted.family, accepted.type) == (family, socket.SOCK_STREAM)
            assert (accepted.gettimeout(), os.get_blocking(accepted.fileno())) == (0.0, False)
            assert not accepted.get_inheritable()
            assert place == address_name(family, client.getsockname())


def test_waiting_for_what_is_not_there(system: ModuleType) -> None:
    """The kernel's errors: a descriptor that is not open, one that is there already, and one that is not."""
    near, far = socket.socketpair()
    poller = system.Poller()
    with near, far:
        with pytest.raises(OSError, match="Bad file descriptor"):
            poller.register(1 << 20, EPOLLIN)
        with pytest.raises(FileNotFoundError):
            poller.modify(near.fileno(), EPOLLIN)
        poller.register(near.fileno(), EPOLLIN)
        with pytest.raises(FileExistsError):
            poller.register(near.fileno(), EPOLLIN)
        poller.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.10.99", "127.100.200.255"])
def test_the_names_of_those_that_are_accepted(system: ModuleType, host: str) -> None:
    """In numbers, whatever they are."""
    with socket.socket() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        client.bind((host, 0))
        client.connect(listening.getsockname())
        accepted, place = eventually(
            lambda: system.accept(listening, listening.fileno()), what="a connection"
        )
        accepted.close()
        assert place == f"{host}:{client.getsockname()[1]}"


def test_closing_a_socket(system: ModuleType) -> None:
    """As its own method does it; twice is once."""
    near, far = socket.socketpair()
    with far:
        for _ in range(2):
            system.close_socket(near)
            assert near.fileno() == -1
        assert far.recv(1) == b""


def test_closing_what_only_looks_like_a_socket(system: ModuleType) -> None:
    """It is asked to close itself."""

    class Looks:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    asked = Looks()
    system.close_socket(asked)
    assert asked.closed == 1


def test_accepting_from_what_does_not_listen(system: ModuleType) -> None:
    """The kernel's error."""
    with socket.socket() as sock, pytest.raises(OSError, match="Invalid argument"):
        system.accept(sock, sock.fileno())
