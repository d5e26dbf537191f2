"""The opening handshake of a WebSocket: what is asked, and what every kind of refusal tells the operator."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio_websocket
from wsproto.utilities import generate_accept_token

from hyperpool import __version__
from hyperpool.config.secret import Secret
from hyperpool.config.transports import WebSocketStep
from hyperpool.errors import ConnectFailed
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from hyperpool.transport.websocket import open_websocket
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


pytestmark = pytest.mark.usefixtures("nothing_left_open")

TOKEN = "tok-5f2a9e"
SECRET = "sec-81c4d7"
HEADER = "hdr-b7e360"
STEP = WebSocketStep(
    host="gw.example.com",
    path="/db?key=path-41b7",
    token_id=Secret(TOKEN),
    token_secret=Secret(SECRET),
    headers=(("X-Api-Key", Secret(HEADER)),),
)
HIDDEN = (TOKEN, SECRET, HEADER, "path-41b7")
ACCEPTED = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def make_context() -> DialContext:
    """What a step is given."""
    return DialContext(options=TcpOptions(), resolver=Resolver(0, 0))


def accept(request: bytes) -> bytes:
    """The header that answers a request."""
    (key,) = (
        line.partition(b": ")[2] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")
    )
    return b"Sec-WebSocket-Accept: " + generate_accept_token(key) + b"\r\n"


async def open_at(
    answer: Callable[[bytes], bytes] | bytes,
    step: WebSocketStep = STEP,
    *,
    ends: bool = True,
    chunk: int = 2**20,
) -> tuple[trio.abc.Stream, PlainStream, bytes]:
    """Open a WebSocket at a gateway that answers like this; also returns its end and what it was asked."""
    left, right = (PlainStream(sock) for sock in socket.socketpair())
    request = b""

    async def gateway() -> None:
        nonlocal request
        while b"\r\n\r\n" not in request:
            request += await right.receive_some()
        data = answer if isinstance(answer, bytes) else answer(request)
        with contextlib.suppress(trio.BrokenResourceError):
            for at in range(0, len(data), chunk):
                await right.send_all(data[at : at + chunk])
        if ends:
            await right.send_eof()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway)
            stream = await open_websocket(step, left, make_context())
    except BaseExceptionGroup as group:
        await right.aclose()
        raise group.exceptions[0] from None
    return stream, right, request


async def refusal(answer: Callable[[bytes], bytes] | bytes, step: WebSocketStep = STEP) -> str:
    """The message of the failure, which holds nothing that is secret, as does nothing that belongs to it."""
    with pytest.raises(ConnectFailed) as caught:
        await open_at(answer, step)
    error: BaseException | None = caught.value
    while error is not None:
        for hidden in HIDDEN:
            assert hidden not in f"{error!s} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return str(caught.value)


def http(status: str, *headers: str, body: str = "") -> bytes:
    """An answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]).encode()


async def test_the_request() -> None:
    """An upgrade of HTTP/1.1, with the token, and without extensions and subprotocols."""
    stream, right, request = await open_at(
        lambda asked: ACCEPTED.encode() + accept(asked) + b"\r\n\x82\x02hi", ends=False
    )
    async with stream, right:
        lines = request.decode().split("\r\n")
        key = next(line for line in lines if line.startswith("Sec-WebSocket-Key: "))
        assert len(key) == len("Sec-WebSocket-Key: ") + 24
        assert lines == [
            "GET /db?key=path-41b7 HTTP/1.1",
            "Host: gw.example.com",
            "Upgrade: websocket",
            "Connection: Upgrade",
            key,
            "Sec-WebSocket-Version: 13",
            f"User-Agent: hyperpool/{__version__}",
            f"CF-Access-Client-Id: {TOKEN}",
            f"CF-Access-Client-Secret: {SECRET}",
            f"X-Api-Key: {HEADER}",
            "",
            "",
        ]
        assert await stream.receive_some() == b"hi"


@pytest.mark.parametrize("chunk", [1, 7, 100])
async def test_the_answer_may_come_in_pieces(chunk: int) -> None:
    """Also behind interim answers, and together with frames."""
    stream, right, _ = await open_at(
        lambda asked: (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            + ACCEPTED.upper().encode()
            + accept(asked).replace(b"Sec-WebSocket-Accept", b"sec-websocket-ACCEPT")
            + b"\r\n\x82\x02hi"
        ),
        chunk=chunk,
    )
    async with stream, right:
        received = b""
        while data := await stream.receive_some():
            received += data
        assert received == b"hi"


async def test_headers_of_the_settings_come_last_and_may_replace_the_user_agent() -> None:
    """Nothing else of the handshake's own can be set."""
    step = WebSocketStep(host="gw:81", headers=(("user-agent", Secret("probe/1")), ("A", Secret("ä"))))
    stream, right, request = await open_at(
        lambda asked: ACCEPTED.encode() + accept(asked) + b"\r\n", step, ends=False
    )
    async with stream, right:
        assert request.endswith(b"\r\nuser-agent: probe/1\r\nA: \xc3\xa4\r\n\r\n")
        assert request.lower().count(b"user-agent") == 1
        assert b"CF-Access" not in request
        assert b"\r\nHost: gw:81\r\n" in request


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\0", " a", "a\n"])
async def test_a_secret_cannot_smuggle_headers(value: str) -> None:
    """What HTTP does not allow is refused, and not shown."""
    for step in (
        attrs.evolve(STEP, token_secret=Secret(SECRET + value)) if value.strip() == value else None,
        attrs.evolve(STEP, headers=(("X", Secret(HEADER + value if value[0] != " " else value)),)),
    ):
        if step is not None:
            assert "characters that HTTP does not allow" in await refusal(b"", step)


async def test_host_names_in_other_scripts() -> None:
    """They stand in the request as in the DNS."""
    step = WebSocketStep(host="www.bücher:8443")
    stream, right, request = await open_at(
        lambda asked: ACCEPTED.encode() + accept(asked) + b"\r\n", step, ends=False
    )
    async with stream, right:
        assert b"\r\nHost: www.xn--bcher-kva:8443\r\n" in request
    assert "not a valid host name" in await refusal(b"", WebSocketStep(host="ä" * 80))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("200 OK", "a page (200 OK) instead of a WebSocket: check path and host, and that the reverse proxy"),
        ("204 No Content", "refused (204 No Content)"),
        ("400 Bad Request", "refused (400 Bad Request): if it wants TLS use wss://"),
        ("401 Unauthorized", "refused (401 Unauthorized): it wants other credentials; check token_id"),
        (
            "403 Forbidden",
            "refused the service token (403 Forbidden): check token_id and token_secret, the token's expiry, and",
        ),
        ("404 Not Found", "no WebSocket service at this path, or no such target for this token"),
        ("405 Method Not Allowed", "that a reverse proxy there passes on Upgrade and Connection"),
        ("407 Proxy Authentication Required", "use a proxy step"),
        ("426 Upgrade Required", "that a reverse proxy there passes on Upgrade and Connection"),
        ("429 Too Many Requests", "fewer connections"),
        ("502 Bad Gateway", "what it forwards to cannot be reached from there; check that this runs"),
        ("503 Service Unavailable", "what it forwards to is not there; check that this runs"),
        ("504 Gateway Timeout", "what it forwards to did not answer; check that this runs"),
        ("530 Whatever", "refused (530): the tunnel behind it is not connected"),
        ("599 Whatever", "refused (599): check host and path"),
    ],
)
async def test_other_answers(status: str, says: str) -> None:
    """Each names the gateway, what it answered, and what to do; never the server's own words."""
    message = await refusal(http(status, "X-Echo: " + SECRET, body=f"you sent {SECRET}"))
    assert message.startswith("the WebSocket gateway gw.example.com/db ")
    assert says in message


async def test_refused_without_a_token() -> None:
    """Then a token is what is missing."""
    step = attrs.evolve(STEP, token_id=None, token_secret=None)
    assert "add token_id" in await refusal(http("403 Forbidden"), step)
    login = http("302 Found", f"Location: https://t.example/cdn-cgi/access/login/gw?kid={SECRET}")
    assert "wants a service token (302 to an Access login): add token_id" in await refusal(login, step)


@pytest.mark.parametrize("before", ["https://team.cloudflareaccess.com", "", "//team.cloudflareaccess.com"])
async def test_a_login_of_access(before: str) -> None:
    """Where Cloudflare Access sends whom it does not let in."""
    message = await refusal(
        http("302 Found", f"Location: {before}/cdn-cgi/access/login/gw.example.com?kid={SECRET}&meta={TOKEN}")
    )
    assert "refused the service token (302 to an Access login): check token_id and token_secret" in message


async def test_a_login_of_access_with_what_was_sent() -> None:
    """A header that says the host's name does not keep it from being known."""
    step = attrs.evolve(STEP, headers=(("X-Forwarded-Host", Secret("gw.example.com")),))
    message = await refusal(http("302 Found", "Location: /cdn-cgi/access/login/gw.example.com"), step)
    assert "refused the service token (302 to an Access login)" in message


@pytest.mark.parametrize(
    "part", ["path-41b7", "bearer-5c0de", "session-77aa", "value/90c4", "value%2F90c4", "VALUE%252F90c4"]
)
async def test_parts_of_what_was_sent(part: str) -> None:
    """They are as secret as all of it."""
    headers = {"Authorization": "Bearer bearer-5c0de", "Cookie": "a=session-77aa; b=value%2F90c4"}
    step = attrs.evolve(STEP, headers=tuple((name, Secret(value)) for name, value in headers.items()))
    message = await refusal(http("302 Found", f"Location: /login/{part}/x"), step)
    assert message.endswith("a redirect (302 Found): put the WebSocket's own address into the settings")


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"https://gw2.example.com:8443/other?{SECRET}", " to https://gw2.example.com:8443/other:"),
        (f"https://{TOKEN}:{SECRET}@[::1]/", " to https://[::1]/:"),
        (f"/moved?{SECRET}", " to /moved:"),
        (f"https://host:port{SECRET}/", "(301 Moved Permanently): put"),
        (f"/\t{SECRET}", "(301 Moved Permanently): put"),
        ("/" + "a" * 300, "(301 Moved Permanently): put"),
        (f"/\xe4{SECRET}", "(301 Moved Permanently): put"),
        (f"/login/{SECRET}", "(301 Moved Permanently): put"),
        (f"/login/%73{SECRET[1:]}", "(301 Moved Permanently): put"),
        (f"https://{TOKEN.upper()}.example.com/", "(301 Moved Permanently): put"),
        (f"/{HEADER}/", "(301 Moved Permanently): put"),
        ("/back/key=path-41b7", "(301 Moved Permanently): put"),
    ],
)
async def test_other_redirects(location: str, shown: str) -> None:
    """Where they lead to is shown as far as it can hold no secret."""
    message = await refusal(http("301 Moved Permanently", f"Location: {location}"))
    assert f"a redirect (301 Moved Permanently){shown if shown[0] == ' ' else ''}" in message


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", "wrong Sec-WebSocket-Accept: bad handshake"),
        (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            "wrong Sec-WebSocket-Accept: bad handshake",
        ),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", "without the headers of an upgrade: bad handshake"),
        ("Upgrade: websocket\r\nConnection: keep-alive\r\n", "without the headers of an upgrade: bad"),
    ],
)
async def test_bad_handshakes(answer: str, says: str) -> None:
    """Something answers that does not understand what it says."""
    assert says in await refusal(f"HTTP/1.1 101 OK\r\n{answer}\r\n".encode())


async def test_what_was_not_offered_is_not_taken() -> None:
    """No extension, and a subprotocol only from the settings."""
    for header, says in (
        ("Sec-WebSocket-Extensions: permessage-deflate", "an extension that was not offered"),
        ("Sec-WebSocket-Protocol: binary", "add the header Sec-WebSocket-Protocol"),
    ):
        answer = f"{ACCEPTED}{header}\r\n".encode()
        assert says in await refusal(lambda asked, answer=answer: answer + accept(asked) + b"\r\n")  # type: ignore[misc]
    step = attrs.evolve(STEP, headers=(("Sec-WebSocket-Protocol", Secret("base64, binary")),))
    stream, right, _ = await open_at(
        lambda asked: f"{ACCEPTED}{header}\r\n".encode() + accept(asked) + b"\r\n", step
    )
    async with stream, right:
        assert await stream.receive_some() == b""


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "ended the connection without an answer: check host and port, and whether TLS is wanted"),
        (b"HTTP/1.1 101 Switch", "in the middle of its answer"),
        (b"\x15\x03\x01\0\x02\x02\x46", "speaks TLS: use wss://"),
        (b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), "speaks HTTP/2 only"),
        (b"HTTP/2 200\r\n\r\n", "speaks HTTP/2 only"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "something other than HTTP/1.1"),
        (b"E\0\0\0\x10SFATAL\0\0\0\r\n\r\n", "something other than HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**17, "more than 65536 bytes of headers"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4000, "more than 65536 bytes of headers"),
        (b"HTTP/1.1 101 " + b"a" * 2**17, "more than 65536 bytes of headers"),
    ],
)
async def test_no_http(answer: bytes, says: str) -> None:
    """Something else is there, or it says too much."""
    assert says in await refusal(answer)


async def test_an_echo_is_not_shown() -> None:
    """What answers with what it was sent answers with secrets."""
    assert "something other than HTTP/1.1" in await refusal(lambda asked: asked)
    assert "something other than HTTP/1.1" in await refusal(lambda asked: b"HTTP/1.1 200\r\n" + asked)


async def test_silence(autojump_clock: MockClock) -> None:
    """A gateway that says nothing is given up."""
    left, right = (PlainStream(sock) for sock in socket.socketpair())
    async with right:
        with pytest.raises(ConnectFailed, match="did not answer within 10 s"):
            await open_websocket(STEP, left, make_context())
    assert trio.current_time() == pytest.approx(10)


async def test_a_connection_that_breaks() -> None:
    """Its reason is in the message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = PlainStream(socket.create_connection(listener.getsockname()))
        right, _ = listener.accept()
    right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    right.close()
    with pytest.raises(ConnectFailed) as caught:
        await open_websocket(STEP, left, make_context())
    said = str(caught.value)
    assert (
        "broke before it answered: Connection reset by peer: check host and port, and whether TLS is" in said
    )


async def test_the_trace_has_the_hop_and_no_secret() -> None:
    """For the doctor."""
    left, right = (PlainStream(sock) for sock in socket.socketpair())
    context = make_context()
    async with right:
        await right.send_all(http("403 Forbidden"))
        with pytest.raises(ConnectFailed):
            await open_websocket(STEP, left, context)
    (hop,) = context.trace.hops
    assert hop.name == "websocket gw.example.com/db"
    assert hop.facts == {"token": "sent", "status": "403 Forbidden"}
    assert "refused the service token" in hop.error
    assert not any(hidden in repr(hop) for hidden in HIDDEN)


async def test_cancelled_anywhere_nothing_is_left_open() -> None:
    """The stream below is closed, wherever it happens."""

    async def act() -> None:
        left, right = (PlainStream(sock) for sock in socket.socketpair())
        left_socket = left._socket
        try:
            async with right:
                right._socket.send(http("403 Forbidden"))
                with contextlib.suppress(ConnectFailed):
                    await open_websocket(STEP, left, make_context())
        finally:
            assert left_socket.fileno() == -1

    assert await cancel_everywhere(act) > 3


async def test_another_implementation_at_the_other_end() -> None:
    """trio-websocket's server takes the handshake and the messages, and hears the end."""
    left, right = (PlainStream(sock) for sock in socket.socketpair())
    heard: list[object] = []

    async def serve() -> None:
        async with right, trio.open_nursery() as inner:
            request = await trio_websocket.wrap_server_stream(inner, right)
            assert request.path == STEP.path
            assert (b"cf-access-client-secret", SECRET.encode()) in request.headers
            websocket = await request.accept()
            with contextlib.suppress(trio_websocket.ConnectionClosed):
                while True:
                    message = await websocket.get_message()
                    heard.append(message)
                    await websocket.send_message(message)
            closed = websocket.closed
            assert closed is not None
            heard.append(closed.code)
            await websocket.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        stream = await open_websocket(STEP, left, make_context())
        await stream.send_all(b"ping" * 5000)
        received = b""
        while len(received) < 20000:
            received += await stream.receive_some()
        await stream.aclose()
    assert received == b"ping" * 5000
    assert [len(one) if isinstance(one, bytes) else one for one in heard] == [16384, 3616, 1000]
