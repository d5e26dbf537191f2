"""Which messages of a server are looked at, and which pass.

A table of passing messages has 256 bytes, indexed by message type, for `hyperpool.wire.frames.hop`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE: Final = 0x3FFFFFFF + 4
"""The longest message that PostgreSQL makes: MaxAllocSize, and the length itself."""

ANSWERED: Final = frozenset(
    {
        wire.QUERY,
        wire.PARSE,
        wire.BIND,
        wire.DESCRIBE,
        wire.EXECUTE,
        wire.CLOSE,
        wire.SYNC,
        wire.FUNCTION_CALL,
        wire.COPY_DONE,
        wire.COPY_FAIL,
    }
)
"""Requests of clients that go into the ledger."""
UNANSWERED: Final = frozenset({wire.COPY_DATA, wire.FLUSH})
"""The other messages that clients may send, but for Terminate."""
IGNORED: Final = frozenset({wire.SYNC, wire.FLUSH})
"""What means nothing to a server that reads COPY data; besides that data and its end, it takes nothing else."""

IDLE: Final = ord("I")
FAILED: Final = ord("E")
READY: Final = messages.ready_for_query()
WHOLE: Final = frozenset({wire.READY_FOR_QUERY, wire.ERROR_RESPONSE, wire.PARAMETER_STATUS})
"""What is looked into, and so must be there as a whole."""
ASYNCHRONOUS: Final = frozenset({wire.PARAMETER_STATUS, wire.NOTICE_RESPONSE, wire.NOTIFICATION_RESPONSE})


def _passing(kinds: Iterable[int]) -> bytes:
    return bytes(kind in kinds for kind in range(256))


SIMPLE: Final = _passing(
    {
        wire.ROW_DESCRIPTION,
        wire.DATA_ROW,
        wire.COMMAND_COMPLETE,
        wire.EMPTY_QUERY_RESPONSE,
        wire.NOTICE_RESPONSE,
        wire.COPY_OUT_RESPONSE,
        wire.COPY_DATA,
        wire.COPY_DONE,
    }
)
"""What passes uninspected while a Query is answered."""
PIPELINE: Final = _passing(
    {
        wire.PARSE_COMPLETE,
        wire.BIND_COMPLETE,
        wire.NO_DATA,
        wire.ROW_DESCRIPTION,
        wire.DATA_ROW,
        wire.COMMAND_COMPLETE,
        wire.EMPTY_QUERY_RESPONSE,
        wire.NOTICE_RESPONSE,
        wire.COPY_OUT_RESPONSE,
        wire.COPY_DATA,
        wire.COPY_DONE,
    }
)
"""What passes uninspected while one pipeline is answered that ends with its only Sync."""
WATCHED: Final = bytes(passes and kind != wire.COMMAND_COMPLETE for kind, passes in enumerate(SIMPLE))
"""What passes while a Query is answered that may deallocate statements: all but what says so."""
EXTENDED: Final = _passing({wire.DATA_ROW, wire.NOTICE_RESPONSE, wire.COPY_DATA})
"""What passes uninspected while an Execute is answered."""
NOTHING: Final = bytes(256)
