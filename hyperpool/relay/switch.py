"""``SET hyperpool.cache``, ``RESET hyperpool.cache`` and ``SHOW hyperpool.cache``, answered as PostgreSQL would.

They are answered here as long as no server knows a setting of that name: a client may also give it in its startup
message, or set it within a transaction, and then it is one of the session's settings like any other.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.cache.session import SWITCH
from hyperpool.relay.requests import CLOSED, DESCRIBED, DESCRIPTION, SIMPLE
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.relay.requests import Request

_TEXT: Final = re.compile(
    rb"(?i)\s*(?:(set)\s+(?:session\s+)?|(show)\s+|reset\s+)hyperpool\.cache\s*"
    rb"(?(1)(?:=|\bto\b)\s*('?)(on|off|true|false|default)\3\s*);?\s*"
)
_ON: Final = (b"on", b"true", b"default")

_int16: Final = Struct("!H").unpack_from

_SET: Final = messages.frame(wire.COMMAND_COMPLETE, b"SET\0")
_RESET: Final = messages.frame(wire.COMMAND_COMPLETE, b"RESET\0")
_SHOWN: Final = messages.frame(wire.COMMAND_COMPLETE, b"SHOW\0")
_SUSPENDED: Final = bytes((wire.PORTAL_SUSPENDED, 0, 0, 0, 4))
_BOUND: Final = bytes((wire.BIND_COMPLETE, 0, 0, 0, 4))
_NO_DATA: Final = bytes((wire.NO_DATA, 0, 0, 0, 4))
_NO_PARAMETERS: Final = messages.frame(wire.PARAMETER_DESCRIPTION, bytes(2))

_COLUMN: Final = Struct("!IHIhiH").pack
_TEXT_TYPE: Final = 25
_ONE_ROW: Final = (1).to_bytes(4, "big")


def read(request: Request, *, caching: bool, off: bool) -> tuple[bytes, bool] | None:
    """Read a request that is about the switch.

    Args:
        request: of a client that has no server.
        caching: what the switch says so far.
        off: nothing is cached for the client's user, which SHOW tells, whatever the switch says.

    Returns:
        The answer, and what the switch says from now on, which counts if the request executes it; None if the request
        is about something else, or is for PostgreSQL to refuse.
    """
    found = _TEXT.fullmatch(request.text)
    if found is None:
        return None
    wanted = caching
    if found[1]:
        wanted = found[4].lower() in _ON
    elif not found[2]:
        wanted = True
    result = 0 if request.kind in (SIMPLE, DESCRIPTION) else _format(request.values)
    if result is None:
        return None
    described = _described(result) if found[2] else _NO_DATA
    if request.kind == DESCRIPTION:
        return request.prefix + _NO_PARAMETERS + described + request.end, caching
    answer = request.prefix
    if request.kind != SIMPLE:
        answer += _BOUND
    if request.kind == DESCRIBED or (request.kind == SIMPLE and found[2]):
        answer += described
    answer += _executed(request, caching=caching and not off) if found[2] else _SET if found[1] else _RESET
    return answer + (CLOSED if request.closes else b"") + request.end, wanted


def _executed(request: Request, *, caching: bool) -> bytes:
    """The row of SHOW, and its end: a portal that has given as many rows as were asked for does not know that."""
    row = messages.frame(wire.DATA_ROW, b"\0\1\0\0\0" + (b"\2on" if caching else b"\3off"))
    return row + (_SUSPENDED if request.limit == _ONE_ROW else _SHOWN)


def _described(result: int) -> bytes:
    column = _COLUMN(0, 0, _TEXT_TYPE, -1, -1, result)
    return messages.frame(wire.ROW_DESCRIPTION, b"\0\1" + SWITCH.encode() + b"\0" + column)


def _format(values: bytes) -> int | None:
    """The format of one result column in a Bind without parameters, behind its names; None if it is another one."""
    (formats,) = _int16(values)
    at = 2 + 2 * formats
    if len(values) < at + 4 or values[at : at + 2] != b"\0\0":
        return None
    (results,) = _int16(values, at + 2)
    if results > 1 or len(values) != at + 4 + 2 * results:
        return None
    return int(_int16(values, at + 4)[0]) if results else 0
