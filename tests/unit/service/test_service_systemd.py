"""What systemd passes to a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from hyperpool.service import systemd
from hyperpool.service.systemd import Notifier, ServiceManager
from tests.support.checkpoints import no_descriptor_left
from tests.support.notified import NotifySocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROGRAM = """
import json, os, sys
from hyperpool.service.systemd import activated
from hyperpool.transport.passed import socket_name
found = activated(os.environ)._sockets
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([[[one.role, one.fixed, socket_name(one.sock), os.get_inheritable(one.sock.fileno())]
                   for one in found], left]))
"""


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("hyperpool.socket:agents", ["clients", "agents"]),
        ("", ["clients", "clients"]),
        ("agents", ["agents", "clients"]),
        ("stored-agents:stored-clients", ["agents", "clients"]),
    ],
)
def test_socket_activation(names: str, roles: list[str]) -> None:
    """The descriptors from 3 on, with their roles; no child gets them, or is told of any."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        fds = [one.fileno(), two.fileno()]
        program = f'exec 3<&{fds[0]} 4<&{fds[1]}; LISTEN_PID=$$ exec "$@"'
        environment = {**os.environ, "LISTEN_FDS": "2"}
        if names:
            environment["LISTEN_FDNAMES"] = names
        done = subprocess.run(
            ["bash", "-c", program, "bash", sys.executable, "-c", _PROGRAM],
            pass_fds=fds,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        expected = [
            [role, "stored" not in names, f"127.0.0.1:{sock.getsockname()[1]}", False]
            for role, sock in zip(roles, (one, two), strict=True)
        ]
    assert json.loads(done.stdout) == [expected, []]


def test_sockets_for_another_process() -> None:
    """They are not ours, whatever the variables say."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "HOME": "/"}
    assert not systemd.activated(environ)
    assert environ == {"HOME": "/"}


# -- telling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    """Who is told."""
    with no_descriptor_left(), NotifySocket(tmp_path) as found:
        yield found


def test_what_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken out, so that no child believes them; and another process can be given the same."""
    environ = {
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "1500000",
        "WATCHDOG_PID": "",
        "FDSTORE": "8",
        "A": "b",
    }
    found = ServiceManager.found(environ)
    assert found == ServiceManager("/run/n", 1.5, 8)
    assert environ == {"A": "b"}
    assert ServiceManager.found(found.environment()) == found
    assert ServiceManager("@n").environment() == {"NOTIFY_SOCKET": "@n"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1"},
        {"WATCHDOG_USEC": "1000000"},
    ],
)
def test_nobody_wants_to_be_told(environ: dict[str, str]) -> None:
    """Then nothing is, and nothing fails."""
    manager = ServiceManager.found(environ)
    assert manager == ServiceManager()
    assert manager.environment() == {}
    with no_descriptor_left():
        notifier = Notifier(manager)
        notifier.ready()
        notifier.status("of no interest")
        notifier.close()


def test_the_watchdog_of_another_process() -> None:
    """It is not for us."""
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert ServiceManager.found(environ).watchdog == 0.0


def test_a_life(notify: NotifySocket) -> None:
    """In systemd's words; a line that has not changed is not told again."""
    notifier = Notifier(ServiceManager(notify.address))
    notifier.status("Serving: 1 client")
    notifier.status("Serving: 1 client")
    notifier.ready()
    notifier.reloading()
    notifier.alive()
    notifier.stopping()
    notifier.stopping(2.5)
    notifier.close()
    told = notify.read()
    monotonic = told[2].pop()
    assert monotonic.startswith("MONOTONIC_USEC=")
    assert monotonic.removeprefix("MONOTONIC_USEC=").isdecimal()
    assert told == [
        ["STATUS=Serving: 1 client"],
        ["READY=1"],
        ["RELOADING=1"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
        ["STOPPING=1", "EXTEND_TIMEOUT_USEC=2500000"],
    ]


def test_an_abstract_address() -> None:
    """As systemd writes it."""
    name = f"hyperpool-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        notifier = Notifier(ServiceManager(f"@{name}"))
        notifier.ready()
        notifier.close()
        assert sock.recv(64) == b"READY=1"


def test_a_service_manager_that_is_busy(notify: NotifySocket) -> None:
    """What matters is told later, in order; what is stale by then is not."""
    notifier = Notifier(ServiceManager(notify.address))
    count = 0
    while notifier._put(b"filling"):
        count += 1
    notifier.ready()
    notifier.status("stale")
    notifier.alive()
    notifier.stopping()
    assert len(notify.read()) == count
    notifier.status("fresh")
    assert notify.read()[count:] == [["READY=1"], ["STOPPING=1"], ["STATUS=fresh"]]
    notifier.close()


def test_a_service_manager_that_is_gone(tmp_path: Path) -> None:
    """Nothing fails, and little is kept for its return."""
    notifier = Notifier(ServiceManager(str(tmp_path / "nowhere")))
    for _ in range(100):
        notifier.ready()
    notifier.status("here")
    notifier.close()
    assert len(notifier._unsent) == 64


def test_sockets_are_kept_for_the_next_process(notify: NotifySocket) -> None:
    """In place of those before; one that is closed by then is not sent under another's number."""
    notifier = Notifier(ServiceManager(notify.address, stores=4))
    gone = socket.socket()
    gone.close()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        notifier.store([("clients", sock), ("agents", gone)])
        assert notify.read() == [
            ["FDSTOREREMOVE=1", "FDNAME=stored-agents"],
            ["FDSTOREREMOVE=1", "FDNAME=stored-clients"],
            ["FDSTOREREMOVE=1", "FDNAME=stored-http"],
            ["FDSTORE=1", "FDNAME=stored-clients"],
            ["FDSTORE=1", "FDNAME=stored-agents"],
        ]
        (fd,) = notify.fds
        with socket.socket(fileno=os.dup(fd)) as kept:
            assert kept.getsockname() == sock.getsockname()
    notifier.close()
    without = Notifier(ServiceManager(notify.address))
    without.store([("clients", sock)])
    without.close()
    assert len(notify.read()) == 5


async def test_another_process_is_the_service(notify: NotifySocket) -> None:
    """That is told before anything else, however busy systemd is; then this one says no more."""
    notifier = Notifier(ServiceManager(notify.address))
    while notifier._put(b"filling"):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.replaced, 123)
        with trio.fail_after(10):
            while not notify.has("BARRIER=1"):  # noqa: ASYNC110 - a socket beside Trio
                await trio.sleep(0.001)
    assert notify.read()[-2:] == [["MAINPID=123"], ["BARRIER=1"]]
    notifier.ready()
    assert notify.read()[-1] == ["BARRIER=1"]


async def test_a_service_manager_that_takes_no_note(
    notify: NotifySocket, autojump_clock: trio.abc.Clock
) -> None:
    """It is not waited for without end."""
    notifier = Notifier(ServiceManager(notify.address))
    began = trio.current_time()
    await notifier.replaced(123)
    assert 1 < trio.current_time() - began < 60


def test_what_is_held_is_told_later(notify: NotifySocket) -> None:
    """By a process that is not the service yet; but for what is stale then."""
    notifier = Notifier(ServiceManager(notify.address))
    notifier.held = True
    notifier.status("Filling pools")
    notifier.ready()
    assert notify.read() == []
    notifier.held = False
    notifier.status("Serving")
    assert notify.read() == [["READY=1"], ["STATUS=Serving"]]
    notifier.close()
