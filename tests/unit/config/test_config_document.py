"""The YAML file itself: what cannot be read, keys that stand there twice, keys that nobody knows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config import DatabaseSettings, PeerSettings, load
from hyperpool.errors import ConfigError

if TYPE_CHECKING:
    from tests.unit.config.conftest import Loader, Problems

_USER_KEYS = (
    "password, password_file, pool_mode, pool_size, reserve_pool_size, max_user_connections, "
    "max_user_client_connections, query_wait_timeout, query_timeout, idle_transaction_timeout, transaction_timeout, "
    "client_idle_timeout, cache"
)
_FINE = """\
pooler: {listen_addr: localhost, auth_type: trust}
databases: {app: }
users: {ann: }
"""


def _problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return caught.value.problems


def test_sections_and_entries_may_be_empty(tmp_path: Path) -> None:
    """A name with nothing below it has all defaults."""
    path = tmp_path / "pooler.yaml"
    path.write_text(_FINE)
    settings = load(path, {})
    assert settings.databases["app"].host == "127.0.0.1"
    assert list(settings.users) == ["ann"]


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "pooler.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + _FINE.encode())
    assert list(load(path, {}).databases) == ["app"]


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    """Its name and the reason are told."""
    path = tmp_path / "none.yaml"
    assert _problems_of(path) == [
        f"cannot read '{path}': No such file or directory; name a settings file that exists and can be read"
    ]
    assert "Is a directory" in _problems_of(tmp_path)[0]


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n"])
def test_an_empty_file_lacks_everything(problems_with: Problems, text: str) -> None:
    """What is needed at least is named."""
    assert [problem.split(":")[0] for problem in problems_with(text)] == [
        "pooler.listen_addr",
        "pooler.auth_type",
        "databases",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pooler:\n  listen_addr: 'x\n", "line 3, column 1: found unexpected end of stream"),
        (
            "pooler:\n\tlisten_addr: x\n",
            "line 2, column 1: found character '\\t' that cannot start any token",
        ),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
        (
            "users:\n  ann:\n    password: !hunter2 x\n",
            "line 3, column 15: could not determine a constructor for the tag",
        ),
        (
            "users:\n  ann:\n    password: @hunter2\n",
            "line 3, column 15: found character '@' that cannot start any token",
        ),
        ("a: 1\n---\nb: 1\n", "line 2, column 1: found another document"),
        ("a: !!int x\n", "line 1, column 4: found a value that does not fit its tag"),
        ("a: !!bool x\n", "line 1, column 4: found a value that does not fit its tag"),
        ("a: !!timestamp x\n", "line 1, column 4: found a value that does not fit its tag"),
        ("a: 2026-13-45\n", "line 1, column 4: found a value that does not fit its tag"),
        ("? [a]\n: b\n", "line 1, column 3: found unhashable key"),
        ("a: [b, c\n", "line 2, column 1: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_bad_yaml_is_one_problem_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    """Line and column are told; what may be a password is not."""
    path = tmp_path / "pooler.yaml"
    path.write_text(text)
    assert _problems_of(path) == [
        f"'{path}', {place}; correct the YAML: check indentation, colons and quotes"
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("users:\n  ann:\n    password: *hunter2\n", "line 3, column 15: found undefined alias"),
        (
            "pooler:\n  listen_addr: *\n",
            "line 2, column 17: expected alphabetic or numeric character, but found '\\n'",
        ),
        (
            "databases:\n  *: {}\n",
            "line 2, column 4: expected alphabetic or numeric character, but found ':'",
        ),
    ],
)
def test_a_star_without_quotes(tmp_path: Path, text: str, place: str) -> None:
    """YAML takes it for an alias; all addresses, and all names, are meant."""
    path = tmp_path / "pooler.yaml"
    path.write_text(text)
    assert _problems_of(path) == [f"'{path}', {place}; put a text that begins with * in quotes"]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"a: b\nc: \xff\n", "line 2, column 4: found bytes that are not UTF-8; save the file as UTF-8"),
        (
            b"\xef\xbb\xbfa: \xff\n",
            "line 1, column 4: found bytes that are not UTF-8; save the file as UTF-8",
        ),
        (b"a: b\nc: d\x00\n", "line 2, column 5: found a character that YAML does not allow; remove it"),
    ],
)
def test_bytes_that_are_no_text_are_one_problem(tmp_path: Path, raw: bytes, problem: str) -> None:
    """The place of the first such byte is told."""
    path = tmp_path / "pooler.yaml"
    path.write_bytes(raw)
    assert _problems_of(path) == [f"'{path}', {problem}"]


def test_a_file_that_is_nested_too_deeply_is_one_problem(tmp_path: Path) -> None:
    """The parser's limits do not end in a traceback."""
    path = tmp_path / "pooler.yaml"
    path.write_text("[" * 3000)
    assert _problems_of(path) == [f"'{path}' is nested too deeply; three levels are enough"]


@pytest.mark.parametrize(("text", "found"), [("- a", "a list"), ("hunter2", "a text"), ("5", "a number")])
def test_the_file_must_be_a_mapping(problems_with: Problems, text: str, found: str) -> None:
    """Other documents are named by their kind."""
    assert problems_with(text) == [
        f"found {found}, expected a mapping of sections, each with its name and a colon"
    ]


def test_a_repeated_key_is_a_problem(problems_with: Problems) -> None:
    """YAML takes the last one without a word; we tell the lines. The value is not judged further."""
    text = _FINE + "pooler:\n  listen_port: 1\n  listen_port: 2\n  listen_port: x\n"
    problems = problems_with(text)
    assert problems[0] == "pooler: found twice, on lines 1 and 4, expected once: remove one of them"
    assert problems[1:3] == [
        "pooler.listen_port: found twice, on lines 5 and 6, expected once: remove one of them",
        "pooler.listen_port: found twice, on lines 5 and 7, expected once: remove one of them",
    ]
    assert len(problems) == 4


def test_a_repeated_key_on_one_line_is_a_problem_too(problems_with: Problems) -> None:
    """In braces, the lines are the same."""
    text = _FINE.replace("{app: }", "{app: {port: 1, port: 2}}")
    assert problems_with(text) == [
        "databases.app.port: found twice, on lines 2 and 2, expected once: remove one of them"
    ]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    """Entries may share what they have in common, and say what is different."""
    path = tmp_path / "pooler.yaml"
    text = "{one: &base {host: db1, port: 1}, two: {<<: *base, port: 2}, three: *base}"
    path.write_text(_FINE.replace("{app: }", text))
    databases = load(path, {}).databases
    assert [(entry.host, entry.port) for entry in databases.values()] == [("db1", 1), ("db1", 2), ("db1", 1)]


def test_a_mapping_that_holds_itself_is_a_problem(problems_with: Problems) -> None:
    """YAML can express it; it does no harm."""
    assert problems_with(_FINE.replace("{app: }", "&a {app: *a}")) == [
        "databases.app.app: found an unknown setting, expected one of "
        + ", ".join(field.name for field in attrs.fields(DatabaseSettings))
    ]


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"pooler": {"listen_prot": 1}},
            "pooler.listen_prot: found an unknown setting; did you mean listen_port?",
        ),
        (
            {"databases": {"app": {"passwrod": "x"}}},
            "databases.app.passwrod: found an unknown setting; did you mean password?",
        ),
        (
            {"pooler": {"conffile": "x"}},
            (
                "pooler.conffile: found a setting of pgbouncer that does nothing here: a reload reads the file that "
                "was named at the start; remove it"
            ),
        ),
        ({"listen_port": 1}, "listen_port: found at the top, expected below pooler; indent it there"),
        ({"usr": {}}, "usr: found an unknown setting; did you mean users?"),
        (
            {"xyz": 1},
            "xyz: found an unknown setting, expected one of pooler, databases, users, peers, agents, http",
        ),
        (
            {"users": {"ann": {"zzz": 1}}},
            "users.ann.zzz: found an unknown setting, expected one of " + _USER_KEYS,
        ),
        (
            {"users": {"ann": {"session_state": "keep"}}},
            "users.ann.session_state: found an unknown setting, expected one of " + _USER_KEYS,
        ),
        (
            {"pooler": {"pool_size": 5}},
            (
                "pooler.pool_size: found an unknown setting; did you mean "
                "min_pool_size or reserve_pool_size or default_pool_size?"
            ),
        ),
        (
            {"users": {"ann": {None: 1}}},
            "users.ann.nothing: found nothing as a key, expected one of " + _USER_KEYS,
        ),
        (
            {"databases": {5: {}, "app": {}}},
            "databases.5: found 5 as a name, expected a text; put it in quotes",
        ),
        ({"databases": {"": {}, "app": {}}}, "databases.'': found an empty name, expected a name"),
        (
            {"databases": {"a\nb": {}, "app": {}}},
            "databases.'a\\nb': found a name with control characters, expected one that can be printed",
        ),
        (
            {"databases": {"my app": {"port": 0}}},
            "databases.'my app'.port: found 0, expected a whole number from 1 to 65535",
        ),
    ],
)
def test_an_unknown_key_is_a_problem(problems_with: Problems, sections: dict[str, Any], problem: str) -> None:
    """With the key that was probably meant, where there is one."""
    assert problems_with(**sections) == [problem]


def test_a_key_that_is_no_text_is_a_problem(problems_with: Problems) -> None:
    """YAML allows anything as a key, even what is not equal to itself or has too many digits to be shown."""
    text = _FINE.replace("{ann: }", f"\n  ann:\n  .nan:\n  ? 0x1{'0' * 5000}\n  2026-11-23:\n5: 1")
    assert problems_with(text) == [
        "users.nan: found nan as a name, expected a text; put it in quotes",
        "users.'a huge number': found a huge number as a name, expected a text; put it in quotes",
        "users.'a date': found a date as a name, expected a text; put it in quotes",
        "5: found a number as a key, expected one of pooler, databases, users, peers, agents, http",
    ]


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"databases": {"app": "postgres://ann:hunter2@db"}}, "databases.app"),
        ({"users": {"ann": "hunter2"}}, "users.ann"),
        ({"users": ["hunter2"]}, "users"),
        ({"databases": "hunter2"}, "databases"),
        ({"pooler": "hunter2"}, "pooler"),
    ],
)
def test_what_should_be_a_mapping_is_not_shown(
    problems_with: Problems, sections: dict[str, Any], path: str
) -> None:
    """A text in the place of an entry may be a password."""
    (problem,) = [one for one in problems_with(**sections) if one.startswith(f"{path}: ")]
    assert "expected a mapping" in problem
    assert "hunter2" not in problem


def test_a_forgotten_space_does_not_show_the_password(problems_with: Problems) -> None:
    """`{password:hunter2}` is a key without a value."""
    text = _FINE.replace("{ann: }", "{ann: {password:hunter2}}")
    (problem,) = problems_with(text)
    assert problem.startswith("users.ann.'password:...': found an unknown setting")
    assert "hunter2" not in problem


@given(st.text("'\"!&*|>%@`-?:{}[],# \\a", max_size=4), st.text("'\"!&*|>%@`-?:{}[],# \\a", max_size=4))
def test_a_password_is_not_shown_whatever_stands_around_it(before: str, after: str) -> None:
    """Missing quotes make a password an alias, a tag, a list or a syntax error; no message cites it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pooler.yaml"
        text = f"pooler: {{listen_addr: localhost}}\nusers:\n  ann:\n    password: {before}hunter2{after}\n"
        path.write_text(text)
        problems = _problems_of(path)
    assert problems
    assert "hunter2" not in "".join(problems)


def test_numbers_to_base_60_are_texts(load_with: Loader, tmp_path: Path) -> None:
    """YAML 1.1 reads 1:30 as 90; nobody expects that."""
    path = tmp_path / "pooler.yaml"
    path.write_text(_FINE.replace("{app: }", "{app: {user: ann, password: 1:30}}"))
    password = load(path, {}).databases["app"].password
    assert password is not None
    assert password.reveal() == "1:30"


def test_all_problems_are_reported_at_once(problems_with: Problems) -> None:
    """Problems of every kind stand side by side; what follows from another problem alone is left out."""
    problems = problems_with(
        pooler={"listen_addr": "a b", "default_pool_size": "x", "min_pool_size": 50, "auth_file": "none.txt"},
        databases={"pgbouncer": {}, "app": {"host": "${NONE}", "password": "x", "embeded": True}},
        users={"ann": {"pool_size": -1}, 7: {}},
        database={},
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "users.7",
        "pooler.listen_addr",
        "pooler.default_pool_size",
        "databases.app.host",
        "databases.app.embeded",
        "users.ann.pool_size",
        "database",
        "pooler.auth_file",
        "databases.app.password",
        "databases.pgbouncer",
    ]


def test_peers_are_known_by_their_peer_id(load_with: Loader, problems_with: Problems) -> None:
    """A number, as cancel keys have room for it."""
    assert load_with(peers={3: {"host": "/run/three"}, 16383: None}).peers == {
        3: PeerSettings(host="/run/three"),
        16383: PeerSettings(),
    }
    assert problems_with(peers={0: {}, "4": {}, True: {}, 5: {"port": 0}}) == [
        "peers.0: found 0 as a peer_id, expected a whole number from 1 to 16383, without quotes",
        "peers.4: found the text '4' as a peer_id, expected a whole number from 1 to 16383, without quotes",
        "peers.true: found true as a peer_id, expected a whole number from 1 to 16383, without quotes",
        "peers.5.port: found 0, expected a whole number from 1 to 65535",
    ]
