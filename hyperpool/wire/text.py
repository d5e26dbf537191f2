"""Strings on the wire: zero-terminated bytes in an encoding that nobody has agreed on yet.

During login neither side knows the other's encoding. Strings are read as UTF-8; a byte that is not UTF-8
becomes a lone surrogate (PEP 383) and turns into the same byte again when it is written, so nothing is lost.
"""

from __future__ import annotations

from hyperpool.errors import ProtocolError


def encode(text: str) -> bytes:
    """Encode a string for the wire, without its terminator.

    Args:
        text: the string; lone surrogates made by `decode` become the bytes that they were.

    Raises:
        ProtocolError: it holds a zero byte, which would end the string early, or a surrogate that stands for
            no byte.
    """
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ProtocolError("a string in a message cannot be encoded as UTF-8") from None
    if 0 in raw:
        raise ProtocolError("a string in a message must not contain a zero byte")
    return raw


def decode(raw: bytes) -> str:
    """Decode bytes from the wire; never fails, and `encode` gives the same bytes back."""
    return raw.decode("utf-8", "surrogateescape")


def cstring(text: str) -> bytes:
    """Encode a string with its terminating zero byte (type ``String`` of the protocol).

    Raises:
        ProtocolError: as `encode`.
    """
    return encode(text) + b"\x00"


def take_cstring(body: bytes, at: int) -> tuple[str, int]:
    """Read the zero-terminated string that starts at an offset.

    Returns:
        The string, and the offset after its terminator.

    Raises:
        ProtocolError: there is no terminator before the end.
    """
    end = body.find(0, at)
    if end < 0:
        raise ProtocolError("invalid string in message")
    return decode(body[at:end]), end + 1
