"""What each kind of setting accepts, and what it says about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.config import (
    AuthType,
    DatabaseSettings,
    PoolerSettings,
    PoolMode,
    SessionState,
    UserSettings,
)
from hyperpool.config.kinds import Unfit
from hyperpool.config.source import Source

if TYPE_CHECKING:
    from tests.unit.config.conftest import Loader, Problems


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("listen_addr", "127.0.0.1, ::1", ("127.0.0.1", "::1")),
        ("listen_addr", ["localhost", "*"], ("localhost", "*")),
        ("listen_addr", "*", ("*",)),
        ("listen_addr", "fe80::1%eth0", ("fe80::1%eth0",)),
        ("listen_port", 65535, 65535),
        ("unix_socket_mode", "0770", 0o770),
        ("unix_socket_mode", "0o700", 0o700),
        ("unix_socket_mode", 0o777, 0o777),
        ("listen_backlog", 0, 0),
        ("auth_type", "scram-sha-256", AuthType.SCRAM_SHA_256),
        ("pool_mode", "statement", PoolMode.STATEMENT),
        ("session_state", "follow", SessionState.FOLLOW),
        ("session_state", "reset", SessionState.RESET),
        ("session_state", "keep", SessionState.KEEP),
        ("max_pinned", 0, 0),
        ("pin_functions", "my_lock, other.lock", ("my_lock", "other.lock")),
        ("pin_functions", [], ()),
        ("max_prepared_statements", 0, 0),
        ("max_prepared_memory", "64MiB", 2**26),
        ("default_pool_size", 0, 0),
        ("reserve_pool_timeout", 2, 2.0),
        ("reserve_pool_timeout", 0.5, 0.5),
        ("query_wait_timeout", "2m", 120.0),
        ("query_wait_notify", 0, 0.0),
        ("query_timeout", "1h", 3600.0),
        ("idle_transaction_timeout", "500ms", 0.5),
        ("transaction_timeout", 90, 90.0),
        ("client_idle_timeout", "1d", 86_400.0),
        ("server_reset_query", "", ""),
        ("server_reset_query_always", True, True),
        ("server_check_query", "select 1", "select 1"),
        ("max_packet_size", "1GiB", 2**30),
        ("max_packet_size", 4096, 4096),
        ("ignore_startup_parameters", "a, b", ("a", "b")),
        ("ignore_startup_parameters", [], ()),
        ("track_extra_parameters", "", ()),
        ("tcp_keepcnt", 127, 127),
        ("tcp_keepidle", "2m", 120),
        ("tcp_keepintvl", 30, 30),
        ("tcp_user_timeout", 1500, 1500),
        ("tcp_user_timeout", "30s", 30_000),
        ("tcp_user_timeout", "29ms", 29),
        ("relay_buffer", "64KiB", 65_536),
        ("relay_linger", "500us", 0.0005),
        ("log_level", "warning", "warning"),
        ("log_format", "json", "json"),
    ],
)
def test_a_setting_takes_its_kind_of_value(
    load_with: Loader, name: str, value: object, expected: object
) -> None:
    """Numbers, units, lists and words become what the program works with, of the right type."""
    settings = load_with(pooler={"listen_addr": "localhost", name: value})
    found = getattr(settings.pooler, name)
    assert found == expected
    assert type(found) is type(expected)


_FINE = "pooler: {listen_addr: localhost, auth_type: trust}\ndatabases: {app: }\nusers: {ann: }\n"

_DURATION = 'a duration: seconds as a number, or a text like "500ms", "30s", "5m", "1h" or "1d"'
_SIZE = 'a size: bytes as a whole number, or a text like "64KiB" or "1MiB"'
_PORT = "a whole number from 1 to 65535"
_MODE = "an octal number from 0000 to 0777; it begins with a zero, like 0770"
_MILLISECONDS = "a whole number of milliseconds from 0 to 2147483647"
_TEXTS = "a list of texts that are not empty"
_ADDRESS = "a host name or address; the port has a setting of its own, and IPv6 needs no brackets"


@pytest.mark.parametrize(
    ("name", "value", "found", "expected"),
    [
        ("listen_port", "6432", "the text '6432'", "a whole number from 1 to 65535; write it without quotes"),
        ("listen_port", True, "true", _PORT),
        ("listen_port", 6432.0, "6432.0", _PORT),
        ("listen_port", 0, "0", _PORT),
        ("listen_port", 65536, "65536", _PORT),
        ("listen_port", None, "nothing", _PORT),
        ("listen_port", 10**20, "a huge number", _PORT),
        ("default_pool_size", -1, "-1", "a whole number from 0 to 2147483647"),
        ("max_client_conn", 0, "0", "a whole number from 1 to 2147483647"),
        ("log_stats", 1, "1", "true or false"),
        ("log_stats", "true", "the text 'true'", "true or false; write it without quotes"),
        ("pool_mode", "transactoin", "the text 'transactoin'", "one of session, transaction, statement"),
        ("session_state", "discard", "the text 'discard'", "one of follow, reset, keep"),
        ("session_state", None, "nothing", "one of follow, reset, keep"),
        ("max_pinned", -1, "-1", "a whole number from 0 to 2147483647"),
        ("pin_functions", ["f", ""], "a list of the text 'f', the text ''", _TEXTS),
        ("max_prepared_statements", True, "true", "a whole number from 0 to 2147483647"),
        ("max_prepared_memory", 0, "0", "a size from 1B to 2147483647B"),
        ("query_wait_notify", -1, "-1", "a duration from 0 to 36525d"),
        (
            "auth_type",
            ["md5"],
            "a list of the text 'md5'",
            "one of trust, any, plain, md5, scram-sha-256, cert, hba, ldap, pam",
        ),
        ("log_level", 5, "5", "one of debug, info, warning, error, critical"),
        ("server_lifetime", "1 hour", "the text '1 hour'", _DURATION),
        (
            "server_lifetime",
            "30",
            "the text '30'",
            f"{_DURATION}; write a number without a unit without quotes",
        ),
        ("server_lifetime", False, "false", _DURATION),
        ("server_lifetime", [], "an empty list", _DURATION),
        ("server_lifetime", -1, "-1", "a duration from 0 to 36525d"),
        ("server_lifetime", float("inf"), "inf", "a duration from 0 to 36525d"),
        ("server_lifetime", float("nan"), "nan", "a duration from 0 to 36525d"),
        ("relay_linger", "1s", "the text '1s'", "a duration from 0 to 100ms"),
        ("max_packet_size", 1.5, "1.5", _SIZE),
        ("max_packet_size", "64K", "the text '64K'", _SIZE),
        ("relay_buffer", 512, "512", "a size from 1KiB to 64MiB"),
        ("tcp_keepidle", "1500ms", "the text '1500ms'", "a whole number of seconds"),
        ("tcp_keepidle", 40_000, "40000", "a duration from 0 to 32767s"),
        ("tcp_user_timeout", 0.5, "0.5", _MILLISECONDS),
        ("tcp_user_timeout", -1, "-1", _MILLISECONDS),
        ("unix_socket_mode", 770, "770", _MODE),
        ("unix_socket_mode", "0999", "the text '0999'", _MODE),
        ("unix_socket_mode", False, "false", _MODE),
        ("listen_addr", "127.0.0.1:6432", "the text '127.0.0.1:6432'", _ADDRESS),
        ("listen_addr", ["[::1]"], "a list of the text '[::1]'", _ADDRESS),
        ("listen_addr", "a b", "the text 'a b'", "one host name or address; no list, and no spaces"),
        ("listen_addr", {"a": 1}, "a mapping", "a list of texts, or one text with commas between them"),
        ("listen_addr", ["a", 5], "a list of the text 'a', a number", _TEXTS),
        (
            "listen_addr",
            [1] * 7,
            "a list of a number, a number, a number, a number, a number and 2 more",
            _TEXTS,
        ),
        ("listen_addr", "a,,b", "the text 'a,,b'", _TEXTS),
        ("server_reset_query", 5, "5", "a text; put it in quotes"),
        ("server_reset_query", None, "nothing", "a text"),
        (
            "server_reset_query",
            "a\0b",
            "the text 'a\\x00b'",
            "a text without zero bytes; PostgreSQL can neither store nor transfer them",
        ),
        ("server_reset_query", b"x", "binary data", "a text; put it in quotes"),
    ],
)
def test_a_setting_says_what_it_expects(
    problems_with: Problems, name: str, value: object, found: str, expected: str
) -> None:
    """One line: where, what was found, what is expected and, where that is not enough, what to do."""
    assert problems_with(pooler={name: value}) == [f"pooler.{name}: found {found}, expected {expected}"]


@pytest.mark.parametrize(
    "host", ["db.example.com", "10.0.0.1", "fd00::1", "/run/postgresql", "@postgres", "db1,/run/postgresql"]
)
def test_a_server_is_a_name_an_address_or_a_unix_socket(load_with: Loader, host: str) -> None:
    """All forms of libpq's host are taken."""
    assert load_with(databases={"app": {"host": host}}).databases["app"].host == host


@pytest.mark.parametrize("host", ["", "a,", "db:5432", "[fd00::1]", "postgres://ann:hunter2@db/app", "a\tb"])
def test_other_texts_are_no_server(problems_with: Problems, host: str) -> None:
    """Ports, empty names and URLs are refused; a password in a URL is not shown."""
    (problem,) = problems_with(databases={"app": {"host": host}})
    assert problem.startswith("databases.app.host: found ")
    assert "hunter2" not in problem


def test_a_text_that_must_not_be_empty_says_so(problems_with: Problems) -> None:
    """An empty user is neither a user nor the default."""
    assert problems_with(databases={"app": {"user": ""}}) == [
        "databases.app.user: found the text '', expected a text that is not empty; leave the key out for the default"
    ]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (20261123, "a number"),
        (True, "true or false"),
        (None, "nothing"),
        (["hunter2"], "a list"),
        ({"hunter2": "hunter2"}, "a mapping"),
        (b"hunter2", "binary data"),
        ({"hunter2"}, "something else"),
    ],
)
def test_a_wrong_secret_is_not_shown(problems_with: Problems, value: object, found: str) -> None:
    """The problem tells the kind of value, never the value."""
    (problem,) = problems_with(users={"ann": {"password": value}})
    assert problem.startswith(f"users.ann.password: found {found}, expected a text")
    assert "hunter2" not in problem
    assert "20261123" not in problem


def test_a_date_is_not_taken_for_a_text(problems_with: Problems) -> None:
    """YAML makes dates of some texts; the remedy is to quote them."""
    text = _FINE.replace("{ann: }", "{ann: {password: 2026-11-23}}")
    assert problems_with(text) == ["users.ann.password: found a date, expected a text; put it in quotes"]


def test_half_of_a_surrogate_pair_is_not_taken_for_a_text(problems_with: Problems) -> None:
    """YAML can write it, but no message of the protocol can carry it."""
    (problem,) = problems_with(_FINE.replace("trust", 'trust, server_reset_query: "\\uD800"'))
    assert problem == (
        "pooler.server_reset_query: found the text '\\ud800', expected a text of Unicode characters; "
        "half of a surrogate pair is none"
    )


def test_an_empty_secret_is_refused(problems_with: Problems) -> None:
    """It is nearly always a mistake; a user without a password simply has none."""
    (problem,) = problems_with(environ={"PASSWORD": ""}, users={"ann": {"password": "${PASSWORD}"}})
    assert problem == (
        "users.ann.password: found a text, expected a secret that is not empty; leave the key out when there is none"
    )


def test_long_texts_are_cut(problems_with: Problems) -> None:
    """A problem stays readable whatever was pasted."""
    (problem,) = problems_with(pooler={"pool_mode": "x" * 1000})
    assert len(problem) < 200


def test_paths_start_at_the_directory_of_the_file(load_with: Loader, tmp_path: Path) -> None:
    """Relative paths do not depend on where the pooler was started; absolute ones stay."""
    (tmp_path / "users.txt").write_text('"ann" "x"')
    pooler = {"auth_file": "users.txt", "unix_socket_dir": "run", "state_dir": "/var/lib/x"}
    found = load_with(pooler=pooler).pooler
    assert found.auth_file == str(tmp_path / "users.txt")
    assert found.unix_socket_dir == str(tmp_path / "run")
    assert found.state_dir == Path("/var/lib/x")


def test_an_unknown_home_directory_is_a_problem(problems_with: Problems) -> None:
    """A path may name another user's home only if there is one."""
    assert problems_with(pooler={"state_dir": "~nobody-of-this-name/x"}) == [
        "pooler.state_dir: the home directory is not known: give the path without '~'"
    ]


def test_a_tilde_is_the_home_directory(
    load_with: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths may begin with a tilde, as in a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_with(pooler={"state_dir": "~/state"}).pooler.state_dir == tmp_path / "state"


@pytest.mark.parametrize("given", [{}, {"state_dir": ""}])
def test_the_state_directory_may_be_beside_the_settings(
    load_with: Loader, tmp_path: Path, given: dict[str, str]
) -> None:
    """Where `make run` has made it: there every command finds it. The environment has the last word."""
    (tmp_path / ".state").mkdir()
    assert load_with({"HOME": "/h"}, pooler=given).pooler.state_dir == tmp_path / ".state"
    assert load_with({"STATE_DIRECTORY": "/s"}, pooler=given).pooler.state_dir == Path("/s")


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/s"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/hyperpool"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/hyperpool"),
        ({"HOME": "/h"}, "/h/.local/state/hyperpool"),
        ({}, "/p/.local/state/hyperpool"),
    ],
)
@pytest.mark.parametrize("given", [{}, {"state_dir": ""}])
def test_the_default_state_directory_follows_the_environment(
    load_with: Loader,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    directory: str,
    given: dict[str, str],
) -> None:
    """The directory of systemd first, then XDG's, which must be absolute, then the home directory of the account."""
    monkeypatch.setattr("pwd.getpwuid", lambda uid: attrs.make_class("Account", ["pw_dir"])("/p"))
    assert load_with(environ, pooler=given).pooler.state_dir == Path(directory)


def test_an_account_without_a_home_has_a_state_directory_too(
    load_with: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run with a user id that has no entry in the user database."""

    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert load_with().pooler.state_dir == Path("/.local/state/hyperpool")


@pytest.mark.parametrize("cls", [PoolerSettings, DatabaseSettings, UserSettings])
def test_every_setting_is_explained(cls: type[Any]) -> None:
    """Help for people, whether a reload changes it, and a parser that refuses what does not fit."""
    for field in attrs.fields(cls):
        assert field.metadata["help"]
        assert isinstance(field.metadata["reload"], bool)
        with pytest.raises(Unfit):
            field.metadata["parse"](-1 if field.name == "cache" else {}, Source(Path("/"), {}))


def test_the_defaults_are_pgbouncers() -> None:
    """A file written for pgbouncer keeps its meaning; only the Unix socket must be asked for."""
    pooler = PoolerSettings()
    assert (pooler.listen_addr, pooler.listen_port, pooler.unix_socket_dir) == ((), 6432, "")
    assert (pooler.auth_type, pooler.pool_mode) == (AuthType.MD5, PoolMode.SESSION)
    assert (pooler.max_client_conn, pooler.default_pool_size, pooler.min_pool_size) == (100, 20, 0)
    assert (pooler.server_lifetime, pooler.server_idle_timeout) == (3600.0, 600.0)
    assert (pooler.query_wait_timeout, pooler.client_login_timeout) == (120.0, 60.0)
    assert (pooler.server_reset_query, pooler.server_check_query) == ("DISCARD ALL", "<empty>")
    assert pooler.track_extra_parameters == ("IntervalStyle",)
    assert (pooler.max_prepared_statements, pooler.query_wait_notify) == (200, 5.0)
    assert (pooler.query_timeout, pooler.transaction_timeout) == (0.0, 0.0)
    assert (pooler.idle_transaction_timeout, pooler.client_idle_timeout) == (0.0, 0.0)


def test_the_defaults_of_what_pgbouncer_does_not_have() -> None:
    """Clients find their session as they have left it, and few of them keep a server connection for it."""
    pooler = PoolerSettings()
    assert (pooler.session_state, pooler.max_pinned) == (SessionState.FOLLOW, 10)
    assert pooler.pin_functions == (
        "dblink_connect",
        "dblink_connect_u",
        "pg_backup_start",
        "pg_copy_logical_replication_slot",
        "pg_copy_physical_replication_slot",
        "pg_create_logical_replication_slot",
        "pg_create_physical_replication_slot",
        "pg_replication_origin_session_setup",
    )
    assert pooler.max_prepared_memory == 2**28
