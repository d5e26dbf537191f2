"""Accepting connections, whatever happens."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from hyperpool.config import PoolerSettings
from hyperpool.frontdoor.acceptor import Acceptor
from hyperpool.frontdoor.listener import Listener, open_listeners
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.system import Poller
from tests.support.relayworld import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("nothing_left_open")


class Troubled(socket.socket):
    """A listening socket whose `accept` fails.

    Attributes:
        errors: with which errors, one per call, the first one first.
        stuck: with which error, always; 0 for none.
        starved: Python has no memory for what is accepted.
        tries: how often it was called.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errors: list[int] = []
        self.stuck = 0
        self.starved = False
        self.tries = 0

    def accept(self) -> Any:
        """Accept, if there is no error left."""
        self.tries += 1
        code = self.errors.pop(0) if self.errors else self.stuck
        if code:
            raise OSError(code, os.strerror(code))
        if self.starved:
            raise MemoryError
        return super().accept()


class Short(Poller):
    """An epoll object that may be full.

    Attributes:
        is_full: it is.
    """

    is_full = False

    def register(self, fd: int, mask: int) -> Any:
        """Watch one more, if there is room."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().register(fd, mask)


class House:
    """A relay with acceptors, and clients that come.

    Attributes:
        relay: without Trio, on a clock of its own.
        visits: which listener somebody came through, in order.
        arrived: what was accepted.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.relay = Relay(RelayOptions(linger=0.0, slice=1.0), ParameterTracker(), self.clock)
        self.visits: list[str] = []
        self.arrived: list[socket.socket] = []
        self.clients: list[socket.socket] = []

    def listen(self, name: str = "door") -> tuple[Troubled, Acceptor]:
        """Accept connections to a new listener."""
        sock = Troubled(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind("")
        sock.listen(200)
        sock.setblocking(False)
        acceptor = Acceptor(self.relay, Listener(sock, name), lambda *arrival: self.take(name, *arrival))
        acceptor.start()
        return sock, acceptor

    def take(self, name: str, accepted: socket.socket, address: str) -> None:
        """Somebody has come."""
        assert address == "unix"
        self.visits.append(name)
        self.arrived.append(accepted)

    def come(self, listener: socket.socket, count: int = 1) -> None:
        """Let clients come."""
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            self.clients.append(client)
            client.connect(listener.getsockname())

    def sweep(self) -> None:
        """Let the time of a sweep pass."""
        self.clock.now += 0.1
        self.relay.sweep(iter(()))

    def close(self) -> None:
        """Close everything."""
        self.relay.close()
        for sock in (*self.arrived, *self.clients):
            sock.close()


@pytest.fixture
def house() -> Iterator[House]:
    """A house."""
    found = House()
    yield found
    found.close()


def test_connections_are_handed_over(house: House) -> None:
    """Those that came before the relay ran, too."""
    listener, _ = house.listen()
    house.come(listener, 3)
    house.relay.turn()
    house.come(listener)
    house.relay.turn()
    assert len(house.arrived) == 4


def test_a_crowd_does_not_keep_others_waiting(house: House) -> None:
    """More come at once than are accepted in one go: another listener has its turn in between."""
    first, _ = house.listen("first")
    second, _ = house.listen("second")
    house.come(first, 150)
    house.come(second)
    house.relay.turn()
    assert house.visits.count("first") == 150
    assert house.visits.index("second") <= 64


def test_nobody_is_looked_for_in_vain(house: House) -> None:
    """An accept(2) that finds nobody costs more than one wakeup: one client at a time is one try each."""
    listener, _ = house.listen()
    for _ in range(5):
        house.come(listener)
        house.relay.turn()
    assert (len(house.arrived), listener.tries) == (5, 5)


def test_more_come_than_are_accepted(house: House) -> None:
    """Twice as many are taken in each wakeup that follows: a crowd takes few, however much else there is to do."""
    listener, _ = house.listen()
    house.come(listener, 127)
    before = house.relay.wakeups
    house.relay.turn()
    assert len(house.arrived) == 127
    assert house.relay.wakeups - before == len((1, 2, 4, 8, 16, 32, 64)) + 1
    house.come(listener)
    house.relay.turn()
    assert listener.tries == 128


def test_all_who_wait(house: House) -> None:
    """As before the listener is closed: they have connected, and would be cut off."""
    listener, acceptor = house.listen()
    house.come(listener, 150)
    acceptor.accept_all(200)
    assert len(house.arrived) == 150


def test_all_who_wait_and_come_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is sent away may come again at once, and for ever: there is an end to it."""
    listener, acceptor = house.listen()

    def send_away(name: str, accepted: socket.socket, address: str) -> None:
        house.visits.append(name)
        accepted.close()
        assert len(house.visits) < 1000, "and so on"
        house.come(listener)

    monkeypatch.setattr(house, "take", send_away)
    house.come(listener, 3)
    acceptor.accept_all(200)
    assert len(house.visits) == 201


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_no_descriptor_left(house: House, code: int) -> None:
    """It is logged once, with the remedy; the next sweep after there are some accepts who came meanwhile."""
    listener, _ = house.listen()
    listener.stuck = code
    with capture_logs() as logs:
        house.come(listener, 2)
        house.relay.turn()
        house.come(listener)
        house.relay.turn()
        house.sweep()
        house.sweep()
    assert [(entry["log_level"], entry["listener"], entry["error"]) for entry in logs] == [
        ("error", "door", os.strerror(code))
    ]
    assert "ulimit" in logs[0]["remedy"]
    assert house.arrived == []
    listener.stuck = 0
    with capture_logs() as logs:
        house.sweep()
    assert len(house.arrived) == 3
    assert logs == []
    tries = listener.tries
    house.sweep()
    assert listener.tries == tries
    house.come(listener)
    house.relay.turn()
    assert len(house.arrived) == 4


def test_nothing_is_left_to_watch_it_with(house: House) -> None:
    """What was short may be memory, and an epoll object needs some for each socket that it begins to watch."""
    house.relay._epoll.close()
    house.relay._epoll = poller = Short()
    listener, _ = house.listen()
    poller.is_full = True
    listener.errors = [errno.ENOMEM]
    house.come(listener)
    with capture_logs() as logs:
        house.relay.turn()
        house.sweep()
    assert [entry["event"] for entry in logs] == ["cannot accept connections"]
    assert len(house.arrived) == 1
    house.come(listener)
    house.relay.turn()
    assert len(house.arrived) == 2


def test_no_descriptor_left_again(house: House) -> None:
    """Once all who came have been accepted, the trouble counts as over; the next one is logged again."""
    listener, _ = house.listen()
    with capture_logs() as logs:
        for _ in range(2):
            listener.errors = [errno.EMFILE]
            house.come(listener)
            house.relay.turn()
            house.sweep()
    assert len(logs) == 2
    assert len(house.arrived) == 2


def test_a_client_that_is_gone_already(house: House) -> None:
    """Its error is not the listener's: those behind it are accepted."""
    listener, _ = house.listen()
    listener.errors = [errno.ECONNABORTED, errno.EPROTO]
    house.come(listener, 2)
    house.relay.turn()
    assert len(house.arrived) == 2


def test_no_memory_left_for_python(house: House) -> None:
    """That is no reason either to listen no more."""
    listener, acceptor = house.listen()
    listener.starved = True
    with capture_logs() as logs:
        house.come(listener, 2)
        house.relay.turn()
        house.sweep()
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("cannot accept connections", os.strerror(errno.ENOMEM))
    ]
    assert not acceptor.closed
    listener.starved = False
    house.sweep()
    assert len(house.arrived) == 2


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM])
def test_a_socket_that_gives_nobody(house: House, code: int) -> None:
    """As when another process that has it shuts it down, or a filter of system calls forbids to accept.

    That is said once, and does not keep the relay busy.
    """
    listener, _ = house.listen()
    listener.stuck = code
    house.relay._slice = 0.0001
    with capture_logs() as logs:
        house.come(listener)
        assert not house.relay.turn()
        house.sweep()
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [("error", os.strerror(code))]
    assert "remedy" not in logs[0]
    assert listener.tries == 2
    listener.stuck = 0
    house.sweep()
    assert len(house.arrived) == 1


def test_a_mistake_with_one_connection(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with its cause and costs that connection; the listener goes on."""
    taken: list[socket.socket] = []

    def stumble(name: str, accepted: socket.socket, address: str) -> None:
        taken.append(accepted)
        if len(taken) == 1:
            raise OSError(errno.ENOSPC, "epoll is full")
        house.arrived.append(accepted)

    monkeypatch.setattr(house, "take", stumble)
    listener, acceptor = house.listen()
    with capture_logs() as logs:
        house.come(listener, 3)
        house.relay.turn()
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert "epoll is full" in str(logs[0]["exc_info"])
    assert taken[0].fileno() == -1
    assert len(house.arrived) == 2
    assert not acceptor.closed


def test_a_closed_acceptor_stops_listening(house: House) -> None:
    """Who comes now is refused; who waits is let go."""
    listener, acceptor = house.listen()
    address = listener.getsockname()
    acceptor.lost("shutting down")
    acceptor.lost("shutting down")
    assert listener.fileno() == -1
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(address)
    house.relay.turn()
    house.sweep()


def test_a_closed_acceptor_removes_its_unix_socket(house: House, directory: Path) -> None:
    """So that the next pooler can have the place while this one drains."""
    (listener,) = open_listeners(PoolerSettings(unix_socket_dir=str(directory)))
    acceptor = Acceptor(house.relay, listener, lambda *_: None)
    acceptor.start()
    acceptor.lost("shutting down")
    assert list(directory.iterdir()) == []


def test_a_closed_acceptor_hears_nothing_of_a_shared_socket(house: House) -> None:
    """Another process listens on it: closing ours does not take it out of the epoll object."""
    listener, acceptor = house.listen()
    with socket.socket(fileno=os.dup(listener.fileno())) as elsewhere:
        acceptor.lost("another process goes on")
        with socket.socket(elsewhere.family) as late:
            late.connect(elsewhere.getsockname())
            assert house.relay._epoll.wait(0) == 0
            elsewhere.accept()[0].close()
