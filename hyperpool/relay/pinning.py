"""Clients that keep their server: it is said once for each reason, and there are not too many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.config import SessionState
from hyperpool.relay.session import WORDS, names_of

if TYPE_CHECKING:
    from hyperpool.relay.backend import Backend
    from hyperpool.relay.client import ClientConnection


def pin(client: ClientConnection, server: Backend) -> None:
    """A client keeps its server, or is refused because too many do.

    Args:
        client: the client.
        server: the one that it keeps.
    """
    pool = client.pool
    reasons = server.pinned
    follows = pool.settings.session_state is SessionState.FOLLOW
    if follows and not server.granted and pool.pinned_everywhere > pool.max_pinned:
        client.refuse(
            f"too many clients of this pool keep their server connection ({names_of(reasons)})",
            "53400",
            "end this state in other clients, or raise max_pinned and the pool's size, or use session pooling",
        )
        return
    server.granted = True
    new = reasons & ~client.pinned
    if not new:
        return
    client.pinned |= reasons
    for reason in WORDS:
        if reason & new:
            pool.stats.pins[WORDS[reason]] += 1
    client.relay.client_pinned(client, names_of(reasons))
