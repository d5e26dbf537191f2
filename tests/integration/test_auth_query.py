"""`auth_query`: users whom only the server knows, and servers that are logged in to with what clients show."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.postgres import ANN, BOB, CLARA, MIRA, SUPERUSER, TRUDY, Role
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only

PER_USER = "SELECT usename, passwd FROM look_up($1)"
FUNCTION = """\
CREATE OR REPLACE FUNCTION look_up(name text) RETURNS TABLE (usename name, passwd text) LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog AS 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = name'
"""


def asking(pg: PostgresCluster, **pooler: object) -> Config:
    """Settings without a single user: the server is asked about all of them, through its Unix socket."""
    config = config_for(pg, **{"auth_user": SUPERUSER, "auth_dbname": "directory", **pooler})
    config["databases"]["directory"] = {"host": str(pg.socket_dir), "port": pg.port, "dbname": "postgres"}
    config["users"] = {}
    return config


@contextlib.contextmanager
def altered(pg: PostgresCluster, role: Role, change: str) -> Iterator[None]:
    """A role is changed, and afterwards as it was."""
    pg.sql(f"ALTER ROLE {role.name} {change}")
    try:
        yield
    finally:
        encryption = "md5" if role.method == "md5" else "scram-sha-256"
        pg.sql(f"SET password_encryption = '{encryption}'")
        quoted = role.password.replace("'", "''")
        pg.sql(f"ALTER ROLE {role.name} LOGIN VALID UNTIL 'infinity' PASSWORD '{quoted}'")


def whoami(pooler: Pooler, role: Role, password: str | None = None) -> str:
    """Log in, and ask the server who it thinks is there."""
    known = Role(role.name, role.password if password is None else password, "")
    with pooler.connect("app", known) as connection:
        row = connection.execute("SELECT current_user").fetchone()
        assert row is not None
        return str(row[0])


def asked(pg: PostgresCluster) -> int:
    """How many connections the pooler has for asking."""
    rows = pg.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_authid%' AND pid <> pg_backend_pid()"
    )
    return int(rows[0][0])


def asks_through_one(pg: PostgresCluster) -> None:
    """Check that the pooler asks through one connection; that of a pooler that has ended may take a moment to end."""
    eventually(lambda: asked(pg) == 1, what="it asks through one connection")


# -- who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth_type", "role"),
    [("scram-sha-256", ANN), ("md5", ANN), ("md5", MIRA), ("plain", CLARA), ("plain", ANN), ("plain", MIRA)],
    ids=lambda value: value if isinstance(value, str) else value.method,
)
def test_clients_and_servers_with_nothing_stored(
    make_pooler: PoolerFactory, pg: PostgresCluster, auth_type: str, role: Role
) -> None:
    """What the server has stored lets clients in, and what they show lets us in: SCRAM keys, MD5 digests, passwords."""
    pooler = make_pooler(asking(pg, auth_type=auth_type))
    assert whoami(pooler, role) == role.name
    for wrong in ("wrong", role.password + "x"):
        with pytest.raises(
            psycopg.OperationalError, match=f'password authentication failed for user "{role.name}"'
        ):
            whoami(pooler, role, wrong)
    assert role.password not in pooler.log_text()
    assert "SCRAM-SHA-256$" not in pooler.log_text()


def test_a_query_of_the_operators_own(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """An ordinary user calls a function, in the client's own database; its password stands in the settings."""
    pg.sql(FUNCTION, dbname="app")
    config = config_for(pg, auth_query="SELECT 'never', 'asked'")
    config["databases"]["app"] |= {"auth_user": ANN.name, "auth_query": PER_USER}
    config["users"] = {ANN.name: {"password": ANN.password}}
    pooler = make_pooler(config)
    assert [whoami(pooler, role) for role in (ANN, BOB)] == [ANN.name, BOB.name]


def test_a_verifier_of_our_own(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Copied from the server, clients' keys open it; made anew for the same password, they do not, and it is said."""
    ((copied,),) = pg.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'ann'")
    with altered(pg, BOB, "PASSWORD 'ann''s secret'"):
        ((other,),) = pg.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'bob'")
    config = config_for(pg)
    config["users"] = {ANN.name: {"password": copied}}
    pooler = make_pooler(config)
    assert whoami(pooler, ANN) == ANN.name
    config["users"] = {ANN.name: {"password": other}}
    mismatched = make_pooler({**config, "pooler": {**config["pooler"], "listen_port": free_port()}})
    with pytest.raises(
        psycopg.OperationalError, match="SCRAM secret of this user is another one than the pooler's"
    ):
        whoami(mismatched, ANN)


def test_a_forced_user(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Clients log in with what their server knows, and the server is logged in to with what the settings say."""
    config = asking(pg)
    config["databases"]["app"] |= {"user": ANN.name, "password": ANN.password}
    pooler = make_pooler(config)
    assert [whoami(pooler, role) for role in (ANN, BOB)] == [ANN.name, ANN.name]


def test_trust_asks_whether_there_is_such_a_user(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """As with users that are stored here."""
    pooler = make_pooler(asking(pg, auth_type="trust"))
    assert whoami(pooler, TRUDY) == TRUDY.name
    fields = pooler.refused("app", Role("nobody_at_all", "", "")).fields
    assert (fields["C"], fields["M"]) == ("28000", 'role "nobody_at_all" does not exist')


def test_what_the_settings_say_goes_first(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A user with a secret here is not asked about: as in pgbouncer."""
    config = asking(pg)
    config["databases"]["app"] |= {"user": TRUDY.name}
    config["users"] = {ANN.name: {"password": "another one"}, BOB.name: {"pool_size": 1}}
    pooler = make_pooler(config)
    assert whoami(pooler, ANN, "another one") == TRUDY.name
    assert asked(pg) == 0
    assert whoami(pooler, BOB) == TRUDY.name
    asks_through_one(pg)


def test_unknown_users_meet_the_same(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The same messages, the same words and about the same time as for a wrong password; and it is repeatable."""
    pooler = make_pooler(asking(pg))
    shapes, salts = [], []
    for user in (ANN.name, "nobody_at_all", "nobody_at_all"):
        with pooler.open_raw() as client:
            frames = client.login("app", user, "wrong")
            shapes.append(
                [(frame.kind, len(frame.body) - len(user) * (frame.kind == b"E")) for frame in frames]
            )
            salts.append(frames[1].body.partition(b",s=")[2])
            assert frames[-1].fields["M"] == f'password authentication failed for user "{user}"'
    assert shapes[0] == shapes[1] == shapes[2]
    assert salts[1] == salts[2] != salts[0]


@pytest.mark.parametrize(
    "name", ["x" * 200, "a'b\"c\\d; DROP TABLE x --", "naïve", "\udcff\udcfe", "%s$1", "ann\n"], ids=repr
)
def test_any_name_may_be_asked_for(make_pooler: PoolerFactory, pg: PostgresCluster, name: str) -> None:
    """A name is a value, never SQL; one that cannot be one of this server's is unknown like others."""
    pooler = make_pooler(asking(pg, auth_type="plain"))
    fields = pooler.refused("app", Role(name, "wrong", "")).fields
    assert fields["C"] == "28P01"
    assert whoami(pooler, ANN) == ANN.name
    asks_through_one(pg)


# -- what changes ------------------------------------------------------------------------------------------------------


def test_passwords_are_replaced_without_a_restart(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The new one counts at once, for clients and for servers; the old one does not."""
    pooler = make_pooler(asking(pg))
    assert whoami(pooler, BOB) == BOB.name
    with altered(pg, BOB, "PASSWORD 'quite another'"):
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'")
        eventually(lambda: not pg.backends(), what="the old server connection is gone")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            whoami(pooler, BOB)
        assert whoami(pooler, BOB, "quite another") == BOB.name
        assert len(pg.backends()) == 1


def test_users_that_may_log_in_no_more(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """VALID UNTIL (CVE-2025-2291), NOLOGIN and PASSWORD NULL are obeyed as by PostgreSQL, at the very next login."""
    pooler = make_pooler(asking(pg))
    for change in ("VALID UNTIL 'yesterday'", "NOLOGIN", "PASSWORD NULL"):
        assert whoami(pooler, BOB) == BOB.name
        with altered(pg, BOB, change):
            for auth in ("bob's secret", ""):
                fields = pooler.refused("app", Role("bob", auth, "")).fields
                assert (fields["C"], fields["M"]) == (
                    "28P01",
                    'password authentication failed for user "bob"',
                )
    assert whoami(pooler, BOB) == BOB.name


def test_answers_may_be_used_again(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """With `auth_query_ttl`, the server is asked once; a login that fails makes it be asked anew."""
    pooler = make_pooler(asking(pg, auth_query_ttl="1h"))
    assert whoami(pooler, BOB) == BOB.name
    with altered(pg, BOB, "PASSWORD 'quite another'"):
        assert whoami(pooler, BOB) == BOB.name
        with pytest.raises(psycopg.OperationalError):
            whoami(pooler, BOB, "quite another")
        assert whoami(pooler, BOB, "quite another") == BOB.name
        with pytest.raises(psycopg.OperationalError):
            whoami(pooler, BOB)


# -- the connection that asks --------------------------------------------------------------------------------------


def test_many_at_once(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """All clients log in through one connection that asks."""
    pooler = make_pooler(asking(pg, auth_type="md5", default_pool_size=3, pool_mode="transaction"))
    failures: list[BaseException] = []

    def log_in(role: Role) -> None:
        try:
            assert whoami(pooler, role) == role.name
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=log_in, args=(role,)) for role in (ANN, BOB, MIRA) * 13]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    asks_through_one(pg)


def test_the_connection_breaks(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """It is opened anew, and nobody notices."""
    pooler = make_pooler(asking(pg))
    assert whoami(pooler, ANN) == ANN.name
    pg.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_authid%' AND pid <> "
        "pg_backend_pid()"
    )
    eventually(lambda: asked(pg) == 0, what="it is gone")
    assert whoami(pooler, ANN) == ANN.name
    asks_through_one(pg)


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "nobody listens": ({"port": 1}, "Connection refused"),
    "no such database": ({"dbname": "ghost"}, 'database "ghost" does not exist'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_server_cannot_be_asked(make_pooler: PoolerFactory, pg: PostgresCluster, name: str) -> None:
    """Clients are told that, and the log why; users that are stored here log in all the same."""
    change, reason = BROKEN[name]
    config = asking(pg)
    config["databases"]["directory"] |= {"host": "127.0.0.1", **change} if "port" in change else change
    config["users"] = {ANN.name: {"password": ANN.password}}
    pooler = make_pooler(config)
    for _ in range(2):
        fields = pooler.refused("app", BOB).fields
        assert fields["M"] == "the secret of this user cannot be looked up (auth_query)"
        assert fields["H"] == "the pooler's log says why"
        assert reason not in str(fields)
    assert reason in pooler.log_text()
    assert whoami(pooler, ANN) == ANN.name


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT nonsense", 'column "nonsense" does not exist'),
        ("SELECT $1::text", "auth_query returned 1 columns, expected two"),
        ("SELECT $1::text, 'x' FROM generate_series(1, 2)", "auth_query returned more than one row"),
    ],
)
def test_a_query_that_does_not_fit(
    make_pooler: PoolerFactory, pg: PostgresCluster, query: str, reason: str
) -> None:
    """Nobody is let in, and the log says why."""
    pooler = make_pooler(asking(pg, auth_query=query))
    fields = pooler.refused("app", BOB).fields
    assert fields["M"] == "the secret of this user cannot be looked up (auth_query)"
    assert reason in pooler.log_text()


def test_a_query_about_somebody_else(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """The secret of another user is none of this one's."""
    query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = 'ann' AND $1 <> ''"
    pooler = make_pooler(asking(pg, auth_query=query))
    assert pooler.refused("app", Role("bob", ANN.password, "")).fields["C"] == "28P01"
    assert whoami(pooler, ANN) == ANN.name


def test_it_is_closed_when_nobody_needs_it(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """After `server_idle_timeout`, and opened again for the next one."""
    pooler = make_pooler(asking(pg, server_idle_timeout=1))
    assert whoami(pooler, ANN) == ANN.name
    eventually(lambda: asked(pg) == 0, within=10, what="it is closed")
    assert whoami(pooler, ANN) == ANN.name


def test_a_reload_changes_whom_to_ask(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """What was asked before counts no more."""
    config = asking(pg)
    pooler = make_pooler(config)
    assert whoami(pooler, BOB) == BOB.name
    config["pooler"]["auth_query"] = "SELECT $1::text, 'md5' || md5('new' || $1::text)"
    config["pooler"]["auth_type"] = "md5"
    config["databases"]["app"] |= {"user": TRUDY.name}
    mark = pooler.log_size()
    pooler.reload(config)
    eventually(lambda: "reloaded" in pooler.log_text(mark), what="the settings are read")
    assert whoami(pooler, BOB, "new") == TRUDY.name


def test_a_client_that_leaves_while_the_server_is_asked(
    make_pooler: PoolerFactory, pg: PostgresCluster
) -> None:
    """Nobody is answered, and nothing is left."""
    slow = "SELECT rolname, rolpassword FROM pg_authid, pg_sleep(0.5) WHERE rolname = $1"
    pooler = make_pooler(asking(pg, auth_query=slow))
    began = time.monotonic()
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"user": ANN.name, "database": "app"}))
        eventually(lambda: pg.waiting("PgSleep", slow), what="the server is asked")
        client.abort()
    assert whoami(pooler, ANN) == ANN.name
    assert time.monotonic() - began < 20
