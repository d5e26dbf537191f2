"""What an error means that a server sends: whose it is, what it undoes, and what the client reads of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.pool.statements import PREFIX
from hyperpool.relay import replay as replays
from hyperpool.relay.ledger import SKIP
from hyperpool.relay.replay import is_stale
from hyperpool.relay.shortcut import Shortcut
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.pool.statements import Statement

_MAX_TRIES: Final = 5
"""How often what a client has reset is set again before it is given up."""

_POSITION: Final = re.compile(rb"\0P(\d{1,9})\0")
"""An error's field: where in the text."""


class Failures(Shortcut):
    """What a server connection does with an ErrorResponse."""

    __slots__ = ()

    def _error(self, head: int, at: int, stop: int) -> int | bytes:
        """ErrorResponse. Returns what to do with it: 0 to forward, SKIP to drop, or what to send instead."""
        frame = bytes(self.relay.buffer[at:stop])
        if b"\0VFATAL\0" in frame or b"\0VPANIC\0" in frame:
            self.failing = True
            self.retire(f"server ended the session: {messages.error_fields(frame[5:]).get('M')}")
            self.ledger.response(wire.ERROR_RESPONSE)
            return 0
        replay, self.replay = self.replay, None
        if replay is not None and is_stale(frame) and replays.fits(replay, self.ledger):
            # Nothing of this pipeline has been answered: the client need not know.
            self.pool.statements.version += 1
            self.described = b""
            self.transmit(replays.prepare(replay, self))
            return SKIP
        if self.suspicion is not None and self.suspicion.resetting <= self.ledger.settled + 1:
            self.suspicion.not_reset()
        verdict = self.ledger.response(wire.ERROR_RESPONSE)
        if self.ledger.undone:
            self._undo(parse_failed=head == wire.PARSE)
        if verdict and head & 0xFF == wire.QUERY:
            return self._own_query_failed(frame)
        if verdict and self.ledger.entries and self.ledger.entries[0] == wire.SYNC | SKIP:
            # It was the pooler's own pipeline; what it was to prepare for will fail in its own words.
            return SKIP
        return self._translated(frame, head)

    def _own_query_failed(self, frame: bytes) -> int:
        fields = messages.error_fields(frame[5:])
        if self.errand is not None:
            self.errand.error = fields
            return SKIP
        if self.restoring and fields.get("C") == "57014" and self.tries < _MAX_TRIES:
            # A late cancel request was meant for what is over. Or it is a timeout of the client's, which may be short.
            client = self.client
            if len(self.ledger.entries) == 1 and not (client is not None and client.mid_message):
                self.tries += 1
                self.ledger.request(wire.QUERY, SKIP)
                self.transmit(self.restoring)
                return SKIP
            # Not amid what the client has sent since, which may be a COPY, or half a message.
            if self.begun:
                self.has_reset = True  # `_ready` has it sent again behind that.
                return SKIP
        if self.restoring and fields.get("C") == "25P02":
            # It has hit a transaction block, and the client will hear of that.
            return SKIP
        self.retire(f"session parameters were refused: {fields.get('M')}")
        if self.client is not None:
            self.client.refuse(fields.get("M", "session parameters were refused"), fields.get("C", "58000"))
        return SKIP

    def _translated(self, frame: bytes, head: int) -> int | bytes:
        """An error for the client, in which statements have the names that it gave them, in the text that it sent."""
        client = self.client
        if is_stale(frame):
            # Not to be hidden within a transaction block, but it need not happen again.
            self.pool.statements.version += 1
        if client is None or not self.pool.translates:
            return 0
        told = frame
        if self.suspicion is not None and head == wire.QUERY:
            number, deallocations = self.ledger.settled + 1, self.suspicion.deallocations
            told = _POSITION.sub(
                lambda found: b"\0P%d\0" % deallocations.original(number, int(found[1])), told
            )
        if PREFIX in told:
            told = told[:5] + client.remembered().translate(told[5:])
        return 0 if told is frame else messages.frame(wire.ERROR_RESPONSE, told[5:])

    def _undo(self, *, parse_failed: bool) -> None:
        """Take back what requests were to change that the server has failed or discarded, the newest first."""
        ledger, client = self.ledger, self.client
        undone, ledger.undone = ledger.undone, []
        oldest = None
        for change in reversed(undone):
            if change.touched is not None:
                self.statements.doubt(change.touched)
            if change.name == b"":
                oldest = change
            elif change.name is not None and client is not None:
                client.remembered().put(change.name, change.before)
        if oldest is not None:
            # The unnamed statement is dropped before the new one is looked at (postgres.c, exec_parse_message).
            gone = parse_failed and oldest is ledger.failed
            self._settle_unnamed(None if gone else oldest.before)

    def _settle_unnamed(self, statement: Statement | None) -> None:
        """As far as the server has answered, this is the client's unnamed statement."""
        if self.ledger.unnamed:
            self.ledger.unnamed[0].before = statement
            return
        self.unnamed = None
        if self.client is not None:
            self.client.unnamed = statement
