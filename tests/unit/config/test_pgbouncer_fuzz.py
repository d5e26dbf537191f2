"""pgbouncer's format, with anything in it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.config import load
from hyperpool.config.inifile import parse_pairs
from hyperpool.errors import ConfigError

_NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
_VALUES = st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1, max_size=12)
_FRAGMENTS = st.sampled_from(
    [
        "[pgbouncer]",
        "[databases]",
        "[users]",
        "[peers]",
        "[",
        "]",
        "=",
        " = ",
        "'",
        '"',
        ";",
        "#",
        "*",
        "%include /dev/null",
        "app = host=a port=1",
        "pool_size=",
        "listen_addr",
        "auth_type = trust",
        "1 = host=b",
        "-1",
        "0x",
        "\n",
        "\r\n",
        "\t",
    ]
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=5), st.sampled_from([" ", "  ", " \t "]))
def test_what_is_quoted_is_read_as_it_was(pairs: list[tuple[str, str]], space: str) -> None:
    """Whatever the values are, with any space between."""
    text = space.join("{}='{}'".format(name, value.replace("'", "''")) for name, value in pairs)
    assert parse_pairs(f"{space}{text}{space}") == pairs


@given(st.text())
def test_a_connection_string_is_read_or_refused(text: str) -> None:
    """Nothing else happens."""
    with contextlib.suppress(ValueError):
        for name, value in parse_pairs(text):
            assert name
            assert value


@settings(max_examples=50)
@given(st.lists(st.one_of(_FRAGMENTS, st.text(max_size=5))).map("".join))
def test_a_file_is_read_or_has_problems(text: str) -> None:
    """Each of them is one line, and none is a mistake of the program's own."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pgbouncer.ini"
        file.write_text(f"[pgbouncer]\n{text}", encoding="utf-8", errors="replace", newline="")
        try:
            load(file, {})
        except ConfigError as error:
            problems = error.problems
            assert problems
            assert all(len(problem.splitlines()) == 1 for problem in problems)
