"""What pgbouncer's settings do with clients that come, and with their servers: limits, and what clients are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.config import DatabaseSettings, PoolMode, SessionState, UserSettings
from hyperpool.relay.options import RelayOptions
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from tests.support.fronthouse import (
    OK,
    QUERY,
    READY,
    REPORTED,
    House,
    received,
    startup,
    told,
    welcome,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_ANSWER = messages.frame(wire.COMMAND_COMPLETE, b"SELECT 1\0") + READY


def _refusal(setting: str) -> bytes:
    return (
        told(
            "08P01",
            f"client connections exceeded ({setting})",
            f"raise {setting}, or let clients close connections that they do not use",
        )
        + b"END"
    )


def _reconfigure(house: House, **pooler: Any) -> None:
    house.settings = attrs.evolve(house.settings, pooler=attrs.evolve(house.settings.pooler, **pooler))
    house.door.configure(house.settings, None)
    house.pools.reload(house.settings)


# -- clients -----------------------------------------------------------------------------------------------------------


def test_a_database_has_a_limit_for_clients(make_house: Callable[..., House]) -> None:
    """Whoever they are, with those that wait for a first server; who leaves makes room for others."""
    house = make_house(max_db_client_connections=2)
    waiting = house.connect(startup())
    house.connect(startup("bob"))
    assert received(house.connect(startup())) == _refusal("max_db_client_connections")
    house.connect(startup(database="other"))
    assert house.relay.census.databases == {"app": 2, "other": 1}
    house.warm()
    assert received(waiting) == welcome(house, REPORTED)
    assert house.relay.census.databases == {"app": 2, "other": 1}
    waiting.close()
    house.relay.turn()
    assert received(house.connect(startup())).endswith(READY)


def test_a_user_has_a_limit_for_clients(make_house: Callable[..., House]) -> None:
    """Whatever database they want; it counts as whom they log in, not as whom the pool does."""
    house = make_house(max_user_client_connections=2)
    house.connect(startup(database="other"))
    house.connect(startup())
    assert received(house.connect(startup())) == _refusal("max_user_client_connections")
    assert b"exceeded" not in received(house.connect(startup("bob", database="other")))


def test_entries_have_limits_of_their_own(make_house: Callable[..., House]) -> None:
    """They go before the pooler's."""
    house = make_house(max_db_client_connections=1, max_user_client_connections=1)
    house.settings = attrs.evolve(
        house.settings,
        databases={"app": DatabaseSettings(max_db_client_connections=0)},
        users={"ann": UserSettings(max_user_client_connections=2), "bob": UserSettings()},
    )
    house.door.configure(house.settings, None)
    for _ in range(2):
        house.connect(startup())
    assert received(house.connect(startup())) == _refusal("max_user_client_connections")


def test_whoever_is_turned_away_leaves_no_place_taken(make_house: Callable[..., House]) -> None:
    """After a refusal, a timeout or a hang-up during the login, and when the client has left."""
    house = make_house(max_client_conn=10, max_db_client_connections=9)
    house.connect(startup()).close()
    house.connect(startup(database="nowhere"))
    house.connect(startup(work_mem="1"))
    house.connect(startup())
    house.relay.turn()
    house.later(61.0)
    assert not house.relay.census.databases
    house.warm()
    client = house.connect(startup())
    assert house.relay.census.users == {"ann": 1}
    client.close()
    house.relay.turn()
    assert not house.relay.census.users


def test_a_notice_at_the_login(make_house: Callable[..., House]) -> None:
    """It stands between AuthenticationOk and the rest, for all that come after the setting."""
    house = make_house(login_notify_message="be quick")
    house.warm()
    notice = messages.notice_response("be quick", "00000", severity="NOTICE")
    assert received(house.connect(startup())).startswith(OK + notice)
    _reconfigure(house, login_notify_message="")
    assert received(house.connect(startup())) == welcome(house, REPORTED)


@pytest.mark.parametrize(
    ("asked", "name"),
    [({}, "app - 192.0.2.7:4711"), ({"application_name": "psql"}, "psql - 192.0.2.7:4711")],
)
def test_the_address_is_added_to_the_application_name(
    make_house: Callable[..., House], asked: dict[str, str], name: str
) -> None:
    """Where there is none, one is made up, as in pgbouncer."""
    house = make_house(application_name_add_host=True)
    house.warm()
    house.connect(startup(**asked))
    (client,) = house.relay.clients.values()
    assert client.tracked.values["application_name"] == name


@pytest.mark.parametrize("mode", [PoolMode.SESSION, PoolMode.TRANSACTION])
def test_simple_queries_can_be_refused(make_house: Callable[..., House], mode: PoolMode) -> None:
    """At once, and behind requests of the extended protocol."""
    refusal = told(
        "08P01", "PQexec disallowed", "use the extended query protocol; see the setting disable_pqexec"
    )
    house = make_house(pool_mode=mode, session_state=SessionState.KEEP)
    house.relay.configure(RelayOptions(linger=0.0, slice=60.0, extended_only=True))
    house.warm()
    first, second = house.connect(startup()), house.connect(startup())
    for client in (first, second):
        received(client)
    house.send(first, QUERY)
    assert received(first) == refusal + b"END"
    house.send(second, messages.SYNC)
    house.send(second, QUERY)
    assert received(second).endswith(refusal + b"END")


# -- servers -----------------------------------------------------------------------------------------------------------


def _busy(house: House, mode_server: socket.socket, user: str = "ann") -> socket.socket:
    """A client whose query has been answered."""
    client = house.connect(startup(user))
    received(client)
    house.send(client, QUERY)
    assert QUERY in received(mode_server)
    house.send(mode_server, _ANSWER)
    assert received(client) == _ANSWER
    return client


def test_an_idle_server_of_another_pool_makes_room(make_house: Callable[..., House]) -> None:
    """For a client that waits; not for one more of the pool that it is in."""
    house = make_house(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP, max_db_connections=1)
    server = house.warm()
    _busy(house, server)
    assert not received(server)
    house.wanted.clear()
    house.connect(startup("bob"))
    assert received(server).endswith(b"END")
    assert house.wanted == [house.pool("bob")]
    assert house.pool("bob").missing(house.clock.now) == 1


def test_a_server_that_becomes_idle_makes_room_for_a_login(make_house: Callable[..., House]) -> None:
    """Within a sweep."""
    house = make_house(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP, max_db_connections=1)
    server = house.warm()
    client = house.connect(startup())
    house.send(client, QUERY)
    house.connect(startup("bob"))
    assert not house.pool("bob").missing(house.clock.now)
    assert b"END" not in received(server)
    house.send(server, _ANSWER)
    house.later(0.1)
    assert received(server).endswith(b"END")
    assert house.pool("bob").missing(house.clock.now) == 1


def _retire(house: House) -> None:
    for server in list(house.pool().servers):
        server.retire("database configuration changed", outdated=True)
    house.relay.turn()


def test_fast_close_ends_a_session_between_transactions(make_house: Callable[..., House]) -> None:
    """At once, if nothing is under way; the client is told."""
    house = make_house(server_fast_close=True)
    client = _busy(house, house.warm())
    _retire(house)
    assert b"database configuration changed" in received(client)


def test_fast_close_waits_for_the_end_of_a_transaction(make_house: Callable[..., House]) -> None:
    """Nothing of it is lost."""
    house = make_house(server_fast_close=True)
    server = house.warm()
    client = _busy(house, server)
    house.send(client, QUERY)
    begun = messages.frame(wire.COMMAND_COMPLETE, b"BEGIN\0") + messages.ready_for_query(b"T")
    house.send(server, begun)
    _retire(house)
    assert received(client) == begun
    house.send(client, QUERY)
    house.send(server, _ANSWER)
    answer = received(client)
    assert answer.startswith(_ANSWER)
    assert b"database configuration changed" in answer


def test_without_fast_close_a_session_goes_on(make_house: Callable[..., House]) -> None:
    """So it does when the server is only too old."""
    house = make_house()
    client = _busy(house, house.warm())
    _retire(house)
    assert not received(client)
    house = make_house(server_fast_close=True)
    client = _busy(house, house.warm())
    for server in list(house.pool().servers):
        server.retire("server lifetime over")
    house.relay.turn()
    assert not received(client)
