"""A client's SCRAM exchange as nearly all clients have it, in few steps.

`hyperpool.auth.server_side` knows in which ways a client may prove who it is, and what to say about each mistake. Most
have the same one: two messages, each whole and alone, without channel binding and without extensions. Those are
answered here, with the same bytes. Whatever else comes changes nothing here, and the long way takes over with the
exchange as it stands (`ScramProof.exchange`).
"""

from __future__ import annotations

import binascii
import hmac
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from hyperpool.auth.scram import (
    KEY_LENGTH,
    MECHANISM,
    ScramServer,
    make_nonce,
)
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.scan import length_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.auth.scram import ScramVerifier

_MECHANISM: Final = MECHANISM.encode() + b"\0"
_BEHIND_TYPE: Final = 5
_DATA: Final = _BEHIND_TYPE + len(_MECHANISM) + 4
"""Where the client-first-message begins in a SASLInitialResponse."""

_FIRST: Final = re.compile(rb"([ny],,)(n=[^,]*,r=([!-+\--~]+))")
"""A client-first-message without channel binding and extensions: GS2 header, bare message, nonce."""

_BINDINGS: Final = {
    header: b"c=" + binascii.b2a_base64(header, newline=False) + b",r=" for header in (b"n,,", b"y,,")
}
"""How the client-final-message begins, by the GS2 header of the first one."""

_PROOF: Final = b",p="
_PROOF_LENGTH: Final = 44
"""Characters of 32 bytes in base64."""

_CONTINUE: Final = messages.authentication_sasl_continue(b"")[:1]
_CODE: Final = wire.AUTH_SASL_CONTINUE.to_bytes(4) + b"r="
_FINAL: Final = messages.authentication_sasl_final(b"v=" + b"=" * _PROOF_LENGTH)[:-_PROOF_LENGTH]
"""AuthenticationSASLFinal up to the signature."""

_encode: Final[Callable[..., bytes]] = binascii.b2a_base64
_decode: Final[Callable[..., bytes]] = binascii.a2b_base64
_digest: Final[Callable[..., bytes]] = hmac.digest


class ScramProof:
    """One client's exchange, behind the offer of SCRAM-SHA-256.

    Args:
        verifier: what is stored for the user.
        ending: `challenge_end` of it.

    Attributes:
        begun: the client has been challenged.
    """

    __slots__ = ("_bare", "_challenge", "_ending", "_expected", "_nonce", "_verifier", "begun")

    def __init__(self, verifier: ScramVerifier, ending: bytes) -> None:
        self._verifier = verifier
        self._ending = ending
        self._nonce = b""
        self._bare = b""
        self._challenge = b""
        self._expected = b""
        self.begun = False

    def challenge(self, data: bytes) -> bytes:
        """Answer what the client has sent first.

        Args:
            data: all that it has sent.

        Returns:
            AuthenticationSASLContinue; b"" if it is not a usual SASLInitialResponse, and nothing else.
        """
        size = len(data)
        if (
            size < _DATA
            or data[0] != wire.PASSWORD_MESSAGE
            or length_at(data, 0) != size - 1
            or not data.startswith(_MECHANISM, _BEHIND_TYPE)
            or length_at(data, _DATA - 5) != size - _DATA
        ):
            return b""
        found = _FIRST.fullmatch(data, _DATA)
        if found is None:
            return b""
        header, self._bare, nonce = found.groups()
        self._nonce = nonce = nonce + make_nonce()
        self._expected = _BINDINGS[header] + nonce
        self._challenge = challenge = nonce + self._ending
        self.begun = True
        return _CONTINUE + (len(challenge) + 10).to_bytes(4, "big") + _CODE + challenge

    def conclude(self, data: bytes) -> bytes:
        """Check what the client has sent behind the challenge.

        Args:
            data: all that it has sent.

        Returns:
            AuthenticationSASLFinal; b"" if it is not a usual SASLResponse, and nothing else, or does not prove that the
            client knows the password.
        """
        expected = self._expected
        size, end = len(data), _BEHIND_TYPE + len(expected)
        if (
            size != end + len(_PROOF) + _PROOF_LENGTH
            or data[0] != wire.PASSWORD_MESSAGE
            or length_at(data, 0) != size - 1
            or not data.startswith(expected, _BEHIND_TYPE)
            or not data.startswith(_PROOF, end)
        ):
            return b""
        try:
            proof = _decode(data[end + len(_PROOF) :], strict_mode=True)
        except binascii.Error:
            return b""
        if len(proof) != KEY_LENGTH:
            return b""
        verifier = self._verifier
        stored_key = verifier.stored_key
        message = self._bare + b",r=" + self._challenge + b"," + expected
        signature = _digest(stored_key, message, "sha256")
        client_key = (int.from_bytes(proof, "big") ^ int.from_bytes(signature, "big")).to_bytes(
            KEY_LENGTH, "big"
        )
        if not hmac.compare_digest(sha256(client_key).digest(), stored_key):
            return b""
        return _FINAL + _encode(_digest(verifier.server_key, message, "sha256"), newline=False)

    def exchange(self) -> ScramServer:
        """The same exchange for the long way, behind the challenge."""
        return ScramServer.challenged(
            self._verifier,
            self._nonce,
            binding=self._expected[2 : -len(self._nonce) - 3],
            auth_message=self._bare + b",r=" + self._challenge,
        )
