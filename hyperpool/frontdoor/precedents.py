"""Clients that begin like one before them: what was decided for that one need not be decided again.

Applications open many connections with the same words. If a client that was asked for nothing has been let in, the next
one that begins with exactly the same bytes comes in by the same pool, to the same greeting, without its packet being
parsed or anybody's rights being looked at. This holds for what follows from the settings and from those bytes alone;
what may change from one moment to the next is looked at each time, and on any doubt the client goes the long way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.config import AuthType
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.auth.secrets import Shown
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.wire.startup import StartupMessage

_MOST: Final = 1024
_UNASKED: Final = frozenset({AuthType.TRUST, AuthType.ANY})


class Precedent:
    """How a client was let in.

    Attributes:
        pool: where its servers come from.
        database: the name that it asked for.
        user: as whom it has logged in.
        secret_length: bytes of the secret in its cancel key.
        shown: what its login has brought to light.
        reported: the pool's parameters that `greeting` was made of.
        base: what all sessions of the pool begin with, which it was made of, too.
        tracked: the session parameters that it expects.
        greeting: what it was sent, up to what tells its cancel key from that of others.
    """

    __slots__ = (
        "base",
        "database",
        "greeting",
        "pool",
        "reported",
        "secret_length",
        "shown",
        "tracked",
        "user",
    )

    def __init__(
        self, pool: RelayPool, message: StartupMessage, shown: Shown, tracked: ParameterSet, greeting: bytes
    ) -> None:
        self.pool = pool
        self.database = message.database
        self.user = message.user
        self.secret_length = message.secret_length
        self.shown = shown
        self.reported = pool.parameters
        self.base = pool.base
        self.tracked = tracked
        # BackendKeyData is its head, and the two of which a key is made.
        self.greeting = greeting + messages.backend_key_data(0, bytes(self.secret_length))[:5]


class Precedents:
    """What is remembered of clients that were let in, by the bytes that they began with.

    Args:
        door: what decides where nothing is remembered.
    """

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._found: dict[bytes, Precedent] = {}

    def clear(self) -> None:
        """The settings have changed: nothing is known."""
        self._found.clear()

    def set(self, guest: Guest, opening: bytes, precedent: Precedent) -> None:
        """A client has been let in: let those like it in, if that hangs on nothing but what they begin with.

        Args:
            guest: the client.
            opening: the first bytes that it has sent without TLS, or those behind the refusal of TLS.
            precedent: how it was let in.
        """
        settings, claim, offer = self._door.settings, guest.claim, self._door.tls
        if (
            int.from_bytes(opening[:4]) == len(opening)
            and settings.pooler.auth_type in _UNASKED
            and not settings.pooler.application_name_add_host
            and not (offer is not None and offer.required)
            and not guest.replication
            and claim is not None
            and claim.source is None
            and not any(settings.client_limits(precedent.database, precedent.user))
        ):
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[opening] = precedent

    def follow(self, guest: Guest, opening: bytes) -> bool:
        """Let a client in as one before it.

        Args:
            guest: it has sent nothing else yet, and is not encrypted.
            opening: what it has sent.

        Returns:
            Whether it has been let in; else nothing has been done.
        """
        precedent = self._found.get(opening)
        if precedent is None:
            return False
        pool = precedent.pool
        if (
            pool.parameters is not precedent.reported
            or pool.base is not precedent.base
            or not self._door.stands_open(guest, precedent.database, precedent.user, pool)
        ):
            return False
        pool.learn(precedent.user, precedent.shown)
        guest.admitted_as(precedent)
        return True
