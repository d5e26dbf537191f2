"""Cancel requests on their way: to a server, or to another pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.frontdoor.guest import Guest
    from hyperpool.relay.server import ServerConnection


@attrs.frozen(eq=False)
class CancelOrder:
    """A cancel request on its way to a server, which is held back meanwhile. Whoever holds this calls `done`.

    Attributes:
        server: what the request is for.
        guest: the connection that brought it; None if it came otherwise.
        then: called when it is done.
    """

    server: ServerConnection
    guest: Guest | None = None
    then: Callable[[], None] | None = None

    def done(self, *, delivered: bool) -> None:
        """Let server and guest go on.

        Args:
            delivered: the server has taken the request; if not, it may still hit the server later.
        """
        if not delivered:
            self.server.retire("a cancel request may still be on its way")
        self.server.end_cancel()
        if self.guest is not None:
            self.guest.lost("cancel request done")
        if self.then is not None:
            self.then()


@attrs.frozen(eq=False)
class PeerOrder:
    """A cancel request for a client of another pooler.

    Attributes:
        guest: the connection that brought it.
        peer_id: of the pooler that has drawn the key.
        pid: the process id in the key.
        secret: the secret in the key.
    """

    guest: Guest
    peer_id: int
    pid: int
    secret: bytes
