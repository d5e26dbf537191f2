"""Settings of authentication together: the files that they name, and their contradictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.config import AuthType, Secret, auth_checks
from hyperpool.config.ident import IdentEntry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Loader, Problems

AUTH_QUERY = {"auth_user": "asker"}


def hba(tmp_path: Path, text: str, ident: str = "") -> dict[str, Any]:
    """Settings with an HBA file of this content."""
    (tmp_path / "pg_hba.conf").write_text(text)
    (tmp_path / "pg_ident.conf").write_text(ident)
    return {"auth_type": "hba", "auth_hba_file": "pg_hba.conf", "auth_ident_file": "pg_ident.conf"}


def test_who_is_known(load_with: Loader, tmp_path: Path) -> None:
    """Beside an auth_file, an entry of users without a secret is about limits: as in pgbouncer, it lets nobody in."""
    (tmp_path / "userlist.txt").write_text('"ann" "pencil"\n"locked" ""\n')
    users: dict[str, Any] = {"ann": {"pool_size": 1}, "bob": {"pool_size": 1}, "clara": {"password": "x"}}
    settings = load_with(pooler={"auth_type": "trust", "auth_file": "userlist.txt"}, users=users)
    assert dict(settings.credentials) == {"ann": Secret("pencil"), "locked": Secret(""), "clara": Secret("x")}
    alone = load_with(pooler={"auth_type": "trust"}, users=users)
    assert dict(alone.credentials) == {"ann": Secret(""), "bob": Secret(""), "clara": Secret("x")}


def test_hba_file(load_with: Loader, tmp_path: Path) -> None:
    """It is read with the settings, with the files that it names, and with the maps."""
    (tmp_path / "users").write_text("ann\nbob")
    settings = load_with(
        pooler=hba(tmp_path, "local all @users peer map=m\nhost all all all md5", "m root all")
    )
    assert [rule.method for rule in settings.hba] == [AuthType.PEER, AuthType.MD5]
    assert settings.hba[0].users.names == {"ann", "bob"}
    assert settings.ident == {"m": (IdentEntry("root", None),)}
    assert settings.uses(AuthType.PEER)
    assert not settings.uses(AuthType.CERT)


def test_hba_file_without_auth_type_hba(load_with: Loader, tmp_path: Path) -> None:
    """As in pgbouncer, it is not looked at."""
    settings = load_with(pooler={**hba(tmp_path, "nonsense", "nonsense"), "auth_type": "trust"})
    assert (settings.hba, dict(settings.ident)) == ((), {})


def test_problems_of_hba_files(problems_with: Problems, tmp_path: Path) -> None:
    """All of them at once."""
    text = "host all\nlocal all all peer map=absent\nhost all all all ldap\nhost all @nowhere all md5"
    found = problems_with(pooler=hba(tmp_path, text, "m root"))
    assert [problem.partition("; hyperpool")[0] for problem in found] == [
        "pooler.auth_hba_file: line 1: expected the name of a user, or all",
        "pooler.auth_hba_file: line 4: cannot read the file that is named here (No such file or directory)",
        "pooler.auth_ident_file: line 1: expected three fields: map name, system name, database user",
    ]
    found = problems_with(pooler=hba(tmp_path, "local all all peer map=absent\nhost all all all ldap"))
    assert found == [
        "pooler.auth_hba_file: line 1: expected a map that stands in auth_ident_file; add its lines",
        "pooler.auth_hba_file: line 2: expected LDAP options behind ldap, or as auth_ldap_options",
    ]


@pytest.mark.parametrize("text", ["", "# nobody\n"])
def test_an_hba_file_without_rules(problems_with: Problems, tmp_path: Path, text: str) -> None:
    """Nobody could log in."""
    rules = "expected rules like 'host all all all scram-sha-256', for auth_type hba"
    assert problems_with(pooler=hba(tmp_path, text)) == [
        f"pooler.auth_hba_file: found a file without rules, {rules}"
    ]
    assert problems_with(pooler={"auth_type": "hba"}) == [f"pooler.auth_hba_file: found nothing, {rules}"]


def test_certificates_need_tls(problems_with: Problems, tmp_path: Path) -> None:
    """And something that they are verified with, wherever cert stands."""
    expected = "expected TLS, without which there are no certificates to log in with"
    disabled = f"pooler.client_tls_sslmode: found disable, {expected}"
    assert problems_with(pooler={"auth_type": "cert"}) == [disabled]
    assert problems_with(pooler=hba(tmp_path, "hostssl all all all cert")) == [disabled]


def test_missing_libraries(problems_with: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be installed is said."""
    monkeypatch.setattr(auth_checks, "find_spec", lambda name: None)
    for kind in ("ldap", "pam"):
        expected = (
            f"pooler.auth_type: found {kind}, for which a library is missing; install hyperpool with its extra {kind}, "
            f"as in pip install '.[{kind}]' where its sources are"
        )
        options = {"auth_ldap_options": "ldapprefix=x"}
        assert problems_with(pooler={"auth_type": kind, **options}) == [expected]
        assert problems_with(pooler={**hba(tmp_path, f"host all all all {kind}"), **options}) == [expected]


def test_ldap_options(load_with: Loader, problems_with: Problems) -> None:
    """They are needed, and what is wrong with them is said without them."""
    settings = load_with(pooler={"auth_type": "ldap", "auth_ldap_options": 'ldapsuffix="@x" ldapserver=y'})
    assert settings.pooler.auth_ldap_options is not None
    assert settings.pooler.auth_ldap_options.servers == ("y",)
    assert problems_with(pooler={"auth_type": "ldap"}) == [
        "pooler.auth_ldap_options: found nothing, expected options like ldapurl=..., for auth_type ldap"
    ]
    expected = "expected ldapprefix, ldapsuffix or ldapbasedn; it says who is to be bound as, or searched for"
    found = problems_with(pooler={"auth_ldap_options": "ldapbindpasswd=hunter2"})
    assert found == [f"pooler.auth_ldap_options: found a text, {expected}"]


@pytest.mark.parametrize("kind", ["trust", "md5", "scram-sha-256", "plain"])
def test_auth_user_makes_users_known(load_with: Loader, problems_with: Problems, kind: str) -> None:
    """Without users here, somebody can log in if a server can be asked about them."""
    assert load_with(users={}, pooler={"auth_type": kind, **AUTH_QUERY}).auth_source("app") is not None
    assert load_with(users={}, pooler={"auth_type": kind}, databases={"app": AUTH_QUERY}).auth_source("app")
    assert "nobody can log in" in problems_with(users={}, pooler={"auth_type": kind})[0]


def test_auth_source(load_with: Loader) -> None:
    """Which server is asked, as whom, and with what; nothing of what the entry forces upon sessions is taken over."""
    forced = {
        "user": "owner",
        "password": "x",
        "connect_query": "SELECT 1",
        "timezone": "UTC",
        "client_encoding": "u",
    }
    settings = load_with(
        pooler={**AUTH_QUERY, "auth_dbname": "directory"},
        databases={
            "app": {"auth_query": "SELECT a", **forced},
            "own": {"auth_dbname": "own", "auth_user": "other", **forced},
            "none": {"auth_user": ""},
            "directory": {"dbname": "users", "host": "h"},
        },
        users={"asker": {"password": "asker's"}, "ann": {"password": "y"}},
    )
    source = settings.auth_source("app")
    assert source is not None
    pool = source.settings
    assert (pool.database, pool.dbname, pool.host, pool.user) == ("directory", "users", "h", "asker")
    assert (pool.password, source.query) == (Secret("asker's"), "SELECT a")
    own = settings.auth_source("own")
    assert own is not None
    assert (own.settings.database, own.settings.user, own.settings.password) == ("own", "other", None)
    assert (own.settings.connect_query, own.settings.parameters) == ("", {})
    assert "pg_catalog.pg_authid" in own.query
    assert settings.auth_source("none") is None
    assert settings.auth_source("absent") is None
    assert source.key != own.key


def test_auth_dbname_must_be_there(problems_with: Problems, load_with: Loader) -> None:
    """Unless there is an entry for every name."""
    found = problems_with(pooler={"auth_dbname": "x"}, databases={"app": {"auth_dbname": "y"}})
    assert found == [
        "pooler.auth_dbname: found 'x', expected the name of an entry of databases; add it",
        "databases.app.auth_dbname: found 'y', expected the name of an entry of databases; add it",
    ]
    databases: dict[str, Any] = {"app": {}, "*": {}}
    source = load_with(pooler={"auth_dbname": "x", **AUTH_QUERY}, databases=databases).auth_source("app")
    assert source is not None
    assert source.settings.dbname == "x"


def test_what_clients_show_may_be_used(load_with: Loader) -> None:
    """Unless the database has a password of its own."""
    settings = load_with(databases={"app": {}, "own": {"user": "u", "password": "p"}})
    learns = [settings.pool_for(name, "ann") for name in ("app", "own")]
    assert [pool is not None and pool.learns for pool in learns] == [True, False]
