"""We act as a client towards PostgreSQL: log in to a server.

Source: PostgreSQL documentation, "Message Flow", section "Start-up". The server is not trusted blindly: once
it has begun a SCRAM exchange it must finish it and prove that it knows the password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hyperpool.auth import md5
from hyperpool.auth.binding import PLAIN
from hyperpool.auth.scram import (
    BINDING_NOT_OFFERED,
    BOUND,
    MECHANISM,
    MECHANISM_PLUS,
    UNBOUND,
    ScramClient,
    ScramVerifier,
)
from hyperpool.auth.secrets import MD5Digest, PlainPassword, Shown, parse_secret
from hyperpool.config import ChannelBinding
from hyperpool.errors import KeysMissing, LoginFailed, PasswordMissing, ProtocolError
from hyperpool.wire import constants as c
from hyperpool.wire import messages
from hyperpool.wire.startup import NEWEST_MINOR, OLDEST_MINOR
from hyperpool.wire.text import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.auth.binding import Channel
    from hyperpool.auth.scram import ScramKeys
    from hyperpool.config import Secret

_UNSUPPORTED_METHODS: Final = {c.AUTH_KERBEROS_V5: "Kerberos V5", c.AUTH_GSS: "GSSAPI", c.AUTH_SSPI: "SSPI"}
_FIRST_REQUESTS: Final = frozenset({c.AUTH_OK, c.AUTH_CLEARTEXT_PASSWORD, c.AUTH_MD5_PASSWORD, c.AUTH_SASL})
_SQLSTATE: Final = re.compile("[0-9A-Z]{5}")
_REJECTED: Final = "08004"
_BAFFLED: Final = frozenset({"0A000", "08P01"})
"""How servers refuse a protocol version: PostgreSQL before 9.3.21, 9.4.16, 9.5.11, 9.6.7 and 10.2, and poolers."""


class ServerLogin:
    """One login to a server.

    Send what `start` returns; then feed each message of the server to `receive` and send what that returns,
    until `done`.

    Args:
        user: the user to log in as.
        password: a plain password; or ``md5`` and a digest, good for MD5 authentication alone; None if the
            server is expected to ask for none.
        parameters: the other startup parameters, ``database`` among them.
        minor: the minor version of protocol 3 to ask for; a server that knows negotiation may settle for less.
        binding: what is wanted of channel binding; with `REQUIRE` the server must ask for SCRAM, over TLS.
        shown: what logins of this user's clients have brought to light; used where `password` is not enough.

    Attributes:
        minor: as given.
        settled: the minor version that the server has settled for.
        method: how the server has asked who we are: a SASL mechanism, ``md5``, ``password``, or ``trust`` if it asked
            for nothing; empty before it has.
        baffled: the server may be at a loss with a version newer than 3.0: so far it has said nothing, or it has
            refused with an error that may mean that, before anything else. It is worth to ask again for 3.0; no
            password has been sent.
        done: True once the server is ready for queries.
        parameters: what the server reported with ParameterStatus, the latest value of each.
        pid: the process ID for a CancelRequest; 0 if the server gave no key.
        secret: the secret for a CancelRequest; empty if the server gave no key.
    """

    __slots__ = (
        "_authenticated",
        "_binding",
        "_channel",
        "_expected",
        "_password",
        "_scram",
        "_shown",
        "_startup",
        "_user",
        "baffled",
        "done",
        "method",
        "minor",
        "parameters",
        "pid",
        "secret",
        "settled",
    )

    def __init__(
        self,
        user: str,
        password: Secret | None,
        parameters: Mapping[str, str],
        minor: int = NEWEST_MINOR,
        binding: ChannelBinding = ChannelBinding.PREFER,
        shown: Shown | None = None,
    ) -> None:
        self._user = user
        self._password = password
        self._shown = shown or Shown()
        self._startup = {**parameters, "user": user}
        self._scram: ScramClient
        self._binding = binding
        self._channel = PLAIN
        self._expected = _FIRST_REQUESTS
        self._authenticated = False
        self.minor = minor
        self.settled = minor
        self.method = ""
        self.baffled = False
        self.done = False
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.secret = b""

    def start(self, channel: Channel = PLAIN) -> bytes:
        """Make the StartupMessage.

        Args:
            channel: the connection that the login runs on.

        Raises:
            ProtocolError: a parameter holds a zero byte, or they are too many.
            LoginFailed: channel binding is required, and there is no TLS to bind to.
        """
        self._channel = channel
        if self._binding is ChannelBinding.REQUIRE and not channel.encrypted:
            raise LoginFailed("channel binding is required, but the connection to the server has no TLS")
        message = messages.startup_message(self._startup, (3, self.minor))
        self.baffled = self.minor > OLDEST_MINOR
        return message

    def receive(self, kind: int, body: bytes) -> bytes:
        """Take the server's next message.

        Args:
            kind: the message's type byte.
            body: its body.

        Returns:
            What to send to the server, possibly nothing.

        Raises:
            LoginFailed: the server refuses us, or asks for what we do not have or do not trust.
            ProtocolError: the message is malformed or out of turn.
        """
        baffled, self.baffled = self.baffled, False
        if kind == c.ERROR_RESPONSE:
            refusal = _refusal(body, authenticated=self._authenticated)
            self.baffled = baffled and refusal.sqlstate in _BAFFLED
            raise refusal
        if kind == c.NOTICE_RESPONSE:
            messages.error_fields(body)
        elif self.done:
            raise _unexpected(kind)
        elif not self._authenticated:
            return self._before_authentication(kind, body)
        elif kind == c.PARAMETER_STATUS:
            name, value = messages.parameter_status_fields(body)
            self.parameters[name] = value
        elif kind == c.BACKEND_KEY_DATA:
            self.pid, self.secret = messages.backend_key_fields(body)
        elif kind == c.READY_FOR_QUERY and messages.ready_for_query_status(body) == b"I":
            self.done = True
        else:
            raise _unexpected(kind)
        return b""

    def _before_authentication(self, kind: int, body: bytes) -> bytes:
        if kind == c.AUTHENTICATION:
            return self._answer(*messages.authentication_fields(body))
        if kind == c.NEGOTIATE_PROTOCOL_VERSION:
            # We ask for no options, so all that a server may do is to settle for an older version. Some read the
            # documentation to the letter and send the minor version alone.
            version, _ = messages.negotiate_protocol_version_fields(body)
            if version >> 16 not in {3, 0} or version & 0xFFFF > self.minor:
                offered = f"{version >> 16}.{version & 0xFFFF}"
                raise ProtocolError(f"the server offers protocol {offered}; it was asked for 3.{self.minor}")
            self.settled = version & 0xFFFF
            return b""
        raise _unexpected(kind)

    def _answer(self, code: int, data: bytes) -> bytes:
        """Answer an authentication request, if it is its turn."""
        if self._expected is _FIRST_REQUESTS and code in _UNSUPPORTED_METHODS:
            raise LoginFailed(
                f"the server asks for {_UNSUPPORTED_METHODS[code]} authentication of user "
                f'"{self._user}", which is not supported; use scram-sha-256 in its pg_hba.conf'
            )
        if code not in self._expected:
            raise ProtocolError(f"unexpected authentication request {code} from the server")
        if self._expected is _FIRST_REQUESTS and code != c.AUTH_SASL:
            self._refuse_unbound("asks for another kind of authentication than SCRAM")
        match code:
            case c.AUTH_SASL:
                self._expected = frozenset({c.AUTH_SASL_CONTINUE})
                return self._begin_scram(data)
            case c.AUTH_SASL_CONTINUE:
                self._expected = frozenset({c.AUTH_SASL_FINAL})
                return messages.sasl_response(self._scram.respond(data))
            case c.AUTH_SASL_FINAL:
                self._scram.verify(data)
            case c.AUTH_MD5_PASSWORD if len(data) == md5.SALT_LENGTH:
                self._expected = frozenset({c.AUTH_OK})
                self.method = "md5"
                return messages.password_message(md5.response(self._md5_digest(), data))
            case c.AUTH_CLEARTEXT_PASSWORD if not data:
                self._expected = frozenset({c.AUTH_OK})
                self.method = "password"
                return messages.password_message(self._plain_password().raw)
            case c.AUTH_OK if not data:
                self._authenticated = True
                self.method = self.method or "trust"
            case _:
                raise ProtocolError(f"malformed authentication request {code} from the server")
        self._expected = frozenset({c.AUTH_OK})
        return b""

    def _begin_scram(self, data: bytes) -> bytes:
        offered = messages.sasl_mechanisms(data)
        channel = self._channel
        if MECHANISM_PLUS in offered and not channel.encrypted:
            raise LoginFailed(f"the server offers {MECHANISM_PLUS} over a connection without TLS")
        if MECHANISM_PLUS in offered and channel.endpoint and self._binding is not ChannelBinding.DISABLE:
            mechanism, header, endpoint = MECHANISM_PLUS, BOUND, channel.endpoint
        elif MECHANISM in offered:
            self._refuse_unbound(f"cannot bind: it offers {', '.join(offered)}")
            could_bind = channel.endpoint and self._binding is not ChannelBinding.DISABLE
            mechanism, header, endpoint = MECHANISM, BINDING_NOT_OFFERED if could_bind else UNBOUND, b""
        else:
            names = ", ".join(offered)
            raise LoginFailed(f"the server offers authentication with {names}, but not with {MECHANISM}")
        self.method = mechanism
        self._scram = ScramClient(self._scram_password(), header=header, endpoint=endpoint)
        return messages.sasl_initial_response(mechanism, self._scram.first())

    def _refuse_unbound(self, reason: str) -> None:
        """Give up if channel binding is required; `reason` says what the server does instead."""
        if self._binding is ChannelBinding.REQUIRE:
            raise LoginFailed(
                f"channel binding is required, but the server {reason}; use scram-sha-256 in its pg_hba.conf, with "
                "a certificate that is not signed with Ed25519"
            )

    def _stored_password(self) -> PlainPassword | MD5Digest | ScramVerifier:
        """What is known about the password: the password itself, if that is known at all."""
        known = [parse_secret(one.reveal()) for one in (self._password, self._shown.secret) if one]
        if not known:
            raise PasswordMissing(
                f'the server asks for the password of user "{self._user}", and none is configured: set '
                "`password` of the database or of the user, or add the user to `auth_file`"
            )
        return next((one for one in known if isinstance(one, PlainPassword)), known[-1])

    def _scram_password(self) -> str | ScramKeys:
        stored = self._stored_password()
        if isinstance(stored, PlainPassword):
            return stored.text
        if self._shown.keys is not None:
            return self._shown.keys
        raise self._needs_plain_password(KeysMissing if isinstance(stored, ScramVerifier) else LoginFailed)

    def _plain_password(self) -> PlainPassword:
        stored = self._stored_password()
        if not isinstance(stored, PlainPassword):
            raise self._needs_plain_password()
        return stored

    def _md5_digest(self) -> str:
        match self._stored_password():
            case PlainPassword() as stored:
                return md5.digest(stored.raw, encode(self._user))
            case MD5Digest(digest):
                return digest
            case _:
                raise self._needs_plain_password()

    def _needs_plain_password(self, kind: type[LoginFailed] = LoginFailed) -> LoginFailed:
        return kind(
            f'the server asks for the password of user "{self._user}", but only a hash of it is known: a plain '
            "password is needed to log in with this method, or a client that logs in with SCRAM for a server that does"
        )


def _refusal(body: bytes, *, authenticated: bool) -> LoginFailed:
    """Turn the server's ErrorResponse into an exception. No field can be relied on to be there."""
    fields = messages.error_fields(body)
    sqlstate = fields.get("C", "")
    return LoginFailed(
        fields.get("M") or "the server refused the login without a message",
        sqlstate if _SQLSTATE.fullmatch(sqlstate) else _REJECTED,
        messages.frame(c.ERROR_RESPONSE, body),
        authenticated=authenticated,
    )


def _unexpected(kind: int) -> ProtocolError:
    return ProtocolError(f"unexpected message type {kind:#04x} from the server during login")
