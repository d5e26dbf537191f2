"""The opening handshake: what a peer without a token can say, and what it is told."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.tunnel.upgrade import Handshake, Refused
from tests.support.tunnels import KEY, SECRET, request

_LIMIT = 2048


async def _receive(data: bytes, *, pieces: int = 0, check: bool = True) -> tuple[Handshake, trio.abc.Stream]:
    """Let a handshake read bytes, in pieces or as they come, and check them."""
    peer, ours = trio.testing.memory_stream_pair()
    handshake = Handshake(ours, _LIMIT)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                for at in range(0, len(data), pieces or len(data) or 1):
                    await peer.send_all(data[at : at + (pieces or len(data))])
                await peer.send_eof()

        nursery.start_soon(send)
        try:
            await handshake.receive()
            if check:
                handshake.check()
        except Refused as refusal:
            result: Refused | None = refusal
        else:
            result = None
        nursery.cancel_scope.cancel()
    if result is not None:
        raise result
    return handshake, peer


@pytest.mark.parametrize("pieces", [0, 1, 7])
async def test_accepted(pieces: int) -> None:
    """A sound request is answered with the key's counterpart, and what came behind it is kept."""
    peer, ours = trio.testing.memory_stream_pair()
    handshake = Handshake(ours, _LIMIT)
    data = request("/a%20b?address=db:5432&address=other&x=") + b"\x82\x00"
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for at in range(0, len(data), pieces or len(data)):
                await peer.send_all(data[at : at + (pieces or len(data))])

        nursery.start_soon(send)
        found = await handshake.receive()
    handshake.check()
    assert (found.path, found.query) == ("/a b", {"address": "db:5432"})
    assert (found.token_id, found.token_secret) == (b"alice.access", SECRET.encode())
    early = await handshake.accept()
    answer = bytes(await peer.receive_some())
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    # The example of RFC 6455, section 1.3.
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    rest = early if pieces == 0 else early + await _all_of(ours, 2 - len(early))
    assert rest == b"\x82\x00"


async def _all_of(stream: trio.abc.Stream, count: int) -> bytes:
    found = b""
    while len(found) < count:
        found += await stream.receive_some(count - len(found))
    return found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 0),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (request()[:-4], 400),
        (request().replace(b"GET", b"POST"), 426),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 426),
        (request(Upgrade=""), 426),
        (request(Upgrade="h2c"), 426),
        (request(Connection="keep-alive"), 426),
        (request(headers={"Content-Length": "3"}) + b"abc", 426),
        (request(headers={"Sec-WebSocket-Version": "8"}), 426),
        (request(headers={"Sec-WebSocket-Key": ""}), 400),
        (request(headers={"Sec-WebSocket-Key": "c2hvcnQ="}), 400),
        (request(headers={"Sec-WebSocket-Key": "!" * 24}), 400),
        (request(headers={"Cookie": "x" * _LIMIT}), 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * _LIMIT, 431),
        (request(headers={"cf-access-client-id": "bob"}), 400),
        (request(headers={"cf-access-client-secret": "x"}), 400),
        (request(headers={"sec-websocket-key": KEY}), 400),
        (request("/?" + "&".join(f"a{n}=" for n in range(33))), 400),
        (request("//[x/"), 400),
    ],
)
async def test_refused(data: bytes, status: int) -> None:
    """Everything else has its status; the reason never has the request's words in it."""
    with pytest.raises(Refused) as caught:
        await _receive(data)
    assert caught.value.status in {status, 400} if status == 0 else caught.value.status == status
    assert SECRET not in str(caught.value)


async def test_broken_headers_are_not_quoted() -> None:
    """A header that breaks HTTP may be the one with the secret."""
    with pytest.raises(Refused) as caught:
        await _receive(request(headers={"CF-Access-Client-Secret ": SECRET}))
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


_headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["Upgrade", "Connection", "Sec-WebSocket-Key", "Content-Length", "Transfer-Encoding", "Host"]
        )
        | st.text(min_size=1, max_size=8),
        st.sampled_from(["websocket", "Upgrade", KEY, "13", "0", "chunked", ""]) | st.text(max_size=20),
    ),
    max_size=12,
)


@st.composite
def _near_http(draw: st.DrawFn) -> bytes:
    """Requests that are almost right."""
    first = draw(
        st.sampled_from(["GET / HTTP/1.1", "GET //[ HTTP/1.1", "POST /%ff HTTP/1.1", "GET * HTTP/1.0"])
    )
    lines = [first, *(f"{name}: {value}" for name, value in draw(_headers))]
    return "\r\n".join([*lines, "", ""]).encode(errors="surrogateescape") + draw(st.binary(max_size=40))


async def _answer(data: bytes) -> tuple[int, bytes, int]:
    """The status, what is answered, and how much was left unread."""
    incoming, outgoing = trio.testing.MemoryReceiveStream(), trio.testing.MemorySendStream()
    incoming.put_data(data)
    incoming.put_eof()
    handshake = Handshake(trio.StapledStream(outgoing, incoming), _LIMIT)
    status = 101
    try:
        await handshake.receive()
        handshake.check()
        await handshake.accept()
    except Refused as refusal:
        status = refusal.status
    if status not in {0, 101}:
        await handshake.respond(status)
    unread = 0
    while rest := await incoming.receive_some():
        unread += len(rest)
    return status, bytes(outgoing.get_data_nowait()) if status else b"", unread


@given(data=st.binary(max_size=3000) | _near_http())
def test_anything_may_be_said(data: bytes) -> None:
    """Whatever a stranger sends is refused or understood; no more than the limit is read, nothing else raised."""
    status, answer, unread = trio.run(_answer, data)
    assert len(data) - unread <= _LIMIT
    if status:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b"\r\n\r\n")
