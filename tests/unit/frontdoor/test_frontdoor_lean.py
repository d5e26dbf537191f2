"""What clients cost in memory: little while they are idle, and nothing once they have gone."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.auth.scram import ScramClient
from hyperpool.config import AuthType
from hyperpool.frontdoor.guest import start_login
from hyperpool.wire import messages
from tests.support.fronthouse import READY, House, open_houses, received, startup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDLE = 800
"""Bytes that an idle client may take on the heap: the connection, its key, and its places in tables."""


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Makes houses that have a server already, and do not log who comes and goes."""
    with open_houses() as make:

        def quiet(**pooler: Any) -> House:
            house: House = make(
                max_client_conn=1000, log_connections=False, log_disconnections=False, **pooler
            )
            house.warm()
            return house

        yield quiet


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def come(house: House, pair: tuple[socket.socket, socket.socket]) -> None:
    """A client logs in; with SCRAM, if that is what it is asked for."""
    ours, theirs = pair
    start_login(house.door, theirs, "192.0.2.7:4711")
    house.send(ours, startup(application_name="app"))
    answer = received(ours)
    if not answer.endswith(READY):
        exchange = ScramClient("pencil")
        house.send(ours, messages.sasl_initial_response("SCRAM-SHA-256", exchange.first()))
        house.send(ours, messages.sasl_response(exchange.respond(received(ours)[9:])))
        answer = received(ours)
    assert answer.endswith(READY)


def visit(house: House) -> None:
    """A client comes and goes."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        come(house, (ours, theirs))
        house.send(ours, messages.TERMINATE)


@pytest.mark.usefixtures("_traced")
def test_an_idle_client_takes_little(make_house: Callable[..., House]) -> None:
    """However many of them there are: no buffers, no dicts, nothing of its login."""
    house = make_house()
    pairs = [house.pair() for _ in range(150)]
    for pair in pairs[:50]:
        come(house, pair)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for pair in pairs[50:]:
        come(house, pair)
    gc.collect()
    assert (tracemalloc.get_traced_memory()[0] - before) / 100 < IDLE


@pytest.mark.parametrize("auth_type", [AuthType.TRUST, AuthType.SCRAM_SHA_256])
def test_a_login_leaves_nothing_to_collect(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """What it was made of refers to nothing that refers to it, and is gone when the client is let in."""
    house = make_house(auth_type=auth_type)
    visit(house)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            visit(house)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.usefixtures("_traced")
def test_clients_that_have_gone_take_nothing(make_house: Callable[..., House]) -> None:
    """Another hundred leave no more than those before them."""
    house = make_house(auth_type=AuthType.SCRAM_SHA_256)
    for _ in range(50):
        visit(house)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        visit(house)
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] - before < 100 * 8, "not even a number each"
