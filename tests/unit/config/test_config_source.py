"""What comes from environment variables and from other files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.unit.config.conftest import Loader, Problems


def _password(load_with: Loader, environ: Mapping[str, str], **user: Any) -> str:
    password = load_with(environ, users={"ann": user}).users["ann"].password
    assert password is not None
    return password.reveal()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A {A} $", "$A {A} $"),
        ("SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5", "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"),
    ],
)
def test_a_reference_is_replaced_by_the_variable(load_with: Loader, text: str, value: str) -> None:
    """Anywhere in a text; a second dollar sign makes it a plain text, and other dollar signs mean nothing."""
    assert _password(load_with, {"A": "one", "B": "two"}, password=text) == value


def test_a_variable_is_not_searched_for_references(load_with: Loader) -> None:
    """What stands in a variable is taken as it is."""
    assert _password(load_with, {"A": "${B}"}, password="${A}") == "${B}"


def test_references_work_in_lists_and_for_numbers_and_flags(load_with: Loader) -> None:
    """A variable holds nothing but text, so it may stand for a number or a flag, unlike a text in quotes."""
    environ = {"HOST": "db", "PORT": "5433", "ON": "true", "WAIT": "2.5", "LIMIT": "1m", "SIZE": "65536"}
    settings = load_with(
        environ,
        pooler={
            "listen_addr": ["${HOST}", "localhost"],
            "log_stats": "${ON}",
            "query_wait_timeout": "${WAIT}",
            "server_lifetime": "${LIMIT}",
            "relay_buffer": "${SIZE}",
        },
        databases={"app": {"host": "${HOST}.example.com", "port": "${PORT}"}},
    )
    assert settings.pooler.listen_addr == ("db", "localhost")
    assert settings.pooler.log_stats is True
    assert settings.pooler.query_wait_timeout == 2.5
    assert settings.pooler.server_lifetime == 60.0
    assert settings.pooler.relay_buffer == 65536
    assert settings.databases["app"].host == "db.example.com"
    assert settings.databases["app"].port == 5433


@pytest.mark.parametrize(
    ("pooler", "problem"),
    [
        (
            {"listen_port": "${X}"},
            "listen_port: found the text '${X}', expected a whole number from 1 to 65535",
        ),
        ({"log_stats": "${X}"}, "log_stats: found the text '${X}', expected true or false"),
        ({"pool_mode": "${X}"}, "pool_mode: found the text '${X}', expected one of"),
        ({"server_lifetime": "${X}"}, "server_lifetime: found the text '${X}', expected a duration"),
        ({"max_packet_size": "${X}"}, "max_packet_size: found the text '${X}', expected a size"),
        ({"listen_addr": "${X}"}, "listen_addr: found the text '${X}', expected one host name"),
    ],
)
def test_a_variable_that_does_not_fit_is_not_shown(
    problems_with: Problems, pooler: dict[str, str], problem: str
) -> None:
    """It may be a password in the wrong place; the reference is shown in its stead."""
    (found,) = problems_with(environ={"X": "hunter 2"}, pooler=pooler)
    assert found.startswith(f"pooler.{problem}")
    assert "hunter" not in found


def test_a_part_of_a_byte_is_no_size(problems_with: Problems) -> None:
    """A number from a variable is as strict as one in the file."""
    (found,) = problems_with(environ={"X": "2048.5"}, pooler={"relay_buffer": "${X}"})
    assert found.startswith(
        "pooler.relay_buffer: found the text '${X}', expected a size: bytes as a whole number"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${NONE}", "environment variable NONE is not set: set it, or give the value here"),
        ("${}", "found '${' without a name and '}' behind it; a plain '${' is written '$${'"),
        ("hunter2${A", "found '${' without a name and '}' behind it; a plain '${' is written '$${'"),
        ("${A-hunter2}", "found '${' without a name and '}' behind it; a plain '${' is written '$${'"),
        ("${1A}", "found '${' without a name and '}' behind it; a plain '${' is written '$${'"),
    ],
)
def test_a_bad_reference_is_a_problem(problems_with: Problems, text: str, problem: str) -> None:
    """A variable that is not set is never taken for an empty one."""
    assert problems_with(environ={"A": "x"}, users={"ann": {"password": text}}) == [
        f"users.ann.password: {problem}"
    ]


@pytest.mark.parametrize(
    ("raw", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n"),
        (b" hunter2 ", " hunter2 "),
        (b"${A}\n", "${A}"),
        (b"caf\xe9\n", "caf\udce9"),
    ],
)
def test_a_password_may_stand_in_a_file(load_with: Loader, tmp_path: Path, raw: bytes, password: str) -> None:
    """It is the file's content without one newline at its end, whatever the encoding."""
    (tmp_path / "secret").write_bytes(raw)
    assert _password(load_with, {"A": "x"}, password_file="secret") == password


def test_a_databases_password_may_stand_in_a_file_too(load_with: Loader, tmp_path: Path) -> None:
    """The path may come from a variable, as systemd's credentials do."""
    (tmp_path / "secret").write_text("hunter2\n")
    entry = {"user": "ann", "password_file": "${CREDENTIALS_DIRECTORY}/secret"}
    settings = load_with({"CREDENTIALS_DIRECTORY": str(tmp_path)}, databases={"app": entry})
    password = settings.databases["app"].password
    assert password is not None
    assert password.reveal() == "hunter2"


def test_a_secret_file_that_cannot_be_read_is_a_problem(problems_with: Problems, tmp_path: Path) -> None:
    """The path is not shown: a password may have been put in its place."""
    assert problems_with(users={"ann": {"password_file": "hunter2"}}) == [
        (
            "users.ann.password_file: cannot read the file that is named here (No such file or directory); hyperpool's "
            f"user must be able to read it, and a relative path starts at {str(tmp_path)!r}"
        )
    ]


@pytest.mark.parametrize(
    ("raw", "fault"), [(b"", "is empty"), (b"\n", "is empty"), (b"a\0b", "holds a zero byte")]
)
def test_a_secret_file_without_a_secret_is_a_problem(
    problems_with: Problems, tmp_path: Path, raw: bytes, fault: str
) -> None:
    """An empty file is a mistake, not an empty password."""
    (tmp_path / "secret").write_bytes(raw)
    assert problems_with(users={"ann": {"password_file": "secret"}}) == [
        f"users.ann.password_file: the file that is named here {fault}; put the secret into it, and nothing else"
    ]


@pytest.mark.parametrize("password", ["hunter2", 5])
def test_a_password_and_its_file_are_a_problem(
    problems_with: Problems, tmp_path: Path, password: object
) -> None:
    """Nobody could tell which one counts; also when the password itself is wrong."""
    (tmp_path / "secret").write_text("hunter3")
    problems = problems_with(
        databases={"app": {"user": "ann", "password": password, "password_file": "secret"}}
    )
    assert problems[-1] == (
        "databases.app.password_file: found together with password, expected one of the two; remove the other"
    )
    assert "hunter" not in "".join(problems)


def test_users_may_stand_in_an_auth_file(load_with: Loader, tmp_path: Path) -> None:
    """Its entries and those of `users` with a password are known; the latter count where both have one."""
    (tmp_path / "userlist.txt").write_text('"ann" "file"\n"bob" "file"\n"clara" "file"\n')
    settings = load_with(
        pooler={"auth_file": "userlist.txt"},
        users={"ann": {"password": "yaml"}, "bob": {"pool_size": 1}, "dora": {}},
    )
    assert {name: secret.reveal() for name, secret in settings.credentials.items()} == {
        "ann": "yaml",
        "bob": "file",
        "clara": "file",
    }


def test_each_bad_line_of_the_auth_file_is_a_problem(problems_with: Problems, tmp_path: Path) -> None:
    """With its number and without its content."""
    (tmp_path / "userlist.txt").write_text('"ann" "x"\nbob hunter2\n"" "hunter2"\n')
    assert problems_with(pooler={"auth_file": "userlist.txt"}) == [
        'pooler.auth_file: line 2 is not of the form "user" "secret", with both in double quotes',
        "pooler.auth_file: line 3 has an empty user name",
    ]


def test_an_auth_file_that_cannot_be_read_is_a_problem(problems_with: Problems, tmp_path: Path) -> None:
    """What follows from it, that nobody can log in, is not a second one."""
    (problem,) = problems_with(pooler={"auth_file": ".", "auth_type": "md5"}, users={})
    assert problem.startswith("pooler.auth_file: cannot read the file that is named here (Is a directory);")
