"""Which servers the doctor goes to, as whom, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from click.testing import CliRunner

from hyperpool.cli import main
from hyperpool.doctor import examine
from hyperpool.doctor.examine import Examination, UnknownDatabase, Wishes
from tests.support.examined import plans, settings

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_limit_must_be_one(limit: str) -> None:
    """Zero would mean that nothing can be reached."""
    result = CliRunner().invoke(main, ["doctor", "x.yaml", "--timeout", limit])
    assert result.exit_code == 2
    assert "--timeout" in result.stderr


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
