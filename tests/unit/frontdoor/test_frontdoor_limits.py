"""How many clients may come in, and how long they may take."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from hyperpool.config import AuthType, SessionState
from hyperpool.wire import messages
from tests.support.fronthouse import (
    CLEARTEXT,
    FULL,
    QUERY,
    READY,
    House,
    received,
    startup,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable


SSL = struct.pack("!II", 8, 80877103)


# -- places --------------------------------------------------------------------------------------------------------


def test_max_client_conn(make_house: Callable[..., House]) -> None:
    """It counts those that are in and those that have asked to come in, and is reached exactly."""
    house = make_house(max_client_conn=3, auth_type=AuthType.PLAIN)
    house.warm()
    silent = [house.connect() for _ in range(5)]
    inside = house.connect(startup(), messages.password_message(b"pencil"))
    assert received(inside).endswith(READY)
    asked = [house.connect(startup()) for _ in range(2)]
    assert [received(client) for client in asked] == [CLEARTEXT] * 2
    assert received(house.connect(startup())) == FULL + b"END"
    assert house.relay.population == 3
    house.send(silent[0], startup())
    assert received(silent[0]) == FULL + b"END"
    inside.close()
    house.relay.turn()
    house.send(silent[1], startup())
    assert received(silent[1]) == CLEARTEXT
    assert received(house.connect(startup())) == FULL + b"END"


def wrong_password(house: House, client: socket.socket) -> None:
    """The client does not know the password."""
    house.send(client, messages.password_message(b"rubber"))


def breaks_protocol(house: House, client: socket.socket) -> None:
    """The client sends something else than a password."""
    house.send(client, QUERY)


def too_long(house: House, client: socket.socket) -> None:
    """The client sends a password that is too long."""
    house.send(client, struct.pack("!cI", b"p", 1 << 30))


def hangs_up(house: House, client: socket.socket) -> None:
    """The client has changed its mind."""
    client.close()
    house.relay.turn()


def half_closes(house: House, client: socket.socket) -> None:
    """The client will not say anything more."""
    client.shutdown(socket.SHUT_WR)
    house.relay.turn()


def resets(house: House, client: socket.socket) -> None:
    """The client closes with the request for its password unread, which resets the connection."""
    assert client.recv(1)
    client.close()
    house.relay.turn()


def takes_too_long(house: House, client: socket.socket) -> None:
    """The client is too slow."""
    house.later(60.0)


def unknown_database(house: House, client: socket.socket) -> None:
    """The client knows the password, but not the database."""
    house.send(client, messages.password_message(b"pencil"))


def unknown_parameter(house: House, client: socket.socket) -> None:
    """The client knows the password, but asks for what does not follow it."""
    house.send(client, messages.password_message(b"pencil"))


WAYS_TO_FAIL = [
    (startup(), wrong_password),
    (startup(), breaks_protocol),
    (startup(), too_long),
    (startup(), hangs_up),
    (startup(), half_closes),
    (startup(), resets),
    (startup(), takes_too_long),
    (startup(database="nowhere"), unknown_database),
    (startup(application_name="x", options="-x"), None),
    (startup(application_name="x", work_mem="1MB"), unknown_parameter),
    (startup(replication="maybe"), None),
    (startup(replication="true", database="nowhere"), unknown_database),
]


@pytest.mark.parametrize(("sent", "end"), WAYS_TO_FAIL, ids=lambda value: getattr(value, "__name__", None))
def test_a_place_is_given_back(
    make_house: Callable[..., House], sent: bytes, end: Callable[[House, socket.socket], None] | None
) -> None:
    """However a login fails, the next client has the place."""
    house = make_house(max_client_conn=1, auth_type=AuthType.PLAIN, session_state=SessionState.KEEP)
    house.warm()
    client = house.connect(sent)
    if end is not None:
        assert house.relay.population == 1
        end(house, client)
    assert house.relay.population == 0
    next_one = house.connect(startup(), messages.password_message(b"pencil"))
    assert received(next_one).endswith(READY)


def test_too_many_logins(make_house: Callable[..., House]) -> None:
    """Beyond ``max_client_conn`` there is room for cancel requests and for words of refusal, but not for all."""
    house = make_house(max_client_conn=1)
    with capture_logs() as logs:
        guests = [house.connect() for _ in range(257)]
        assert logs == []
        assert received(house.connect()) == b"END"
    assert [entry["log_level"] for entry in logs] == ["warning"]
    guests[0].close()
    house.relay.turn()
    assert received(house.connect()) == b""


# -- time ----------------------------------------------------------------------------------------------------------

LATE = told("08P01", "client_login_timeout") + b"END"


@pytest.mark.parametrize("sent", [b"", SSL, startup()[:9], startup()])
def test_client_login_timeout(house: House, sent: bytes) -> None:
    """Wherever the login is, waiting for a server included."""
    client = house.connect(sent)
    house.later(59.9)
    assert received(client) in {b"", b"N"}
    house.later(0.1)
    assert received(client) == LATE
    assert house.relay.population == 0


def test_client_login_timeout_is_for_logins(house: House) -> None:
    """A client that is in may stay."""
    house.warm()
    client = house.connect(startup())
    assert received(client).endswith(READY)
    house.later(1000.0)
    assert received(client) == b""


def test_client_login_timeout_of_zero(make_house: Callable[..., House]) -> None:
    """No limit."""
    client = (house := make_house(client_login_timeout=0.0)).connect(SSL)
    house.later(1e6)
    assert received(client) == b"N"
