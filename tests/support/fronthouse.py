"""A front door in front of a real relay without Trio: sockets are pairs, and time passes when the test says so."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

from structlog.testing import capture_logs

from hyperpool.config import AuthType, DatabaseSettings, PoolerSettings, Secret, Settings, UserSettings
from hyperpool.frontdoor.door import FrontDoor
from hyperpool.frontdoor.guest import start_login
from hyperpool.frontdoor.orders import CancelOrder
from hyperpool.pool.handover import ServerFailed, ServerReady
from hyperpool.pool.pools import Pools
from hyperpool.relay.loop import Relay
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.wire import messages
from tests.support.checkpoints import no_descriptor_left
from tests.support.relayworld import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hyperpool.errors import ConnectFailed, LoginFailed
    from hyperpool.frontdoor.inquiries import CheckInquiry, SecretInquiry
    from hyperpool.frontdoor.orders import PeerOrder
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.server import ServerConnection

REPORTED: Final = {
    "server_version": "16.4",
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "application_name": "",
}
"""What a server reports, if nothing else is said."""

OK: Final = messages.authentication_ok()
READY: Final = messages.ready_for_query()
CLEARTEXT: Final = messages.authentication_cleartext_password()
QUERY: Final = messages.query("SELECT 1")


def startup(user: str = "ann", **parameters: str) -> bytes:
    """A StartupMessage for the database `app`, if it does not say another."""
    return messages.startup_message({"user": user, "database": "app", **parameters})


def statuses(parameters: dict[str, str]) -> bytes:
    """ParameterStatus messages."""
    return b"".join(messages.parameter_status(*pair) for pair in parameters.items())


def told(sqlstate: str, message: str, hint: str = "") -> bytes:
    """What a client that is turned away is told."""
    return messages.error_response(message, sqlstate, hint=hint)


FULL: Final = told(
    "08P01",
    "no more connections allowed (max_client_conn)",
    "raise max_client_conn, or let clients close connections that they do not use",
)
"""What a client is told that finds no place."""


class House:
    """A relay, pools, a front door, and clients in front of it.

    Args:
        pooler: settings that are not the standard ones of these tests.

    Attributes:
        wanted: the pools that have asked for server connections.
        orders: the cancel requests for servers that were passed on.
        peer_orders: those for other poolers.
        inquiries: what others are to be asked about clients.
    """

    def __init__(self, **pooler: Any) -> None:
        self.settings = Settings(
            pooler=PoolerSettings(**{"auth_type": AuthType.TRUST, **pooler}),
            databases={"app": DatabaseSettings(), "other": DatabaseSettings(user="owner")},
            users={"ann": UserSettings(password=Secret("pencil")), "bob": UserSettings(password=Secret("x"))},
        )
        self.clock = Clock()
        self.relay = Relay(
            RelayOptions(
                linger=0.0,
                slice=60.0,
                log_connections=self.settings.pooler.log_connections,
                log_disconnections=self.settings.pooler.log_disconnections,
            ),
            ParameterTracker(["IntervalStyle"]),
            self.clock,
        )
        self.pools: Pools[ServerConnection, ClientConnection] = Pools(self.settings, lambda: 0.5)
        self.orders: list[CancelOrder] = []
        self.peer_orders: list[PeerOrder] = []
        self.inquiries: list[SecretInquiry | CheckInquiry] = []
        self.door = FrontDoor(self.settings, self.relay, self.pools, self._order, self.inquiries.append)
        self.wanted: list[RelayPool] = []
        self.relay.demand = self.wanted.append
        self._sockets: list[socket.socket] = []

    def _order(self, order: CancelOrder | PeerOrder) -> None:
        if isinstance(order, CancelOrder):
            self.orders.append(order)
        else:
            self.peer_orders.append(order)

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
        start_login(self.door, theirs, "192.0.2.7:4711")
        if sent:
            ours.send(b"".join(sent))
        self.relay.turn()
        return ours

    def connect_tcp(self) -> socket.socket:
        """A client comes over the network."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        # Small messages arrive in the turn in which they are sent.
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sock in (ours, theirs):
            sock.setblocking(False)
        self._sockets += ours, theirs
        start_login(self.door, theirs, "192.0.2.7:4711")
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
        self.door.access.sweep()
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


@contextlib.contextmanager
def open_houses() -> Iterator[Callable[..., House]]:
    """Make houses; they are closed in the end, and leave no descriptor open."""
    houses: list[House] = []

    def make(**pooler: Any) -> House:
        houses.append(House(**pooler))
        return houses[-1]

    with no_descriptor_left():
        yield make
        for house in houses:
            house.close()


def begin_query(house: House) -> tuple[ClientConnection, socket.socket]:
    """Let a client run a query; returns it, and the server's end of its server connection."""
    server = house.warm()
    house.connect(startup(), QUERY)
    client = list(house.relay.clients.values())[-1]
    assert received(server) == QUERY
    return client, server
