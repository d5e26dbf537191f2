"""pgbouncer's auth_file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config.userlist import parse_userlist


def _reveal(text: str) -> dict[str, str]:
    entries, problems = parse_userlist(text)
    assert problems == []
    return {user: secret.reveal() for user, secret in entries.items()}


def test_each_line_holds_a_user_and_a_secret() -> None:
    """All forms of secrets are taken as they are."""
    text = '"ann" "plain text"\n"bob" "md5abc"\n"clara" "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"\n'
    assert _reveal(text) == {
        "ann": "plain text",
        "bob": "md5abc",
        "clara": "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5",
    }


def test_a_doubled_quote_is_a_quote() -> None:
    """Names and secrets may hold double quotes."""
    assert _reveal('"a""b" """"') == {'a"b': '"'}


def test_the_rest_of_a_line_is_ignored() -> None:
    """What follows the secret does not count, with or without a space between."""
    assert _reveal('  "ann"\t"x" "more" and more\r\n"bob" "y"; why\r\n') == {"ann": "x", "bob": "y"}


def test_comments_and_empty_lines_are_ignored() -> None:
    """A semicolon at the start of a line makes it a comment."""
    assert _reveal(';"ann" "x"\n\n   \n  ; more\n"bob" "y"') == {"bob": "y"}


def test_a_secret_may_be_empty() -> None:
    """Such a user is known, which is what auth_type trust asks for."""
    assert _reveal('"ann" ""') == {"ann": ""}


def test_the_last_line_of_a_user_counts() -> None:
    """As in pgbouncer, a later line replaces an earlier one."""
    assert _reveal('"ann" "old"\n"ann" "new"') == {"ann": "new"}


@pytest.mark.parametrize(
    "line",
    ["ann hunter2", '"ann" hunter2', '"ann"', '"ann" "hunter2', '"ann""hunter2"', "'ann' 'hunter2'", "#"],
)
def test_a_line_of_another_form_is_a_problem(line: str) -> None:
    """It is named by its number, without its content, and the other lines still count."""
    entries, problems = parse_userlist(f'"bob" "y"\n{line}\n"clara" "z"')
    assert list(entries) == ["bob", "clara"]
    assert problems == ['line 2 is not of the form "user" "secret", with both in double quotes']


def test_names_that_nobody_can_use_are_problems() -> None:
    """An empty name, and a zero byte anywhere, cannot reach PostgreSQL."""
    entries, problems = parse_userlist('"" "hunter2"\n"ann" "hunter\x002"\n')
    assert entries == {}
    assert problems == [
        "line 1 has an empty user name",
        "line 2 holds a zero byte, which PostgreSQL can neither store nor transfer",
    ]


_TEXTS = st.text(st.characters(exclude_characters="\n\0", exclude_categories=[]), max_size=20)


@given(st.dictionaries(_TEXTS.filter(bool), _TEXTS, max_size=5))
def test_what_is_quoted_is_read_back(users: dict[str, str]) -> None:
    """Every name and secret on one line survives quoting, with odd white space and lone surrogates too."""

    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [f"{quote(user)} {quote(secret)}" for user, secret in users.items()]
    assert _reveal("\n".join(lines)) == users


@given(st.text(alphabet=' "ab;\n\0', max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Each line gives an entry, a problem or nothing; problems name lines that exist."""
    entries, problems = parse_userlist(text)
    assert len(entries) + len(problems) <= text.count("\n") + 1
    assert "" not in entries
