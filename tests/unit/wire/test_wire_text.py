"""Strings on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ProtocolError
from hyperpool.wire.text import cstring, decode, encode, take_cstring


@given(st.binary().filter(lambda raw: 0 not in raw))
def test_any_bytes_survive_a_round_trip(raw: bytes) -> None:
    """Bytes in an unknown encoding come out as they went in, valid UTF-8 or not."""
    assert encode(decode(raw)) == raw


def test_cstring_is_utf8_with_a_terminator() -> None:
    """A string becomes UTF-8 and one zero byte."""
    assert cstring("Käse") == b"K\xc3\xa4se\x00"


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\ud800"], ids=["inside", "alone", "surrogate"])
def test_what_cannot_be_sent_is_refused(text: str) -> None:
    """A zero byte, or a surrogate that stands for no byte, is refused instead of sent wrongly."""
    with pytest.raises(ProtocolError):
        cstring(text)


def test_take_cstring_returns_the_offset_after_the_terminator() -> None:
    """Strings can be read one after the other."""
    body = b"user\x00J\xe9r\xf4me\x00rest"

    name, at = take_cstring(body, 0)
    value, end = take_cstring(body, at)

    assert (name, encode(value), body[end:]) == ("user", b"J\xe9r\xf4me", b"rest")


@pytest.mark.parametrize(("body", "at"), [(b"", 0), (b"abc", 0), (b"a\x00bc", 2), (b"a\x00", 2)])
def test_a_string_without_terminator_is_refused(body: bytes, at: int) -> None:
    """A string that runs to the end of its message is malformed."""
    with pytest.raises(ProtocolError, match="invalid string in message"):
        take_cstring(body, at)
