"""Clients that begin like one before them: what was decided for that one need not be decided again.

Applications open many connections with the same words. When a client has been let in, the next one that begins with
exactly the same bytes is asked for the same proof of who it is, or for none, and comes to the same pool and the same
greeting, without its packet being parsed or anybody's rights being looked up. This holds for what follows from the
settings and from those bytes alone; what may change from one moment to the next is looked at each time, and on any
doubt the client goes the long way.

Who is asked for a proof is remembered before it is given, whoever that may be: else the time that the next one waits
for the question would tell whether somebody has logged in with those words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.auth.proof import ScramProof
from hyperpool.auth.scram import challenge_end
from hyperpool.auth.server_side import OFFER
from hyperpool.config import AuthType
from hyperpool.wire import messages
from hyperpool.wire.startup import negotiate

if TYPE_CHECKING:
    from hyperpool.auth.scram import ScramVerifier
    from hyperpool.auth.secrets import Shown
    from hyperpool.frontdoor.access import Claim
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.wire.startup import StartupMessage

_MOST: Final = 1024
_UNASKED: Final = frozenset({AuthType.TRUST, AuthType.ANY})
_SETTLED: Final = _UNASKED | {AuthType.SCRAM_SHA_256}
"""Methods for which the settings say all that is needed of a user that stands in them."""


@attrs.frozen(eq=False)
class Admission:
    """What a client came to that was let in.

    Attributes:
        pool: where its servers come from.
        shown: what its login has brought to light.
        teaches: that may be news for the pool.
        tracked: the session parameters that it expects.
        greeting: AuthenticationOk, and what follows up to its cancel key.
    """

    pool: RelayPool
    shown: Shown
    tracked: ParameterSet
    greeting: bytes


class Precedent:
    """How a client was asked for a proof of who it is, or was let in.

    Args:
        packet: its StartupMessage as it was sent. Nothing else will do: a part of it, or a request for TLS, also comes
            from others who want something else.
        message: the same, parsed.
        claim: who it said it was.
        verifier: with what its proof is checked; None if it was asked for none.
        admission: what it came to; None if that is not known yet.

    Attributes:
        pool: where its servers come from; None if nobody has been let in yet.
        shown: what its login has brought to light.
        tracked: the session parameters that it expects.
        place: the name of the database that it asked for, and as whom it has logged in.
        secret_length: bytes of the secret in its cancel key.
        reported: the pool's parameters that `greeting` was made of.
        base: what all sessions of the pool begin with, which it was made of, too.
        age: how often settings had changed before.
        offer: what such a client is sent to have it prove who it is; empty if it is not asked to.
        greeting: what it is sent in the end, from AuthenticationOk to what tells its cancel key from that of others;
            with the answer to its StartupMessage, if it is not asked.
    """

    __slots__ = (
        "_ending",
        "_verifier",
        "age",
        "base",
        "claim",
        "greeting",
        "message",
        "offer",
        "packet",
        "place",
        "pool",
        "reported",
        "secret_length",
        "shown",
        "teaches",
        "tracked",
    )

    def __init__(
        self,
        packet: bytes,
        message: StartupMessage,
        claim: Claim,
        verifier: ScramVerifier | None,
        admission: Admission | None,
    ) -> None:
        self.packet = packet
        self.message = message
        self.claim = claim
        self.place = message.database, message.user
        self.secret_length = message.secret_length
        self.age = 0
        if verifier is None and claim.method.kind not in _UNASKED:
            raise AssertionError("nobody comes in without proof who is asked for one")
        self._verifier = verifier
        self._ending = b"" if verifier is None else challenge_end(verifier)
        negotiated = negotiate(message)
        self.offer = b"" if verifier is None else negotiated + OFFER
        self.pool = None if admission is None else admission.pool
        if admission is not None:
            self.shown = admission.shown
            self.teaches = bool(admission.shown.secret or admission.shown.keys)
            self.tracked = admission.tracked
            self.reported = admission.pool.parameters
            self.base = admission.pool.base
            # BackendKeyData is its head, and the two of which a key is made.
            head = messages.backend_key_data(0, bytes(self.secret_length))[:5]
            self.greeting = (negotiated if verifier is None else b"") + admission.greeting + head

    def proof(self) -> ScramProof | None:
        """The exchange with which such a client proves who it is; None if it is not asked to."""
        return None if self._verifier is None else ScramProof(self._verifier, self._ending)


class Precedents:
    """What is remembered of clients that were let in, by the bytes that they began with.

    Args:
        door: what decides where nothing is remembered.

    Attributes:
        age: how often settings have changed.
    """

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._found: dict[bytes, Precedent] = {}
        self._asked: dict[bytes, Precedent] = {}
        self.age = 0

    def clear(self) -> None:
        """The settings have changed: nothing is known."""
        self._found.clear()
        self._asked.clear()
        self.age += 1

    def suits(self, guest: Guest, age: int) -> bool:
        """Whether how a client is let in hangs on nothing but the settings as they are, and its StartupMessage.

        Args:
            guest: the client.
            age: how often settings had changed when it was looked at: with others, it might be asked for another proof.
        """
        settings, offer, claim = self._door.settings, self._door.tls, guest.claim
        return (
            age == self.age
            and settings.pooler.auth_type in _SETTLED
            and not settings.pooler.application_name_add_host
            and not (offer is not None and offer.required)
            and not guest.encrypted
            and not guest.replication
            and not guest.wants_console
            and claim is not None
            and claim.source is None
            and not any(settings.client_limits(claim.database, claim.user))
        )

    def add(self, precedent: Precedent) -> None:
        """A client has been let in, or is asked for a proof: let those in like it, or ask them.

        Args:
            precedent: how.
        """
        # Whoever has no proof can fill the second one alone.
        known = self._asked if precedent.pool is None else self._found
        if len(known) >= _MOST:
            known.clear()
        precedent.age = self.age
        known[precedent.packet] = precedent

    def find(self, guest: Guest, opening: bytes) -> Precedent | None:
        """How a client is let in that begins like this, if that is known, and there is room for it.

        Args:
            guest: it has sent nothing else yet, and is not encrypted.
            opening: what it has sent.
        """
        precedent = self._found.get(opening)
        if precedent is None or not self.holds(guest, precedent):
            precedent = self._asked.get(opening)
            if precedent is None or not self._door.lets_in(guest):
                return None
        return precedent if self._door.has_seat() else None

    def holds(self, guest: Guest, precedent: Precedent) -> bool:
        """Whether the client that has a seat may come in like the one before it, which was let in."""
        pool = precedent.pool
        return (
            pool is not None
            and precedent.age == self.age
            and pool.parameters is precedent.reported
            and pool.base is precedent.base
            and self._door.leads(guest, precedent.place, pool)
        )
