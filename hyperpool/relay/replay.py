"""Sending a pipeline once more, when all that was wrong with it is a prepared statement that is out of date.

A statement was prepared on a server; then a table was altered, or somebody deallocated the statement behind the
pooler's back. A client that prepared it on another server, or after the change, must not see an error that PostgreSQL
alone would not have given it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from hyperpool.pool.statements import PREFIX, Change, Statement
from hyperpool.relay.ledger import SKIP
from hyperpool.wire import constants as wire
from hyperpool.wire import extended

if TYPE_CHECKING:
    from hyperpool.relay.ledger import Ledger
    from hyperpool.relay.upkeep import Upkeep


_SERVER_NAME = re.compile(PREFIX + rb"\d+(?![\d?])")


def is_stale(frame: bytes) -> bool:
    """Whether an ErrorResponse says that a statement of the pooler's must be prepared anew."""
    if b"\0C0A000\0" in frame:
        # "cached plan must not change result type": the routine is the same in every language.
        return b"\0RRevalidateCachedQuery\0" in frame
    return b"\0C26000\0" in frame and _SERVER_NAME.search(frame) is not None


Replay: TypeAlias = tuple[bytes, int, Sequence[Statement]]
"""A pipeline that has been sent to a server outside of a transaction block, and ends with its only Sync: what was sent,
how many requests of it the server answers, and the named statements in it."""


def fits(replay: Replay, ledger: Ledger) -> bool:
    """Whether none of its requests has been answered, and nothing was sent behind it."""
    return len(ledger.entries) == replay[1]


def prepare(replay: Replay, server: Upkeep) -> bytes:
    """Write down that everything comes once more, the statements first.

    The server has failed the first request, and will skip the others until the Sync, which it answers.

    Returns:
        What to send.
    """
    data, _, uses = replay
    ledger = server.ledger
    statements = server.statements
    statements.doubt_all()
    statements.version = server.pool.statements.version
    outstanding, changes = ledger.entries.copy(), ledger.changes
    ledger.entries.clear()
    ledger.entries.append(wire.SYNC | SKIP)
    ledger.changes = deque()
    pieces = []
    for statement in dict.fromkeys(uses):
        ledger.request(wire.CLOSE, SKIP, Change(None, None, statement))
        ledger.request(wire.PARSE, SKIP, Change(None, None, statement))
        pieces.append(extended.close_statement(statement.name))
        pieces.append(extended.parse(statement.name, statement.body))
        statements.use(statement, server.relay.now)
        statements.certain.add(statement)
    ledger.entries.extend(outstanding)
    ledger.changes += changes
    ledger.midway = False
    ledger.recount()
    return b"".join((*pieces, data))
