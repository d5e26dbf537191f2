"""Clients that log in, in a real relay without Trio: sockets are pairs, and time passes when the test says so."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.config import AuthType, DatabaseSettings, PoolerSettings, Secret, Settings, UserSettings
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.frontdoor.guest import CancelOrder, FrontDoor
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.state import Pools
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.wire import messages
from tests.support.checkpoints import no_descriptor_left
from tests.support.relayworld import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.server import ServerConnection

REPORTED = {"server_version": "16.4", "TimeZone": "UTC", "client_encoding": "UTF8", "application_name": ""}
OK = messages.authentication_ok()
READY = messages.ready_for_query()
CLEARTEXT = messages.authentication_cleartext_password()
SSL = struct.pack("!II", 8, 80877103)
QUERY = messages.query("SELECT 1")


def startup(user: str = "ann", **parameters: str) -> bytes:
    """A StartupMessage for the database `app`, if it does not say another."""
    return messages.startup_message({"user": user, "database": "app", **parameters})


def statuses(parameters: dict[str, str]) -> bytes:
    """ParameterStatus messages."""
    return b"".join(messages.parameter_status(*pair) for pair in parameters.items())


def told(sqlstate: str, message: str, hint: str = "") -> bytes:
    """What a client that is turned away is told."""
    return messages.error_response(message, sqlstate, hint=hint)


class House:
    """A relay, pools, a front door, and clients in front of it.

    Args:
        pooler: settings that are not the standard ones of these tests.

    Attributes:
        wanted: the pools that have asked for server connections.
        orders: the cancel requests that were passed on.
    """

    def __init__(self, **pooler: Any) -> None:
        self.settings = Settings(
            pooler=PoolerSettings(**{"auth_type": AuthType.TRUST, **pooler}),
            databases={"app": DatabaseSettings(), "other": DatabaseSettings(user="owner")},
            users={"ann": UserSettings(password=Secret("pencil")), "bob": UserSettings(password=Secret("x"))},
        )
        self.clock = Clock()
        self.relay = Relay(
            RelayOptions(linger=0.0, slice=60.0), ParameterTracker(["IntervalStyle"]), self.clock
        )
        self.pools: Pools[ServerConnection, ClientConnection] = Pools(self.settings, lambda: 0.5)
        self.orders: list[CancelOrder] = []
        self.door = FrontDoor(self.settings, self.relay, self.pools, self.orders.append)
        self.wanted: list[RelayPool] = []
        self.relay.demand = self.wanted.append
        self._sockets: list[socket.socket] = []

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A connection."""
        pair = socket.socketpair()
        for sock in pair:
            sock.setblocking(False)
        self._sockets += pair
        return pair

    def connect(self, *sent: bytes) -> socket.socket:
        """A client comes, and sends something."""
        ours, theirs = self.pair()
        self.door.welcome(theirs, "192.0.2.7:4711")
        if sent:
            ours.send(b"".join(sent))
        self.relay.turn()
        return ours

    def send(self, client: socket.socket, data: bytes) -> None:
        """A client sends something."""
        client.send(data)
        self.relay.turn()

    def later(self, seconds: float) -> None:
        """Time passes, and the relay sweeps."""
        self.clock.now += seconds
        self.relay.sweep(iter(self.pools))
        self.relay.turn()

    def pool(self, user: str = "ann", database: str = "app") -> RelayPool:
        """A pool."""
        pool = self.pools.find(database, user)
        assert pool is not None
        return pool

    def warm(self, parameters: dict[str, str] | None = None, pool: RelayPool | None = None) -> socket.socket:
        """A server connection comes; returns the server's end."""
        pool = pool or self.pool()
        pool.dialing += 1
        ours, theirs = self.pair()
        reported = dict(REPORTED if parameters is None else parameters)
        self.relay.adopt_server(ServerReady(theirs, pool, pool.generation, reported, 1, b"s3cr", expires=0.0))
        self.relay.turn()
        return ours

    def fail(self, error: ConnectFailed | LoginFailed) -> None:
        """A server connection cannot be had."""
        self.pool().dialing += 1
        self.relay.adopt_failure(ServerFailed(self.pool(), self.pool().generation, error))
        self.relay.turn()

    def close(self) -> None:
        """Close everything."""
        with capture_logs():
            self.relay.shut_down(iter(self.pools), "the test ends")
            self.relay.close()
        for sock in self._sockets:
            sock.close()


def received(client: socket.socket) -> bytes:
    """Everything that a client has been sent; ends with the word END if the connection was closed."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := client.recv(65536):
            data += chunk
        return data + b"END"
    return data


def welcome(house: House, parameters: dict[str, str]) -> bytes:
    """What the newest client is sent when it is let in."""
    client = list(house.relay.clients.values())[-1]
    key = messages.backend_key_data(client.pid, client.secret)
    return OK + statuses(parameters) + key + READY


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Makes houses; in the end no descriptor is left open."""
    houses: list[House] = []

    def make(**pooler: Any) -> House:
        houses.append(House(**pooler))
        return houses[-1]

    with no_descriptor_left():
        yield make
        for house in houses:
            house.close()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """A house with room for three clients, that lets everybody in it knows."""
    return make_house(max_client_conn=3)


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
    house.door.welcome(theirs, "192.0.2.7:4711")
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
    """They are told back as the client asked for them, in place of the server's."""
    house.warm()
    client = house.connect(startup(timezone="Asia/Tokyo", client_encoding="utf-8"))
    assert received(client) == welcome(house, {**REPORTED, "TimeZone": "Asia/Tokyo"})


def test_a_database_with_a_forced_user(house: House) -> None:
    """Clients share the pool of that user, and still need to be known themselves."""
    house.warm(pool=house.pool("ann", "other"))
    for user in ("ann", "bob"):
        assert received(house.connect(startup(user, database="other"))).endswith(READY)
    assert house.pool("owner", "other").clients == 2
    assert b"\0C28000\0" in received(house.connect(startup("owner", database="other")))


# -- waiting for parameters ----------------------------------------------------------------------------------------


def test_the_first_client_of_a_pool(house: House) -> None:
    """A server is asked for; the client is welcomed when it is there, as are those that came meanwhile."""
    first = house.connect(startup())
    second = house.connect(startup(TimeZone="Asia/Tokyo"))
    assert (received(first), received(second)) == (b"", b"")
    assert house.wanted
    assert set(house.wanted) == {house.pool()}
    assert house.relay.population == 2
    house.warm()
    assert received(first).endswith(READY)
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


def test_a_database_that_is_removed_while_a_client_waits(house: House) -> None:
    """The client reads what it would have read later."""
    client = house.connect(startup())
    pool = house.pool()
    without = attrs.evolve(house.settings, databases={})
    house.door.configure(without)
    house.pools.reload(without)
    house.relay.dissolve(pool)
    house.relay.turn()
    assert b"\0C08001\0" in received(client)
    assert received(house.connect(startup())) == told("3D000", 'database "app" does not exist') + b"END"
    assert house.relay.population == 0


# -- places --------------------------------------------------------------------------------------------------------

FULL = told(
    "53300",
    "no more connections allowed (max_client_conn)",
    "raise max_client_conn, or let clients close connections that they do not use",
)


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


WAYS_TO_FAIL = [
    (startup(), wrong_password),
    (startup(), breaks_protocol),
    (startup(), too_long),
    (startup(), hangs_up),
    (startup(), half_closes),
    (startup(), resets),
    (startup(), takes_too_long),
    (startup(database="nowhere"), unknown_database),
    (startup(application_name="x", work_mem="1MB"), None),
    (startup(replication="true"), None),
]


@pytest.mark.parametrize(("sent", "end"), WAYS_TO_FAIL, ids=lambda value: getattr(value, "__name__", None))
def test_a_place_is_given_back(
    make_house: Callable[..., House], sent: bytes, end: Callable[[House, socket.socket], None] | None
) -> None:
    """However a login fails, the next client has the place."""
    house = make_house(max_client_conn=1, auth_type=AuthType.PLAIN)
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


def test_a_parameter_that_the_server_does_not_report(house: House) -> None:
    """It cannot be followed, although the settings say so: the client is refused, with the reason."""
    house.warm()
    client = house.connect(startup(IntervalStyle="iso_8601"))
    assert (
        received(client)
        == told(
            "08P01",
            "unsupported startup parameter: IntervalStyle",
            "the server does not report IntervalStyle, so it cannot be followed; see track_extra_parameters",
        )
        + b"END"
    )
    assert received(house.connect(startup())).endswith(READY)


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
    assert (
        logs
        == [
            {
                "event": "login refused",
                "log_level": "warning",
                "client": "192.0.2.7:4711",
                "reason": 'role "eve" does not exist',
                "sqlstate": "28000",
            }
        ]
        * logged
    )


@pytest.mark.parametrize("logged", [True, False])
def test_departures_are_logged(make_house: Callable[..., House], logged: bool) -> None:
    """With ``log_disconnections``."""
    house = make_house(log_disconnections=logged)
    with capture_logs() as logs:
        house.connect().close()
        house.relay.turn()
    assert [entry["reason"] for entry in logs] == ["client closed connection during login"] * logged


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
    house.warm(newer)
    assert received(house.connect(startup())) == welcome(house, newer)
    asking = house.connect(startup(TimeZone="Asia/Tokyo"))
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


# -- cancel requests -----------------------------------------------------------------------------------------------


@pytest.fixture
def busy(house: House) -> tuple[ClientConnection, socket.socket]:
    """A client whose query runs, and the server's end of its server connection."""
    server = house.warm()
    house.connect(startup(), QUERY)
    (client,) = house.relay.clients.values()
    assert received(server) == QUERY
    return client, server


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


# -- reload --------------------------------------------------------------------------------------------------------


def test_new_settings(house: House) -> None:
    """They are for the clients to come, and for the steps that a login has before it."""
    house.warm()
    waiting = house.connect()
    fewer = attrs.evolve(house.settings.pooler, max_client_conn=1, ignore_startup_parameters=("WORK_MEM",))
    house.door.configure(attrs.evolve(house.settings, pooler=fewer))
    house.send(waiting, startup(work_mem="1MB"))
    assert received(waiting) == welcome(house, REPORTED)
    assert received(house.connect(startup())) == FULL + b"END"


def test_new_settings_while_an_old_server_is_in_use(
    house: House, busy: tuple[ClientConnection, socket.socket]
) -> None:
    """A login does not wait for the old server to become free: a new one is asked for."""
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
