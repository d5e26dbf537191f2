"""Where agents come in, on sockets that are open already."""

from __future__ import annotations

import socket

from hyperpool.transport.passed import AGENTS, PassedSocket, PassedSockets
from hyperpool.tunnel.gate import listen
from tests.support.network import free_port


async def test_in_place_of_the_settings() -> None:
    """Nothing else is opened."""
    sock = socket.create_server(("127.0.0.1", 0))
    number = sock.getsockname()[1]
    (listener,) = await listen(
        ("127.0.0.1",), free_port(), "here", PassedSockets([PassedSocket(sock, AGENTS, fixed=True)])
    )
    async with listener:
        assert listener.socket.getsockname() == ("127.0.0.1", number)


async def test_of_the_process_before() -> None:
    """One that the settings name is used; the other addresses are bound."""
    port = free_port()
    sock = socket.create_server(("127.0.0.1", port))
    clients = socket.create_server(("127.0.0.1", 0))
    passed = PassedSockets([PassedSocket(clients), PassedSocket(sock, AGENTS)])
    listeners = await listen(("127.0.0.1", "127.0.0.2"), port, "here", passed)
    names = [listener.socket.getsockname() for listener in listeners]
    assert names == [("127.0.0.1", port), ("127.0.0.2", port)]
    assert len(passed.close()) == 1
    assert clients.fileno() == -1
    for listener in listeners:
        await listener.aclose()
