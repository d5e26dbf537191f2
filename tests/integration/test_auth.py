"""Who is let in: every `auth_type` with every kind of stored secret, and the refusals, in PostgreSQL's words."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support import targets
from tests.support.poolers import config_for
from tests.support.postgres import ANN, CLARA, MIRA, TRUDY, Role

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

PASSWORD = 'dora\'s "secret" €'
# PostgreSQL's SQLSTATE for a refused login; pgbouncer has one for everything.
REFUSED = "28P01" if targets.TARGET == "hyperpool" else "08P01"
TRUST, CLEARTEXT, MD5, SASL = 0, 3, 5, 10  # AuthenticationOk and the requests, by their codes


def _md5_secret(user: str) -> str:
    return "md5" + hashlib.md5((PASSWORD + user).encode()).hexdigest()


def _scram_secret() -> str:
    salt = b"sixteen bytes ok"
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256$4096:{encoded[0]}${encoded[1]}:{encoded[2]}"


USERS = {"dora_plain": PASSWORD, "dora_md5": _md5_secret("dora_md5"), "dora_scram": _scram_secret()}

# (auth_type, user) -> the authentication that the pooler asks for; None: no login possible, as with pgbouncer
EXPECTED = {
    ("trust", "dora_plain"): TRUST,
    ("trust", "dora_md5"): TRUST,
    ("trust", "dora_scram"): TRUST,
    ("plain", "dora_plain"): CLEARTEXT,
    ("plain", "dora_md5"): CLEARTEXT,
    ("plain", "dora_scram"): CLEARTEXT,
    ("md5", "dora_plain"): MD5,
    ("md5", "dora_md5"): MD5,
    ("md5", "dora_scram"): SASL,
    ("scram-sha-256", "dora_plain"): SASL,
    ("scram-sha-256", "dora_md5"): None,
    ("scram-sha-256", "dora_scram"): SASL,
}


def _config(pg: PostgresCluster, auth_type: str, auth_file: Path) -> Config:
    """Return settings with Dora's three users in a file of pgbouncer's format; the server login is Ann's."""
    quoted = {name: secret.replace('"', '""') for name, secret in USERS.items()}
    auth_file.write_text("".join(f'"{name}" "{secret}" ignored\n' for name, secret in quoted.items()))
    auth_file.chmod(0o644)
    for parent in list(auth_file.parents)[:3]:
        parent.chmod(0o755)
    config = config_for(pg, auth_type=auth_type, auth_file=str(auth_file))
    config["databases"]["app"] |= {"user": ANN.name, "password": ANN.password}
    return config


def _requests(frames: list[raw.Frame]) -> list[int]:
    return [struct.unpack_from("!i", got.body)[0] for got in frames if got.kind == b"R"]


@pytest.mark.parametrize("auth_type", ["trust", "plain", "md5", "scram-sha-256"])
def test_every_kind_of_secret(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    tmp_path: Path,
    auth_type: str,
) -> None:
    """The right password lets in by the exchange that fits `auth_type` and secret; a wrong one does not."""
    pooler = make_pooler(_config(pg, auth_type, tmp_path / "users.txt"))
    for user in USERS:
        expected = EXPECTED[auth_type, user]
        with pooler.open_raw() as client:
            frames = client.login("app", user, PASSWORD)
            if expected is None:
                assert frames[-1].fields["C"] == REFUSED
                continue
            assert frames[-1].kind == b"Z", (user, frames[-1].fields)
            assert _requests(frames)[0] == expected
            assert client.value("SELECT current_user") == ANN.name
        if expected != TRUST:
            for wrong in ("wrong", "", PASSWORD + "x", "x" * 900):
                fields = pooler.refused("app", Role(user, wrong, "")).fields
                assert fields["C"] == REFUSED, (user, wrong)


@pytest.mark.hyperpool_only  # pgbouncer 1.18 has words of its own for some of these
@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
def test_refusals_read_as_postgresql_writes_them(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    tmp_path: Path,
    auth_type: str,
) -> None:
    """Wrong password and unknown user read alike, word for word as PostgreSQL's, and take the same exchange."""
    pooler = make_pooler(_config(pg, auth_type, tmp_path / "users.txt"))
    exchanges = []
    for user in ("dora_plain", "nobody_at_all"):
        with pooler.open_raw() as client:
            frames = client.login("app", user, "wrong")
            exchanges.append(_requests(frames))
            fields = frames[-1].fields
            assert fields["M"] == f'password authentication failed for user "{user}"'
            assert (fields["S"], fields["V"], fields["C"]) == ("FATAL", "FATAL", "28P01")
            assert client.receive_all() == []
    assert exchanges[0] == exchanges[1]


@pytest.mark.hyperpool_only
def test_the_mock_exchange_of_an_unknown_user_is_stable(pooler: Pooler) -> None:
    """Asked twice for an unknown user, the pooler names the same salt and iterations, as for a known one."""
    salts = set()
    for _ in range(2):
        with pooler.open_raw() as client:
            last = client.login("session", "nobody_at_all", "wrong")
            challenge = next(got.body[4:] for got in last if got.body[:4] == struct.pack("!i", 11))
            salts.add(challenge.partition(b",s=")[2])
    assert len(salts) == 1


@pytest.mark.hyperpool_only  # pgbouncer: `no such database: ...`
def test_unknown_database(pooler: Pooler) -> None:
    """A database that is not configured is refused with PostgreSQL's words and SQLSTATE."""
    fields = pooler.refused("no such place").fields
    assert (fields["M"], fields["C"]) == ('database "no such place" does not exist', "3D000")
    assert fields["S"] == "FATAL"


@pytest.mark.hyperpool_only
def test_unknown_database_is_told_after_the_password(pooler: Pooler) -> None:
    """As with PostgreSQL, who does not know a password does not learn which databases exist."""
    fields = pooler.refused("no such place", Role("ann", "wrong", "")).fields
    assert fields["C"] == "28P01"


@pytest.mark.hyperpool_only  # pgbouncer: `server login failed: ...` before 1.19
def test_a_database_unknown_to_the_server(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A configured database that the server does not have is refused in the server's own words."""
    config = config_for(pg)
    config["databases"]["ghost"] = {"host": pg.host, "port": pg.port}
    pooler = make_pooler(config)
    with pytest.raises(psycopg.OperationalError, match='database "ghost" does not exist'):
        pooler.connect("ghost").execute("SELECT 1")


def test_trust_needs_a_known_user(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """With `auth_type: trust` a user that is not configured is refused all the same."""
    pooler = make_pooler(auth_type="trust")
    with pooler.raw("app", ANN) as client:
        assert client.value("SELECT current_user") == ANN.name
    fields = pooler.refused("app", Role("stranger", "", "")).fields
    assert fields["C"] in {"28000", "28P01", "08P01"}


@pytest.mark.hyperpool_only
@pytest.mark.parametrize("kind", ["plain", "md5", "scram"])
def test_secrets_under_users(make_pooler: PoolerFactory, pg: PostgresCluster, kind: str) -> None:
    """The same kinds of secret work under `users:`."""
    config = config_for(pg, auth_type="md5")
    config["databases"]["app"] |= {"user": ANN.name, "password": ANN.password}
    config["users"][f"dora_{kind}"] = {"password": USERS[f"dora_{kind}"]}
    pooler = make_pooler(config)
    with pooler.raw("app", Role(f"dora_{kind}", PASSWORD, "")) as client:
        assert client.value("SELECT 1") == "1"


@pytest.mark.hyperpool_only
def test_password_from_environment_and_file(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Secrets come from `${ENV}` and from `password_file`; the value is nowhere in the log."""
    monkeypatch.setenv("ANNS_SECRET", ANN.password)
    (tmp_path / "secret").write_text(CLARA.password + "\n")
    config = config_for(pg)
    config["users"]["ann"] = {"password": "${ANNS_SECRET}"}
    config["users"]["clara"] = {"password_file": str(tmp_path / "secret")}
    pooler = make_pooler(config)
    for role in (ANN, CLARA):
        with pooler.raw("app", role) as client:
            assert client.value("SELECT current_user") == role.name
        assert role.password not in pooler.log_text()


@pytest.mark.parametrize("role", [ANN, MIRA, CLARA], ids=lambda role: role.method)
def test_login_to_the_server_as_the_client(make_pooler: PoolerFactory, role: Role) -> None:
    """Without a forced user the pooler logs in as the client, by SCRAM, MD5 or clear text as the server asks."""
    pooler = make_pooler()
    with pooler.raw("app", role) as client:
        assert client.value("SELECT current_user") == role.name


@pytest.mark.parametrize("role", [ANN, MIRA, CLARA, TRUDY], ids=lambda role: role.method)
def test_login_to_the_server_as_a_forced_user(
    make_pooler: PoolerFactory,
    pg: PostgresCluster,
    role: Role,
) -> None:
    """A database's `user` and `password` are used for the server whoever the client is."""
    config = config_for(pg)
    config["databases"]["app"]["user"] = role.name
    if role.password:
        config["databases"]["app"]["password"] = role.password
    pooler = make_pooler(config)
    with pooler.raw("app", ANN) as client:
        assert client.value("SELECT current_user") == role.name


def test_clients_of_a_forced_user_share_its_pool(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Different clients of a database with a forced user use the same servers."""
    config = config_for(pg, pool_mode="transaction", default_pool_size=1)
    config["databases"]["app"] |= {"user": TRUDY.name}
    pooler = make_pooler(config)
    with pooler.raw("app", ANN) as one, pooler.raw("app", CLARA) as two:
        assert one.value("SELECT pg_backend_pid()") == two.value("SELECT pg_backend_pid()")


_SASL_INITIAL = b"SCRAM-SHA-256\0" + struct.pack("!i", 32) + b"n,,n=,r=" + b"a" * 24

HOSTILE_EXCHANGES = {
    "unknown mechanism": [raw.frame(b"p", b"SCRAM-SHA-1\0" + struct.pack("!i", -1))],
    "no mechanism": [raw.frame(b"p", b"")],
    "length beyond the frame": [raw.frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", 2**31 - 1) + b"n,,")],
    "negative length": [raw.frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", -7) + b"n,,")],
    "not SCRAM at all": [raw.frame(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", 4) + b"\xff\xfe\0,")],
    "wrong nonce": [raw.frame(b"p", _SASL_INITIAL), raw.frame(b"p", b"c=biws,r=zzz,p=AAAA")],
    "proof is not base64": [raw.frame(b"p", _SASL_INITIAL), raw.frame(b"p", b"c=biws,r=a,p=***")],
    "empty final message": [raw.frame(b"p", _SASL_INITIAL), raw.frame(b"p", b"")],
    "query instead of password": [raw.query("SELECT 1")],
    "huge password message": [b"p" + struct.pack("!I", 2**31 - 1) + b"x" * 4096],
    "frame shorter than its length field": [b"p" + struct.pack("!I", 3)],
}


@pytest.mark.hyperpool_only  # pgbouncer before 1.25.2 crashes (CVE-2026-6664)
@pytest.mark.parametrize("name", HOSTILE_EXCHANGES)
def test_hostile_scram_exchange(pooler: Pooler, name: str) -> None:
    """A broken authentication exchange ends in an ErrorResponse or a close, never in a login or a crash."""
    with pooler.open_raw() as client:
        client.send(raw.startup_packet({"user": ANN.name, "database": "session"}))
        assert client.receive().kind == b"R"
        try:
            for message in HOSTILE_EXCHANGES[name]:
                client.send(message)
            frames = client.receive_all()
        except raw.ConnectionEnded:
            frames = []
        # AuthenticationSASLContinue may come before the refusal; nothing else may.
        assert all(got.kind == b"E" or _requests([got]) == [11] for got in frames)
        for got in frames:
            if got.kind == b"E":
                assert got.fields["C"] in {"08P01", "28P01"}
    with pooler.raw("session") as client:
        assert client.value("SELECT 'alive'") == "alive"
