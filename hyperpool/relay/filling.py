"""An answer that passes, and that may be kept: it is collected beside being sent to its client, within a bound."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.relay.requests import CLOSED, DESCRIBED, DESCRIPTION, PARSED, PLAIN, READY, SIMPLE
from hyperpool.sql.reasons import Reason
from hyperpool.wire import constants as wire
from hyperpool.wire.scan import hop, length_at

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

    def is_over(self) -> bool:
        """Whether nothing more belongs to it."""
        if self.ended or not self.request.flushes:
            return self.ended
        data, at = self.whole(), 0
        while len(data) - at >= 5:
            kind, length = data[at], length_at(data, at)
            at += 1 + int(length)
            if kind in _LAST:
                return at <= len(data)
        return False

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
        at += 1 + length_at(data, at)
    rows = 1
    if request.kind != DESCRIPTION:
        at = hop(data, at, end, _ROWS)
        if end - at < 5 or data[at] not in _ENDINGS[bool(request.limit)]:
            return _misfit(data, at)
        stop = at + 1 + length_at(data, at)
        if data[at] == wire.COMMAND_COMPLETE:
            tag = _SELECTED.fullmatch(data, at + 5, stop)
            if tag is None:
                return Reason.FAILED
            rows = int(tag[1])
        at = stop
    if data[at:] != (CLOSED if request.closes else b"") + request.end:
        return _misfit(data, at)
    is_all = not (start or request.closes or request.flushes)
    return Answer(data, rows) if is_all else Answer(data[start:at] + READY, rows)


_DESCRIPTIONS: Final = frozenset({wire.ROW_DESCRIPTION, wire.NO_DATA})
_LAST: Final = _DESCRIPTIONS | {wire.ERROR_RESPONSE}
_ENDINGS: Final = (
    frozenset({wire.COMMAND_COMPLETE}),
    frozenset({wire.COMMAND_COMPLETE, wire.PORTAL_SUSPENDED}),
)
"""What stands behind the rows. With a limit, it is PortalSuspended if there are so many or more (``pquery.c``)."""

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
