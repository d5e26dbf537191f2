"""The server's side of a WebSocket's opening handshake (RFC 6455, section 4.2), up to the decision whom to let in.

What an unauthenticated peer can cause here: so many bytes are read, and one answer without a body is sent.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11
from wsproto.utilities import generate_accept_token

from hyperpool.auth.tokens import ID_HEADER, SECRET_HEADER
from hyperpool.errors import HyperpoolError

if TYPE_CHECKING:
    import trio

_RECEIVE_SIZE: Final = 4096
_KEY_LENGTH: Final = 16


class Refused(HyperpoolError):
    """A peer is not let in.

    Args:
        message: why, for the log.
        status: of the HTTP response; 0 when the peer does not speak HTTP, or says nothing at all.
        noteworthy: whether the log should have it as a warning.
    """

    def __init__(self, message: str, status: int = 0, *, noteworthy: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.noteworthy = noteworthy


@attrs.frozen
class UpgradeRequest:
    """What a peer asks for.

    Attributes:
        method: GET, for a WebSocket.
        path: of the URL, without percent-encoding.
        query: of the URL; the first value of each name.
        token_id: what it presents; empty for nothing.
        token_secret: what it presents; empty for nothing.
        headers: all, by their names in lower case.
    """

    method: bytes
    path: str
    query: dict[str, str]
    token_id: bytes
    token_secret: bytes = attrs.field(repr=False)
    headers: dict[bytes, bytes] = attrs.field(repr=False)


class Handshake:
    """One opening handshake on a stream: `receive`, then either `accept` or `refuse`.

    Args:
        stream: from the peer; it stays the caller's.
        max_size: bytes of the request at most.
    """

    def __init__(self, stream: trio.abc.Stream, max_size: int) -> None:
        self._stream = stream
        self._left = max_size
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=max_size)
        self._request: h11.Request | None = None
        self._may_switch = False

    async def receive(self) -> UpgradeRequest:
        """Read the request. It is not yet known to be one for a WebSocket: see `check`.

        Raises:
            Refused: the peer does not speak HTTP/1.1, says too much, or has gone.
            trio.BrokenResourceError: the stream broke.
        """
        self._request = request = await self._next_event()
        names = [name for name, _ in request.headers]
        for name in (ID_HEADER, SECRET_HEADER, b"sec-websocket-key", b"sec-websocket-version"):
            if names.count(name) > 1:
                raise Refused(f"the header {name.decode()} stands there more than once", 400)
        headers = dict(request.headers)
        try:
            url = urlsplit(request.target.decode("ascii"))
            query = {name: values[0] for name, values in parse_qs(url.query, max_num_fields=32).items()}
        except ValueError:
            raise Refused("the request's target is not a URL", 400) from None
        return UpgradeRequest(
            method=request.method,
            path=unquote(url.path),
            query=query,
            token_id=headers.get(ID_HEADER, b""),
            token_secret=headers.get(SECRET_HEADER, b""),
            headers=headers,
        )

    def check(self) -> None:
        """Check that what was received asks for a WebSocket.

        Raises:
            Refused: it does not, or for a version other than 13.
        """
        request = self._request
        assert request is not None  # noqa: S101 - received before
        headers = dict(request.headers)
        if (
            request.method != b"GET"
            or request.http_version < b"1.1"
            or headers.get(b"upgrade", b"").lower() != b"websocket"
            or b"upgrade" not in map(bytes.strip, headers.get(b"connection", b"").lower().split(b","))
            or not self._may_switch
        ):
            raise Refused("the request is not one for a WebSocket", 426)
        if headers.get(b"sec-websocket-version") != b"13":
            raise Refused("the request is for another version of the WebSocket protocol than 13", 426)
        try:
            key = base64.b64decode(headers.get(b"sec-websocket-key", b""), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_LENGTH:
            raise Refused("the request has no valid Sec-WebSocket-Key", 400)

    async def accept(self) -> bytes:
        """Answer that the WebSocket is open.

        Returns:
            What the peer sent behind its request: the beginning of its frames.
        """
        assert self._request is not None  # noqa: S101 - checked before
        key = dict(self._request.headers)[b"sec-websocket-key"]
        response = h11.InformationalResponse(
            status_code=101,
            headers=[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", generate_accept_token(key).decode()),
            ],
            reason=b"Switching Protocols",
        )
        await self._send(response)
        return self._http.trailing_data[0]

    async def respond(self, status: int, body: bytes = b"") -> None:
        """Answer with anything else; the connection is to be closed afterwards."""
        headers = [("Content-Length", str(len(body))), ("Connection", "close")]
        if body:
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        if status == 426:
            headers += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        if self._request is not None and self._request.method == b"HEAD":
            body = b""  # The headers are those of a GET (RFC 9110, section 9.3.2).
        await self._send(
            h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        )

    async def _next_event(self) -> h11.Request:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(min(self._left, _RECEIVE_SIZE)) if self._left else None
                if data is None:
                    raise Refused("the request is too long", 431)
                self._left -= len(data)
                self._http.receive_data(bytes(data))
            if not isinstance(event, h11.Request):
                raise Refused("it left without a request", noteworthy=False)
            # A body is not read. Behind a request without one that asks for it, the protocol can be switched.
            self._may_switch = (
                isinstance(self._http.next_event(), h11.EndOfMessage)
                and self._http.next_event() is h11.PAUSED
            )
        except h11.RemoteProtocolError as error:
            # h11's own words may hold a line of the request, and so a secret.
            raise Refused("what it sent is not an HTTP/1.1 request", error.error_status_hint) from None
        return event

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        await self._stream.send_all(data)
