"""An answer that passes, and that may be kept: it is collected beside being sent to its client, within a bound."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.relay.connection import HEADER
from hyperpool.relay.requests import CLOSED, DESCRIBED, DESCRIPTION, PARSED, PLAIN, READY, SIMPLE
from hyperpool.sql.reasons import Reason
from hyperpool.wire import constants as wire
from hyperpool.wire.frames import hop

if TYPE_CHECKING:
    from hyperpool.cache.flights import Flight
    from hyperpool.cache.lane import Plan
    from hyperpool.cache.store import Entry
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayLane
    from hyperpool.relay.requests import Request

_ROWS: Final = bytes(kind == wire.DATA_ROW for kind in range(256))
_SELECTED: Final = re.compile(rb"SELECT (\d+)\0")


class Fill:
    """An answer that is collected.

    Attributes:
        lane: its pool's part of the cache, when it was asked for.
        plan: for its query.
        request: what was asked.
        flight: who waits for the same answer.
        renews: the entry that it is to renew in the background; None for a client's own answer.
        size: bytes that have come.
        ended: its ReadyForQuery has come.
    """

    __slots__ = ("_chunks", "ended", "flight", "lane", "plan", "renews", "request", "size")

    def __init__(
        self,
        lane: RelayLane,
        plan: Plan,
        request: Request,
        flight: Flight[ClientConnection, Request],
        renews: Entry | None = None,
    ) -> None:
        self.lane = lane
        self.plan = plan
        self.request = request
        self.flight = flight
        self.renews = renews
        self._chunks: list[bytes] = []
        self.size = 0
        self.ended = False

    def take(self, data: bytes | memoryview) -> None:
        """More of it has come."""
        self._chunks.append(bytes(data))
        self.size += len(data)

    def whole(self) -> bytes:
        """All of it."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


class Answer:
    """An answer that may be kept.

    Attributes:
        data: its bytes, as `hyperpool.cache.store.Entry` has them.
        rows: how many it has; 1 for a description.
    """

    __slots__ = ("data", "rows")

    def __init__(self, data: bytes, rows: int) -> None:
        self.data = data
        self.rows = rows


def examine(request: Request, data: bytes) -> Answer | Reason:
    """Look whether an answer is complete, successful, and nothing else than what its request asks for.

    Args:
        request: what was asked.
        data: what the server has sent for it.

    Returns:
        What is to be kept; or why nothing is.
    """
    at = 0
    end = len(data)
    if request.name is not None:
        if not data.startswith(PARSED):
            return _misfit(data, 0)
        at = len(PARSED)
    start = at
    for wanted in _BEGINNINGS[request.kind]:
        if end - at < 5 or data[at] not in wanted:
            return _misfit(data, at)
        at += 1 + HEADER(data, at)[1]
    rows = 1
    if request.kind != DESCRIPTION:
        at = hop(data, at, end, _ROWS)
        if end - at < 5 or data[at] != wire.COMMAND_COMPLETE:
            return _misfit(data, at)
        stop = at + 1 + HEADER(data, at)[1]
        tag = _SELECTED.fullmatch(data, at + 5, stop)
        if tag is None:
            return Reason.FAILED
        rows = int(tag[1])
        at = stop
    tail = CLOSED + READY if request.closes else READY
    if data[at:] != tail:
        return _misfit(data, at)
    return Answer(data[start:at] + READY, rows) if start or request.closes else Answer(data, rows)


_DESCRIPTIONS: Final = frozenset({wire.ROW_DESCRIPTION, wire.NO_DATA})
_BEGINNINGS: Final = {
    SIMPLE: (frozenset({wire.ROW_DESCRIPTION}),),
    PLAIN: (frozenset({wire.BIND_COMPLETE}),),
    DESCRIBED: (frozenset({wire.BIND_COMPLETE}), frozenset({wire.ROW_DESCRIPTION})),
    DESCRIPTION: (frozenset({wire.PARAMETER_DESCRIPTION}), _DESCRIPTIONS),
}
"""The messages in front of the rows."""

_ASIDE: Final = frozenset({wire.NOTICE_RESPONSE, wire.PARAMETER_STATUS, wire.NOTIFICATION_RESPONSE})


def _misfit(data: bytes, at: int) -> Reason:
    """Why an answer is not kept that has something else at some place than it should have."""
    return Reason.NOTICE if at < len(data) and data[at] in _ASIDE else Reason.FAILED
