"""Clients that log in, in a real relay without Trio: sockets are pairs, and time passes when the test says so."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.config import AuthType, DatabaseSettings, PoolMode, SessionState
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.frontdoor.guest import start_login
from hyperpool.service.logform import render
from hyperpool.wire import messages
from tests.support.fronthouse import (
    CLEARTEXT,
    FULL,
    QUERY,
    READY,
    REPORTED,
    House,
    begin_query,
    received,
    startup,
    statuses,
    told,
    welcome,
)
from tests.support.pglanguage import frame

if TYPE_CHECKING:
    from collections.abc import Callable


SSL = struct.pack("!II", 8, 80877103)
SET = frame(b"C", b"SET\0")
TOKYO = messages.parameter_status("TimeZone", "Asia/Tokyo")


# -- coming in -----------------------------------------------------------------------------------------------------


def test_a_client_of_a_warm_pool(house: House) -> None:
    """It is told what the server told us, and its login costs the server nothing."""
    server = house.warm()
    client = house.connect(startup())
    assert received(client) == welcome(house, REPORTED)
    assert received(server) == b""
    assert (len(house.relay.clients), house.relay.population) == (1, 1)
    assert not house.relay.transients
    assert house.pool().clients == 1


@pytest.mark.parametrize("auth_type", [AuthType.PLAIN, AuthType.MD5, AuthType.SCRAM_SHA_256])
def test_a_client_is_asked_for_its_password(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """As ``auth_type`` says; a wrong password gets a client nowhere."""
    house = make_house(auth_type=auth_type)
    house.warm()
    client = house.connect(startup())
    request = received(client)
    kinds = {AuthType.PLAIN: 3, AuthType.MD5: 5, AuthType.SCRAM_SHA_256: 10}
    assert (request[:1], struct.unpack("!I", request[5:9])[0]) == (b"R", kinds[auth_type])
    house.send(client, messages.password_message(b"rubber"))
    if auth_type is AuthType.SCRAM_SHA_256:
        assert b"\0C08P01\0" in received(client)
    else:
        assert received(client) == told("28P01", 'password authentication failed for user "ann"') + b"END"
    assert house.relay.population == 0


def test_a_password(make_house: Callable[..., House]) -> None:
    """After encryption was declined."""
    house = make_house(auth_type=AuthType.PLAIN)
    house.warm()
    client = house.connect(SSL)
    assert received(client) == b"N"
    house.send(client, startup())
    assert received(client) == CLEARTEXT
    house.send(client, messages.password_message(b"pencil"))
    assert received(client) == welcome(house, REPORTED)


def test_what_is_sent_ahead(make_house: Callable[..., House]) -> None:
    """A client that sends everything at once is answered in order, and its query reaches the server."""
    house = make_house(auth_type=AuthType.PLAIN)
    server = house.warm()
    client = house.connect(startup(), messages.password_message(b"pencil"), QUERY)
    assert received(client) == CLEARTEXT + welcome(house, REPORTED)
    assert received(server) == QUERY


def test_a_wrong_password_that_is_sent_ahead(make_house: Callable[..., House]) -> None:
    """It is refused behind the request that it answers."""
    house = make_house(auth_type=AuthType.PLAIN)
    client = house.connect(startup(), messages.password_message(b"rubber"))
    refusal = told("28P01", 'password authentication failed for user "ann"')
    assert received(client) == CLEARTEXT + refusal + b"END"


def test_a_client_that_does_not_read(house: House) -> None:
    """What it did not take before it was let in stays in front of its greeting."""
    house.warm()
    ours, theirs = house.pair()
    junk = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            junk += theirs.send(bytes(4096))
    start_login(house.door, theirs, "192.0.2.7:4711")
    house.send(ours, SSL)
    house.send(ours, startup())
    assert house.relay.clients
    data = received(ours)
    house.relay.turn()
    assert (data + received(ours))[junk:] == b"N" + welcome(house, REPORTED)


def test_what_is_sent_while_the_pool_is_cold(house: House) -> None:
    """It stays in the kernel until the client is let in, and is not forgotten."""
    client = house.connect(startup())
    house.send(client, QUERY)
    server = house.warm()
    assert received(client) == welcome(house, REPORTED)
    assert received(server) == QUERY


def test_every_chunk_may_be_a_byte(make_house: Callable[..., House]) -> None:
    """A client may be as slow as it likes."""
    house = make_house(auth_type=AuthType.PLAIN)
    house.warm()
    client = house.connect()
    sent = SSL + startup() + messages.password_message(b"pencil")
    for at in range(len(sent)):
        house.send(client, sent[at : at + 1])
    assert received(client) == b"N" + CLEARTEXT + welcome(house, REPORTED)


def test_requested_parameters(house: House) -> None:
    """A server is asked if it takes them, and they are told back as it has made them, in place of its own."""
    server = house.warm()
    client = house.connect(startup(timezone="Asia/Tokyo", client_encoding="latin-1"))
    assert received(client) == b""
    assert received(server) == messages.query("SET TimeZone = 'Asia/Tokyo';SET client_encoding = 'latin-1';")
    house.send(server, SET + TOKYO + SET + messages.parameter_status("client_encoding", "LATIN1") + READY)
    assert received(client) == welcome(
        house, {**REPORTED, "TimeZone": "Asia/Tokyo", "client_encoding": "LATIN1"}
    )


def test_requested_parameters_that_the_server_has_already(house: House) -> None:
    """Drivers ask for ``client_encoding`` UTF8, which is what the server has."""
    server = house.warm()
    client = house.connect(startup(client_encoding="UTF8"))
    assert received(server) == b""
    assert received(client) == welcome(house, REPORTED)
    house.send(client, QUERY)
    assert received(server) == QUERY


def test_requested_parameters_that_the_server_has_under_another_name(house: House) -> None:
    """The server reports nothing, because nothing has changed."""
    server = house.warm()
    client = house.connect(startup(client_encoding="utf-8"))
    assert received(server) == messages.query("SET client_encoding = 'utf-8';")
    house.send(server, SET + READY)
    assert received(client) == welcome(house, REPORTED)


def test_requested_parameters_are_proven_once(make_house: Callable[..., House]) -> None:
    """The next client that asks for the same costs the server nothing, and is told the same."""
    house = make_house(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP)
    server = house.warm()
    house.connect(startup(timezone="asia/tokyo"))
    assert received(server) == messages.query("SET TimeZone = 'asia/tokyo';")
    house.send(server, TOKYO + SET + READY)
    client = house.connect(startup(TIMEZONE="asia/tokyo"))
    assert received(server) == b""
    assert received(client) == welcome(house, {**REPORTED, "TimeZone": "Asia/Tokyo"})
    house.connect(startup(timezone="UTC"))
    assert received(server) == messages.query("SET TimeZone = 'UTC';")


def test_a_query_behind_requested_parameters(house: House) -> None:
    """It is sent when the server has taken them."""
    server = house.warm()
    client = house.connect(startup(timezone="Asia/Tokyo"), QUERY)
    assert received(server) == messages.query("SET TimeZone = 'Asia/Tokyo';")
    house.send(server, TOKYO + SET + READY)
    assert received(client) == welcome(house, {**REPORTED, "TimeZone": "Asia/Tokyo"})
    assert received(server) == QUERY


@pytest.mark.parametrize("pool_mode", PoolMode)
def test_requested_parameters_that_the_server_refuses(
    make_house: Callable[..., House], pool_mode: PoolMode
) -> None:
    """The client reads the server's own words; the server connection lives on, and serves the next client."""
    house = make_house(max_client_conn=1, pool_mode=pool_mode, session_state=SessionState.KEEP)
    server = house.warm()
    refused = messages.error_response("no such zone", "22023", hint="look at a map", severity="ERROR")
    client = house.connect(startup(timezone="Mars"))
    assert received(server) == messages.query("SET TimeZone = 'Mars';")
    house.send(server, refused + READY)
    assert received(client) == told("22023", "no such zone", "look at a map") + b"END"
    assert house.relay.population == 0
    if pool_mode is PoolMode.SESSION:
        assert received(server) == messages.query("DISCARD ALL")
        house.send(server, frame(b"C", b"DISCARD ALL\0") + READY)
    other = house.connect(startup())
    assert received(other) == welcome(house, REPORTED)
    house.send(other, QUERY)
    assert received(server) == QUERY


def test_a_client_that_leaves_while_its_parameters_are_proven(make_house: Callable[..., House]) -> None:
    """Its place is given back, and the server serves the next client when it has answered."""
    house = make_house(max_client_conn=1, pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP)
    server = house.warm()
    house.connect(startup(timezone="Asia/Tokyo")).close()
    house.relay.turn()
    assert house.relay.population == 0
    assert received(server) == messages.query("SET TimeZone = 'Asia/Tokyo';")
    client = house.connect(startup(), QUERY)
    house.send(server, TOKYO + SET + READY)
    assert received(server) == messages.query("SET TimeZone = 'UTC';") + QUERY
    assert received(client) == welcome(house, REPORTED)


def test_requested_parameters_while_no_server_is_free(house: House) -> None:
    """The client waits for one, as with a query; nothing says that it has been let in."""
    house.warm()
    house.connect(startup(), QUERY)
    client = house.connect(startup(timezone="Asia/Tokyo"))
    assert received(client) == b""
    assert house.wanted[-1] is house.pool()
    server = house.warm()
    assert received(server) == messages.query("SET TimeZone = 'Asia/Tokyo';")
    house.send(server, TOKYO + SET + READY)
    assert received(client) == welcome(house, {**REPORTED, "TimeZone": "Asia/Tokyo"})


def test_requested_parameters_are_proven_on_a_new_server_that_has_them(house: House) -> None:
    """A client that has waited for the server is let in, although nothing was to be set."""
    house.warm()
    house.connect(startup(), QUERY)
    client = house.connect(startup(client_encoding="UTF8"), QUERY)
    assert received(client) == b""
    server = house.warm()
    assert received(client) == welcome(house, REPORTED)
    assert received(server) == QUERY


def test_a_database_with_a_forced_user(house: House) -> None:
    """Clients share the pool of that user, and still need to be known themselves."""
    house.warm(pool=house.pool("ann", "other"))
    for user in ("ann", "bob"):
        assert received(house.connect(startup(user, database="other"))).endswith(READY)
    assert house.pool("owner", "other").clients == 2
    assert b"\0C28000\0" in received(house.connect(startup("owner", database="other")))


def test_a_mistake_with_what_was_sent_along(
    make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs that client its connection; its server does not stay with nobody."""
    house = make_house(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP)
    house.warm()
    monkeypatch.setattr(house.relay, "translator", None)
    with capture_logs() as logs:
        client = house.connect(startup(), messages.query("DEALLOCATE a"))
    assert received(client).endswith(b"END")
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "a connection's handler failed: the connection is closed"
    ]
    assert house.relay.population == 0
    assert house.pool().active == 0


# -- waiting for parameters ----------------------------------------------------------------------------------------


def test_the_first_client_of_a_pool(house: House) -> None:
    """A server is asked for; the client is welcomed when it is there, as are those that came meanwhile."""
    first = house.connect(startup())
    second = house.connect(startup(TimeZone="Asia/Tokyo"))
    assert (received(first), received(second)) == (b"", b"")
    assert house.wanted
    assert set(house.wanted) == {house.pool()}
    assert house.relay.population == 2
    server = house.warm()
    assert received(first).endswith(READY)
    assert received(second) == b""
    house.send(server, TOKYO + SET + READY)
    assert received(second) == welcome(house, {**REPORTED, "TimeZone": "Asia/Tokyo"})
    assert house.pool().logins == 0


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ConnectFailed("cannot connect"), told("08001", "cannot connect")),
        (LoginFailed("no", "28P01", b"E\0\0\0\x05x"), b"E\0\0\0\x05x"),
    ],
)
def test_a_server_that_cannot_be_had(house: House, error: ConnectFailed | LoginFailed, answer: bytes) -> None:
    """The client is told at once, in the server's own words if there are any; so is the next one."""
    first = house.connect(startup())
    house.fail(error)
    assert received(first) == answer + b"END"
    asked = len(house.wanted)
    second = house.connect(startup())
    assert received(second) == answer + b"END"
    assert len(house.wanted) == asked
    assert house.relay.population == 0


def test_a_client_that_leaves_while_it_waits(house: House) -> None:
    """Nobody misses it when the server comes, or does not."""
    for outcome in (lambda: house.fail(ConnectFailed("x")), lambda: house.later(2.0), house.warm):
        client = house.connect(startup())
        client.close()
        house.relay.turn()
        outcome()
        assert house.relay.population == 0
        assert not house.relay.clients


@pytest.mark.parametrize("times_out", [False, True])
def test_clients_that_leave_while_their_pool_is_paused(house: House, times_out: bool) -> None:
    """Nothing is kept of them, however many come and go, and nobody takes the pool for one that is in use."""
    pool = house.pool()
    pool.paused = True
    for _ in range(3):
        client = house.connect(startup())
        assert pool.logins == 1
        if times_out:
            house.later(house.settings.pooler.client_login_timeout)
        else:
            client.close()
            house.relay.turn()
        assert (pool.logins, pool.unused) == (0, True)
    stays = house.connect(startup())
    pool.paused = False
    house.warm()
    assert received(stays).endswith(READY)
    assert pool.logins == 0


def test_a_database_that_is_removed_while_a_client_waits(house: House) -> None:
    """The client reads what it would have read later."""
    client = house.connect(startup())
    pool = house.pool()
    without = attrs.evolve(house.settings, databases={})
    house.door.configure(without, house.door.prepare(without))
    house.pools.reload(without)
    house.relay.dissolve(pool)
    house.relay.turn()
    assert b"\0C08001\0" in received(client)
    assert received(house.connect(startup())) == told("3D000", 'database "app" does not exist') + b"END"
    assert house.relay.population == 0


# -- refusals ------------------------------------------------------------------------------------------------------


def test_an_unknown_database(house: House) -> None:
    """In PostgreSQL's words."""
    client = house.connect(startup(database="nowhere"))
    assert received(client) == told("3D000", 'database "nowhere" does not exist') + b"END"


def test_an_unknown_user(house: House) -> None:
    """With ``auth_type`` trust, a client must still be somebody."""
    assert received(house.connect(startup("eve"))) == told("28000", 'role "eve" does not exist') + b"END"


def test_names_that_are_no_utf_8(house: House) -> None:
    """They come back as they came."""
    packet = startup("XX").replace(b"XX", b"\xff\xfe")
    assert (
        received(house.connect(packet))
        == told("28000", 'role "XX" does not exist').replace(b"XX", b"\xff\xfe") + b"END"
    )


@pytest.mark.parametrize("state", [SessionState.KEEP, SessionState.RESET])
def test_a_parameter_that_the_server_does_not_report(
    make_house: Callable[..., House], state: SessionState
) -> None:
    """If session state does not follow, the client is refused, with the reason."""
    house = make_house(session_state=state)
    house.warm()
    client = house.connect(startup(IntervalStyle="iso_8601"))
    assert (
        received(client)
        == told(
            "08P01",
            "unsupported startup parameter: IntervalStyle",
            "servers do not report IntervalStyle, so it can be honoured only with session_state follow; or add it to"
            " ignore_startup_parameters to have it ignored",
        )
        + b"END"
    )
    assert received(house.connect(startup())).endswith(READY)


def test_a_parameter_that_follows_although_the_server_does_not_report_it(house: House) -> None:
    """If session state does follow, a server is asked to set it; the client is not told about it either."""
    server = house.warm()
    client = house.connect(startup(Statement_Timeout="5s", IntervalStyle="iso_8601"))
    assert received(server) == messages.query("SET intervalstyle = 'iso_8601';SET statement_timeout = '5s';")
    house.send(server, SET + SET + READY)
    assert received(client) == welcome(house, REPORTED)


def test_garbage(house: House) -> None:
    """Not a startup packet."""
    client = house.connect(b"GET / HTTP/1.1\r\n\r\n")
    assert received(client) == told("08P01", "invalid length of startup packet") + b"END"


@pytest.mark.parametrize("logged", [True, False])
def test_refusals_are_logged(make_house: Callable[..., House], logged: bool) -> None:
    """With ``log_pooler_errors``."""
    house = make_house(log_pooler_errors=logged)
    with capture_logs() as logs:
        house.connect(startup("eve"))
    entry = {
        "event": "login refused",
        "log_level": "warning",
        "id": 1,
        "client": "192.0.2.7:4711",
        "database": "app",
        "user": "eve",
        "tls": "",
        "replication": "",
        "age": 0.0,
        "reason": 'role "eve" does not exist',
        "sqlstate": "28000",
    }
    assert logs == [entry] * logged


def test_strangers_do_not_fill_the_log(house: House) -> None:
    """A name is as long as the packet allows, and each of its bytes may take six characters to be shown."""
    name = "\udcff" * 9000
    with capture_logs() as logs:
        house.connect(startup(name))
        house.connect(startup(database=name))
    shown = ["".join(line for _, line in render(entry)) for entry in logs]
    assert len(shown) == 2
    assert all("\\udcff..." in lines and len(lines) < 6 * 3000 for lines in shown)


@pytest.mark.parametrize("logged", [True, False])
def test_departures_are_logged(make_house: Callable[..., House], logged: bool) -> None:
    """With ``log_disconnections``."""
    house = make_house(log_disconnections=logged)
    with capture_logs() as logs:
        house.connect().close()
        house.relay.turn()
    assert [entry["reason"] for entry in logs] == ["client closed connection during login"] * logged


# -- greetings -----------------------------------------------------------------------------------------------------


def test_clients_that_ask_for_the_same_share_their_parameters(house: House) -> None:
    """One object, so that linking a server costs one comparison; and the server's, when nothing was asked for."""
    house.warm()
    for _ in range(2):
        house.connect(startup())
    one, two = house.relay.clients.values()
    (server,) = house.pool().servers
    assert one.tracked is two.tracked is server.tracked
    house.connect(startup(TimeZone="Asia/Tokyo"))
    assert list(house.relay.clients.values())[2].tracked.values["TimeZone"] == "Asia/Tokyo"


def test_a_greeting_follows_the_server(house: House) -> None:
    """When a new server reports something else, the next client is told so."""
    house.warm()
    assert received(house.connect(startup())) == welcome(house, REPORTED)
    newer = {**REPORTED, "server_version": "17.0", "TimeZone": "Europe/Berlin"}
    server = house.warm(newer)
    assert received(house.connect(startup())) == welcome(house, newer)
    asking = house.connect(startup(TimeZone="Asia/Tokyo"))
    house.send(server, TOKYO + SET + READY)
    assert received(asking) == welcome(house, {**newer, "TimeZone": "Asia/Tokyo"})


def test_greetings_of_two_pools_are_two(house: House) -> None:
    """Each database tells its own."""
    house.warm()
    elsewhere = {**REPORTED, "server_version": "12.1"}
    house.warm(elsewhere, house.pool("ann", "other"))
    assert received(house.connect(startup())) == welcome(house, REPORTED)
    assert received(house.connect(startup(database="other"))) == welcome(house, elsewhere)


def test_remembered_greetings_are_bounded(make_house: Callable[..., House]) -> None:
    """Clients that each ask for something else do not fill the memory, and each is told its own."""
    house = make_house(max_client_conn=10_000)
    house.warm()
    for number in range(1100):
        client = house.connect(startup(application_name=f"job {number}"))
        assert statuses({"application_name": f"job {number}"}) in received(client)
        client.close()
        house.relay.turn()
    assert len(house.door._greetings) <= 1024


# -- reload --------------------------------------------------------------------------------------------------------


def test_new_settings(house: House) -> None:
    """They are for the clients to come, and for the steps that a login has before it."""
    house.warm()
    waiting = house.connect()
    fewer = attrs.evolve(house.settings.pooler, max_client_conn=1, ignore_startup_parameters=("WORK_MEM",))
    house.door.configure(attrs.evolve(house.settings, pooler=fewer), None)
    house.send(waiting, startup(work_mem="1MB"))
    assert received(waiting) == welcome(house, REPORTED)
    assert received(house.connect(startup())) == FULL + b"END"


def test_new_settings_while_an_old_server_is_in_use(house: House) -> None:
    """A login does not wait for the old server to become free: a new one is asked for."""
    begin_query(house)
    elsewhere = attrs.evolve(house.settings, databases={"app": DatabaseSettings(host="db.example")})
    outdated, _ = house.pools.reload(elsewhere)
    assert outdated == [house.pool()]
    for server in list(house.pool().servers):
        server.retire("settings have changed")
    house.wanted.clear()
    client = house.connect(startup())
    assert house.wanted == [house.pool()]
    house.warm()
    assert received(client) == welcome(house, REPORTED)
