"""Frames in a buffer: integers in bytes, the innermost loop of the relay.

This is the form in Python; `scan.pyx` is the same in C, which `hyperpool.form` prefers. tests/props/test_forms.py holds
them to be equal.
"""

from __future__ import annotations

from struct import Struct
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

_pack = Struct("!BI").pack
_header = Struct("!BI").unpack_from
_length = Struct("!I").unpack_from


def length_at(buf: Buffer, at: int) -> int:
    """The length field of the frame whose type byte is at `at`.

    Raises:
        IndexError: its five-byte header is not inside `buf`.
    """
    if at < 0 or at + 5 > len(buf):
        raise IndexError("no header there")
    length: int = _length(buf, at + 1)[0]
    return length


def byte_at(buf: bytes | bytearray, at: int) -> int:
    """The byte at `at`: what an index gives, which makes an object in compiled code.

    Raises:
        IndexError: `at` is not inside `buf`.
    """
    if at < 0:
        raise IndexError("outside of the buffer")
    return buf[at]


def part(buf: bytes | bytearray, at: int, end: int) -> bytes:
    """The bytes from `at` to before `end`.

    Raises:
        IndexError: `at` or `end` is not inside `buf`.
    """
    if not 0 <= at <= end <= len(buf):
        raise IndexError("outside of the buffer")
    return bytes(buf[at:end])


def matches(buf: bytes | bytearray, at: int, end: int, what: bytes) -> bool:
    """Whether the bytes from `at` to before `end` are `what`.

    Raises:
        IndexError: `at` or `end` is not inside `buf`.
    """
    if not 0 <= at <= end <= len(buf):
        raise IndexError("outside of the buffer")
    return end - at == len(what) and buf.startswith(what, at)


def text_at(buf: bytes | bytearray, at: int, end: int) -> bytes | None:
    """The bytes from `at` up to the next zero byte before `end`; None if there is none.

    Raises:
        IndexError: `at` or `end` is not inside `buf`.
    """
    if not 0 <= at <= end <= len(buf):
        raise IndexError("outside of the buffer")
    nul = buf.find(0, at, end)
    return None if nul < 0 else bytes(buf[at:nul])


def renamed(buf: bytes | bytearray, at: int, stop: int, end: int, name: bytes) -> bytes:
    """The message at the beginning of `buf`, and what is behind it, with another name in it.

    Args:
        buf: the bytes.
        at: where the name begins, behind the header.
        stop: where it ends.
        end: behind the last byte.
        name: takes its place.

    Raises:
        IndexError: these are not inside `buf`, one behind the other.
    """
    if not 5 <= at <= stop <= end <= len(buf):
        raise IndexError("outside of the buffer")
    kind, length = _header(buf)
    return b"".join((_pack(kind, length + len(name) - (stop - at)), buf[5:at], name, buf[stop:end]))


def hop(buf: Buffer, at: int, end: int, passing: bytes) -> int:
    """Skip the frames that need no look inside.

    Args:
        buf: the bytes received.
        at: the offset of a frame's type byte.
        end: the offset after the last byte received.
        passing: 256 bytes, indexed by type byte: 1 for a frame to pass over.

    Returns:
        The offset of the first frame that is not passing, or whose five-byte header is not complete before
        ``end``, or whose length is less than 4 (malformed: the caller sees that when it reads the header).
        It is equal to ``end`` when every frame was passed over, and greater than ``end`` when the last one
        goes on beyond it: then its rest, ``result - end`` bytes, is still to come.

    Raises:
        IndexError: `at` is negative, `end` is not inside `buf`, or `passing` is too short.
    """
    if at < 0 or end > len(buf) or len(passing) < 256:
        raise IndexError("outside of the buffer")
    header = _header
    last = end - 5
    while at <= last:
        kind, length = header(buf, at)
        if length < 4 or not passing[kind]:
            return at
        at += length + 1
    return at
