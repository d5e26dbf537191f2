"""The console's views that tell of the moment: who is busy, how servers were reached, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.config import PoolMode, SessionState
from hyperpool.config.cache import CacheSettings
from hyperpool.errors import ConnectFailed
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.desk import ANSWER, Desk
from tests.support.fronthouse import QUERY, open_houses, startup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A console: ann is an administrator."""
    with open_houses() as make:
        house = make(admin_users=("ann",), pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP)
        yield Desk(house, tmp_path / "pooler.yaml")


def test_who_is_busy(desk: Desk) -> None:
    """Those come first that have been at it for longest; who is idle is not among them."""
    desk.house.connect(startup("bob"))
    server = desk.house.warm()
    pool = desk.house.pool()
    pool.configure(attrs.evolve(pool.settings, pool_size=1))
    desk.house.connect(startup(application_name="shop"), QUERY)
    desk.house.clock.now += 1.0
    desk.house.connect(startup(), QUERY)
    desk.house.clock.now += 2.0
    rows = desk.rows("BUSY")
    assert [
        (row["state"], row["time"][:5], row["application_name"], row["server_id"] != "NULL") for row in rows
    ] == [
        ("active", "30000", "shop", True),
        ("waiting", "20000", "", False),
    ]
    server.send(ANSWER)  # to the pooler's own request for the application_name
    server.send(ANSWER.removesuffix(messages.ready_for_query()) + messages.ready_for_query(b"T"))
    desk.house.relay.turn()
    assert {row["state"] for row in desk.rows("BUSY")} == {"idle in transaction", "waiting"}


def test_the_hops_of_the_newest_connection(desk: Desk) -> None:
    """Each with its time and what is known of it, and why the last one failed."""
    pool = desk.house.pool()
    assert desk.rows("HOPS") == []
    context = DialContext(options=TcpOptions(), resolver=Resolver(15.0, 15.0))
    pool.route = Route(pool.settings, context)
    with pool.route.trace.hop("tcp db:5432") as hop:
        hop.facts.update(address="192.0.2.1")
    hop.seconds = 0.25
    with pytest.raises(ConnectFailed), pool.route.trace.hop("tls db") as hop:
        raise ConnectFailed("no certificate")
    first, second = desk.rows("HOPS")
    assert first == {
        "database": "app",
        "user": "ann",
        "hop": "1",
        "name": "tcp db:5432",
        "time": "250000",
        "facts": "address=192.0.2.1",
        "error": "",
    }
    assert (second["hop"], second["name"], second["error"]) == ("2", "tls db", "no certificate")


def test_the_newest_errors(desk: Desk) -> None:
    """Warnings and worse, repeats counted, the newest first, and not without a bound."""
    faults, entry = desk.faults, {"event": "cannot connect", "pool": "app"}
    assert faults(None, "info", entry) is entry
    assert desk.rows("ERRORS") == []
    for number in range(200):
        faults(None, "warning", {"event": "old", "number": number})
    faults(None, "error", {"event": "x" * 10_000, "exc_info": ValueError("bad"), "level": "error"})
    for _ in range(3):
        assert faults(None, "warning", entry) is entry
    newest, second, *rest = desk.rows("ERRORS")
    assert (newest["level"], newest["event"], newest["details"], newest["count"]) == (
        *("warning", "cannot connect", "pool=app", "3"),
    )
    assert (second["event"], second["details"]) == ("x" * 500, "exc_info=ValueError: bad")
    assert [row["details"] for row in rest] == [f"number={number}" for number in range(199, 101, -1)]


def test_a_database_that_several_ways_lead_to(desk: Desk) -> None:
    """It is one, however many names it has."""
    cache = desk.consoles.around.cache
    usual = attrs.evolve(
        desk.house.pool().settings, session_state=SessionState.FOLLOW, cache=CacheSettings(max_age=60.0)
    )
    for host in ("here", "there"):
        settings = attrs.evolve(usual, host=host)
        assert cache.lane(settings) is not None
        cache.identified(settings, "the same")
    assert [row["database"] for row in desk.rows("CACHE")] == ["app"]
