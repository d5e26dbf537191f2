"""The log of queries that took long: by fingerprint, without what stands in them, unless that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from postgast import PgQueryError, fingerprint, normalize

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection

log = structlog.get_logger("relay")

_MOST: Final = 10
"""Entries in a second: what is too much for the database must not be too much for the pooler."""
_LONGEST: Final = 16384
"""Bytes of a text that is parsed; of a longer one, the beginning is logged if texts are."""


class SlowLog:
    """Writes the log.

    Attributes:
        texts: queries are logged as they are, with their literals.
        traced: called with the server, the time, the text of each query that is logged, and what is told of it.
    """

    def __init__(self) -> None:
        self.texts = False
        self.traced: Callable[[ServerConnection, float, bytes, dict[str, str]], None] | None = None
        self._second = 0.0
        self._count = 0
        self._untold = 0

    def tell(self, server: ServerConnection, client: ClientConnection | None, seconds: float) -> None:
        """A query has taken longer than its pool's `slow`.

        Args:
            server: has answered it; `said` is the query.
            client: has asked it; None if it has gone meanwhile.
            seconds: that it took.
        """
        now = server.relay.now
        if now - self._second >= 1:
            self._second, self._count = now, 0
        if self._count >= _MOST:
            self._untold += 1
            return
        self._count += 1
        text = b"" if server.ledger.entries else server.said
        told = describe(text, texts=self.texts)
        if self.traced is not None:
            self.traced(server, seconds, text, told)
        untold = {"untold": self._untold} if self._untold else {}
        self._untold = 0
        who = {} if client is None else client.identity()
        log.info(
            "slow query",
            pool=server.pool.name,
            **who,
            server_id=server.number,
            remote_pid=server.pid,
            seconds=round(seconds, 6),
            **told,
            **untold,
        )


def describe(text: bytes, *, texts: bool) -> dict[str, str]:
    """What is logged of a query.

    Args:
        text: the query; empty if it is not known.
        texts: with its literals.
    """
    if not text:
        return {"query": "(not known: a prepared statement of a session, or one of a pipeline)"}
    name, template = "", "(not understood)"
    if len(text) <= _LONGEST:
        try:
            decoded = text.decode()
            name, template = fingerprint(decoded).hex, normalize(decoded)
        except (PgQueryError, UnicodeDecodeError):
            pass
    if texts:
        template = text[:_LONGEST].decode(errors="backslashreplace")
    return {"fingerprint": name, "query": template}
