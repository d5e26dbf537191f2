"""The doctor's judgement and its words, without servers."""

from __future__ import annotations

import io
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import yaml
from click.testing import CliRunner
from rich.console import Console

from hyperpool.cli import main
from hyperpool.config import load
from hyperpool.config.transports import TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.doctor import advice, examine
from hyperpool.doctor.examine import Examination, UnknownDatabase, Wishes
from hyperpool.doctor.findings import (
    KINDS,
    DatabaseFinding,
    HopFinding,
    ServerFinding,
    Status,
    as_json,
    is_well,
)
from hyperpool.doctor.report import Progress, printable, show
from hyperpool.doctor.walk import WatchedTrace, via
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import TcpOptions
from hyperpool.transport.tls import NoAnswer, TlsFailed
from tests.support.network import free_port

if TYPE_CHECKING:
    from hyperpool.config import Settings
    from hyperpool.doctor.walk import Walk

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


def settings(tmp_path: Path, **change: Any) -> Settings:
    """Settings with one database, unless sections are replaced."""
    document = {
        "pooler": {"listen_addr": "127.0.0.1", "auth_type": "trust", "state_dir": str(tmp_path / "state")},
        "databases": {"app": {"port": free_port()}},
        "users": {"ann": {"password": "hunter2"}},
        **change,
    }
    path = tmp_path / "pooler.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load(path, {})


def a_hop(kind: str = "tcp", **change: Any) -> HopFinding:
    """A hop that went well."""
    return HopFinding(**{"kind": kind, "target": "db:5432", "seconds": 0.001, "facts": {}, **change})


def found(*hops: HopFinding, **change: Any) -> DatabaseFinding:
    """A database with one server."""
    return DatabaseFinding("app", "ann", "app", [ServerFinding("db:5432", "", list(hops), 0.002, **change)])


def shown(*findings: DatabaseFinding, width: int = 80, **console: Any) -> str:
    """What people see."""
    file = io.StringIO()
    show(list(findings), Console(file=file, width=width, **console))
    return file.getvalue()


# -- Hops ------------------------------------------------------------------------------------------------------------


def test_every_kind_has_a_remedy_for_silence() -> None:
    """A hang can happen anywhere."""
    remedies = {advice.about_hang(kind) for kind in KINDS}
    assert len(remedies) == len(KINDS)
    assert advice.about_hang("carrier") not in remedies


def test_what_a_way_is_made_of() -> None:
    """It is told for tunnels; that a socket is a socket can be seen."""
    tcp = TcpStep(host="gw", port=443)
    assert via((tcp, TlsStep(server_name="gw"), WebSocketStep(host="gw"))) == "tcp > tls > websocket"
    assert via((tcp,)) == via((UnixStep(path="/run/x"),)) == ""


def test_a_trace_knows_why_hops_failed() -> None:
    """Also when a login is refused, which is no failure to connect."""
    trace = WatchedTrace()
    refusal, failure = LoginFailed("no"), ConnectFailed("gone")
    with trace.hop("tcp", "a"):
        assert trace.unfinished is trace.hops[0]
    for kind, error in (("login", refusal), ("query", failure)):
        with pytest.raises(type(error)), trace.hop(kind):
            raise error

    assert [hop.error for hop in trace.hops] == ["", "no", "gone"]
    assert trace.errors == {1: refusal, 2: failure}
    assert trace.unfinished is None


# -- Statuses --------------------------------------------------------------------------------------------------------


def test_statuses() -> None:
    """The worst hop decides; what was overcome is a warning, and nothing at all is nothing known."""
    failed = a_hop(error="gone")
    overcome = a_hop(error="gone", overcome=True)
    warned = a_hop(warnings=["soon"])

    assert [found(one).status for one in (a_hop(), warned, overcome, failed)] == [
        Status.OK, Status.WARNING, Status.WARNING, Status.FAILED,
    ]  # fmt: skip
    assert found(a_hop(), warnings=["slow"]).status is Status.WARNING
    assert found(overcome, a_hop()).servers[0].failure is None
    assert found(overcome, failed).servers[0].failure is failed
    skipped = DatabaseFinding("b", "", "b")
    assert skipped.status is Status.SKIPPED
    assert is_well([skipped, found(a_hop()), found(warned)])
    assert not is_well([skipped])
    assert not is_well([found(a_hop()), found(failed)])


# -- Warnings and remedies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "warnings"),
    [
        (timedelta(days=30, hours=1), []),
        (timedelta(days=29, hours=1), ["the certificate ends in 29 days: renew it"]),
        (timedelta(days=1, hours=1), ["the certificate ends in 1 day: renew it"]),
        (timedelta(hours=1), ["the certificate ends in less than a day: renew it"]),
        (timedelta(hours=-1), ["the certificate has expired less than a day ago: renew it"]),
        (timedelta(days=-3, hours=-1), ["the certificate has expired 3 days ago: renew it"]),
    ],
)
def test_the_end_of_a_certificate(left: timedelta, warnings: list[str]) -> None:
    """Thirty days ahead."""
    facts = {"not_after": f"{NOW + left:%b %d %H:%M:%S %Y GMT}"}
    assert advice.about_hop(a_hop("tls", facts=facts), NOW, exposed=False) == warnings
    assert advice.about_hop(a_hop("tls", facts=facts, error="expired"), NOW, exposed=False) == []


def test_a_token_that_others_can_read() -> None:
    """It was sent over plain TCP; behind TLS, and on this machine, nobody reads it."""
    told = a_hop("websocket", facts={"token": "sent"})
    (warning,) = advice.about_hop(told, NOW, exposed=True)
    assert "the token goes over the network as it is" in warning
    assert advice.about_hop(told, NOW, exposed=False) == []
    assert advice.about_hop(a_hop("websocket"), NOW, exposed=True) == []


def test_a_password_that_others_can_read() -> None:
    """Only where it is sent as it is, and others are there."""
    plain, scram = (a_hop("login", facts={"method": one}) for one in ("password", "SCRAM-SHA-256"))
    (warning,) = advice.about_hop(plain, NOW, exposed=True)
    assert "the password goes over the network as it is" in warning
    assert advice.about_hop(plain, NOW, exposed=False) == []
    assert advice.about_hop(scram, NOW, exposed=True) == []


def test_remedies_for_refusals() -> None:
    """For the server's reasons; what hyperpool itself says has its remedy in it."""
    assert "GRANT CONNECT" in advice.about_error("login", LoginFailed("permission denied", "42501", b"E"))
    assert "max_connections" in advice.about_error("login", LoginFailed("too many", "53300", b"E"))
    assert "pg_hba.conf" in advice.about_error("login", LoginFailed("no entry", "28000", b"E"))
    assert "CREATE ROLE" in advice.about_error(
        "login", LoginFailed("none", "28000", b"E", authenticated=True)
    )
    assert not advice.about_error("login", LoginFailed("no password: set one", "28P01"))
    assert "ALLOW_CONNECTIONS" in advice.about_error("login", LoginFailed("not accepting", "55000", b"E"))
    assert "session parameter" in advice.about_error("login", LoginFailed("invalid value", "22023", b"E"))
    assert not advice.about_error("login", LoginFailed("odd", "XX000", b"E"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("postgresql tls", NoAnswer("server closed the connection when TLS was asked for")),
        ("postgresql tls", ConnectFailed("connection broke while TLS was asked for")),
        ("login", ConnectFailed("server closed the connection during login")),
        ("query", ConnectFailed("connection broke during an empty query")),
    ],
)
def test_remedies_for_an_end_that_hangs_up(kind: str, error: ConnectFailed) -> None:
    """Behind a tunnel that works it is the tunnel's end that has to be looked at."""
    direct, behind = (advice.about_error(kind, error, behind=behind) for behind in (False, True))
    assert "see whether it is PostgreSQL that listens there" in direct
    assert "see whether PostgreSQL runs where it leads to" in behind
    assert advice.about_hang(kind, behind=True) != advice.about_hang(kind)
    assert advice.about_hang("websocket", behind=True) == advice.about_hang("websocket")


def test_what_says_its_remedy_itself_has_no_other() -> None:
    """TLS that fails knows better why."""
    assert not advice.about_error(
        "postgresql tls", TlsFailed("server db has no TLS: turn ssl on"), behind=True
    )


def test_remedies_for_what_is_not_postgresql() -> None:
    """It spoke, but another protocol."""
    error = LoginFailed("server broke the protocol during login: x")
    error.__cause__ = ProtocolError("x")
    assert "check host and port" in advice.about_error("login", error)
    assert "check its target" in advice.about_error("login", error, behind=True)


def test_remedies_for_sockets() -> None:
    """The system's reason stands behind the error; whatever step failed says more about itself."""
    error = ConnectFailed("cannot connect")
    error.__cause__ = OSError(socket.EAI_NONAME, "")
    assert not advice.about_error("tcp", error)
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert "spelling" in advice.about_error("resolve", error)
    error.__cause__ = PermissionError(13, "Permission denied")
    assert "unix_socket_permissions" in advice.about_error("unix", error)
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert "listen_addresses" in advice.about_error("tcp", error)
    assert "nobody listens at the socket" in advice.about_error("unix", error)
    assert "start what the tunnel begins with" in advice.about_error("tcp", error, behind=True)
    assert not advice.about_error("websocket", error)


# -- Which ways there are --------------------------------------------------------------------------------------------


def plans(loaded: Settings, **wishes: Any) -> dict[str, examine.Plan]:
    """What would be done."""
    return {plan.finding.name: plan for plan in Examination(loaded, Wishes(**wishes)).plans}


def test_the_user_who_logs_in(tmp_path: Path) -> None:
    """The database's; else the one that was asked for; else the first whose password is known; else the first."""
    users = {"bob": {"password": f"md5{'0' * 32}"}, "cy": {}, "ann": {"password": "hunter2"}}
    databases = {"app": {}, "own": {"user": "dora"}}
    loaded = settings(tmp_path, users=users, databases=databases)

    assert {name: plan.finding.user for name, plan in plans(loaded).items()} == {"app": "ann", "own": "dora"}
    assert plans(loaded, user="cy")["app"].finding.user == "cy"
    assert plans(settings(tmp_path, users={"bob": users["bob"]}))["app"].finding.user == "bob"


def test_nobody_to_log_in_as(tmp_path: Path) -> None:
    """Nothing is tried, and the remedy is told."""
    loaded = attrs.evolve(settings(tmp_path), users={})
    plan = plans(loaded)["app"]
    assert not plan.walks
    assert "--user" in plan.finding.note


@pytest.mark.parametrize(
    ("pooler", "wished", "expected"),
    [
        ({}, None, (15.0, "server_connect_timeout")),
        ({"server_connect_timeout": 4}, None, (4.0, "server_connect_timeout")),
        ({"server_connect_timeout": 0}, None, (15.0, "--timeout")),
        ({"server_connect_timeout": 4}, 2.0, (2.0, "--timeout")),
    ],
)
def test_the_time_limit(
    tmp_path: Path, pooler: dict[str, Any], wished: float | None, expected: tuple[float, str]
) -> None:
    """There is always one."""
    loaded = settings(tmp_path, pooler={"listen_addr": "127.0.0.1", "auth_type": "trust", **pooler})
    (walk,) = plans(loaded, timeout=wished)["app"].walks
    assert (walk.timeout, walk.limit) == expected


@pytest.mark.parametrize(
    ("listener", "host"),
    [
        ({"listen_addr": "*"}, "127.0.0.1"),
        ({"listen_addr": ["::", "10.0.0.1"]}, "::1"),
        ({"listen_addr": "10.0.0.1"}, "10.0.0.1"),
        ({"unix_socket_dir": "/run/pooler"}, "/run/pooler"),
    ],
)
def test_agents_are_reached_through_the_pooler(tmp_path: Path, listener: dict[str, Any], host: str) -> None:
    """Where it listens; as a client, of a database that is called what clients call it."""
    secret = "0123456789abcdef0123456789"
    loaded = settings(
        tmp_path,
        pooler={"auth_type": "trust", "listen_port": 7432, **listener},
        databases={"app": {"dbname": "x", "user": "own", "transport": [{"agent": {"name": "site"}}]}},
        agents={"listen_port": 7433, "tokens": {"site": {"id": "site.access", "secret": secret}}},
    )
    (walk,) = plans(loaded)["app"].walks
    pool = walk.route.settings
    assert (pool.host, pool.port, pool.dbname, pool.user, pool.transport) == (host, 7432, "app", "ann", ())
    assert "start the pooler" in walk.unreachable
    shown_host = (
        f"{host}/.s.PGSQL.7432"
        if host.startswith("/")
        else f"[{host}]:7432"
        if ":" in host
        else f"{host}:7432"
    )
    assert (walk.name, walk.via) == ("PostgreSQL behind agent site", f"pooler {shown_host} > agent")


def test_an_embedded_database_that_cannot_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's files."""

    def refuse(_cluster: object) -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/x/postmaster.pid")

    monkeypatch.setattr(examine, "find", refuse)
    embedded = {"embedded": True, "user": "demo", "password": "demo"}
    plan = plans(settings(tmp_path, databases={"demo": embedded}))["demo"]
    assert not plan.walks
    assert "cannot be seen: /var/lib/x/postmaster.pid: Permission denied" in plan.finding.note


def test_an_embedded_database_whose_socket_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is too long for a socket is not gone: the link is followed."""
    monkeypatch.setattr(examine, "find", lambda _cluster: object())
    home = tmp_path / "state" / "demo"
    home.mkdir(parents=True)
    (home / "run").symlink_to("/tmp/short")
    embedded = {"embedded": True, "user": "demo", "password": "demo"}
    plan = plans(settings(tmp_path, databases={"demo": embedded}))["demo"]
    assert [walk.target.name for walk in plan.walks] == ["/tmp/short/.s.PGSQL.5432"]
    assert plan.finding.note == "embedded; its server runs"


@pytest.mark.parametrize("name", ["nope", "*"])
def test_an_unknown_database(tmp_path: Path, name: str) -> None:
    """Those that there are, are named."""
    with pytest.raises(UnknownDatabase, match=r"to examine: there are app$"):
        Examination(settings(tmp_path), Wishes(name))


# -- Going -----------------------------------------------------------------------------------------------------------


def walk_to(tmp_path: Path, port: int, **database: Any) -> Walk:
    """The way to a port of the loopback."""
    loaded = settings(tmp_path, databases={"app": {"port": port, "sslmode": "disable", **database}})
    return plans(loaded, timeout=5.0)["app"].walks[0]


async def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    """The login is where it ends."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery, listener:

        async def hang_up(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.receive_some()

        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        finding = await walk_to(tmp_path, listener.socket.getsockname()[1]).go()
        nursery.cancel_scope.cancel()

    assert finding.failure is not None
    assert (finding.failure.kind, finding.failure.error) == (
        "login",
        "server closed the connection during login",
    )


async def test_a_slow_way_where_others_are(tmp_path: Path) -> None:
    """With several hosts the pooler is less patient, and a warning says so."""
    loaded = settings(tmp_path, databases={"app": {"host": "127.0.0.1,127.0.0.2"}})
    pool = loaded.pool_for("app", "ann")
    assert pool is not None
    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    route = Route(attrs.evolve(pool, host_connect_timeout=0.5), context)
    walk = plans(loaded)["app"].walks[0]
    patient, hasty = attrs.evolve(walk), attrs.evolve(walk, route=route)
    assert patient._slow(1.0) == []
    assert hasty._slow(0.4) == []
    assert hasty._slow(1.0) == [
        "it took 1.0 s: the pooler goes to the next host after 0.5 s (host_connect_timeout)"
    ]


async def test_what_is_under_way(tmp_path: Path) -> None:
    """A line for each server, with the hop that is waited for, and never more than the screen has room for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = {"port": silent.getsockname()[1], "sslmode": "disable"}
        loaded = settings(tmp_path, databases={f"app{number}": entry for number in range(9)})
        examination = Examination(loaded, Wishes(timeout=30))
        file = io.StringIO()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(examination.run)
            walks = [plan.walks[0] for plan in examination.plans]
            while not all(walk.trace.hops and walk.trace.hops[-1].name == "login ann" for walk in walks):
                await trio.lowlevel.checkpoint()
            Console(file=file, width=60, height=8).print(Progress(examination))
            nursery.cancel_scope.cancel()

    *lines, last = file.getvalue().splitlines()
    assert len(lines) == 6
    assert all("login ann" in line and len(line) <= 60 for line in lines)
    assert last == "0 of 9 servers examined"


# -- Words -----------------------------------------------------------------------------------------------------------


def test_nothing_that_a_server_says_moves_the_cursor() -> None:
    """Its words are shown as they are, and what cannot be printed is escaped."""
    hop = a_hop(
        "login", error="no\x1b[2J [red]way[/red]\r\n", facts={"server_version": "1\x07", "protocol": "3.0"}
    )
    text = shown(found(hop))
    assert "no\\x1b[2J [red]way[/red]\\r\\n" in text
    assert "PostgreSQL 1\\x07" in text
    assert printable("größe\u202e") == "größe\\u202e"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_width_is_kept(width: int) -> None:
    """Long words are broken."""
    hop = a_hop("websocket", target="gw.example.com/" + "x" * 200, error="refused " * 30, remedy="ask " * 30)
    lines = shown(found(hop, warnings=["slow " * 30]), width=width).splitlines()
    assert max(map(len, lines)) <= width


def test_facts_are_told_in_words() -> None:
    """Only what matters: a standby, but not that it is none."""
    facts = {
        "method": "SCRAM-SHA-256",
        "channel_binding": "no",
        "protocol": "3.2",
        "server_version": "18.1",
        "in_hot_standby": "on",
        "default_transaction_read_only": "off",
    }
    text = shown(found(a_hop("login", facts=facts)), width=200)
    assert "SCRAM-SHA-256, no channel binding, protocol 3.2, PostgreSQL 18.1, in hot standby\n" in text


def test_a_title_that_is_too_long() -> None:
    """How a server is reached stands on a line of its own then, and no word of it is torn off."""
    finding = found(a_hop())
    (server,) = finding.servers
    server.via = "tcp > tls > websocket"
    assert "  db:5432  via tcp > tls > websocket  2.0 ms\n" in shown(finding)
    server.name = f"PostgreSQL behind {'gw' * 20}"
    assert f"  {server.name}\n  via tcp > tls > websocket  2.0 ms\n" in shown(finding)


def test_what_came_after_a_failure() -> None:
    """Not that it went better: that is told by what follows."""
    text = shown(found(*(a_hop(kind, error="gone", overcome=True) for kind in ("postgresql tls", "login"))))
    assert "then it was tried without TLS\n" in text
    assert "then it was tried in another way\n" in text


def test_addresses_that_say_nothing_new() -> None:
    """The address of an address is not repeated."""
    text = shown(
        found(
            a_hop("resolve", target="db", facts={"addresses": "10.0.0.1, 10.0.0.2"}),
            a_hop("tcp", target="10.0.0.1:5432", facts={"address": "10.0.0.1"}),
        )
    )
    assert "db → 10.0.0.1, 10.0.0.2\n" in text
    assert "10.0.0.1:5432\n" in text


def test_colours_are_no_more_than_colours() -> None:
    """Without them, the same text is there."""
    finding = found(
        a_hop(), a_hop("login", error="no", remedy="do"), a_hop("query", error="x", overcome=True)
    )
    plain = shown(finding, no_color=True, force_terminal=False)
    coloured = shown(finding, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert all(mark in plain for mark in ("✓ tcp", "✗ login", "! query", "→ do"))


def test_the_summary() -> None:
    """How many of each."""
    failed, skipped = found(a_hop(error="gone")), DatabaseFinding("b", "", "b", note="why not")
    text = shown(found(a_hop()), failed, skipped)
    assert text.splitlines()[-1] == "3 databases: 1 well, 1 not examined, 1 failed"
    assert "why not" in text


def test_the_json_document() -> None:
    """Its keys are promised; times are in ISO 8601."""
    facts = {"not_after": "Jun  1 12:00:00 2030 GMT"}
    document = as_json([found(a_hop("tls", facts=facts, error="expired", remedy="renew"))])
    assert json.loads(json.dumps(document)) == {
        "format": 1,
        "ok": False,
        "databases": [
            {
                "name": "app",
                "status": "failed",
                "user": "ann",
                "dbname": "app",
                "note": None,
                "servers": [
                    {
                        "name": "db:5432",
                        "status": "failed",
                        "via": None,
                        "ms": 2.0,
                        "warnings": [],
                        "failure": {"hop": "tls", "cause": "expired", "remedy": "renew"},
                        "hops": [
                            {
                                "kind": "tls",
                                "target": "db:5432",
                                "status": "failed",
                                "ms": 1.0,
                                "facts": {"not_after": "2030-06-01T12:00:00+00:00"},
                                "warnings": [],
                                "error": "expired",
                                "remedy": "renew",
                            }
                        ],
                    }
                ],
            }
        ],
    }


def test_the_help_teaches() -> None:
    """Hops, examples, exit codes."""
    text = CliRunner().invoke(main, ["doctor", "--help"], env={"COLUMNS": "100"}).stdout
    for lesson in ("hop by hop", "hyperpool doctor my.yaml app", "--timeout", "--json", "jq", "Exit codes:"):
        assert lesson in text


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_limit_must_be_one(limit: str) -> None:
    """Zero would mean that nothing can be reached."""
    result = CliRunner().invoke(main, ["doctor", "x.yaml", "--timeout", limit])
    assert result.exit_code == 2
    assert "--timeout" in result.stderr


def test_the_page_tells_of_everything() -> None:
    """Every kind of hop and every key of the JSON document is explained in docs/doctor.md."""
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text("utf-8")
    document = as_json([found(a_hop("tls", error="expired"))])
    (database,) = document["databases"]
    (server,) = database["servers"]
    (hop,) = server["hops"]
    named = {*KINDS, *document, *database, *server, *hop, *server["failure"], *(one.value for one in Status)}
    assert not [name for name in named if f"`{name}`" not in page]
