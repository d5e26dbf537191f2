"""Cancel requests at the front door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.wire import messages
from tests.support.fronthouse import (
    QUERY,
    READY,
    House,
    begin_query,
    received,
    startup,
)

if TYPE_CHECKING:
    import socket

    from hyperpool.relay.client import ClientConnection


@pytest.fixture
def busy(house: House) -> tuple[ClientConnection, socket.socket]:
    """A client whose query runs, and the server's end of its server connection."""
    return begin_query(house)


def test_a_cancel_request(house: House, busy: tuple[ClientConnection, socket.socket]) -> None:
    """It is passed on; its connection ends when the server has taken it, and costs no place."""
    client, _ = busy
    asker = house.connect(messages.cancel_request(client.pid, client.secret))
    (order,) = house.orders
    assert order.server is client.server
    assert received(asker) == b""
    assert house.relay.population == 1
    assert order.server.cancels == 1
    order.done(delivered=True)
    assert received(asker) == b"END"
    assert order.server.cancels == 0
    assert not order.server.retiring


@pytest.mark.parametrize(("version", "length"), [((3, 0), 4), ((3, 2), 32), ((3, 9999), 32)])
def test_a_secret_is_as_long_as_the_client_understands(
    house: House, version: tuple[int, int], length: int
) -> None:
    """And all of it counts: a secret that is cut short, or goes on, is a wrong one."""
    server = house.warm()
    house.connect(messages.startup_message({"user": "ann", "database": "app"}, version), QUERY)
    (client,) = house.relay.clients.values()
    assert received(server) == QUERY
    assert len(client.secret) == length
    wrong = [client.secret + b"\0", b"\0" * length, b"\0" * 256]
    if length > 4:
        wrong += [client.secret[:4], client.secret[:-1]]
    for secret in wrong:
        assert received(house.connect(messages.cancel_request(client.pid, secret))) == b"END"
    assert house.orders == []
    house.connect(messages.cancel_request(client.pid, client.secret))
    assert len(house.orders) == 1


def test_a_cancel_request_with_something_behind_it(
    house: House, busy: tuple[ClientConnection, socket.socket]
) -> None:
    """It is one request; nothing else is listened to."""
    client, _ = busy
    asker = house.connect(messages.cancel_request(client.pid, client.secret))
    house.send(asker, messages.cancel_request(client.pid, client.secret) + startup())
    assert len(house.orders) == 1
    assert received(asker) == b""


def test_a_cancel_request_that_got_stuck(house: House, busy: tuple[ClientConnection, socket.socket]) -> None:
    """It might still hit: the server serves nobody else."""
    client, _ = busy
    house.connect(messages.cancel_request(client.pid, client.secret))
    (order,) = house.orders
    order.done(delivered=False)
    assert order.server.retiring
    assert not order.server.closed


def test_a_cancel_request_of_a_client_that_has_gone(
    house: House, busy: tuple[ClientConnection, socket.socket]
) -> None:
    """It is still carried out; nobody waits for its end."""
    client, _ = busy
    house.connect(messages.cancel_request(client.pid, client.secret)).close()
    house.relay.turn()
    (order,) = house.orders
    assert order.guest is not None
    assert order.guest.closed
    order.done(delivered=True)
    assert not house.relay.transients


@pytest.mark.parametrize("wrong", ["secret", "length", "pid"])
def test_a_cancel_request_with_a_wrong_key(
    house: House, busy: tuple[ClientConnection, socket.socket], wrong: str
) -> None:
    """It changes nothing, and is not told that it was wrong."""
    client, _ = busy
    pid = client.pid ^ 1 if wrong == "pid" else client.pid
    secret = {"secret": bytes(4), "length": client.secret + b"x"}.get(wrong, client.secret)
    assert received(house.connect(messages.cancel_request(pid, secret))) == b"END"
    assert house.orders == []


def test_a_cancel_request_for_a_client_that_waits(house: House) -> None:
    """No server knows of its query: it is answered here."""
    server = house.warm()
    client = house.connect(startup())
    server.close()
    house.relay.turn()
    assert received(client).endswith(READY)
    house.send(client, QUERY)
    (connection,) = house.relay.clients.values()
    assert house.pool().waiting
    assert received(house.connect(messages.cancel_request(connection.pid, connection.secret))) == b"END"
    assert (
        received(client)
        == messages.error_response("canceling statement due to user request", "57014", severity="ERROR")
        + READY
    )
    assert house.orders == []
