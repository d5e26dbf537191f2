"""We act as PostgreSQL: ask a client for its password and check the answer.

What an attacker can learn is kept small. A user that does not exist goes through the same exchange as one
that does, down to the same functions, with a secret in place of its own that nobody knows (`hyperpool.auth.stranger`);
it fails at the same point with the same words. Secrets are compared in constant time. A SCRAM exchange costs no PBKDF2,
whether its user exists or not: a stored verifier needs none, and that of a plain password is computed ahead.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hyperpool.auth import md5
from hyperpool.auth.scram import (
    DEFAULT_ITERATIONS,
    MECHANISM,
    MECHANISM_PLUS,
    ScramServer,
    ScramVerifier,
    pbkdf2,
)
from hyperpool.auth.secrets import MD5Digest, PlainPassword, Shown, parse_secret
from hyperpool.auth.stranger import PLAIN, Likeness, mock_salt, mock_verifier, stand_in
from hyperpool.config import AuthType, Secret
from hyperpool.errors import AuthenticationError, ProtocolError
from hyperpool.wire import constants as c
from hyperpool.wire import messages
from hyperpool.wire.text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable


_REMEMBERED: Final = 4096
_NOTHING: Final = Shown()
OFFER: Final = messages.authentication_sasl([MECHANISM])
"""What a client is sent that shall use SCRAM, and that is not connected with TLS."""

_BOUND_OFFER: Final = messages.authentication_sasl([MECHANISM_PLUS, MECHANISM])
_UNASKED: Final = frozenset({AuthType.TRUST, AuthType.ANY, AuthType.CERT, AuthType.PEER})
_REFUSALS: Final = {AuthType.LDAP: ("LDAP", "28000"), AuthType.PAM: ("PAM", "28000")}
"""What PostgreSQL calls those methods in its refusals that somebody else decides, and their SQLSTATEs."""


@lru_cache(_REMEMBERED)
def plain_verifier(password: str, user: str, mock_key: bytes, iterations: int) -> ScramVerifier:
    """The verifier of a password that is stored as it is: slow, and so it is remembered.

    Args:
        password: the password, from our own settings.
        user: whose.
        mock_key: as of `ClientAuthentication`.
        iterations: rounds of PBKDF2.

    Raises:
        ProtocolError: the password cannot be encoded.
    """
    salt = mock_salt(user, mock_key)
    return ScramVerifier.from_salted(pbkdf2(password, salt, iterations), salt, iterations)


class ClientAuthentication:
    """One client's authentication.

    Call `start` and send what it returns; then feed each message of the client to `receive` and send what
    that returns, until `done`. AuthenticationOk is left to the caller, who sends it along with what follows.
    After an error every further message is refused.

    The exchange follows from ``auth_type`` and the stored secret as in pgbouncer: ``md5`` uses SCRAM for a
    user with a SCRAM verifier; ``scram-sha-256`` needs a SCRAM verifier or a plain password, and a user with
    an MD5 digest fails as with a wrong password; ``plain`` works with every secret; ``trust`` asks for
    nothing, but the user must be known; ``any`` asks for nothing at all. With ``ldap`` and ``pam`` the client sends its
    password, and somebody else says whether it is right: see `password`. So it is with ``plain`` and a SCRAM verifier,
    since that takes long.

    ``cert`` and ``peer`` are ``trust`` here: whom the client may be has been found out before.

    Args:
        auth_type: pgbouncer's ``auth_type``.
        user: the user name of the startup packet.
        secret: what is stored for the user; None if the user is unknown. An empty secret lets nobody in, but
            with ``trust``.
        mock_key: random bytes, the same for every client; salts, and secrets of unknown users, are derived from it.
        scram_iterations: rounds of PBKDF2 for plain passwords and unknown users.
        endpoint: the hash of our certificate, if the client is connected with TLS: channel binding is offered then.
        usual: what most stored secrets are like: an unknown user is treated as if its own was, too.

    Attributes:
        done: True once the client is authenticated.
        decisive: the next message decides: what comes out tells whether a password is right.
        password: what the client has sent, and somebody else must check: `conclude` takes the outcome.
        shown: what the login has brought to light, once done.
        verifier: what a SCRAM exchange relies on, once one has been offered.
    """

    __slots__ = (
        "_auth_type",
        "_endpoint",
        "_exchange",
        "_expected_md5",
        "_iterations",
        "_mock_key",
        "_secret",
        "_step",
        "_stored",
        "_user",
        "_usual",
        "decisive",
        "done",
        "password",
        "shown",
        "verifier",
    )

    def __init__(
        self,
        auth_type: AuthType,
        user: str,
        secret: Secret | None,
        mock_key: bytes,
        scram_iterations: int = DEFAULT_ITERATIONS,
        endpoint: bytes = b"",
        usual: Likeness = PLAIN,
    ) -> None:
        self._auth_type = auth_type
        self._user = user
        self._secret = secret
        self._mock_key = mock_key
        self._usual = usual
        self._stored: PlainPassword | MD5Digest | ScramVerifier
        self._iterations = scram_iterations
        self._endpoint = endpoint
        self._expected_md5 = b""
        self.verifier: ScramVerifier | None = None
        self._exchange: ScramServer
        self._step: Callable[[ClientAuthentication, bytes], bytes] = ClientAuthentication._out_of_turn
        self.done = False
        self.decisive = False
        self.password: bytes | None = None
        self.shown = _NOTHING

    def start(self) -> bytes:
        """Begin the exchange.

        Returns:
            The first message to the client, or b"" with ``trust``, which is done at once.

        Raises:
            AuthenticationError: with ``trust``, the user is unknown.
        """
        if self._auth_type in _UNASKED:
            if self._secret is None and self._auth_type is not AuthType.ANY:
                raise AuthenticationError(f'role "{self._user}" does not exist', "28000")
            self.done = True
            return b""
        self.decisive = True
        if self._auth_type in _REFUSALS:
            self._step = ClientAuthentication._pass_on
            return messages.authentication_cleartext_password()
        self._stored = stored = self._stored_secret()
        if self._auth_type is AuthType.PLAIN:
            self._step = ClientAuthentication._check_cleartext
            return messages.authentication_cleartext_password()
        if self._auth_type is AuthType.MD5 and not isinstance(stored, ScramVerifier):
            salt = os.urandom(md5.SALT_LENGTH)
            self._expected_md5 = md5.response(self._md5_digest(stored), salt)
            self._step = ClientAuthentication._check_md5
            return messages.authentication_md5_password(salt)
        self.decisive = False
        self.verifier = self._make_verifier(stored)
        self._step = ClientAuthentication._begin_scram
        return _BOUND_OFFER if self._endpoint else OFFER

    def challenged(self, exchange: ScramServer) -> None:
        """The client has been challenged already, behind `start`.

        Args:
            exchange: as it stands.
        """
        self._exchange = exchange
        self._await_final()

    def receive(self, kind: int, body: bytes) -> bytes:
        """Take the client's next message.

        Args:
            kind: the message's type byte.
            body: its body.

        Returns:
            What to send to the client, possibly nothing.

        Raises:
            AuthenticationError: the password is wrong, or the user is unknown.
            ProtocolError: the message is malformed or out of turn.
        """
        step, self._step = self._step, ClientAuthentication._out_of_turn
        if kind != c.PASSWORD_MESSAGE:
            raise ProtocolError(f"expected password response, got message type {kind}")
        return step(self, body)

    def _out_of_turn(self, _body: bytes) -> bytes:
        raise ProtocolError("unexpected password response: none was asked for")

    def _pass_on(self, body: bytes) -> bytes:
        password = messages.password_fields(body)
        if not password:
            # An LDAP server takes a bind without a password for one of nobody, and lets it in (RFC 4513, 5.1.2).
            return self.conclude(b"", matches=False)
        self.shown = Shown(secret=Secret(decode(password)))
        self.password = password
        return b""

    def _check_cleartext(self, body: bytes) -> bytes:
        stored = self._stored
        if isinstance(stored, ScramVerifier):
            return self._pass_on(body)
        password = messages.password_fields(body)
        self.shown = Shown(secret=Secret(decode(password)))
        if isinstance(stored, PlainPassword):
            matches = _equal(password, stored.raw)
        else:
            matches = _equal(md5.digest(password, encode(self._user)).encode(), stored.digest.encode())
        return self.conclude(b"", matches=matches and password != b"")

    def _check_md5(self, body: bytes) -> bytes:
        return self.conclude(b"", matches=_equal(messages.password_fields(body), self._expected_md5))

    def _begin_scram(self, body: bytes) -> bytes:
        mechanism, data = messages.sasl_initial_response_fields(body)
        plus = mechanism == MECHANISM_PLUS and self._endpoint != b""
        if mechanism != MECHANISM and not plus:
            raise ProtocolError("client selected an invalid SASL authentication mechanism")
        if self.verifier is None:
            raise AssertionError("SCRAM was offered")
        self._exchange = ScramServer(self.verifier, endpoint=self._endpoint, plus=plus)
        if data is None:
            # RFC 4422: a client that sends no initial response is asked for it with an empty challenge.
            self._step = ClientAuthentication._challenge
            return messages.authentication_sasl_continue(b"")
        return self._challenge(data)

    def _challenge(self, client_first: bytes) -> bytes:
        server_first = self._exchange.challenge(client_first)
        self._await_final()
        return messages.authentication_sasl_continue(server_first)

    def _await_final(self) -> None:
        self._step = ClientAuthentication._finish_scram
        self.decisive = True

    def _finish_scram(self, client_final: bytes) -> bytes:
        server_final = self._exchange.finish(client_final)
        last = messages.authentication_sasl_final(server_final or b"")
        if isinstance(self._stored, ScramVerifier):
            self.shown = Shown(keys=self._exchange.keys)
        return self.conclude(last, matches=server_final is not None)

    def conclude(self, last: bytes = b"", *, matches: bool) -> bytes:
        """The password is right, or it is not.

        Args:
            last: what the client is to be sent if it is.
            matches: whether it is.

        Raises:
            AuthenticationError: it is not.
        """
        self.password = None
        if not matches or not self._may_match():
            method, sqlstate = _REFUSALS.get(self._auth_type, ("password", "28P01"))
            raise AuthenticationError(f'{method} authentication failed for user "{self._user}"', sqlstate)
        self.done = True
        return last

    def verifier_to_check(self) -> ScramVerifier | None:
        """What `password` must be checked with, if it is not somebody else's business altogether."""
        if self._auth_type is not AuthType.PLAIN:
            return None
        return self._stored if isinstance(self._stored, ScramVerifier) else None

    def _may_match(self) -> bool:
        """Whether there is a secret that a password may be that of, as far as that is known here."""
        return bool(self._secret) or self._auth_type in _REFUSALS

    def _stored_secret(self) -> PlainPassword | MD5Digest | ScramVerifier:
        if self._secret:
            return parse_secret(self._secret.reveal())
        return stand_in(self._user, self._mock_key, self._usual)

    def _md5_digest(self, stored: PlainPassword | MD5Digest) -> str:
        return stored.digest if isinstance(stored, MD5Digest) else md5.digest(stored.raw, encode(self._user))

    def _make_verifier(self, stored: PlainPassword | MD5Digest | ScramVerifier) -> ScramVerifier:
        if isinstance(stored, ScramVerifier):
            return stored
        if self._secret and isinstance(stored, PlainPassword):
            return plain_verifier(stored.text, self._user, self._mock_key, self._iterations)
        # Nobody knows a client key whose hash is this StoredKey: every proof will be wrong.
        return mock_verifier(self._user, self._mock_key, self._iterations)


def _equal(left: bytes, right: bytes) -> bool:
    """Compare in a time that depends on neither content nor length of the secret."""
    return hmac.compare_digest(hashlib.sha256(left).digest(), hashlib.sha256(right).digest())
