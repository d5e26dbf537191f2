"""The step ``websocket``: a byte stream in the binary messages of a WebSocket (RFC 6455), through a gateway.

The handshake is made here with h11, the frames are `hyperpool.transport.framing` and the stream is
`hyperpool.transport.frames`. trio-websocket's connection is not used, for these reasons; it is a peer in the tests:

- It holds every message until it is complete, and the body of a refusal without a bound.
- Its reader task needs a nursery that outlives the call which opens the stream, and raises into that. A wrong
  ``Sec-WebSocket-Accept`` ends it with an error inside of h11.
- It answers a ping before it goes on receiving; two peers that both wait for the other to read stay so.
- Measured over loopback TCP (Python 3.11): a round trip of 100 and 300 bytes costs 55 microseconds of processor time
  with it and 30 with the stream here, a received MiB 1.8 ms and 0.7, a sent one 1.9 ms and 1.1.

No extension is offered, and no subprotocol unless the settings have the header for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import trio
from wsproto.utilities import generate_accept_token, generate_nonce

from hyperpool import __version__
from hyperpool.errors import ConnectFailed
from hyperpool.transport.answer import ask, host_header
from hyperpool.transport.frames import WebSocketStream

if TYPE_CHECKING:
    from hyperpool.config.transports import WebSocketStep
    from hyperpool.transport.answer import Answer
    from hyperpool.transport.kinds import DialContext

_BETWEEN: Final = re.compile(r"[\s;,=&]+")
"""What stands between the parts of a header's value, or of a query."""

_WORTH_HIDING: Final = 6
"""Characters of a text that nobody guesses; shorter ones are in every other address."""

_LOGIN_PATH: Final = "/cdn-cgi/access/login"
"""Where Cloudflare Access sends whom it does not know."""


async def open_websocket(
    step: WebSocketStep, below: trio.abc.Stream | None, context: DialContext
) -> trio.abc.Stream:
    """Open a WebSocket on the stream below, which becomes part of it. Failed or cancelled, that is closed.

    Raises:
        ConnectFailed: the gateway could not be asked, or refused; the message says what to do.
    """
    assert below is not None  # noqa: S101 - the settings see to it
    gateway = f"the WebSocket gateway {step.host}{step.path.partition('?')[0].rstrip('/')}"
    try:
        with context.trace.hop("websocket", step.host + step.path.partition("?")[0]) as hop:
            if step.token_id:
                hop.facts["token"] = "sent"  # noqa: S105 - it is none
            key = generate_nonce()
            answer = await ask(below, gateway, "GET", step.path, _headers(step, key))
            hop.facts["status"] = answer.title
            _check(step, gateway, answer, key)
    except BaseException:
        await trio.aclose_forcefully(below)
        raise
    return WebSocketStream(
        below,
        client=True,
        received=answer.rest,
        max_message=step.max_message,
        max_received=step.max_received,
        keepalive=step.keepalive,
        name=gateway,
    )


def _headers(step: WebSocketStep, key: bytes) -> list[tuple[str, bytes]]:
    """The headers of the request: RFC 6455, section 4.1, and what the settings add."""
    headers = [
        ("Host", host_header(step.host)),
        ("Upgrade", b"websocket"),
        ("Connection", b"Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", b"13"),
    ]
    given = {name.lower() for name, _ in step.headers}
    if "user-agent" not in given:
        headers.append(("User-Agent", f"hyperpool/{__version__}".encode()))
    if step.token_id and step.token_secret:
        headers.append(("CF-Access-Client-Id", _raw(step.token_id.reveal())))
        headers.append(("CF-Access-Client-Secret", _raw(step.token_secret.reveal())))
    return headers + [(name, _raw(value.reveal())) for name, value in step.headers]


def _raw(value: str) -> bytes:
    return value.encode(errors="surrogateescape")


def _check(step: WebSocketStep, gateway: str, answer: Answer, key: bytes) -> None:
    """Find out whether the answer opens the WebSocket.

    Raises:
        ConnectFailed: it does not; why, and what to do.
    """
    if answer.status != 101:
        raise ConnectFailed(f"{gateway} {_refusal(step, answer)}")
    headers = answer.headers
    upgrade = headers.get(b"upgrade", b"").lower()
    connection = [one.strip() for one in headers.get(b"connection", b"").lower().split(b",")]
    if upgrade != b"websocket" or b"upgrade" not in connection:
        raise ConnectFailed(f"{gateway} answered 101 without the headers of an upgrade: {_BAD_HANDSHAKE}")
    if headers.get(b"sec-websocket-accept") != generate_accept_token(key):
        raise ConnectFailed(f"{gateway} answered with a wrong Sec-WebSocket-Accept: {_BAD_HANDSHAKE}")
    if headers.get(b"sec-websocket-extensions", b"").strip():
        raise ConnectFailed(f"{gateway} turned on an extension that was not offered: {_BAD_HANDSHAKE}")
    offered = {
        one.strip()
        for name, value in step.headers
        if name.lower() == "sec-websocket-protocol"
        for one in _raw(value.reveal()).split(b",")
    }
    chosen = headers.get(b"sec-websocket-protocol")
    if chosen is not None and chosen not in offered:
        raise ConnectFailed(
            f"{gateway} chose a subprotocol that was not offered: add the header Sec-WebSocket-Protocol with the one "
            "that it wants"
        )


_BAD_HANDSHAKE: Final = (
    "bad handshake; it is no WebSocket server, or a proxy or cache on the way answered in its place"
)

_REFUSALS: Final = {
    400: "if it wants TLS use wss://, else check host, path and headers",
    401: "it wants other credentials; check token_id, token_secret and headers",
    404: "there is no WebSocket service at this path, or no such target for this token; check path and host",
    405: "there is no WebSocket service at this path; check path and host, and that a reverse proxy there passes on "
    "Upgrade and Connection",
    407: "this is a proxy that wants credentials; use a proxy step with user and password",
    426: "it speaks no HTTP/1.1 WebSockets (version 13) here; check path and host, and that a reverse proxy there "
    "passes on Upgrade and Connection",
    429: "it wants fewer connections; lower pool sizes, or wait",
    502: "what it forwards to cannot be reached from there; check that this runs, and the log there",
    503: "what it forwards to is not there; check that this runs, and the log there",
    504: "what it forwards to did not answer; check that this runs, and the log there",
    530: "the tunnel behind it is not connected; check that its connector (cloudflared) runs",
}


def _refusal(step: WebSocketStep, answer: Answer) -> str:
    """Why there is no WebSocket, and what to do, as the end of a sentence."""
    title, status, with_token = answer.title, answer.status, bool(step.token_id)
    if 300 <= status < 400:
        return _redirect(step, answer)
    if status == 200:
        return (
            f"answered with a page ({title}) instead of a WebSocket: check path and host, and that the reverse proxy "
            "there passes on Upgrade and Connection"
        )
    if status == 403:
        remedy = (
            "check token_id and token_secret, the token's expiry, and that the policy there lets it in"
            if with_token
            else "add token_id and token_secret"
        )
        return f"refused {'the service token' if with_token else 'to let us in without a token'} ({title}): {remedy}"
    remedy = _REFUSALS.get(status, "check host and path, and the logs there")
    return f"refused ({title}): {remedy}"


def _redirect(step: WebSocketStep, answer: Answer) -> str:
    location = answer.location()
    path = location.partition("://")[2].partition("/")[2] if "://" in location else location.removeprefix("/")
    if f"/{path}".startswith(_LOGIN_PATH):
        if not step.token_id:
            return (
                f"wants a service token ({answer.status} to an Access login): add token_id and token_secret"
            )
        return (
            f"refused the service token ({answer.status} to an Access login): check token_id and token_secret, the "
            "token's expiry, and that a policy with the action Service Auth lets it in"
        )
    where = f" to {location}" if location and not _holds_secret(step, location) else ""
    return (
        f"answered with a redirect ({answer.title}){where}: put the WebSocket's own address into the settings"
    )


def _holds_secret(step: WebSocketStep, place: str) -> bool:
    """Whether something that was sent has come back, or a part of it, such as one cookie or a bearer token."""
    sent = [step.token_id, step.token_secret, *(value for _, value in step.headers)]
    texts = [step.path.partition("?")[2], *(one.reveal() for one in sent if one is not None)]
    parts = {part for text in texts for part in (text, *_BETWEEN.split(text))}
    secrets = {form.lower() for part in parts for form in (part, unquote(part)) if len(form) >= _WORTH_HIDING}
    found = {place.lower(), unquote(place).lower()}
    return any(secret in one for secret in secrets for one in found)
