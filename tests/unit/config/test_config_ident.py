"""Ident maps: what they mean, and what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config.ident import IdentEntry, is_allowed, parse_ident


def test_maps() -> None:
    """Entries of one map may stand anywhere; a comment may follow; quotes take away the meaning of all."""
    text = '# comment\nm root ann\n\nother "Ann Lee" all # everybody\r\n m\troot  bob\nm "a ""b""" "all"\n'
    maps, problems = parse_ident(text)
    assert problems == []
    assert maps == {
        "m": (IdentEntry("root", "ann"), IdentEntry("root", "bob"), IdentEntry('a "b"', "all")),
        "other": (IdentEntry("Ann Lee", None),),
    }


def test_who_may_be_whom() -> None:
    """With a map, what stands there; without one, a name must be the same."""
    maps, _ = parse_ident("m root ann\nm root bob\nm eve all\n")
    assert is_allowed(maps, "m", "root", "ann")
    assert is_allowed(maps, "m", "root", "bob")
    assert is_allowed(maps, "m", "eve", "whoever")
    assert not is_allowed(maps, "m", "root", "root")
    assert not is_allowed(maps, "m", "ann", "ann")
    assert not is_allowed(maps, "absent", "root", "ann")
    assert is_allowed(maps, "", "ann", "ann")
    assert not is_allowed(maps, "", "root", "ann")


GROUP = "found a regular expression or a group, expected a user or all; write one line for each user"
THREE = "expected three fields: map name, system name, database user"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("m root", THREE),
        ("m root ann bob", THREE),
        ('m "root ann', THREE),
        ('m root ann"', THREE),
        ('m ro"ot" ann', THREE),
        (
            "m /^(.*)@x$ ann",
            "found a regular expression, expected a system name; write one line for each name",
        ),
        (
            "m root +staff",
            GROUP,
        ),
        (
            "m root /x",
            GROUP,
        ),
        ("include other.conf", "found the name of another file, expected an entry; put its lines here"),
    ],
)
def test_what_is_wrong(line: str, problem: str) -> None:
    """Each line that cannot be understood is reported, and the others are read."""
    maps, problems = parse_ident(f"m root ann\n{line}\n")
    assert problems == [f"line 2: {problem}"]
    assert maps == {"m": (IdentEntry("root", "ann"),)}


_WORDS = st.sampled_from(["m", "root", "all", '"a b"', '"', "#", "/x", "+g", "include", "\udc80", "\t", '""'])


@given(st.lists(st.lists(_WORDS, max_size=5).map(" ".join), max_size=5).map("\n".join) | st.text())
def test_anything_is_read_or_reported(text: str) -> None:
    """Whatever stands there: each line that is not blank is either an entry or a problem."""
    maps, problems = parse_ident(text)
    lines = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]
    assert len(problems) + sum(map(len, maps.values())) == len(lines)


_name = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1)


@given(_name, _name, _name)
def test_any_name_can_be_written_in_quotes(name: str, system: str, user: str) -> None:
    """Whatever it looks like."""
    fields = ['"' + field.replace('"', '""') + '"' for field in (name, system, user)]
    assert parse_ident(" ".join(fields)) == ({name: (IdentEntry(system, user),)}, [])
