"""Clients that keep their server: it is said once for each reason, and there are not too many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.config import SessionState
from hyperpool.relay.session import WORDS, names_of

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.session import Pinned


def pin(client: ClientConnection, reasons: Pinned) -> None:
    """A client keeps its server, or is refused because too many do.

    Args:
        client: the client.
        reasons: why it does.
    """
    pool = client.pool
    new = reasons & ~client.pinned
    if not new:
        return
    follows = pool.settings.session_state is SessionState.FOLLOW
    if follows and not client.pinned and pool.pinned > pool.max_pinned:
        client.refuse(
            f"too many clients of this pool keep their server connection ({names_of(reasons)})",
            "53400",
            "end this state in other clients, or raise max_pinned and the pool's size, or use session pooling",
        )
        return
    client.pinned |= reasons
    for reason in WORDS:
        if reason & new:
            pool.stats.pins[WORDS[reason]] += 1
    client.relay.client_pinned(client, names_of(reasons))
