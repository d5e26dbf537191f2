"""Messages of the extended query protocol, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.wire import extended
from tests.support import pgpipelines as pp

NAMES = st.binary(max_size=70).map(lambda name: name.replace(b"\0", b"?"))


@pytest.mark.parametrize(
    ("built", "data"),
    [
        (extended.query(b""), b"Q\0\0\0\x05\0"),
        (extended.query(b"select 1"), b"Q\0\0\0\x0dselect 1\0"),
        (extended.query(b"\xff\xfe"), b"Q\0\0\0\x07\xff\xfe\0"),
        (extended.parse(b"", b"x\0\0\0"), b"P\0\0\0\x09\0x\0\0\0"),
        (
            extended.parse(b"name", b"select $1\0\0\1\0\0\0\x17"),
            b"P\0\0\0\x19name\0select $1\0\0\1\0\0\0\x17",
        ),
        (extended.close_statement(b""), b"C\0\0\0\x06S\0"),
        (extended.close_statement(b"name"), b"C\0\0\0\x0aSname\0"),
        (extended.describe_statement(b""), b"D\0\0\0\x06S\0"),
        (extended.describe_statement(b"name"), b"D\0\0\0\x0aSname\0"),
        (extended.bind_nothing(b"", b""), b"B\0\0\0\x0c\0\0\0\0\0\0\0\0"),
        (extended.bind_nothing(b"por", b"name"), b"B\0\0\0\x13por\0name\0\0\0\0\0\0\0"),
    ],
)
def test_golden(built: bytes, data: bytes) -> None:
    """As "Message Formats" in PostgreSQL's documentation has them."""
    assert built == data


@given(NAMES, NAMES, st.binary(max_size=300))
def test_lengths(name: bytes, portal: bytes, body: bytes) -> None:
    """The length of every message counts itself and all that follows, and names and bodies stand in it as they are."""
    for built, rest in (
        (extended.query(name), name + b"\0"),
        (extended.parse(name, body), name + b"\0" + body),
        (extended.close_statement(name), b"S" + name + b"\0"),
        (extended.describe_statement(name), b"S" + name + b"\0"),
        (extended.bind_nothing(portal, name), portal + b"\0" + name + b"\0" + bytes(6)),
    ):
        assert int.from_bytes(built[1:5]) == len(built) - 1
        assert built[5:] == rest


def test_they_are_what_a_client_sends() -> None:
    """The same as the tests' own builders make."""
    assert extended.query(b"select 1") == pp.query("select 1")
    assert extended.parse(b"a", b"select 1\0\0\0") == pp.parse("select 1", "a")
    assert extended.bind_nothing(b"p", b"a") == pp.bind("a", "p")
    assert extended.describe_statement(b"a") == pp.describe(b"S", "a")
    assert extended.close_statement(b"a") == pp.close(b"S", "a")
