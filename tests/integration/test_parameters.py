"""Startup parameters: what a client asks for at connect is in force for it, whichever server it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support import targets
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

CASES = [
    ("application_name", "first app", "second app"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("DateStyle", "German, DMY", "SQL, MDY"),
    ("TimeZone", "Europe/Berlin", "Asia/Tokyo"),
    ("standard_conforming_strings", "off", "on"),
    pytest.param("IntervalStyle", "iso_8601", "sql_standard", marks=pytest.mark.hyperpool_only),
]


_KEEP = {"session_state": "keep"} if targets.TARGET == "hyperpool" else {}


@pytest.fixture(scope="module")
def _one_server(make_module_pooler: PoolerFactory) -> Pooler:
    return make_module_pooler(pool_mode="transaction", default_pool_size=1)


@pytest.fixture
def one_server(_one_server: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler in transaction mode whose only pool has one server."""
    return watch(_one_server)


@pytest.mark.parametrize(("name", "first", "second"), CASES, ids=str)
def test_in_force_while_servers_are_shared(one_server: Pooler, name: str, first: str, second: str) -> None:
    """Two clients with different settings alternate on one server; each finds its own every time."""
    with one_server.raw(**{name: first}) as one, one_server.raw(**{name: second}) as two:
        for _ in range(3):
            assert one.value(f"SHOW {name}") == first
            assert two.value(f"SHOW {name}") == second


@pytest.mark.parametrize(("name", "first", "second"), CASES, ids=str)
def test_reported_at_login(pooler: Pooler, mode: str, name: str, first: str, second: str) -> None:
    """The ParameterStatus messages of the login tell what the client asked for."""
    with pooler.raw(mode, **{name: first}) as client:
        assert client.parameters[name] == first


def test_a_client_without_settings_gets_the_servers(one_server: Pooler, pg: PostgresCluster) -> None:
    """A client that asks for nothing does not inherit what another asked for."""
    with one_server.raw(TimeZone="Asia/Tokyo", DateStyle="German, DMY") as picky, one_server.raw() as plain:
        for _ in range(2):
            assert picky.value("SHOW TimeZone") == "Asia/Tokyo"
            assert plain.value("SHOW TimeZone") == "UTC"
            assert plain.value("SHOW DateStyle") == "ISO, MDY"


def test_sessions_do_not_inherit_settings(make_pooler: PoolerFactory) -> None:
    """In session mode the reset leaves the server's own settings, not those of the client it was opened for."""
    pooler = make_pooler(pool_mode="session", default_pool_size=1)
    with pooler.raw(TimeZone="Asia/Tokyo", application_name="first") as first:
        pid = first.value("SELECT pg_backend_pid()")
        assert first.value("SHOW TimeZone") == "Asia/Tokyo"
        first.close()
    with pooler.raw() as second:
        assert second.value("SELECT pg_backend_pid()") == pid
        assert second.value("SHOW TimeZone") == "UTC"
        assert second.value("SHOW application_name") == ""


def test_a_change_by_set_follows_the_client(one_server: Pooler) -> None:
    """SET of a reported parameter stays with the client across transactions, and only with it."""
    with one_server.raw(TimeZone="Asia/Tokyo") as one, one_server.raw(TimeZone="UTC") as two:
        one.ask("SET TimeZone = 'Europe/Berlin'")
        assert two.value("SHOW TimeZone") == "UTC"
        assert one.value("SHOW TimeZone") == "Europe/Berlin"
        assert two.value("SHOW TimeZone") == "UTC"


def test_in_force_within_a_pipeline(one_server: Pooler) -> None:
    """The first statement of a pipeline already runs under the client's settings; no answer is added."""
    with one_server.raw(TimeZone="Asia/Tokyo") as one, one_server.raw(TimeZone="UTC") as two:
        assert two.value("SHOW TimeZone") == "UTC"
        one.send(*(raw.extended("SHOW TimeZone") + raw.SYNC for _ in range(3)))
        for _ in range(3):
            frames = [got for got in one.receive_until() if got.kind != b"S"]
            assert raw.kinds(frames) == b"12DCZ"
            assert frames[2].columns == [b"Asia/Tokyo"]


def test_the_login_reports_the_server(pooler: Pooler, mode: str) -> None:
    """A client learns the server's version and its fixed settings at login, as from PostgreSQL itself."""
    with pooler.raw(mode) as client:
        assert client.value("SHOW server_version") == client.parameters["server_version"]
        for name in ("server_encoding", "standard_conforming_strings", "integer_datetimes", "IntervalStyle"):
            assert client.value(f"SHOW {name}") == client.parameters[name]


def test_encoding_applies_to_results(pooler: Pooler, mode: str) -> None:
    """A client in LATIN1 receives and sends LATIN1 bytes."""
    with pooler.raw(mode, client_encoding="LATIN1") as client:
        client.send(raw.frame(b"Q", "SELECT 'é', length('é')\0".encode("latin-1")))
        assert client.receive_until()[1].columns == [b"\xe9", b"1"]


@pytest.mark.hyperpool_only  # pgbouncer reads `options` since 1.20
def test_options(one_server: Pooler) -> None:
    """`options=-c name=value` sets tracked parameters, in both spellings of libpq."""
    options = "-c TimeZone=Asia/Tokyo --DateStyle=German"
    with one_server.raw(options=options) as one, one_server.raw() as two:
        for _ in range(2):
            assert two.value("SHOW TimeZone") == "UTC"
            assert one.value("SHOW TimeZone") == "Asia/Tokyo"
            assert one.value("SHOW DateStyle").startswith("German")


@pytest.mark.parametrize(
    "parameters",
    [{"work_mem": "7MB"}, pytest.param({"options": "-c work_mem=7MB"}, marks=pytest.mark.hyperpool_only)],
    ids=["directly", "in options"],
)
def test_what_cannot_be_kept_is_refused(
    make_pooler: PoolerFactory, pg: PostgresCluster, mode: str, parameters: dict[str, str]
) -> None:
    """Where session state is not followed, what servers do not report is refused by name."""
    pooler = make_pooler(config_for(pg, pool_mode=mode, **_KEEP))
    fields = pooler.refused(**parameters).fields
    assert "work_mem" in fields["M"]
    assert fields["S"] == "FATAL"


def test_an_ignored_parameter_is_accepted(make_pooler: PoolerFactory) -> None:
    """A parameter listed in `ignore_startup_parameters` is accepted and has no effect."""
    pooler = make_pooler(ignore_startup_parameters=["work_mem", "extra_float_digits"])
    with pooler.raw(work_mem="7MB", extra_float_digits="3") as client:
        assert client.value("SHOW work_mem") != "7MB"


def test_forced_by_the_database(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`timezone`, `datestyle` and `client_encoding` of a database apply to clients that ask for nothing."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"] |= {"timezone": "Asia/Tokyo", "datestyle": "German, DMY"}
    config["databases"]["app"] |= {"client_encoding": "LATIN1"}
    pooler = make_pooler(config)
    with pooler.raw() as client:
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
        assert client.value("SHOW DateStyle") == "German, DMY"
        assert client.value("SHOW client_encoding") == "LATIN1"


@pytest.mark.hyperpool_only  # pgbouncer: since 1.22
def test_application_name_of_the_database(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`application_name` of a database names the connections of clients that give no name."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"]["application_name"] = "by the database"
    pooler = make_pooler(config)
    with pooler.raw() as client:
        assert client.value("SHOW application_name") == "by the database"


def test_a_change_by_the_server_reaches_the_session(
    make_mortal_pooler: PoolerFactory,
    mortal_pg: PostgresCluster,
) -> None:
    """A ParameterStatus that the server sends by itself is passed on to the client of the session."""
    pooler = make_mortal_pooler(pool_mode="session")
    with pooler.raw() as client:
        assert client.value("SHOW TimeZone") == "UTC"
        try:
            mortal_pg.sql("ALTER SYSTEM SET DateStyle = 'German'")
            mortal_pg.sql("SELECT pg_reload_conf()")

            def reported() -> list[bytes]:
                return [got.body for got in client.ask("") if got.kind == b"S"]

            assert eventually(reported, what="the change is reported") == [b"DateStyle\0German, DMY\0"]
            assert client.value("SHOW DateStyle") == "German, DMY"
        finally:
            mortal_pg.sql("ALTER SYSTEM RESET DateStyle")
            mortal_pg.sql("SELECT pg_reload_conf()")


def test_a_change_by_the_server_while_it_is_idle(
    make_mortal_pooler: PoolerFactory,
    mortal_pg: PostgresCluster,
) -> None:
    """A ParameterStatus of a server without a client is nobody's answer; the next queries are not disturbed."""
    pooler = make_mortal_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw(application_name="steady") as client:
        assert client.value("SELECT 1") == "1"
        try:
            mortal_pg.sql("ALTER SYSTEM SET DateStyle = 'German'")
            mortal_pg.sql("SELECT pg_reload_conf()")
            for n in range(20):
                assert client.value(f"SELECT {n}") == str(n)
                assert client.value("SHOW application_name") == "steady"
        finally:
            mortal_pg.sql("ALTER SYSTEM RESET DateStyle")
            mortal_pg.sql("SELECT pg_reload_conf()")


def test_connect_query(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`connect_query` runs once on each new server connection, before any client uses it."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"]["app"]["connect_query"] = "SET work_mem = '9MB'; SELECT 'not for the client'"
    pooler = make_pooler(config)
    with pooler.raw() as client:
        assert client.value("SHOW work_mem") == "9MB"
