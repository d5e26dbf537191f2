"""Who the front door lets in to the console, and what operators have told it about others."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import attrs

from hyperpool.auth.scram import ScramClient
from hyperpool.config import AuthType
from hyperpool.config.hba import parse_hba
from hyperpool.errors import ClientRefused
from hyperpool.frontdoor.console import is_owner
from hyperpool.wire import messages
from hyperpool.wire.startup import StartupMessage
from tests.support.fronthouse import FULL, OK, received, startup, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.frontdoor.console import ConsoleReady
    from tests.support.fronthouse import House

WANTS = startup(database="pgbouncer", application_name="psql")


class _Console:
    """Lets ann in, and keeps what it gets."""

    def __init__(self) -> None:
        self.ready: list[ConsoleReady] = []
        self.canceled: list[tuple[int, bytes]] = []

    def check(self, user: str, *, owner: bool) -> None:
        """Ann, and the owner."""
        if user != "ann" and not owner:
            raise ClientRefused("not allowed", "08P01")

    def adopt(self, ready: ConsoleReady, *, unread: bool, hung_up: bool) -> None:
        """Keep it; the house closes the socket."""
        self.ready.append(ready)

    def count(self) -> int:
        """As many as have come."""
        return len(self.ready)

    def cancel(self, pid: int, secret: bytes) -> None:
        """Write it down."""
        self.canceled.append((pid, secret))


def test_clients_of_the_console_count(make_house: Callable[..., House]) -> None:
    """They take places, and get one when there is none: whoever asks for the console, as in pgbouncer."""
    house = make_house(max_client_conn=2)
    house.warm()
    house.door.console = console = _Console()
    house.connect(WANTS)
    assert received(house.connect(startup())).startswith(OK)
    assert received(house.connect(startup())) == FULL + b"END"
    house.connect(WANTS)
    assert (
        received(house.connect(startup("bob", database="pgbouncer"))) == told("08P01", "not allowed") + b"END"
    )
    assert len(console.ready) == 2
    for ready in console.ready:
        ready.sock.close()


def test_a_client_of_the_console(make_house: Callable[..., House]) -> None:
    """It is handed over with its name and key, and takes no place among the clients."""
    house = make_house()
    house.door.console = console = _Console()
    client = house.connect(WANTS + messages.query("SHOW STATE"))
    (ready,) = console.ready
    assert (ready.user, ready.application_name, ready.owner) == ("ann", "psql", False)
    assert (ready.welcome, ready.received) == (OK, messages.query("SHOW STATE"))
    assert received(client) == b""
    assert house.relay.population == 0
    house.send(house.connect(), messages.cancel_request(ready.pid, ready.secret))
    assert console.canceled == [(ready.pid, ready.secret)]
    ready.sock.close()


def test_one_client_after_the_other(make_house: Callable[..., House]) -> None:
    """Who comes with the same words as another one comes to the same place."""
    house = make_house(auth_type=AuthType.SCRAM_SHA_256)
    house.door.console = console = _Console()
    for number in range(1, 4):
        client = house.connect(WANTS)
        received(client)
        exchange = ScramClient("pencil")
        house.send(client, messages.sasl_initial_response("SCRAM-SHA-256", exchange.first()))
        house.send(client, messages.sasl_response(exchange.respond(received(client)[9:])))
        assert len(console.ready) == number
    assert not house.relay.clients


def test_it_is_let_in_when_all_places_are_taken(make_house: Callable[..., House]) -> None:
    """And while the pooler is shutting down, unlike others."""
    house = make_house(max_client_conn=1)
    house.door.console = console = _Console()
    house.warm()
    house.connect(startup())
    house.door.close()
    house.connect(WANTS)
    assert len(console.ready) == 1
    assert received(house.connect(startup())) == told("57P03", "pooler is shutting down") + b"END"
    console.ready[0].sock.close()


def test_who_may_not_use_it(make_house: Callable[..., House]) -> None:
    """Without a console, the name is one of a database."""
    house = make_house()
    refused = received(house.connect(WANTS))
    assert b"\0C3D000\0" in refused
    house.door.console = _Console()
    other = startup("bob", database="pgbouncer")
    assert received(house.connect(other)) == told("08P01", "not allowed") + b"END"


def test_replication_is_no_way_around_its_rules(make_house: Callable[..., House]) -> None:
    """There is nothing to be replicated there, so that rules for replication are not about it."""
    house = make_house(auth_type=AuthType.HBA)
    rules, _ = parse_hba("local pgbouncer all reject\nlocal replication all trust\n", lambda _: "")
    house.door.access.configure(attrs.evolve(house.settings, hba=rules))
    house.door.console = _Console()
    rejected = (
        'auth_hba_file rejects connection for host "[local]", user "ann", database "pgbouncer", no encryption'
    )
    for value in ("true", "database", "no"):
        client = house.connect(startup(database="pgbouncer", replication=value))
        assert received(client) == told("28000", rejected) + b"END"


def test_a_database_that_is_disabled(make_house: Callable[..., House]) -> None:
    """Takes nobody; others do."""
    house = make_house()
    house.warm()
    house.pools.disabled.add("app")
    assert b'Mdatabase "app" is disabled\0' in received(house.connect(startup()))
    house.pools.disabled.clear()
    house.connect(startup())
    assert len(house.relay.clients) == 1


def test_the_owner_is_known_by_its_socket() -> None:
    """A Unix socket of the same operating system user; as pgbouncer, for the console."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wants = StartupMessage((3, 0), {"user": "pgbouncer", "database": "pgbouncer"}, {})
        assert is_owner(ours, wants)
        for other in ({"user": "ann"}, {"database": "app"}):
            assert not is_owner(ours, attrs.evolve(wants, parameters={**wants.parameters, **other}))
        with socket.socket() as tcp:
            assert not is_owner(tcp, wants)
        uid = struct.unpack("3i", ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        assert uid == os.geteuid()


def test_a_cancel_request_for_another_pooler(make_house: Callable[..., House]) -> None:
    """It is passed on as it is; one of our own comes to its client, whatever hops it has taken."""
    house = make_house()
    house.relay.peer_id = 5
    house.warm()
    client = house.connect(startup())
    (own,) = house.relay.clients.values()
    assert (own.pid >> 16 & 0xFF | own.pid & 0xFF00, own.secret[3] & 3) == (5, 3)
    house.send(client, messages.query("SELECT 1"))
    spent = own.secret[:3] + bytes((own.secret[3] & 0xFC,))
    guest = house.connect(messages.cancel_request(own.pid, spent))
    assert [order.server.client for order in house.orders] == [own]
    house.orders[0].done(delivered=True)
    assert received(guest) == b"END"
    guest = house.connect(messages.cancel_request(7 << 16, b"\1\2\3\4"))
    (order,) = house.peer_orders
    assert (order.peer_id, order.pid, order.secret) == (7, 7 << 16, b"\1\2\3\4")
    assert received(guest) == b""
    order.guest.lost("passed on")
    assert received(guest) == b"END"
