"""pgbouncer.ini: what is read, what it means, what is wrong with it, and the same as YAML."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import pytest
import trustme

from hyperpool.config import (
    DatabaseSettings,
    PoolerSettings,
    PoolMode,
    Secret,
    SessionState,
    Settings,
    UserSettings,
    load,
)
from hyperpool.config.convert import convert
from hyperpool.config.unsupported import UNSUPPORTED
from hyperpool.errors import ConfigError
from tests.support.pgbouncer_settings import DATABASE, SETTINGS, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_HEAD = "[databases]\napp = host=db.example\n[pgbouncer]\nlisten_addr = 127.0.0.1\nauth_type = trust\n"


@pytest.fixture(name="pems", scope="module")
def make_pems() -> dict[str, bytes]:
    """A key, and certificates that are their own authority."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain = (*certificate.cert_chain_pems, authority.cert_pem)
    return {
        "key.pem": certificate.private_key_pem.bytes(),
        "cert.pem": b"".join(blob.bytes() for blob in chain),
    }


@pytest.fixture(name="directory")
def make_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pems: dict[str, bytes]) -> Path:
    """The working directory, with the files that the settings name."""
    monkeypatch.chdir(tmp_path)
    for name, content in pems.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "users.txt").write_text('"ann" "secret"\n')
    (tmp_path / "hba.conf").write_text("host all all 0.0.0.0/0 scram-sha-256\n")
    (tmp_path / "ident.conf").write_text("map root ann\n")
    return tmp_path


@pytest.fixture(name="load_ini")
def make_load_ini(directory: Path) -> Callable[[str], Settings]:
    """Loads a text as a file of pgbouncer's."""

    def load_text(text: str) -> Settings:
        file = directory / "pgbouncer.ini"
        file.write_text(text)
        return load(file, {})

    return load_text


@pytest.fixture(name="problems_of")
def make_problems_of(load_ini: Callable[[str], Settings]) -> Callable[[str], list[str]]:
    """What is wrong with a text, without the directory."""

    def find(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_ini(text)
        return [problem.partition("pgbouncer.ini:")[2] for problem in caught.value.problems]

    return find


def _pairs(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _everything() -> str:
    lines = [f"{name} = {other}" for name, (_, other) in SETTINGS.items()]
    return (
        "\n".join(
            [
                "[pgbouncer]",
                *lines,
                "[databases]",
                f"app = {_pairs(DATABASE)}",
                "* =",
                "[users]",
                f"ann = {_pairs(USER)}",
            ]
        )
        + "\n[peers]\n1 = host=/run/one\n2 = host=two.example port=7000 pool_size=3\n"
    )


# -- what is read ------------------------------------------------------------------------------------------------------


def test_every_setting_is_known_or_has_a_reason() -> None:
    """No setting of pgbouncer is both, and none is neither."""
    known = set(attrs.fields_dict(PoolerSettings)) | set(UNSUPPORTED)
    assert set(SETTINGS) <= known
    assert not set(UNSUPPORTED) & set(attrs.fields_dict(PoolerSettings))


def test_every_setting_is_read(load_ini: Callable[[str], Settings]) -> None:
    """None of the other values leaves a setting at its default."""
    settings = load_ini(_everything())
    plain = load_ini(_HEAD)
    for name in (
        set(SETTINGS) - set(UNSUPPORTED) - {"client_tls13_ciphers", "server_tls13_ciphers", "auth_type"}
    ):
        if name != "client_tls_dheparams":
            assert getattr(settings.pooler, name) != getattr(plain.pooler, name), name
    assert settings.databases["app"] != plain.databases["app"]
    for cls, entry, given in (
        (DatabaseSettings, settings.databases["app"], DATABASE),
        (UserSettings, settings.users["ann"], USER),
    ):
        fields = attrs.fields_dict(cls)
        for name in given:
            key = {"reserve_pool": "reserve_pool_size"}.get(name, name)
            assert getattr(entry, key) != fields[key].default, name


def test_defaults_are_pgbouncers(load_ini: Callable[[str], Settings]) -> None:
    """To write all defaults of pgbouncer's manual into a file changes nothing."""
    lines = [f"{name} = {default}" for name, (default, _) in SETTINGS.items() if default is not None]
    given = load_ini(_HEAD.replace("[pgbouncer]\n", "[pgbouncer]\n" + "\n".join(lines) + "\n"))
    assert given == load_ini(_HEAD)
    assert given.pooler.session_state is SessionState.KEEP
    assert given.pooler.log_format == "pgbouncer"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0x10", 16), ("020", 16), ("20", 20), ("+7", 7), ("089", None), ("1k", None), ("", None)],
)
def test_numbers_are_written_as_in_c(
    load_ini: Callable[[str], Settings], value: str, expected: int | None
) -> None:
    """Hexadecimal and octal, as strtol takes them."""
    text = f"{_HEAD}listen_backlog = {value}\n"
    if expected is None:
        with pytest.raises(ConfigError, match="expected a whole number"):
            load_ini(text)
    else:
        assert load_ini(text).pooler.listen_backlog == expected


def test_a_connection_string_is_quoted_like_libpqs(load_ini: Callable[[str], Settings]) -> None:
    """Single quotes around a value, doubled inside; double quotes around a name."""
    settings = load_ini(
        _HEAD + "[databases]\n"
        "a.b-c = dbname = 'it''s one'  user=x password='p w' connect_query='select ''a b'''\n"
        '"my ""db""" = host=/run/here\n'
    )
    entry = settings.databases["a.b-c"]
    assert (entry.dbname, entry.connect_query, entry.host) == ("it's one", "select 'a b'", "/tmp")
    assert entry.password is not None
    assert entry.password.reveal() == "p w"
    assert settings.databases['my "db"'].host == "/run/here"


def test_spaces_that_c_does_not_know_belong_to_a_value(load_ini: Callable[[str], Settings]) -> None:
    """A password may end in one; of the others, those at the end of a line are none of its value."""
    text = _HEAD + "[databases]\nx = host=h user=u password=s\u00a0\u2003\t \r\n"
    assert load_ini(text).databases["x"].password == Secret("s\u00a0\u2003")


@pytest.mark.parametrize("name", ["9" * 5000, "1_0", "-1", "x"])
def test_what_is_no_number_of_a_peer(problems_of: Callable[[str], list[str]], name: str) -> None:
    """It is a problem of that line."""
    (problem,) = problems_of(f"{_HEAD}peer_id = 1\n[peers]\n{name} = host=h\n")
    assert "peers" in problem


def test_without_a_host_it_is_the_unix_socket(load_ini: Callable[[str], Settings]) -> None:
    """In the directory of the pooler's own socket."""
    settings = load_ini(f"{_HEAD}unix_socket_dir = /run/here\n[databases]\n* =\n")
    assert settings.databases["*"].host == "/run/here"
    assert settings.pool_for("any", "ann") is not None


def test_what_comes_last_counts(load_ini: Callable[[str], Settings]) -> None:
    """Also of two lines for one database."""
    settings = load_ini(f"{_HEAD}pool_mode = session\npool_mode = statement\n[databases]\napp = port=1\n")
    assert settings.pooler.pool_mode is PoolMode.STATEMENT
    assert settings.databases["app"] == DatabaseSettings(host="/tmp", port=1)


def test_minus_one_is_a_size_that_is_not_set(load_ini: Callable[[str], Settings]) -> None:
    """As pgbouncer prints it."""
    settings = load_ini(f"{_HEAD}[users]\nann = pool_size=-1 max_user_connections=3\n")
    assert settings.users["ann"] == UserSettings(max_user_connections=3)


def test_files_are_included_where_they_are_named(
    directory: Path, load_ini: Callable[[str], Settings]
) -> None:
    """A section that begins in one goes on behind it."""
    (directory / "more.ini").write_text("pool_mode = statement\n[databases]\n%include some.ini\n")
    (directory / "some.ini").write_text("; nothing but databases\nmore = port=1\n")
    settings = load_ini(f"{_HEAD}%include more.ini\nlast = port=2\n")
    assert settings.pooler.pool_mode is PoolMode.STATEMENT
    assert list(settings.databases) == ["app", "more", "last"]


def test_paths_start_at_the_working_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the file's, and a tilde is the home directory."""
    (directory / "etc").mkdir()
    (directory / "etc/pgbouncer.ini").write_text(f"{_HEAD}auth_file = users.txt\nlogfile = ~/x.log\n")
    monkeypatch.setenv("HOME", "/home/ann")
    settings = load(directory / "etc/pgbouncer.ini", {})
    assert settings.pooler.auth_file == str(directory / "users.txt")
    assert settings.pooler.logfile == "/home/ann/x.log"
    assert list(settings.credentials) == ["ann"]


def test_a_dollar_is_a_dollar(load_ini: Callable[[str], Settings]) -> None:
    """Environment variables are put into YAML alone."""
    assert (
        load_ini(f"{_HEAD}server_check_query = select '${{X}}'\n").pooler.server_check_query
        == "select '${X}'"
    )


# -- what is accepted, and noted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (f"{_HEAD}sbuf_loopcnt = 0\n", "6: sbuf_loopcnt: has no effect: no connection can hold others up"),
        (
            f"{_HEAD}client_tls_dheparams = legacy\n",
            "6: client_tls_dheparams: has no effect: keys are agreed on",
        ),
        (
            f"{_HEAD}[users]\nann =\n[databases]\nb = password=x\n",
            "9: databases.b.password: has no effect without",
        ),
        (f"{_HEAD}min_pool_size = 30\n", "6: min_pool_size: found 30, expected no more than the 20"),
        (f"{_HEAD}auth_file = nowhere\n", "6: auth_file: cannot read the file"),
        (_HEAD, "5: auth_type: found trust, but no user is known"),
        (_HEAD.replace("app = host=db.example\n", ""), "databases: found none, expected one or more"),
    ],
)
def test_what_pgbouncer_starts_with_is_noted(
    load_ini: Callable[[str], Settings], text: str, note: str
) -> None:
    """It is no problem, but is told."""
    assert any(note in one for one in load_ini(text).notes)


def test_notes_are_no_difference(load_ini: Callable[[str], Settings]) -> None:
    """Two files with the same effect are equal."""
    assert load_ini(f"{_HEAD}sbuf_loopcnt = 0\n") == load_ini(_HEAD)


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_with_their_lines(problems_of: Callable[[str], list[str]]) -> None:
    """What is no line at all, what is no value, and what makes no sense."""
    assert problems_of(
        "stray = 1\n[pgbouncer]\nlisten_addr = *\nnonsense\nlog_stats = yes\nquery_timeout = 1s\nlisten_prt = 1\n"
        "[else]\nx = 1\n[databases]\nhyperpool =\na = port=x\nb = 'host'=\nc = dbname='x\n[users]\nu = pool_mode=no\n"
        "[peers]\nx = host=a\n%include nowhere\n"
    ) == [
        "1: found 'stray' above the first section; put it below [pgbouncer]",
        "4: found no setting, expected a name, an equals sign and a value; a comment begins with a semicolon",
        "5: log_stats: found the text 'yes', expected 0 or 1",
        "6: query_timeout: found the text '1s', expected a number of seconds",
        "7: listen_prt: found an unknown setting; did you mean listen_port?",
        "8: found section 'else', expected one of pgbouncer, databases, users, peers; rename or remove it",
        "11: databases.hyperpool: found a name that is kept for the admin console; choose another one",
        "12: databases.a.port: found the text 'x', expected a whole number",
        "13: databases.b: found nothing as \"'host'\", expected a value; leave it out for the default",
        "14: databases.c: found no end of the quoted value of 'dbname', expected a single quote",
        "16: users.u.pool_mode: found the text 'no', expected one of session, transaction, statement",
        "18: peers.x: found the text 'x' as a peer_id, expected a whole number from 1 to 16383, without quotes",
        "19: cannot read 'nowhere': No such file or directory; name a file that can be read",
    ]


def test_what_follows_from_a_misspelt_name_is_no_problem(problems_of: Callable[[str], list[str]]) -> None:
    """Here, that there is no key."""
    tls = "client_tls_sslmode = require\nclient_tls_cert_file = /cert\nclient_tls_key_fil = /key\n"
    (problem,) = problems_of(f"{_HEAD}{tls}")
    assert problem.endswith(
        ": client_tls_key_fil: found an unknown setting; did you mean client_tls_key_file?"
    )


def test_a_password_is_never_shown(problems_of: Callable[[str], list[str]]) -> None:
    """Whatever is wrong around it."""
    for broken in (
        "user=u password=hunter2 x",
        "user=u password='hunter2",
        "password=hunter2 port=x",
        "hunter2",
    ):
        assert "hunter2" not in str(problems_of(f"{_HEAD}[databases]\nb = {broken}\n"))


def test_files_that_include_each_other_come_to_an_end(
    directory: Path, problems_of: Callable[[str], list[str]]
) -> None:
    """With a problem, at the limit of pgbouncer."""
    assert problems_of(f"{_HEAD}%include pgbouncer.ini\n") == [
        "6: files include each other more than 10 deep; remove the circle"
    ]


def test_a_file_that_is_not_utf8_is_a_problem(directory: Path) -> None:
    """With the line of the first such byte."""
    (directory / "x.ini").write_bytes(b"[pgbouncer]\nuser = \xff\n")
    with pytest.raises(ConfigError, match=r"x\.ini:2: found bytes that are not UTF-8"):
        load(directory / "x.ini", {})


def test_without_a_host_or_a_socket_there_is_no_server(problems_of: Callable[[str], list[str]]) -> None:
    """Where pgbouncer says so at each login."""
    assert problems_of(f"{_HEAD}unix_socket_dir =\n[databases]\nb = port=1\n") == [
        (
            "8: databases.b.host: found neither a host nor a unix_socket_dir, where the server's Unix socket would be; "
            "add a host"
        )
    ]


# -- as YAML -----------------------------------------------------------------------------------------------------------


def _converted(directory: Path, text: str) -> tuple[Settings, Settings, str]:
    """What a file says, what its YAML says from another directory, and that."""
    ini = directory / "pgbouncer.ini"
    ini.write_text(text)
    written = convert(ini, {})
    (directory / "elsewhere").mkdir()
    (directory / "elsewhere/pooler.yaml").write_text(written)
    return load(ini, {}), load(directory / "elsewhere/pooler.yaml", {}), written


def test_yaml_says_the_same_of_all_settings(directory: Path) -> None:
    """From another directory, with nothing left to note."""
    before, after, _ = _converted(directory, _everything())
    assert before == after
    assert before.notes
    assert not after.notes


def test_yaml_says_the_same_of_odd_names_and_values(directory: Path) -> None:
    """What YAML would take for something else than a text."""
    before, after, _ = _converted(
        directory,
        "[pgbouncer]\nlisten_addr=*\nauth_file = users.txt\nserver_reset_query =\nserver_check_query = ~\n"
        "login_notify_message = {a: 1} # 'x' \"y\" \\n é\n[databases]\nnull =\n1 = host=::1\nyes = dbname=on\n"
        "1:30 = dbname=1e3 user=0x1 password='- a: b'\n".replace("1:30", '"1:30"'),
    )
    assert before == after
    assert before.databases["1:30"].user == "0x1"


def test_comments_that_say_something_are_kept(directory: Path) -> None:
    """Right above what they are about, but no settings that are commented out."""
    _, _, written = _converted(
        directory,
        "; for the shop\n\n[databases]\n;; the old one\n; old = host=x\n# it moved in May\nshop = host=a\n"
        ";lost, as nothing follows\n\n; the pooler\n[pgbouncer]\nauth_file = users.txt\n;; slow network\n"
        "listen_addr = *\npkt_buf = 8192\n",
    )
    lines = [line.strip() for line in written.splitlines()]
    assert lines[lines.index("shop:") - 2 : lines.index("shop:")] == ["# the old one", "# it moved in May"]
    assert lines[:2] == ["pooler:", "# the pooler"]
    assert "# slow network" in lines
    assert not any("old = host" in line or "lost" in line for line in lines)
    assert next(line for line in lines if "pkt_buf" in line).startswith("# pkt_buf = 8192 has no effect: ")


def test_a_file_with_problems_is_not_converted(directory: Path) -> None:
    """They are told instead."""
    (directory / "x.ini").write_text(f"{_HEAD}log_stats = yes\n")
    with pytest.raises(ConfigError, match="log_stats"):
        convert(directory / "x.ini", {})


# -- how fast ----------------------------------------------------------------------------------------------------------


def test_hundreds_of_databases_and_users_are_loaded_at_once(
    directory: Path, load_ini: Callable[[str], Settings]
) -> None:
    """In less than a second of processor time."""
    databases = "".join(f"db{number} = host=10.0.0.1 dbname=d{number} pool_size=5\n" for number in range(300))
    users = "".join(f"user{number} = pool_mode=transaction max_user_connections=9\n" for number in range(500))
    (directory / "users.txt").write_text(
        "".join(f'"user{number}" "md5{number:032x}"\n' for number in range(500))
    )
    began = time.process_time()
    settings = load_ini(f"{_HEAD}auth_file = users.txt\n[databases]\n{databases}[users]\n{users}")
    assert time.process_time() - began < 1.0
    assert (len(settings.databases), len(settings.users), len(settings.credentials)) == (301, 500, 500)
