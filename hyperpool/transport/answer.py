"""Asking an HTTP/1.1 server for a byte stream, and understanding why it gives none.

What the peer says is never shown as it is: what it was sent holds secrets, and it may be an echo of that.
"""

from __future__ import annotations

import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs
import h11
import trio

from hyperpool.errors import ConnectFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

_RECEIVE_SIZE: Final = 16384
_MAX_ANSWER: Final = 65536
"""Bytes of an answer's status line and headers, also of all interim answers together."""
_TIMEOUT: Final = 10.0
"""Seconds that an answer may take."""
_MAX_SHOWN: Final = 200

_TO_TLS: Final = {
    "GET": ("use wss:// instead of ws://, or put a tls step below", "wss:// instead of ws://"),
    "CONNECT": ("use https:// instead of http:// in its url", "https:// instead of http://"),
}
"""How the settings turn to TLS, by the method that is asked with: as a remedy, and in short."""


@attrs.frozen
class Answer:
    """What a server answered, up to the end of the headers.

    Attributes:
        status: its code.
        headers: all, by their names in lower case; what stands there several times has commas between.
        rest: what was received behind the headers.
    """

    status: int
    headers: Mapping[bytes, bytes] = attrs.field(repr=False)
    rest: bytes = attrs.field(repr=False)

    @property
    def title(self) -> str:
        """The status with its meaning: ``403 Forbidden``."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)

    def location(self) -> str:
        """Where a redirect leads to, without query and user, as these may be secret; empty if that is not plain."""
        try:
            given = self.headers.get(b"location", b"").decode("ascii")
            parts = urlsplit(given if given.isprintable() else "")
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return ""
        if not parts.scheme or not host:
            found = parts.path
        else:
            shown = f"[{host}]" if ":" in host else host
            found = f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path}"
        return found if len(found) <= _MAX_SHOWN else ""


def host_header(authority: str) -> bytes:
    """A host name, or host and port, as it stands in a request: other scripts as in the DNS.

    Raises:
        ConnectFailed: it is not a host name.
    """
    if authority.isascii():
        return authority.encode()
    host, colon, port = authority.partition(":")
    try:
        return host.encode("idna") + f"{colon}{port}".encode("ascii")
    except UnicodeError:
        raise ConnectFailed(f"{authority} is not a valid host name") from None


async def ask(
    below: trio.abc.Stream,
    whom: str,
    method: str,
    target: str,
    headers: list[tuple[str, bytes]],
    timeout: float = _TIMEOUT,
) -> Answer:
    """Send a request without a body, and receive the answer's headers.

    Args:
        below: to the server; it stays the caller's.
        whom: what messages call the server.
        method: GET or CONNECT.
        target: the request's target.
        headers: all of the request's; the values may be secret.
        timeout: seconds that it may take.

    Raises:
        ConnectFailed: no answer could be had, or it was not HTTP/1.1.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER)
    try:
        request = h11.Request(
            method=method, target=target, headers=[(name.encode(), value) for name, value in headers]
        )
        data = connection.send(request) or b""
        data += connection.send(h11.EndOfMessage()) or b""
    except h11.LocalProtocolError:
        # h11's own message shows the value.
        raise ConnectFailed(
            f"cannot ask {whom}: a header, a token or the path has characters that HTTP does not allow there"
        ) from None
    try:
        with trio.fail_after(timeout):
            await below.send_all(data)
            return await _receive(below, whom, method, connection)
    except trio.TooSlowError:
        raise ConnectFailed(
            f"{whom} did not answer within {timeout:g} s: check host and port, and what stands behind it"
        ) from None
    except trio.BrokenResourceError as error:
        reset = isinstance(error.__cause__, ConnectionResetError)
        remedy = f": {_whether_tls(method)}" if reset else ""
        raise ConnectFailed(
            f"the connection to {whom} broke before it answered: {_reason(error)}{remedy}"
        ) from error


async def _receive(below: trio.abc.Stream, whom: str, method: str, connection: h11.Connection) -> Answer:
    start, total = b"", 0
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if total > _MAX_ANSWER:
                    raise ConnectFailed(_too_long(whom))
                data = bytes(await below.receive_some(_RECEIVE_SIZE))
                if not data:
                    raise ConnectFailed(_ended(whom, method, start))
                start, total = start or data, total + len(data)
                connection.receive_data(data)
            elif isinstance(event, h11.Response) or _is_switch(event):
                return _answer(event, connection)
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectFailed(_not_http(whom, method, start))
    except h11.RemoteProtocolError as error:
        # Without h11's own message, which shows what was received.
        too_long = error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise ConnectFailed(_too_long(whom) if too_long else _not_http(whom, method, start)) from None


def _is_switch(event: object) -> bool:
    return (
        isinstance(event, h11.InformationalResponse) and event.status_code == HTTPStatus.SWITCHING_PROTOCOLS
    )


def _answer(event: object, connection: h11.Connection) -> Answer:
    assert isinstance(event, h11.Response | h11.InformationalResponse)  # noqa: S101 - for the type checker
    headers: dict[bytes, bytes] = {}
    for name, value in event.headers:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return Answer(event.status_code, headers, connection.trailing_data[0])


def _reason(error: trio.BrokenResourceError) -> str:
    """Why a stream broke. With TLS 1.3 a server's verdict on our certificate arrives after the handshake."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and cause.reason:
        reason = cause.reason.lower().replace("_", " ")
        wanted = "certificate" in reason
        return f"{reason}{': check cert_file and key_file of the tls step' if wanted else ''}"
    return str(error) or str(cause or "no reason is known")


def _too_long(whom: str) -> str:
    return f"{whom} answered with more than {_MAX_ANSWER} bytes of headers: check host and port"


def _whether_tls(method: str) -> str:
    return f"check host and port, and whether TLS is wanted there ({_TO_TLS[method][1]}) or not"


def _ended(whom: str, method: str, start: bytes) -> str:
    if start:
        return f"{whom} ended the connection in the middle of its answer"
    return f"{whom} ended the connection without an answer: {_whether_tls(method)}"


def _not_http(whom: str, method: str, start: bytes) -> str:
    """Tell what the peer is by the first bytes that it sent."""
    if start[:2] in {b"\x15\x03", b"\x16\x03"}:
        return f"{whom} speaks TLS: {_TO_TLS[method][0]}"
    # A connection of HTTP/2 begins with a SETTINGS frame, type 4 on stream 0 (RFC 9113, section 3.4).
    if start.startswith(b"HTTP/2") or (start[3:4] == b"\x04" and start[5:9] == bytes(4)):
        return f"{whom} speaks HTTP/2 only: let it speak HTTP/1.1, too, which is what we ask in"
    return f"{whom} answered with something other than HTTP/1.1: check host and port"
