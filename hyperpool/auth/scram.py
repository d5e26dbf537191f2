"""SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides of the exchange, on the bytes of the SASL messages.

Where PostgreSQL deviates from the RFCs, so do we: the user name inside the exchange is ignored, because the
startup packet has named the user already; an authorization identity is refused. SCRAM-SHA-256-PLUS is the same
exchange with channel binding, of the one type that PostgreSQL knows (`hyperpool.auth.binding`).

The exchange, without channel binding::

    client                                          server
    n,,n=,r=<nonce>                        ──▶
                                           ◀──      r=<nonce><more>,s=<salt>,i=<iterations>
    c=biws,r=<nonce><more>,p=<proof>       ──▶
                                           ◀──      v=<signature>
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from functools import lru_cache
from typing import Final

import attrs

from hyperpool.auth.binding import BINDING_TYPE
from hyperpool.auth.saslprep import saslprep
from hyperpool.errors import AuthenticationError, LoginFailed, ProtocolError

MECHANISM: Final = "SCRAM-SHA-256"
MECHANISM_PLUS: Final = "SCRAM-SHA-256-PLUS"
"""With channel binding."""

UNBOUND: Final = b"n,,"
"""GS2 header: the client cannot bind, or will not."""

BINDING_NOT_OFFERED: Final = b"y,,"
"""GS2 header: the client could bind, and has not been offered to. A server that has offered it knows then that
somebody in the middle has changed the offer."""

BOUND: Final = b"p=" + BINDING_TYPE + b",,"
"""GS2 header: the client binds."""

DEFAULT_ITERATIONS: Final = 4096
"""PostgreSQL's and pgbouncer's default of ``scram_iterations``."""

MAX_ITERATIONS: Final = 1_000_000
"""The most rounds of PBKDF2 that we do because a server asks for them.

The rounds run on the thread that serves everybody (0.4 seconds at this bound, 2 milliseconds for PostgreSQL's
default of 4,096), and a hostile server could ask for two thousand million. Common advice for new passwords is
600,000, so this leaves room.
"""

SALT_LENGTH: Final = 16
"""Bytes of the salts that we make: as PostgreSQL's, so that ours do not stand out."""

KEY_LENGTH: Final = 32
"""Bytes of StoredKey and ServerKey."""

MAX_CLEARTEXT_LENGTH: Final = 2048
"""Characters of a cleartext password that we are ready to hash for a client: pgbouncer's limit for a password.
SASLprep of the 64 kB that the protocol allows would take a tenth of a second."""

_NONCE_LENGTH: Final = 18
_PRINTABLE: Final = re.compile(rb"[!-+\--~]+")
_USUAL_FIRST: Final = re.compile(rb"n=[^,]*,r=([^,]*)")
"""A client-first-message without extensions, behind its GS2 header."""

_CACHED_KEYS: Final = 4096


def pbkdf2(password: str, salt: bytes, iterations: int) -> bytes:
    """Compute the SaltedPassword of RFC 5802: the slow step.

    Args:
        password: the password, before SASLprep.
        salt: the salt, not empty.
        iterations: rounds, at least 1. 4,096 take about a millisecond.

    Raises:
        ProtocolError: the password cannot be encoded.
    """
    return hashlib.pbkdf2_hmac("sha256", saslprep(password), salt, iterations)


salted_password = lru_cache(_CACHED_KEYS)(pbkdf2)
"""`pbkdf2`, remembered for passwords from our own settings, towards servers. Never call it with what a client sent:
guesses would push the real ones out."""


@attrs.frozen
class ScramVerifier:
    """What a server keeps in place of a password.

    Attributes:
        iterations: rounds of PBKDF2.
        salt: the salt.
        stored_key: RFC 5802's StoredKey, 32 bytes.
        server_key: RFC 5802's ServerKey, 32 bytes.
    """

    iterations: int
    salt: bytes
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)

    @classmethod
    def from_salted(cls, salted: bytes, salt: bytes, iterations: int) -> ScramVerifier:
        """Derive the verifier from a salted password."""
        return cls(iterations, salt, _sha256(_client_key(salted)), _server_key(salted))

    def accepts(self, password: str) -> bool:
        """Check a cleartext password, at the cost of a PBKDF2.

        Returns:
            True if it is the password; always False if it is longer than `MAX_CLEARTEXT_LENGTH`, or if the
            verifier takes more than `MAX_ITERATIONS` rounds.

        Raises:
            ProtocolError: the password cannot be encoded.
        """
        if len(password) > MAX_CLEARTEXT_LENGTH or self.iterations > MAX_ITERATIONS:
            return False
        server_key = _server_key(pbkdf2(password, self.salt, self.iterations))
        return hmac.compare_digest(server_key, self.server_key)


@attrs.frozen
class ScramKeys:
    """What a client has shown of its password: enough to log in wherever the same verifier is stored.

    Attributes:
        iterations: of the verifier.
        salt: of the verifier.
        client_key: RFC 5802's ClientKey, 32 bytes.
        server_key: RFC 5802's ServerKey, 32 bytes.
    """

    iterations: int
    salt: bytes
    client_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)


class ScramServer:
    """The server's side of one exchange.

    Args:
        verifier: what is stored for the user.
        nonce: the server's part of the nonce; made at random unless given.
        endpoint: the hash of our certificate, if `MECHANISM_PLUS` was offered.
        plus: the client has chosen `MECHANISM_PLUS`.

    Attributes:
        keys: what the client has shown, once it has proved that it knows the password.
    """

    __slots__ = ("_auth_message", "_binding", "_endpoint", "_nonce", "_plus", "_verifier", "keys")

    def __init__(
        self, verifier: ScramVerifier, nonce: bytes = b"", endpoint: bytes = b"", *, plus: bool = False
    ) -> None:
        self._verifier = verifier
        self._nonce = nonce or make_nonce()
        self._endpoint = endpoint
        self._plus = plus
        self._binding = b""
        self._auth_message = b""
        self.keys: ScramKeys | None = None

    @classmethod
    def challenged(
        cls, verifier: ScramVerifier, nonce: bytes, binding: bytes, auth_message: bytes
    ) -> ScramServer:
        """An exchange without channel binding in which the client has been challenged already.

        Args:
            verifier: what is stored for the user.
            nonce: of both sides.
            binding: the GS2 header, in base64.
            auth_message: RFC 5802's AuthMessage, as far as it has come.
        """
        exchange = cls(verifier, nonce)
        exchange._binding = binding
        exchange._auth_message = auth_message
        return exchange

    def challenge(self, client_first: bytes) -> bytes:
        """Answer the client-first-message with the server-first-message.

        Raises:
            ProtocolError: the message is malformed, or asks for what we do not offer.
            AuthenticationError: the client did not see our offer of channel binding.
        """
        header, bare = _split_gs2_header(client_first)
        self._check_flag(header)
        usual = _USUAL_FIRST.fullmatch(bare)
        client_nonce = _attributes(bare, b"nr")[b"r"] if usual is None else usual[1]
        if not _PRINTABLE.fullmatch(client_nonce):
            raise ProtocolError("malformed SCRAM message: non-printable characters in SCRAM nonce")
        self._nonce = client_nonce + self._nonce
        self._binding = _b64encode(header + self._endpoint if self._plus else header)
        server_first = b"r=" + self._nonce + challenge_end(self._verifier)
        self._auth_message = bare + b"," + server_first
        return server_first

    def finish(self, client_final: bytes) -> bytes | None:
        """Check the client-final-message.

        Returns:
            The server-final-message, or None if the client does not know the password.

        Raises:
            ProtocolError: the message is malformed, or does not belong to this exchange.
            AuthenticationError: the client is bound to another TLS connection.
        """
        without_proof, separator, proof_text = client_final.rpartition(b",p=")
        if not separator:
            raise ProtocolError("malformed SCRAM message: the client proof is missing")
        if without_proof != b"c=" + self._binding + b",r=" + self._nonce:
            # It has extensions, or something is wrong with it. None of this is a secret.
            self._check_final(_attributes(without_proof, b"cr"))
        proof = _b64decode(proof_text, "proof")
        if len(proof) != KEY_LENGTH:
            raise ProtocolError("malformed SCRAM message: the client proof has a wrong length")
        verifier = self._verifier
        auth_message = self._auth_message + b"," + without_proof
        client_key = _xor(proof, _hmac(verifier.stored_key, auth_message))
        if not hmac.compare_digest(_sha256(client_key), verifier.stored_key):
            return None
        self.keys = ScramKeys(verifier.iterations, verifier.salt, client_key, verifier.server_key)
        return b"v=" + _b64encode(_hmac(verifier.server_key, auth_message))

    def _check_final(self, attributes: dict[bytes, bytes]) -> None:
        """Refuse a client-final-message that does not belong to this exchange."""
        if attributes[b"c"] != self._binding:
            if self._plus:
                raise AuthenticationError("SCRAM channel binding check failed", "28000")
            raise ProtocolError("unexpected SCRAM channel-binding attribute in client-final-message")
        if not hmac.compare_digest(attributes[b"r"], self._nonce):
            raise ProtocolError("invalid SCRAM response: nonce does not match")

    def _check_flag(self, header: bytes) -> None:
        """Compare what the client says about channel binding with the mechanism that it has chosen."""
        if header.startswith(b"p="):
            if not self._plus:
                raise ProtocolError(
                    "client selected SCRAM-SHA-256 without channel binding, "
                    "but the SCRAM message includes channel binding data"
                )
            if header != BOUND:
                raise ProtocolError("unsupported SCRAM channel-binding type")
        elif self._plus:
            raise ProtocolError(
                "client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data"
            )
        elif header == BINDING_NOT_OFFERED and self._endpoint:
            raise AuthenticationError(
                "SCRAM channel binding negotiation error: the client supports channel binding, but did not see that "
                "it was offered",
                "28000",
            )


class ScramClient:
    """The client's side of one exchange.

    Args:
        password: the password, before SASLprep; from our own settings, because what is derived from it is
            kept. Or what a client has shown of it.
        nonce: the client's nonce; made at random unless given.
        user: the user name inside the exchange; PostgreSQL ignores it, and libpq leaves it empty.
        header: the GS2 header: `UNBOUND`, `BINDING_NOT_OFFERED` or `BOUND`.
        endpoint: the hash of the server's certificate, with `BOUND`.
    """

    __slots__ = ("_bare", "_binding", "_header", "_nonce", "_password", "_signature")

    def __init__(
        self,
        password: str | ScramKeys,
        nonce: bytes = b"",
        user: bytes = b"",
        header: bytes = UNBOUND,
        endpoint: bytes = b"",
    ) -> None:
        self._header = header
        self._binding = _b64encode(header + endpoint)
        self._password = password
        self._nonce = nonce or make_nonce()
        self._bare = b"n=%b,r=%b" % (user, self._nonce)
        self._signature = b""

    def first(self) -> bytes:
        """Make the client-first-message."""
        return self._header + self._bare

    def respond(self, server_first: bytes) -> bytes:
        """Answer the server-first-message with the client-final-message.

        Raises:
            ProtocolError: the message is malformed, or does not belong to this exchange.
            LoginFailed: the server asks for more rounds than `MAX_ITERATIONS`, or has another verifier than the one
                that `ScramKeys` are for.
        """
        attributes = _attributes(server_first, b"rsi")
        nonce = attributes[b"r"]
        if (
            not nonce.startswith(self._nonce)
            or len(nonce) == len(self._nonce)
            or not _PRINTABLE.fullmatch(nonce)
        ):
            raise ProtocolError("invalid SCRAM message from the server: nonce does not match")
        salt = _b64decode(attributes[b"s"], "salt")
        client_key, server_key = self._keys(salt, attributes[b"i"])
        without_proof = b"c=" + self._binding + b",r=" + nonce
        auth_message = b",".join((self._bare, server_first, without_proof))
        proof = _xor(client_key, _hmac(_sha256(client_key), auth_message))
        self._signature = _hmac(server_key, auth_message)
        return without_proof + b",p=" + _b64encode(proof)

    def _keys(self, salt: bytes, iterations: bytes) -> tuple[bytes, bytes]:
        """ClientKey and ServerKey."""
        password = self._password
        if isinstance(password, str):
            salted = salted_password(password, salt, _iterations(iterations))
            return _client_key(salted), _server_key(salted)
        if (salt, iterations) != (password.salt, b"%d" % password.iterations):
            raise LoginFailed(
                "the server's SCRAM secret of this user is another one than the pooler's (salt and iterations must be "
                "the same, not the password alone): copy the server's, or use auth_query"
            )
        return password.client_key, password.server_key

    def verify(self, server_final: bytes) -> None:
        """Check the server-final-message: the server must prove that it knows the verifier.

        Raises:
            ProtocolError: the message is malformed.
            LoginFailed: the server reports an error, or its signature is wrong.
        """
        if server_final.startswith(b"e="):
            raise LoginFailed("the server ended the SCRAM exchange with an error")
        signature = _b64decode(_attributes(server_final, b"v")[b"v"], "server signature")
        if not hmac.compare_digest(signature, self._signature):
            raise LoginFailed("the server could not prove that it knows the password: wrong SCRAM signature")


def _split_gs2_header(client_first: bytes) -> tuple[bytes, bytes]:
    """Split the client-first-message into its GS2 header (``n,,``) and the bare message."""
    parts = client_first.split(b",", 2)
    if len(parts) != 3:
        raise ProtocolError("malformed SCRAM message: the GS2 header is incomplete")
    flag, identity, bare = parts
    if flag not in {b"n", b"y"} and not flag.startswith(b"p="):
        raise ProtocolError("malformed SCRAM message: unexpected channel-binding flag")
    if identity:
        raise ProtocolError("client uses authorization identity, but it is not supported")
    return flag + b"," + identity + b",", bare


def _attributes(message: bytes, expected: bytes) -> dict[bytes, bytes]:
    """Parse ``a=...,b=...``: the expected attributes first and in order, then extensions, which are ignored.

    An extension that must not be ignored would be called ``m`` and come first, and so is refused.
    """
    attributes = {}
    parts = message.split(b",")
    for index, part in enumerate(parts):
        if len(part) < 2 or part[1:2] != b"=" or not part[:1].isalpha():
            raise ProtocolError("malformed SCRAM message: attribute expected")
        if index < len(expected):
            if part[0] != expected[index]:
                raise ProtocolError(f"malformed SCRAM message: expected attribute {chr(expected[index])!r}")
            attributes[part[:1]] = part[2:]
    if len(parts) < len(expected):
        raise ProtocolError(f"malformed SCRAM message: expected attribute {chr(expected[len(parts)])!r}")
    return attributes


def _iterations(text: bytes) -> int:
    # The number of digits is checked first: Python's int() of a hostile million of them would be slow.
    if not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise ProtocolError("malformed SCRAM message: invalid iteration count")
    if int(text) > MAX_ITERATIONS:
        raise LoginFailed(
            f"the server asks for {int(text)} SCRAM iterations, more than our limit of {MAX_ITERATIONS}"
        )
    return int(text)


def make_nonce() -> bytes:
    """Make one side's part of a nonce."""
    return _b64encode(os.urandom(_NONCE_LENGTH))


def challenge_end(verifier: ScramVerifier) -> bytes:
    """What stands behind the nonce in the server-first-message."""
    return b",s=%b,i=%d" % (_b64encode(verifier.salt), verifier.iterations)


def _client_key(salted: bytes) -> bytes:
    return _hmac(salted, b"Client Key")


def _server_key(salted: bytes) -> bytes:
    return _hmac(salted, b"Server Key")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(KEY_LENGTH)


def _b64encode(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def _b64decode(text: bytes, what: str) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        data = b""
    if not data:
        raise ProtocolError(f"malformed SCRAM message: malformed {what}")
    return data
