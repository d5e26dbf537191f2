"""The first packet of a connection, which has no type byte: a startup, or one of three requests.

Source: PostgreSQL documentation, "Message Flow", sections "Start-up", "Canceling Requests in Progress", "SSL
Session Encryption" and "GSSAPI Session Encryption"; the order of checks and the texts follow PostgreSQL's own
behaviour.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

import attrs

from hyperpool.errors import AuthenticationError, ProtocolError
from hyperpool.wire import constants as c
from hyperpool.wire.frames import MAX_STARTUP_PACKET
from hyperpool.wire.messages import (
    LONG_CANCEL_SECRET,
    MAX_CANCEL_SECRET,
    MIN_CANCEL_SECRET,
    negotiate_protocol_version,
)
from hyperpool.wire.text import take_cstring

NEWEST_MINOR: Final = 2
"""The newest minor version of protocol 3 that we speak, with clients and with servers."""

OLDEST_MINOR: Final = 0
"""The only other one: there is no protocol 3.1 (PostgreSQL docs, chapter "Frontend/Backend Protocol")."""

PROTOCOL_OPTION_PREFIX: Final = "_pq_."
"""Startup parameters with this prefix are protocol extensions, not settings of the session."""

_int32 = Struct("!I")

_REMEMBERED: Final = 256
"""Startup packets: the clients of one program send the same one each time. At most 10,000 bytes each."""


@attrs.frozen
class SSLRequest:
    """The client asks for TLS. Answer with one byte, S or N."""


@attrs.frozen
class GSSENCRequest:
    """The client asks for GSSAPI encryption. Answer with one byte, G or N."""


@attrs.frozen
class CancelRequest:
    """The client asks on this connection to cancel what another one is running. It gets no answer.

    Attributes:
        pid: the process ID of the other connection's BackendKeyData, unsigned.
        secret: its secret, 4 to 256 bytes; the caller compares it in constant time.
    """

    pid: int
    secret: bytes = attrs.field(repr=False)


@attrs.frozen(eq=False)
class StartupMessage:
    """The client asks for a session. Those who send the same share one, which nobody changes.

    Attributes:
        version: major (always 3) and minor protocol version that the client asks for.
        parameters: ``user``, ``database``, ``options`` and run-time parameters; of a name sent twice, the
            last value.
        protocol_options: the parameters whose names begin with ``_pq_.``, kept apart because they must never
            reach a server as settings.
    """

    version: tuple[int, int]
    parameters: dict[str, str]
    protocol_options: dict[str, str] = attrs.field(factory=dict)

    @property
    def minor(self) -> int:
        """The minor version that is spoken with this client: the newest that both sides know."""
        return NEWEST_MINOR if self.version[1] >= NEWEST_MINOR else OLDEST_MINOR

    @property
    def secret_length(self) -> int:
        """Bytes of the secret in the client's cancel key."""
        return LONG_CANCEL_SECRET if self.minor == NEWEST_MINOR else MIN_CANCEL_SECRET

    @property
    def user(self) -> str:
        """The user name."""
        return self.parameters["user"]

    @property
    def database(self) -> str:
        """The database name; as in PostgreSQL, the user name if it is missing or empty."""
        return self.parameters.get("database") or self.user


def parse_startup(packet: bytes) -> StartupMessage | SSLRequest | GSSENCRequest | CancelRequest:
    """Parse the first packet of a connection.

    Args:
        packet: the packet without its length field.

    Raises:
        ProtocolError: it is malformed, or asks for a major version other than 3.
        AuthenticationError: it names no user (28000).
    """
    if not 4 <= len(packet) <= MAX_STARTUP_PACKET:
        raise ProtocolError("invalid length of startup packet")
    (code,) = _int32.unpack_from(packet)
    if code == c.CANCEL_REQUEST:
        return _parse_cancel(packet)
    if code in {c.SSL_REQUEST, c.GSSENC_REQUEST}:
        if len(packet) != 4:
            raise ProtocolError("invalid length of encryption request")
        return SSLRequest() if code == c.SSL_REQUEST else GSSENCRequest()
    major, minor = code >> 16, code & 0xFFFF
    if major != 3:
        raise ProtocolError(
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}"
        )
    return _parse_parameters(packet, (major, minor))


def _parse_cancel(packet: bytes) -> CancelRequest:
    secret = packet[8:]
    if not MIN_CANCEL_SECRET <= len(secret) <= MAX_CANCEL_SECRET:
        raise ProtocolError("invalid length of cancel request packet")
    return CancelRequest(_int32.unpack_from(packet, 4)[0], secret)


@lru_cache(_REMEMBERED)
def _parse_parameters(packet: bytes, version: tuple[int, int]) -> StartupMessage:
    parameters: dict[str, str] = {}
    protocol_options: dict[str, str] = {}
    at = 4
    while at < len(packet) and packet[at]:
        name, at = take_cstring(packet, at)
        value, at = take_cstring(packet, at)
        if name.startswith(PROTOCOL_OPTION_PREFIX):
            protocol_options[name] = value
        else:
            parameters[name] = value
    if at != len(packet) - 1:
        raise ProtocolError("invalid startup packet layout: expected terminator as last byte")
    if not parameters.get("user"):
        raise AuthenticationError("no PostgreSQL user name specified in startup packet", "28000")
    return StartupMessage(version, parameters, protocol_options)


def negotiate(message: StartupMessage) -> bytes:
    """Answer a client that asks for a version that we do not speak, or for protocol options.

    The client decides whether to go on: libpq 19 asks on purpose for version 3.9999 and an option that nobody
    knows ("grease") and refuses a server that takes them without a word. It also refuses a version above the one
    that it asked for, and 3.1.

    Returns:
        A NegotiateProtocolVersion, to be sent before the first authentication request, or b"" if the client gets
        the version that it asks for, and asks for no protocol options.
    """
    if message.version[1] == message.minor and not message.protocol_options:
        return b""
    return negotiate_protocol_version(message.minor, list(message.protocol_options))
