"""Dialing a server: where it connects to, what it says when it cannot, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from hyperpool.config.transports import TcpStep, UnixStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.dial import open_tcp, open_unix
from hyperpool.transport.sockets import TcpOptions
from tests.support.checkpoints import cancel_everywhere, no_descriptor_left
from tests.support.memorynet import dial_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from hyperpool.transport.plain import PlainStream
    from hyperpool.transport.resolve import Address

OPTIONS = TcpOptions(keepcnt=3, keepidle=11, keepintvl=7, user_timeout=12345)


class Names(trio.abc.HostnameResolver):
    """Resolves names without a network.

    Args:
        known: what each name stands for; a name that is not here is unknown.
    """

    def __init__(self, known: Mapping[str, list[str]]) -> None:
        self._known = known

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002 - Trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Look a name up."""
        await trio.lowlevel.checkpoint()
        if host.decode() not in self._known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            entry
            for address in self._known[host.decode()]
            for entry in socket.getaddrinfo(address, port, family, type, proto, socket.AI_NUMERICHOST)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Not used."""
        raise AssertionError("nobody asks for names of addresses")


async def dial(host: str, port: int, options: TcpOptions = OPTIONS) -> PlainStream:
    """Open a stream as a route would."""
    context = dial_context(options)
    if host.startswith(("/", "@")):
        return await open_unix(UnixStep(path=f"{host}/.s.PGSQL.{port}"), None, context)
    return await open_tcp(TcpStep(host=host, port=port), None, context)


def resolve_names() -> None:
    """From now on two names have two addresses each, the first without a listener; no other name exists."""
    known = {"two.example": ["::1", "127.0.0.1"], "mixed.example": ["127.0.0.1", "255.255.255.255"]}
    trio.socket.set_custom_hostname_resolver(Names(known))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP listener on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(autouse=True)
def _nothing_left_open(listener: socket.socket) -> Iterator[None]:
    with no_descriptor_left():
        yield


def port_of(listener: socket.socket) -> int:
    """The listener's port."""
    return int(listener.getsockname()[1])


async def test_tcp(listener: socket.socket) -> None:
    """The stream leads to the listener, has the options, and is not slowed down for large messages."""
    async with await dial("127.0.0.1", port_of(listener)) as stream:
        peer, _ = listener.accept()
        with peer, stream.detach() as sock:
            sock.send(b"hello")
            assert peer.recv(16) == b"hello"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            with socket.socket() as untouched:
                mark = socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT
                assert sock.getsockopt(*mark) == untouched.getsockopt(*mark)


async def test_what_was_done_is_noted(listener: socket.socket, free_port: int) -> None:
    """The lookup, the addresses and the one that was reached; and how it failed."""
    resolve_names()
    context = dial_context(OPTIONS)
    step = TcpStep(host="two.example", port=port_of(listener))
    async with await open_tcp(step, None, context):
        listener.accept()[0].close()
    looked_up, connected = context.trace.hops
    assert (looked_up.name, looked_up.facts) == ("resolve two.example", {"addresses": "::1, 127.0.0.1"})
    assert (connected.name, connected.facts) == (f"tcp two.example:{step.port}", {"address": "127.0.0.1"})
    with pytest.raises(ConnectFailed) as caught:
        await open_tcp(TcpStep(host="::1", port=free_port), None, context)
    assert context.trace.hops[-1].error == str(caught.value) != ""
    assert str(caught.value).startswith(f"cannot connect to [::1]:{free_port}: ")


async def test_addresses_that_do_not_answer(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The next one is tried a quarter of a second later, families in turn, and what was begun before is dropped."""
    began: list[tuple[str, float]] = []

    async def connect(address: Address) -> socket.socket:
        host = address[1][0]
        began.append((host, trio.current_time()))
        if host != "127.0.0.1":
            await trio.sleep_forever()
        sock = socket.socket()
        sock.connect(address[1])
        return sock

    monkeypatch.setattr("hyperpool.transport.dial._connect", connect)
    addresses: list[Address] = [
        (socket.AF_INET6, ("2001:db8::1", port_of(listener), 0, 0)),
        (socket.AF_INET6, ("2001:db8::2", port_of(listener), 0, 0)),
        (socket.AF_INET, ("127.0.0.1", port_of(listener))),
    ]
    context = dial_context(OPTIONS)

    async def resolve(host: str, port: int) -> list[Address]:
        await trio.lowlevel.checkpoint()
        return addresses

    monkeypatch.setattr(context.resolver, "resolve", resolve)
    async with await open_tcp(TcpStep(host="many.example", port=port_of(listener)), None, context):
        listener.accept()[0].close()
    assert began == [("2001:db8::1", 0.0), ("127.0.0.1", pytest.approx(0.25))]


async def test_tcp_tries_every_address(listener: socket.socket) -> None:
    """A name may stand for an address that nobody listens on, too."""
    resolve_names()
    async with await dial("two.example", port_of(listener)) as stream:
        with listener.accept()[0], stream.detach() as sock:
            assert sock.getpeername() == listener.getsockname()


@pytest.mark.parametrize("host", ["127.0.0.1", "two.example", "mixed.example"])
async def test_tcp_refused(host: str, free_port: int) -> None:
    """Nobody listens: the message has the address and the kernel's reason, of several addresses the first one's."""
    resolve_names()
    with pytest.raises(ConnectFailed) as caught:
        await dial(host, free_port)
    assert str(caught.value) == f"cannot connect to {host}:{free_port}: Connection refused"
    assert caught.value.sqlstate == "08001"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("nowhere.example", "Name or service not known"),
        ("a" * 64 + ".example", "not a valid host name"),
        ("two..example", "not a valid host name"),
    ],
)
async def test_tcp_unresolvable(host: str, reason: str) -> None:
    """A name that nobody knows, and one that cannot be a name."""
    resolve_names()
    with pytest.raises(ConnectFailed) as caught:
        await dial(host, 5432)
    assert str(caught.value) == f"cannot connect to {host}:5432: {reason}"


async def test_tcp_option_refused(listener: socket.socket) -> None:
    """A value that the kernel does not take is the reason of a failure like any other."""
    with pytest.raises(ConnectFailed) as caught:
        await dial("127.0.0.1", port_of(listener), TcpOptions(keepcnt=1000))
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{port_of(listener)}: Invalid argument"


async def test_unix_socket(directory: Path) -> None:
    """A host that starts with a slash is a directory; the port is in the socket's name."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen()
        async with await dial(str(directory), 5432) as stream:
            peer, _ = listener.accept()
            with peer:
                await stream.send_all(b"hello")
                assert peer.recv(16) == b"hello"


async def test_abstract_unix_socket() -> None:
    """A host that starts with ``@`` is in Linux's abstract namespace."""
    name = f"@hyperpool-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name[1:]}/.s.PGSQL.5432")
        listener.listen()
        async with await dial(name, 5432) as stream:
            peer, _ = listener.accept()
            with peer:
                peer.send(b"hello")
                assert await stream.receive_some() == b"hello"


async def test_unix_socket_missing(directory: Path) -> None:
    """No file: the message has the whole path."""
    with pytest.raises(ConnectFailed) as caught:
        await dial(str(directory), 5432)
    assert str(caught.value) == f"cannot connect to {directory}/.s.PGSQL.5432: No such file or directory"


async def test_unix_socket_left_by_a_crash(directory: Path) -> None:
    """A file, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.5432"))
    with pytest.raises(ConnectFailed, match="Connection refused"):
        await dial(str(directory), 5432)


async def test_abstract_unix_socket_missing() -> None:
    """Nobody has that name."""
    name = f"@hyperpool-test-{os.getpid()}-nobody"
    with pytest.raises(ConnectFailed) as caught:
        await dial(name, 5432)
    assert str(caught.value) == f"cannot connect to {name}/.s.PGSQL.5432: Connection refused"


async def test_unix_socket_with_a_path_that_is_too_long() -> None:
    """The limit is the kernel's, 107 bytes."""
    with pytest.raises(ConnectFailed, match="path too long"):
        await dial("/" + "x" * 120, 5432)


async def test_unix_socket_of_a_server_that_does_not_accept(directory: Path) -> None:
    """The server's queue is full: that is known at once, and no stream is made of a socket without a peer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(directory / ".s.PGSQL.5432"))
        with pytest.raises(ConnectFailed, match="Resource temporarily unavailable"):
            await dial(str(directory), 5432)


async def test_cancelled_tcp_leaves_nothing(listener: socket.socket) -> None:
    """Whenever it is cancelled, whichever of two addresses has its turn."""
    resolve_names()

    async def connect() -> None:
        await (await dial("two.example", port_of(listener))).aclose()

    assert await cancel_everywhere(connect) >= 2
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


async def test_cancelled_unix_leaves_nothing(directory: Path) -> None:
    """Whenever it is cancelled."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen()

        async def connect() -> None:
            await (await dial(str(directory), 5432)).aclose()

        assert await cancel_everywhere(connect) >= 1
