"""Messages: builders of complete frames, and parsers of the bodies that we look into.

Source: PostgreSQL documentation, "Message Formats". A builder refuses what it could not send faithfully (a
zero byte in a string, a number out of range) with `ProtocolError`; a parser refuses every body that is not
exactly what the format says, so nothing hides behind the last field.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from hyperpool.errors import ProtocolError
from hyperpool.wire import constants as c
from hyperpool.wire.frames import MAX_STARTUP_PACKET
from hyperpool.wire.text import cstring, take_cstring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIN_CANCEL_SECRET: Final = 4
MAX_CANCEL_SECRET: Final = 256
"""Bytes of a cancel key's secret: 4 in protocol 3.0, up to 256 since 3.2."""

LONG_CANCEL_SECRET: Final = 32
"""Bytes of the secret that we give to a client that speaks 3.2, as many as PostgreSQL 18 gives."""

_MAX_LENGTH: Final = 0x7FFFFFFF
_header = Struct("!BI")
_int32 = Struct("!I")


def frame(kind: int, body: bytes = b"") -> bytes:
    """Build a complete message out of its type byte and its body.

    Raises:
        ProtocolError: the body is too long for the length field, a positive Int32.
    """
    if len(body) + 4 > _MAX_LENGTH:
        raise ProtocolError(f"a message of {len(body)} bytes is longer than the protocol allows")
    return _header.pack(kind, len(body) + 4) + body


TERMINATE: Final = frame(c.TERMINATE)
"""The complete Terminate message."""

SYNC: Final = frame(c.SYNC)
"""The complete Sync message."""


def _uint32(value: int, what: str) -> bytes:
    if not 0 <= value <= 0xFFFFFFFF:
        raise ProtocolError(f"{what} does not fit into 32 bits: {value}")
    return _int32.pack(value)


def _check_cancel_secret(secret: bytes) -> bytes:
    if not MIN_CANCEL_SECRET <= len(secret) <= MAX_CANCEL_SECRET:
        raise ProtocolError(
            f"a cancel key must have {MIN_CANCEL_SECRET} to {MAX_CANCEL_SECRET} bytes, not {len(secret)}"
        )
    return secret


# -- What a backend sends ------------------------------------------------------------------------------------


def error_response(
    message: str, sqlstate: str, severity: str = "FATAL", detail: str = "", hint: str = ""
) -> bytes:
    """Build an ErrorResponse.

    Args:
        message: the primary message, one line.
        sqlstate: the five-character SQLSTATE.
        severity: ERROR, FATAL or PANIC; sent as the localized field S and the stable field V.
        detail: optional secondary message.
        hint: optional suggestion what to do.

    Raises:
        ProtocolError: a string holds a zero byte.
    """
    return _report(c.ERROR_RESPONSE, message, sqlstate, severity, detail, hint)


def notice_response(
    message: str, sqlstate: str, severity: str = "WARNING", detail: str = "", hint: str = ""
) -> bytes:
    """Build a NoticeResponse.

    Arguments and errors are those of `error_response`; the severity is WARNING, NOTICE, DEBUG, INFO or LOG.
    """
    return _report(c.NOTICE_RESPONSE, message, sqlstate, severity, detail, hint)


def _report(kind: int, message: str, sqlstate: str, severity: str, detail: str, hint: str) -> bytes:
    fields = [
        b"S" + cstring(severity),
        b"V" + cstring(severity),
        b"C" + cstring(sqlstate),
        b"M" + cstring(message),
    ]
    if detail:
        fields.append(b"D" + cstring(detail))
    if hint:
        fields.append(b"H" + cstring(hint))
    return frame(kind, b"".join(fields) + b"\x00")


def _authentication(code: int, data: bytes = b"") -> bytes:
    return frame(c.AUTHENTICATION, _int32.pack(code) + data)


_OK: Final = _authentication(c.AUTH_OK)


def authentication_ok() -> bytes:
    """Build AuthenticationOk."""
    return _OK


def authentication_cleartext_password() -> bytes:
    """Build AuthenticationCleartextPassword."""
    return _authentication(c.AUTH_CLEARTEXT_PASSWORD)


def authentication_md5_password(salt: bytes) -> bytes:
    """Build AuthenticationMD5Password.

    Raises:
        ProtocolError: the salt has not exactly four bytes.
    """
    if len(salt) != 4:
        raise ProtocolError(f"an MD5 salt must have 4 bytes, not {len(salt)}")
    return _authentication(c.AUTH_MD5_PASSWORD, salt)


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """Build AuthenticationSASL, which offers SASL mechanisms, the preferred first.

    Raises:
        ProtocolError: a name is empty, which would end the list early, or holds a zero byte.
    """
    if "" in mechanisms:
        raise ProtocolError("the name of a SASL mechanism must not be empty")
    return _authentication(c.AUTH_SASL, b"".join(map(cstring, mechanisms)) + b"\x00")


def authentication_sasl_continue(data: bytes) -> bytes:
    """Build AuthenticationSASLContinue with a mechanism's challenge."""
    return _authentication(c.AUTH_SASL_CONTINUE, data)


def authentication_sasl_final(data: bytes) -> bytes:
    """Build AuthenticationSASLFinal with a mechanism's outcome."""
    return _authentication(c.AUTH_SASL_FINAL, data)


def parameter_status(name: str, value: str) -> bytes:
    """Build a ParameterStatus.

    Raises:
        ProtocolError: a string holds a zero byte.
    """
    return frame(c.PARAMETER_STATUS, cstring(name) + cstring(value))


def backend_key_data(pid: int, secret: bytes) -> bytes:
    """Build a BackendKeyData.

    Args:
        pid: the process ID, 32 bits, unsigned.
        secret: the cancel key; exactly four bytes for a frontend that speaks 3.0, up to 256 for 3.2.

    Raises:
        ProtocolError: a value is out of range.
    """
    return frame(c.BACKEND_KEY_DATA, _uint32(pid, "a process ID") + _check_cancel_secret(secret))


def ready_for_query(status: bytes = b"I") -> bytes:
    """Build a ReadyForQuery.

    Args:
        status: b"I" idle, b"T" in a transaction, b"E" in a failed transaction.

    Raises:
        ProtocolError: another status.
    """
    if status not in {b"I", b"T", b"E"}:
        raise ProtocolError(f"ReadyForQuery has no transaction status {status!r}")
    return frame(c.READY_FOR_QUERY, status)


def negotiate_protocol_version(minor: int, unrecognized: Sequence[str]) -> bytes:
    """Build a NegotiateProtocolVersion.

    PostgreSQL and libpq put the whole version into the first field, the major version in its upper half,
    although the documentation's wording suggests the minor version alone.

    Args:
        minor: the minor version of protocol 3 to go on with, not above the one asked for.
        unrecognized: names of the ``_pq_.`` options that we do not know.

    Raises:
        ProtocolError: the minor version does not fit into 16 bits, or a name holds a zero byte.
    """
    if not 0 <= minor <= 0xFFFF:
        raise ProtocolError(f"not a minor protocol version: {minor}")
    names = b"".join(map(cstring, unrecognized))
    return frame(
        c.NEGOTIATE_PROTOCOL_VERSION,
        _int32.pack(c.PROTOCOL_3_0 | minor) + _int32.pack(len(unrecognized)) + names,
    )


# -- What a frontend sends -----------------------------------------------------------------------------------


def startup_message(params: Mapping[str, str], version: tuple[int, int] = (3, 0)) -> bytes:
    """Build a StartupMessage, with its length field.

    Args:
        params: ``user``, ``database`` and run-time parameters, in the order to be sent.
        version: major and minor protocol version.

    Raises:
        ProtocolError: a name is empty, which would end the list early; a string holds a zero byte; or the
            packet is longer than any PostgreSQL accepts.
    """
    if "" in params:
        raise ProtocolError("the name of a startup parameter must not be empty")
    pairs = b"".join(cstring(name) + cstring(value) for name, value in params.items())
    packet = _uint32(version[0] << 16 | version[1], "a protocol version") + pairs + b"\x00"
    if len(packet) > MAX_STARTUP_PACKET:
        raise ProtocolError(
            f"the startup parameters take {len(packet)} bytes; PostgreSQL accepts {MAX_STARTUP_PACKET}"
        )
    return _int32.pack(len(packet) + 4) + packet


def cancel_request(pid: int, secret: bytes) -> bytes:
    """Build a CancelRequest, with its length field; arguments and errors as in `backend_key_data`."""
    body = _int32.pack(c.CANCEL_REQUEST) + _uint32(pid, "a process ID") + _check_cancel_secret(secret)
    return _int32.pack(len(body) + 4) + body


def password_message(password: bytes) -> bytes:
    """Build a PasswordMessage.

    Args:
        password: the cleartext password, or the response to an MD5 challenge, without a terminator.

    Raises:
        ProtocolError: it holds a zero byte.
    """
    if 0 in password:
        raise ProtocolError("a password must not contain a zero byte")
    return frame(c.PASSWORD_MESSAGE, password + b"\x00")


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """Build a SASLInitialResponse: the mechanism chosen, and its first message.

    Raises:
        ProtocolError: the mechanism's name holds a zero byte.
    """
    return frame(c.SASL_INITIAL_RESPONSE, cstring(mechanism) + _int32.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """Build a SASLResponse with a mechanism's next message."""
    return frame(c.SASL_RESPONSE, data)


def query(sql: str) -> bytes:
    """Build a Query of the simple protocol.

    Raises:
        ProtocolError: the text holds a zero byte.
    """
    return frame(c.QUERY, cstring(sql))


# -- Bodies --------------------------------------------------------------------------------------------------


def error_fields(body: bytes) -> dict[str, str]:
    """Parse the body of an ErrorResponse or NoticeResponse.

    Returns:
        The fields by their one-letter codes (S severity, V severity not localized, C SQLSTATE, M message,
        D detail, H hint, ...). Any of them may be missing: what a server leaves out is not made up here.

    Raises:
        ProtocolError: a field is not terminated, the list is not, or something follows it.
    """
    fields: dict[str, str] = {}
    at = 0
    while at < len(body) and body[at]:
        code = chr(body[at])
        fields[code], at = take_cstring(body, at + 1)
    if at != len(body) - 1:
        raise ProtocolError("malformed error or notice message: expected a terminator as its last byte")
    return fields


def parameter_status_fields(body: bytes) -> tuple[str, str]:
    """Parse the body of a ParameterStatus.

    Returns:
        The parameter's name and its value.

    Raises:
        ProtocolError: it is not two terminated strings.
    """
    name, at = take_cstring(body, 0)
    value, at = take_cstring(body, at)
    _expect_end(body, at, "ParameterStatus")
    return name, value


def backend_key_fields(body: bytes) -> tuple[int, bytes]:
    """Parse the body of a BackendKeyData.

    Returns:
        The process ID, unsigned, and the cancel key's secret.

    Raises:
        ProtocolError: the secret has less than 4 or more than 256 bytes.
    """
    if len(body) < 4:
        raise ProtocolError("BackendKeyData is too short")
    return _int32.unpack_from(body)[0], _check_cancel_secret(body[4:])


def ready_for_query_status(body: bytes) -> bytes:
    """Parse the body of a ReadyForQuery.

    Returns:
        The transaction status: b"I", b"T" or b"E".

    Raises:
        ProtocolError: anything else.
    """
    if body not in {b"I", b"T", b"E"}:
        raise ProtocolError("ReadyForQuery carries no valid transaction status")
    return body


def authentication_fields(body: bytes) -> tuple[int, bytes]:
    """Parse the body of an Authentication message.

    Returns:
        The code of the request (``AUTH_...`` in `hyperpool.wire.constants`) and the data after it.

    Raises:
        ProtocolError: it is too short.
    """
    if len(body) < 4:
        raise ProtocolError("an authentication request is too short")
    return _int32.unpack_from(body)[0], body[4:]


def sasl_mechanisms(data: bytes) -> list[str]:
    """Parse the data of an AuthenticationSASL.

    Returns:
        The mechanisms offered, the preferred first.

    Raises:
        ProtocolError: the list is not terminated, or something follows it.
    """
    mechanisms = []
    at = 0
    while at < len(data) and data[at]:
        mechanism, at = take_cstring(data, at)
        mechanisms.append(mechanism)
    if at != len(data) - 1:
        raise ProtocolError("malformed list of SASL mechanisms: expected a terminator as its last byte")
    return mechanisms


def negotiate_protocol_version_fields(body: bytes) -> tuple[int, list[str]]:
    """Parse the body of a NegotiateProtocolVersion.

    Returns:
        The protocol version offered, major version in the upper half, and the options not recognized.

    Raises:
        ProtocolError: the list of options does not have the announced length.
    """
    if len(body) < 8:
        raise ProtocolError("NegotiateProtocolVersion is too short")
    version, count = _int32.unpack_from(body)[0], _int32.unpack_from(body, 4)[0]
    options = []
    at = 8
    # Whatever the count says, this ends at the latest when the body does.
    for _ in range(count):
        option, at = take_cstring(body, at)
        options.append(option)
    _expect_end(body, at, "NegotiateProtocolVersion")
    return version, options


def password_fields(body: bytes) -> bytes:
    """Parse the body of a PasswordMessage.

    Returns:
        The password, or the response to an MD5 challenge, without its terminator.

    Raises:
        ProtocolError: it is not exactly one terminated string.
    """
    if not body or body.find(0) != len(body) - 1:
        raise ProtocolError("invalid password packet size")
    return body[:-1]


def sasl_initial_response_fields(body: bytes) -> tuple[str, bytes | None]:
    """Parse the body of a SASLInitialResponse.

    Returns:
        The mechanism chosen, and its first message, or None if the frontend sent none (length -1).

    Raises:
        ProtocolError: the message does not have the announced length.
    """
    mechanism, at = take_cstring(body, 0)
    if len(body) - at < 4:
        raise ProtocolError("SASLInitialResponse is too short")
    length, data = _int32.unpack_from(body, at)[0], body[at + 4 :]
    if length == 0xFFFFFFFF and not data:
        return mechanism, None
    if length != len(data):
        raise ProtocolError("SASLInitialResponse does not hold as many bytes as it announces")
    return mechanism, data


def _expect_end(body: bytes, at: int, what: str) -> None:
    if at != len(body):
        raise ProtocolError(f"{what} goes on after its last field")
