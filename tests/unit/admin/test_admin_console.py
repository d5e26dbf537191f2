"""The console in a relay: its clients, what operators do to pools, and what is shown of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.tables import columns
from hyperpool.admin.views import View
from hyperpool.config import DatabaseSettings, PoolMode, SessionState
from hyperpool.config.transports import AgentStep, TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.service.logform import render
from hyperpool.stats import PoolStats
from hyperpool.wire import messages
from tests.support.desk import ANSWER, Desk, spell
from tests.support.fronthouse import QUERY, begin_query, open_houses, received, startup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.config.transports import Steps


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A console: ann is an administrator, bob may read."""
    with open_houses() as make:
        house = make(
            admin_users=("ann",),
            stats_users=("bob",),
            pool_mode=PoolMode.TRANSACTION,
            session_state=SessionState.KEEP,
        )
        yield Desk(house, tmp_path / "pooler.yaml")


# -- clients of the console ----------------------------------------------------------------------------------


def test_statements_in_one_piece_and_goodbye(desk: Desk) -> None:
    """What comes behind a statement is answered, too; then the client leaves."""
    client = desk.open()
    desk.house.send(client, messages.query("SHOW STATE") + messages.query("RECONNECT") + messages.TERMINATE)
    assert spell(received(client)) == "SHOW; RECONNECT; END"
    assert not desk.consoles.around.consoles


def test_the_log_tells_of_its_clients(desk: Desk) -> None:
    """As of others, in pgbouncer's words where it is asked for them; and not at all where the settings say so."""
    with capture_logs() as entries:
        desk.open().close()
        desk.house.relay.turn()
    came, left = (entry for entry in entries if "console client" in entry["event"])
    who = f"C-{came['id']:#x}: pgbouncer/ann@192.0.2.7:4711"
    assert render(came) == [("info", f"{who} login attempt: db=pgbouncer user=ann tls=no replication=no")]
    assert render(left) == [("info", f"{who} closing because: client unexpected eof (age=0s)")]
    pooler = attrs.evolve(desk.house.settings.pooler, log_connections=False, log_disconnections=False)
    desk.house.settings = attrs.evolve(desk.house.settings, pooler=pooler)
    with capture_logs() as entries:
        desk.open().close()
        desk.house.relay.turn()
    assert [entry for entry in entries if "console client" in entry["event"]] == []


def test_a_client_that_breaks_the_protocol(desk: Desk) -> None:
    """It is told, and closed."""
    client = desk.open()
    desk.house.send(client, b"F\0\0\0\4")
    assert spell(received(client)) == "Eunsupported packet type for admin console: 70; END"
    assert not desk.consoles.around.consoles


def test_a_client_that_breaks_off_while_it_waits(desk: Desk) -> None:
    """What it has done stays; who else is there can undo it."""
    begin_query(desk.house)
    client, other = desk.open(), desk.open()
    assert desk.ask(client, "PAUSE") == ""
    client.close()
    desk.house.relay.turn()
    assert len(desk.consoles.around.consoles) == 1
    assert desk.ask(other, "RESUME") == "RESUME"


def test_a_slow_client_gets_everything(desk: Desk) -> None:
    """Nothing more is read of it until it has taken what there is."""
    wide = View(columns("text"), lambda _: (("x" * 1000,) for _ in range(3000)), own=True)
    desk.consoles.views.add("wide", wide)
    client = desk.open()
    client.send(messages.query("SHOW wide") + messages.query("SHOW wide"))
    got = b""
    for _ in range(500):
        desk.house.relay.turn()
        got += received(client)
        if got.count(b"SHOW\0Z") == 2:
            break
    assert got.count(b"x" * 1000) == 6000
    assert spell(received(client)) == ""
    assert desk.ask(client, "SHOW HELP") == "NConsole usage; SHOW"


def test_long_answers_to_many_statements(desk: Desk) -> None:
    """They are made as they are taken: neither memory nor time of the relay is anybody's to use up."""
    made = 0

    def rows(around: Surroundings) -> Iterator[Row]:
        nonlocal made
        made += 1
        yield ("x" * 70_000,)

    desk.consoles.views.add("long", View(columns("text"), rows, own=True))
    client = desk.open()
    client.send(messages.query("SHOW long") * 300 + messages.TERMINATE)
    desk.house.relay.turn()
    assert made < 20
    got = b""
    for _ in range(2000):
        got += received(client)
        desk.house.relay.turn()
        if got.endswith(b"END"):
            break
    assert got.count(b"SHOW\0Z") == made == 300
    assert got.endswith(b"END")


def test_what_is_done_for_whom(desk: Desk) -> None:
    """Readers read; both get errors for what is nonsense, and counted is everything."""
    admin, reader = desk.open(), desk.open("bob")
    assert desk.ask(reader, "RELOAD") == "Eadmin access needed"
    assert desk.ask(reader, "SHUTDOWN soon") == "Einvalid command 'SHUTDOWN soon', use SHOW HELP;"
    assert desk.ask(admin, "RELOAD") == "RELOAD"
    desk.process.problems.append("databases: none")
    desk.house.send(admin, messages.query("RELOAD"))
    assert b"\0CF0000\0" in (answer := received(admin))
    assert b"\0Ddatabases: none\0" in answer
    assert desk.ask(admin, "SET pool_mode = session") == "SET pool_mode=session"
    assert desk.ask(admin, "SET bad = 1") == "ESET failed"
    assert desk.ask(admin, "SHUTDOWN wait_for_clients") == "SHUTDOWN"
    assert desk.ask(admin, "SHUTDOWN") == ""
    assert desk.process.done == [
        ("pool_mode", "session"),
        ShutdownMode.WAIT_FOR_CLIENTS,
        ShutdownMode.IMMEDIATE,
    ]
    assert (desk.consoles.around.own.queries, desk.consoles.around.own.logins) == (8, 2)
    desk.consoles.shut_down("the end")
    desk.house.relay.turn()
    assert spell(received(reader)) == "Ethe end; END"


def test_a_client_is_named_by_its_whole_number(desk: Desk) -> None:
    """However long the number is that somebody writes."""
    client, _ = begin_query(desk.house)
    admin = desk.open()
    for number in (f"{client.number}".zfill(20) + "0" * 5, "9" * 5000):
        assert desk.ask(admin, f"KILL_CLIENT {number}").startswith("Einvalid client pointer")
    assert desk.ask(admin, f"KILL_CLIENT {client.number:05}") == "KILL_CLIENT"
    assert client.closed


# -- pools ---------------------------------------------------------------------------------------------------


def test_pause_waits_for_the_server_that_works(desk: Desk) -> None:
    """The idle one is closed at once, new ones are not taken, and the client that waits goes on afterwards."""
    client, server = begin_query(desk.house)
    idle = desk.house.warm()
    admin = desk.open()
    assert desk.ask(admin, "PAUSE app") == ""
    assert received(idle).endswith(b"END")
    late = desk.house.warm()
    assert received(late) == b"END"
    assert desk.house.pool().dialing == 0
    waiting = desk.house.connect(startup(), QUERY)
    server.send(ANSWER)
    desk.house.relay.turn()
    assert received(server).endswith(b"END")
    assert received(admin) == b""
    desk.consoles.sweep()
    assert spell(received(admin)) == "PAUSE"
    desk.house.wanted.clear()
    assert desk.ask(admin, "RESUME app") == "RESUME"
    assert desk.house.wanted
    fresh = desk.house.warm()
    assert received(fresh) == QUERY
    received(waiting)
    fresh.send(ANSWER)
    desk.house.relay.turn()
    assert received(waiting) == ANSWER
    assert not client.closed


def test_pools_to_come_are_paused_too(desk: Desk) -> None:
    """Of a database that is paused, and all of them while the pooler is."""
    admin = desk.open()
    assert desk.ask(admin, "PAUSE other") == "PAUSE"
    assert (desk.house.pool("bob").paused, desk.house.pool("bob", "other").paused) == (False, True)
    assert desk.ask(admin, "PAUSE") == "PAUSE"
    assert desk.house.pool("ann").paused
    assert desk.ask(admin, "RESUME") == "RESUME"
    assert (desk.house.pool("ann").paused, desk.house.pool("bob", "other").paused) == (False, True)


def test_reconnect_makes_void_what_is_being_dialed(desk: Desk) -> None:
    """And replaces the others; WAIT_CLOSE waits for the one that works."""
    _, server = begin_query(desk.house)
    pool = desk.house.pool()
    generation = pool.generation
    pool.dialing = 1
    admin, second = desk.open(), desk.open()
    assert desk.ask(admin, "RECONNECT app") == "RECONNECT"
    assert (pool.generation, pool.dialing, pool.void) == (generation + 1, 0, 1)
    assert desk.ask(second, "WAIT_CLOSE app") == ""
    server.send(ANSWER)
    desk.house.relay.turn()
    desk.consoles.sweep()
    assert spell(received(second)) == "WAIT_CLOSE"


def test_a_server_that_is_replaced_during_its_connect_query(desk: Desk) -> None:
    """It is no failure: who waits goes on waiting, for the next one."""
    desk.house.warm()
    pool = desk.house.pool()
    client = desk.house.connect(startup(), QUERY)
    pool.configure(attrs.evolve(pool.settings, connect_query="SELECT 2"))
    second = desk.house.connect(startup(), QUERY)
    received(client), received(second)
    server = desk.house.warm()
    assert received(server) == messages.query("SELECT 2")
    assert desk.ask(desk.open(), "RECONNECT app") == "RECONNECT"
    desk.house.wanted.clear()
    server.send(ANSWER)
    desk.house.relay.turn()
    assert received(server).endswith(b"END")
    assert received(second) == b""
    assert desk.house.wanted
    assert not pool.backoff.holds(desk.house.clock.now)


def test_kill_ends_clients_that_are_logging_in(desk: Desk) -> None:
    """And those that are there."""
    guest = desk.house.connect(startup())
    assert received(guest) == b""
    assert desk.ask(desk.open(), "KILL app") == "KILL"
    assert spell(received(guest)) == "Eadmin forced disconnect; END"
    assert desk.house.pool().paused


def test_suspend_holds_everything(desk: Desk) -> None:
    """Neither clients nor servers are read, nor is a hang-up seen; afterwards, all of it is."""
    client, server = begin_query(desk.house)
    idle = desk.house.connect(startup())
    leaving = desk.house.connect(startup())
    received(idle)
    admin = desk.open()
    assert desk.ask(admin, "SUSPEND") == "SUSPEND"
    server.send(ANSWER)
    idle.send(QUERY)
    leaving.close()
    desk.house.relay.turn()
    assert (desk.house.pool().active, len(desk.house.relay.clients)) == (1, 3)
    assert desk.house.pool().waiting == {}
    assert desk.ask(admin, "RESUME") == "RESUME"
    assert len(desk.house.relay.clients) == 2
    assert client.server is None
    assert received(server).endswith(QUERY)


def test_suspend_waits_until_everything_is_sent(desk: Desk) -> None:
    """But not for ever: who does not take it is closed."""
    client, server = begin_query(desk.house)
    row = messages.frame(ord("D"), b"x" * 100_000)
    for _ in range(20):
        server.send(row)
        desk.house.relay.turn()
        if client.outbox:
            break
    assert client.outbox
    admin = desk.open()
    assert desk.ask(admin, "SUSPEND") == ""
    desk.house.clock.now += 9.9
    desk.consoles.sweep()
    assert received(admin) == b""
    desk.house.clock.now += 0.2
    desk.consoles.sweep()
    assert spell(received(admin)) == "SUSPEND"
    assert client.closed


def test_suspend_ends_when_the_last_console_leaves(desk: Desk) -> None:
    """However it leaves."""
    client, server = begin_query(desk.house)
    admin = desk.open()
    desk.ask(admin, "SUSPEND")
    server.send(ANSWER)
    admin.close()
    desk.house.relay.turn()
    desk.house.relay.turn()
    assert client.server is None


def test_who_waits_gets_a_server_that_became_free_in_a_suspended_pooler(desk: Desk) -> None:
    """It was held back for a cancel request, which the server has taken meanwhile."""
    client, server = begin_query(desk.house)
    desk.house.connect(startup(), QUERY)
    pool = desk.house.pool()
    pool.configure(attrs.evolve(pool.settings, pool_size=1))
    (connection,) = pool.servers
    connection.begin_cancel()
    server.send(ANSWER)
    desk.house.relay.turn()
    assert client.server is None
    assert len(pool.waiting) == 1
    admin = desk.open()
    desk.ask(admin, "SUSPEND")
    connection.end_cancel()
    desk.ask(admin, "RESUME")
    desk.house.relay.sweep(iter([pool]))
    assert received(server) == QUERY


def test_who_only_waits_undoes_nothing(desk: Desk) -> None:
    """WAIT_CLOSE is canceled while another has paused the pooler."""
    begin_query(desk.house)
    admin, other = desk.open(), desk.open()
    assert desk.ask(admin, "RECONNECT") == "RECONNECT"
    assert desk.ask(admin, "WAIT_CLOSE") == ""
    assert desk.ask(other, "PAUSE") == ""
    for console in list(desk.consoles.around.consoles.values())[:1]:
        desk.consoles.cancel(console.pid, console.secret)
    assert spell(received(admin)) == "Ecanceling statement due to user request"
    assert desk.house.pool().paused


def test_cancel(desk: Desk) -> None:
    """A statement that waits is given up, and the pooler goes on."""
    begin_query(desk.house)
    admin = desk.open()
    desk.ask(admin, "PAUSE")
    (console,) = desk.consoles.around.consoles.values()
    desk.consoles.cancel(console.pid, b"wrong")
    assert received(admin) == b""
    desk.house.connect(messages.cancel_request(console.pid, console.secret))
    assert spell(received(admin)) == "Ecanceling statement due to user request"
    assert not desk.house.pool().paused


# -- views ---------------------------------------------------------------------------------------------------


def test_states_of_servers_and_clients(desk: Desk) -> None:
    """By where they are."""
    begin_query(desk.house)
    desk.house.warm()
    desk.house.connect(startup())
    desk.house.clock.now += 31
    desk.house.warm()
    (pool,) = [row for row in desk.rows("POOLS") if row["database"] == "app"]
    counts = {
        name: pool[name]
        for name in ("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_used", "sv_tested")
    }
    assert counts == dict.fromkeys(("cl_active",), "2") | dict.fromkeys(("cl_waiting", "sv_tested"), "0") | {
        "sv_active": "1",
        "sv_idle": "1",
        "sv_used": "1",
    }
    states = sorted(row["state"] for row in desk.rows("SERVERS"))
    assert states == ["active", "idle", "used"]
    assert sorted(row["state"] for row in desk.rows("CLIENTS") if row["database"] == "app") == [
        "active",
        "idle",
    ]
    assert [
        row["wait"] for row in desk.rows("CLIENTS") if row["state"] == "active" and row["database"] == "app"
    ] == ["31"]


def test_databases(desk: Desk) -> None:
    """Those of the settings and the console, sorted; not the entry that stands for others, but what it stood for."""
    desk.house.settings = attrs.evolve(
        desk.house.settings,
        databases={
            "app": DatabaseSettings(host="a,b", port=(1, 2)),
            "*": DatabaseSettings(pool_size=3, user="x"),
        },
    )
    desk.house.pools.reload(desk.house.settings)
    desk.house.pool("ann", "zoo").paused = True
    desk.house.pools.paused.add("zoo")
    shown = {row["name"]: row for row in desk.rows("DATABASES")}
    assert list(shown) == ["app", "pgbouncer", "zoo"]
    expected = {"host": "127.0.0.1", "database": "zoo", "force_user": "x", "pool_size": "3", "paused": "1"}
    assert {name: shown["zoo"][name] for name in expected} == expected
    assert (shown["app"]["port"], shown["app"]["load_balance_hosts"]) == ("1", "round-robin")
    assert (shown["pgbouncer"]["host"], shown["pgbouncer"]["current_client_connections"]) == ("NULL", "1")


@pytest.mark.parametrize(
    ("host", "transport", "shown"),
    [
        ("127.0.0.1", (AgentStep(name="site"),), ("PostgreSQL behind agent site", "0")),
        (
            "127.0.0.1",
            (TcpStep(host="gw", port=443), WebSocketStep(host="gw")),
            ("PostgreSQL behind gw", "0"),
        ),
        ("127.0.0.1", (TcpStep(host="db", port=5433), TlsStep(server_name="db")), ("db", "5433")),
        ("127.0.0.1", (UnixStep(path="/run/db"),), ("/run/db", "0")),
        ("db.internal", (AgentStep(name="site"),), ("db.internal", "5432")),
    ],
)
def test_databases_that_a_way_leads_to(
    desk: Desk, host: str, transport: Steps, shown: tuple[str, str]
) -> None:
    """The default host is not where they are: as much is shown as the settings tell."""
    entry = DatabaseSettings(host=host, transport=transport)
    desk.house.settings = attrs.evolve(desk.house.settings, databases={"app": entry})
    (row,) = [row for row in desk.rows("DATABASES") if row["name"] == "app"]
    assert (row["host"], row["port"]) == shown


def test_a_client_that_waits(desk: Desk) -> None:
    """Its wait is the pool's longest."""
    desk.house.warm()
    pool = desk.house.pool()
    pool.configure(attrs.evolve(pool.settings, pool_size=1))
    desk.house.connect(startup(), QUERY)
    desk.house.connect(startup(), QUERY)
    desk.house.clock.now += 2.5
    (row,) = [row for row in desk.rows("POOLS") if row["database"] == "app"]
    assert (row["cl_waiting"], row["maxwait"], row["maxwait_us"][:4]) == ("1", "2", "5000")
    assert [row["wait"] for row in desk.rows("CLIENTS") if row["state"] == "waiting"] == ["2"]


def test_averages(desk: Desk) -> None:
    """Per second, but for the times of queries and transactions, which are those of one."""
    counted = PoolStats(
        queries=20, transactions=10, received=5000, waited=1.0, query_time=2.0, transaction_time=3.0, logins=5
    )
    desk.consoles.around.book.turn({"app": counted}, 10.0)
    desk.house.pools.past["app"] = counted
    row = next(row for row in desk.rows("STATS") if row["database"] == "app")
    expected = {
        "total_query_count": "20",
        "total_wait_time": "1000000",
        "avg_query_count": "2",
        "avg_xact_count": "1",
        "avg_recv": "500",
        "avg_wait_time": "100000",
        "avg_query_time": "100000",
        "avg_xact_time": "300000",
        "avg_client_login_count": "0",
    }
    assert {name: row[name] for name in expected} == expected


def test_latencies(desk: Desk) -> None:
    """Of what has happened; the longest time is in the right bucket."""
    begin_query(desk.house)
    stats = desk.house.pool().stats
    stats.hop("tcp", 0.003)
    for _ in range(99):
        stats.query_buckets[10] += 1
    stats.query_buckets[20] += 1
    stats.query_time = 0.2
    rows = {row["what"]: row for row in desk.rows("LATENCIES") if row["database"] == "app"}
    assert "transaction" not in rows
    query = rows["query"]
    assert (query["count"], query["avg_time"], query["max_time"]) == ("100", "2000", "1048576")
    assert 512 <= int(query["p50_time"]) <= int(query["p99_time"]) <= 1024
    assert 2048 <= int(rows["connect: tcp"]["max_time"]) <= 4096
    assert rows["login"]["count"] == "1"


def test_help_tells_of_views_that_were_added(desk: Desk) -> None:
    """Under the names that they were added with."""
    desk.consoles.views.add("cache", View(columns("name entries:int4"), lambda _: [("app", 3)], own=True))
    assert desk.rows("CACHE") == [{"name": "app", "entries": "3"}]
    assert "PINS|TRANSPORTS|TUNNELS|CACHE" in desk.consoles.views.help()


def test_settings_in_pgbouncer_s_notation(desk: Desk) -> None:
    """Flags are 1 and 0, times are seconds, and what cannot be changed says so."""
    shown = {row["key"]: (row["value"], row["changeable"]) for row in desk.rows("CONFIG")}
    assert shown["admin_users"] == ("ann", "yes")
    assert shown["log_connections"] == ("1", "yes")
    assert shown["server_lifetime"] == ("3600", "yes")
    assert shown["unix_socket_mode"] == ("0777", "no")
    assert shown["client_tls_protocols"] == ("secure", "yes")
    assert shown["conffile"][0].endswith("/pooler.yaml")
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in shown)
    assert list(shown) == sorted(shown)
