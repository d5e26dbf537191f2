"""Opening listening sockets."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.frontdoor import listener as module
from hyperpool.frontdoor.listener import Listener, listen_for_each, open_listeners
from hyperpool.transport.passed import PassedSocket, PassedSockets
from hyperpool.transport.sockets import TcpOptions
from tests.support.network import free_port, has_ipv6

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("nothing_left_open")

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


# -- opening ---------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> int:
    """A port that is free."""
    return free_port()


class Opened:
    """Listeners that are closed again.

    Args:
        settings: what is opened.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = PoolerSettings(**settings)

    def __enter__(self) -> list[Listener]:
        self._listeners = open_listeners(self._settings)
        return self._listeners

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()


def reaches(address: object, family: int = socket.AF_INET) -> bool:
    """Whether a connection can be opened."""
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0  # type: ignore[arg-type]  # an address of that family


def refusal(**settings: Any) -> str:
    """Why nothing could be opened."""
    with pytest.raises(StartupError) as caught:
        open_listeners(PoolerSettings(**settings))
    return str(caught.value)


def test_nothing_to_listen_on() -> None:
    """That is for the settings to refuse."""
    assert open_listeners(PoolerSettings()) == []


def test_tcp(port: int) -> None:
    """A listener has options, a queue, and never blocks."""
    with Opened(listen_addr=("127.0.0.1",), listen_port=port, tcp_keepidle=77) as (listener,):
        assert listener.name == f"127.0.0.1:{port}"
        assert listener.path is None
        assert reaches(("127.0.0.1", port))
        with listener.sock.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        with pytest.raises(BlockingIOError):
            listener.sock.accept()
    assert not reaches(("127.0.0.1", port))


def test_several_addresses(port: int) -> None:
    """Each of them has a listener; one that is given twice has one."""
    addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.1")
    with Opened(listen_addr=addresses, listen_port=port) as listeners:
        assert [listener.name for listener in listeners] == [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]
        assert reaches(("127.0.0.2", port))
        assert not reaches(("127.0.0.3", port))


@needs_ipv6
def test_ipv6(port: int) -> None:
    """An IPv6 listener takes IPv6 connections only, so that there may be an IPv4 one beside it."""
    with Opened(listen_addr=("::1", "127.0.0.1"), listen_port=port) as listeners:
        assert [listener.name for listener in listeners] == [f"[::1]:{port}", f"127.0.0.1:{port}"]
        assert reaches(("::1", port), socket.AF_INET6)
        assert reaches(("127.0.0.1", port))
    with Opened(listen_addr=("::",), listen_port=port):
        assert not reaches(("127.0.0.1", port))


@needs_ipv6
def test_all_addresses(port: int) -> None:
    """A star is all of IPv4 and all of IPv6."""
    with Opened(listen_addr=("*",), listen_port=port) as listeners:
        assert {listener.name for listener in listeners} == {f"0.0.0.0:{port}", f"[::]:{port}"}
        assert reaches(("::1", port), socket.AF_INET6)
        assert reaches(("127.0.0.1", port))


def replace(monkeypatch: pytest.MonkeyPatch, **parts: object) -> None:
    """Give the module under test another `socket` module than everybody else."""
    other = SimpleNamespace(**{**vars(socket), **parts})
    monkeypatch.setattr("hyperpool.frontdoor.listener.socket", other)


class WithoutFamily(socket.socket):
    """A socket on a machine that lacks a family of addresses.

    Attributes:
        absent: the family, the error that tells, and whether it is `bind` that fails; else the socket's creation.
    """

    absent: tuple[int, int, bool]

    def __init__(self, family: int = -1, *args: Any, **kwargs: Any) -> None:
        absent, code, late = self.absent
        if family == absent and not late:
            raise OSError(code, os.strerror(code))
        super().__init__(family, *args, **kwargs)

    def bind(self, address: Any) -> None:
        """Bind, if the machine has such addresses."""
        absent, code, _ = self.absent
        if self.family == absent:
            raise OSError(code, os.strerror(code))
        super().bind(address)


NO_IPV6 = [(socket.AF_INET6, errno.EAFNOSUPPORT, False), (socket.AF_INET6, errno.EADDRNOTAVAIL, True)]


@pytest.fixture(params=NO_IPV6, ids=["no such family", "no such address"])
def _no_ipv6(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithoutFamily, "absent", request.param, raising=False)
    replace(monkeypatch, socket=WithoutFamily)


@pytest.mark.usefixtures("_no_ipv6")
def test_all_addresses_of_a_machine_without_ipv6(port: int) -> None:
    """They are those of IPv4: a container often has no others."""
    with Opened(listen_addr=("*",), listen_port=port) as (listener,):
        assert listener.name == f"0.0.0.0:{port}"


@pytest.mark.usefixtures("_no_ipv6")
def test_an_ipv6_address_of_a_machine_without_ipv6(port: int) -> None:
    """It was asked for by name, so its absence is an error."""
    assert f"cannot listen on [::1]:{port}: " in refusal(listen_addr=("::1",), listen_port=port)


def test_a_machine_without_any_addresses(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A star that finds nothing at all is an error."""
    monkeypatch.setattr(WithoutFamily, "absent", NO_IPV6[0], raising=False)
    wildcard = [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::", port, 0, 0))]
    replace(monkeypatch, socket=WithoutFamily, getaddrinfo=lambda *_, **__: wildcard)
    assert refusal(listen_addr=("*",), listen_port=port).startswith(f"cannot listen on [::]:{port}: ")


def test_a_port_that_is_taken(port: int, directory: Path) -> None:
    """The message names the address, the reason and the settings; what had been opened is closed."""
    with socket.create_server(("127.0.0.2", port)):
        message = refusal(
            listen_addr=("127.0.0.1", "127.0.0.2"), listen_port=port, unix_socket_dir=str(directory)
        )
        assert message == (
            f"cannot listen on 127.0.0.2:{port}: Address already in use; see listen_addr and listen_port"
        )
        assert not reaches(("127.0.0.1", port))
    assert list(directory.iterdir()) == []


def test_an_address_of_another_machine(port: int) -> None:
    """Unlike with a star, it is an error, whatever else there is."""
    assert refusal(listen_addr=("127.0.0.1", "192.0.2.1"), listen_port=port) == (
        f"cannot listen on 192.0.2.1:{port}: Cannot assign requested address; see listen_addr and listen_port"
    )


def test_a_name_without_an_address(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's reason is told."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    replace(monkeypatch, getaddrinfo=fail)
    assert refusal(listen_addr=("nowhere.example",), listen_port=port) == (
        f"cannot listen on nowhere.example:{port}: Name or service not known; see listen_addr"
    )


def test_a_name_that_is_none(port: int) -> None:
    """No name has a part of more than 63 characters."""
    name = "a" * 64
    assert refusal(listen_addr=(name,), listen_port=port) == (
        f"cannot listen on {name}:{port}: not a valid host name; see listen_addr"
    )


# -- Unix sockets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o600])
def test_unix_socket(directory: Path, mode: int) -> None:
    """It has the name that libpq looks for, the mode that is set, and goes away with the listener."""
    path = directory / ".s.PGSQL.6432"
    with Opened(unix_socket_dir=str(directory), unix_socket_mode=mode) as (listener,):
        assert (listener.name, listener.path) == (str(path), path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert reaches(str(path), socket.AF_UNIX)
    assert not path.exists()


def test_unix_socket_left_by_a_crash(directory: Path) -> None:
    """It is replaced."""
    path = directory / ".s.PGSQL.6432"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    with Opened(unix_socket_dir=str(directory)):
        assert reaches(str(path), socket.AF_UNIX)


@pytest.mark.parametrize("busy", [False, True])
def test_unix_socket_of_another_process(port: int, directory: Path, busy: bool) -> None:
    """It is left alone, also when its owner is too busy to answer; TCP listeners are closed again."""
    path = directory / f".s.PGSQL.{port}"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(str(path))
        other.listen(0)
        if busy:
            client.connect(str(path))
        message = refusal(listen_addr=("127.0.0.1",), listen_port=port, unix_socket_dir=str(directory))
        assert message == (
            f"cannot listen on {path}: Address already in use; see unix_socket_dir and listen_port"
        )
        assert not reaches(("127.0.0.1", port))
        assert path.exists()


def test_another_file_in_its_place(directory: Path) -> None:
    """It is nobody's leftover, and stays."""
    path = directory / ".s.PGSQL.6432"
    path.write_text("precious")
    assert "Address already in use" in refusal(unix_socket_dir=str(directory))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file or directory"), ("x" * 120, "AF_UNIX path too long")]
)
def test_unix_socket_that_cannot_be(directory: Path, name: str, reason: str) -> None:
    """The reason is told."""
    message = refusal(unix_socket_dir=str(directory / name))
    assert message.endswith(f"/.s.PGSQL.6432: {reason}; see unix_socket_dir and listen_port")


def test_unix_socket_of_a_group(directory: Path) -> None:
    """A name or a number; one that is not there is told."""
    path = directory / ".s.PGSQL.6432"
    number = os.getgid()
    for group in (str(number), grp.getgrgid(number).gr_name):
        with Opened(unix_socket_dir=str(directory), unix_socket_group=group):
            assert path.stat().st_gid == number
    message = refusal(unix_socket_dir=str(directory), unix_socket_group="nobody-in-particular")
    assert "there is no group 'nobody-in-particular' (unix_socket_group)" in message


def test_unix_socket_without_a_file() -> None:
    """An abstract name, as pgbouncer takes it: there is no file to remove, and none to set permissions of."""
    name = f"@hyperpool-test-{os.getpid()}"
    with Opened(unix_socket_dir=name, unix_socket_group="whatever") as (listener,):
        assert (listener.name, listener.path) == (f"{name}/.s.PGSQL.6432", None)
        assert reaches(f"\0{listener.name[1:]}", socket.AF_UNIX)
        listener.configure(TcpOptions(keepidle=99))
    assert not reaches(f"\0{name[1:]}/.s.PGSQL.6432", socket.AF_UNIX)


def test_unix_socket_that_is_taken_over(directory: Path) -> None:
    """From a process that still listens, and does not remove it when it ends (-R)."""
    settings = PoolerSettings(unix_socket_dir=str(directory))
    (old,) = open_listeners(settings)
    (new,) = open_listeners(settings, take_over=True)
    old.close()
    assert new.path is not None
    assert reaches(str(new.path), socket.AF_UNIX)
    new.close()
    assert not list(directory.iterdir())


def test_a_successors_unix_socket_is_left_alone(directory: Path) -> None:
    """A pooler that has stopped listening, and ends later, takes no file from the one that came after it."""
    old = open_listeners(PoolerSettings(unix_socket_dir=str(directory)))[0]
    old.close()
    with Opened(unix_socket_dir=str(directory)) as (new,):
        old.close()
        assert new.path is not None
        assert reaches(str(new.path), socket.AF_UNIX)


def test_options_of_a_listener_can_be_changed(port: int, directory: Path) -> None:
    """For the connections to come; Unix sockets have none."""
    settings = PoolerSettings(listen_addr=("127.0.0.1",), listen_port=port, unix_socket_dir=str(directory))
    tcp, unix = open_listeners(settings)
    options = TcpOptions(keepidle=99)
    for listener in (tcp, unix):
        listener.configure(options)
    assert tcp.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 99
    for listener in (tcp, unix):
        listener.close()
        listener.configure(options)


# -- sockets that are open already ---------------------------------------------------------------------------------


def test_sockets_in_place_of_the_settings(port: int, directory: Path) -> None:
    """They are listened on, with the settings' options, and nothing else is; whose file it is removes it."""
    path = directory / "other"
    tcp, unix = socket.socket(), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    unix.bind(str(path))
    number = tcp.getsockname()[1]
    passed = PassedSockets([PassedSocket(tcp, fixed=True), PassedSocket(unix, fixed=True)])
    settings = PoolerSettings(
        listen_addr=("127.0.0.1",), listen_port=port, unix_socket_dir=str(directory), tcp_keepidle=77
    )
    listeners = open_listeners(settings, passed)
    assert [one.name for one in listeners] == [f"127.0.0.1:{number}", str(path)]
    assert all(one.fixed for one in listeners)
    assert reaches(("127.0.0.1", number))
    assert reaches(str(path), socket.AF_UNIX)
    assert not reaches(("127.0.0.1", port))
    with listeners[0].sock.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    for listener in listeners:
        listener.close()
    assert path.exists()


def test_a_socket_in_place_of_the_settings_that_is_of_no_use() -> None:
    """A unit can pass any kind."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    with pytest.raises(StartupError, match=r"which was passed to this process: .*; ListenStream= is"):
        open_listeners(PoolerSettings(), PassedSockets([PassedSocket(sock, fixed=True)]))


def test_sockets_of_the_process_before(port: int, directory: Path) -> None:
    """They are used where the settings name them, and the rest is bound; the file stays until it is ours alone."""
    before = PoolerSettings(
        listen_addr=("127.0.0.1",), listen_port=port, unix_socket_dir=str(directory), unix_socket_mode=0o777
    )
    old = open_listeners(before)
    passed = PassedSockets([PassedSocket(one.sock.dup()) for one in old])
    now = attrs.evolve(before, listen_addr=("127.0.0.2", "127.0.0.1"), unix_socket_mode=0o700)
    new = open_listeners(now, passed)
    assert not passed
    assert [(one.name, one.shared) for one in new] == [
        (f"127.0.0.2:{port}", False),
        (f"127.0.0.1:{port}", True),
        (str(directory / f".s.PGSQL.{port}"), True),
    ]
    path = new[-1].path
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for listener in old:
        listener.shared = True
        listener.close()
    assert reaches(str(path), socket.AF_UNIX)
    assert reaches(("127.0.0.1", port))
    new[-1].shared = False
    for listener in new:
        listener.close()
    assert not path.exists()


def test_a_start_that_fails_leaves_the_process_before_alone(port: int, directory: Path) -> None:
    """It goes on to listen, and its file stays."""
    settings = PoolerSettings(unix_socket_dir=str(directory), listen_port=port)
    (old,) = open_listeners(settings)
    passed = PassedSockets([PassedSocket(old.sock.dup())])
    (new,) = open_listeners(settings, passed)
    new.close()
    assert reaches(str(directory / f".s.PGSQL.{port}"), socket.AF_UNIX)
    old.close()


def test_an_abstract_socket_of_the_process_before() -> None:
    """It has no file."""
    settings = PoolerSettings(unix_socket_dir=f"@hyperpool-passed-{os.getpid()}")
    (old,) = open_listeners(settings)
    (new,) = open_listeners(settings, PassedSockets([PassedSocket(old.sock.dup())]))
    old.close()
    assert reaches(f"\0{new.name[1:]}", socket.AF_UNIX)
    new.close()


def test_a_unix_socket_whose_file_is_gone(directory: Path) -> None:
    """It is of no use any more: a new one is made."""
    settings = PoolerSettings(unix_socket_dir=str(directory))
    (old,) = open_listeners(settings)
    passed = PassedSockets([PassedSocket(old.sock.dup())])
    old.close()
    (new,) = open_listeners(settings, passed)
    assert not new.shared
    assert reaches(new.name, socket.AF_UNIX)
    new.close()


# -- for several processes -------------------------------------------------------------------------------------


class Divided:
    """Listeners of several processes, which are closed again.

    Args:
        processes: how many.
        passed: sockets that are open already; handed over.
        settings: what is opened.

    Attributes:
        each: the listeners of each process.
    """

    def __init__(self, processes: int, passed: list[PassedSocket], **settings: Any) -> None:
        own = PoolerSettings(so_reuseport=True, **settings)
        self.each = listen_for_each(open_listeners(own, PassedSockets(passed)), own, processes)

    def __enter__(self) -> list[list[socket.socket]]:
        return [[listener.sock for listener in some] for some in self.each]

    def __exit__(self, *_: object) -> None:
        for listener in {id(one): one for some in self.each for one in some}.values():
            listener.close()


def several(port: int, count: int, *, multiple: bool = True) -> list[PassedSocket]:
    """Sockets of an address that other processes had."""
    found = []
    for _ in range(count):
        sock = socket.socket()
        if multiple:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        found.append(PassedSocket(sock))
    return found


def accepted(sock: socket.socket) -> int:
    """How many clients have waited for a socket."""
    count = 0
    while True:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return count
        client.close()
        count += 1


@pytest.mark.parametrize("passed", [0, 1, 3])
def test_each_process_has_sockets_of_its_own(port: int, directory: Path, passed: int) -> None:
    """For TCP, whether there were some before or not; a Unix socket is shared."""
    before = several(port, passed)
    settings = {"listen_addr": ("127.0.0.1",), "listen_port": port, "unix_socket_dir": str(directory)}
    with Divided(3, before, **settings) as each:
        assert [[sock.family for sock in some] for some in each] == [[socket.AF_INET, socket.AF_UNIX]] * 3
        assert len({some[0].fileno() for some in each}) == 3
        assert len({some[1].fileno() for some in each}) == 1
        assert {one.sock.fileno() for one in before} <= {some[0].fileno() for some in each}


def test_nobody_who_waits_is_left_alone(port: int) -> None:
    """There were more processes before than there are now: the queue of each of their sockets is somebody's."""
    before = several(port, 5)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    with Divided(2, before, listen_addr=("127.0.0.1",), listen_port=port) as each:
        assert sorted(map(len, each)) == [2, 3]
        came = sum(accepted(sock) for some in each for sock in some)
    for client in clients:
        client.close()
    assert came == len(clients)


def test_a_socket_that_was_opened_for_one_process_alone(port: int) -> None:
    """Others join it, and the kernel spreads clients over all of them."""
    with Divided(3, several(port, 1, multiple=False), listen_addr=("127.0.0.1",), listen_port=port) as each:
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        came = [accepted(sock) for (sock,) in each]
        for client in clients:
            client.close()
    assert sum(came) == len(clients)
    assert min(came) > 0


def test_what_somebody_else_looks_after_is_shared(port: int) -> None:
    """There is only one of it."""
    (own,) = (attrs.evolve(one, fixed=True) for one in several(port, 1))
    with Divided(2, [own], listen_addr=("127.0.0.1",), listen_port=port) as each:
        assert each == [[own.sock], [own.sock]]


def test_an_address_that_cannot_be_had_once_more(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open of what was opened for it."""
    own = PoolerSettings(so_reuseport=True, listen_addr=("127.0.0.1",), listen_port=port)
    (first,) = open_listeners(own)
    before = module._bind
    left = [1]

    def bind(*arguments: Any) -> socket.socket:
        if not left:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        left.pop()
        return before(*arguments)

    monkeypatch.setattr(module, "_bind", bind)
    with pytest.raises(StartupError, match="once for each worker: Address already in use"):
        listen_for_each([first], own, 3)
    first.close()
