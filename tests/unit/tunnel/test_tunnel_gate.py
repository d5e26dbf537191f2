"""The gate: who is let in, who is not, and what strangers can use up."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.config.kinds import SslMode
from hyperpool.config.tls import ClientTls, TlsMaterial
from hyperpool.config.tls_contexts import client_context
from hyperpool.errors import StartupError
from hyperpool.tunnel.gate import GateOptions, listen
from hyperpool.tunnel.upgrade import Refused
from tests.support.certificates import issue
from tests.support.checkpoints import no_descriptor_left
from tests.support.tunnels import (
    OTHER_SECRET,
    SECRET,
    ask,
    enter,
    head_of,
    log_book,
    open_gate,
    request,
    table,
    token,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.tunnel.gate import Guest
    from tests.support.logbook import LogBook

_REFUSED = b"HTTP/1.1 403 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def book() -> Iterator[LogBook]:
    """The log; no secret may be in it, nor any error, and no descriptor may be left."""
    with log_book() as book, no_descriptor_left():
        yield book
    assert SECRET not in repr(book.entries)
    assert OTHER_SECRET not in repr(book.entries)
    assert [entry for entry in book.entries if entry["level"] == "error"] == []


async def test_let_in(book: LogBook) -> None:
    """Who has a token comes in, and what is sent with the request arrives."""
    async with open_gate() as (port, gate):
        stream = await enter(port, request() + b"\x82\x82\0\0\0\0hi")
        assert await stream.receive_some() == b"hi"
        assert gate.inside == 1
        await stream.send_all(b"x" * 100_000)
        received = b""
        while len(received) < 100_000:
            received += await stream.receive_some()
        await stream.aclose()
    assert book.entries == []


@pytest.mark.parametrize(
    ("token_id", "secret", "shown"),
    [
        ("", "", "none"),
        ("", SECRET, "none"),
        ("alice.access", "", "alice.access"),
        ("alice.access", SECRET[:-1], "alice.access"),
        ("alice.access", OTHER_SECRET, "alice.access"),
        ("bob.access", SECRET, "unknown (sha256 "),
        (SECRET, "alice.access", "unknown (sha256 "),
    ],
)
async def test_wrong_token(book: LogBook, token_id: str, secret: str, shown: str) -> None:
    """All wrong tokens get the same bytes, and a line in the log that tells who it was and not what it said."""
    async with open_gate() as (port, _):
        data = request(CF_Access_Client_Id=token_id, CF_Access_Client_Secret=secret)
        assert await ask(port, data) == (403, _REFUSED)
    (entry,) = book.entries
    assert (entry["event"], entry["level"]) == ("refused", "warning")
    assert entry["token"].startswith(shown)
    assert entry["peer"].startswith("127.0.0.1:")


async def test_nothing_is_told_before_the_token(book: LogBook) -> None:
    """Without a token, a request that is wrong in other ways, too, gets the same answer."""
    async with open_gate() as (port, _):
        wrong = {"CF-Access-Client-Secret": "", "Upgrade": "", "Sec-WebSocket-Version": "8"}
        assert await ask(port, request("/secret-path", wrong)) == (403, _REFUSED)
        assert (await ask(port, request(Upgrade="")))[0] == 426


async def test_garbage(book: LogBook) -> None:
    """What is not HTTP is closed, and logged without what it said."""
    async with open_gate(max_header_size=1024) as (port, _):
        assert (await ask(port, b"\0\0\0\x08\x04\xd2\x16\x2f\r\n\r\n"))[0] == 400
        assert (await ask(port, b"x" * 5000))[0] in {0, 431}  # what is left unread may reset the connection
        assert (await ask(port, request(headers={f"x-{n}": SECRET for n in range(40)})))[0] in {0, 431}
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
    assert {entry["event"] for entry in book.entries} == {"refused"}


async def test_slow_strangers(book: LogBook) -> None:
    """Who does not show a token in time has to go; who has shown one may take its time."""
    async with open_gate(handshake_timeout=0.1) as (port, _):
        guest = await enter(port)
        with trio.fail_after(5):
            silent = await trio.open_tcp_stream("127.0.0.1", port)
            assert await head_of(silent) == (0, b"", b"")
            await silent.aclose()
        await guest.send_all(b"still here")
        assert await guest.receive_some() == b"still here"
        await guest.aclose()
    (entry,) = book.entries
    assert entry["reason"] == "no request within handshake_timeout"


async def test_many_strangers(book: LogBook) -> None:
    """Those who hold connections open without a token push each other out, and nobody else."""
    async with open_gate(max_handshakes=3) as (port, _), contextlib.AsyncExitStack() as stack:
        guest = await enter(port)
        strangers = []
        for _ in range(5):
            strangers.append(await trio.open_tcp_stream("127.0.0.1", port))
            stack.push_async_callback(strangers[-1].aclose)
        with trio.fail_after(5):
            for stranger in strangers[:2]:
                assert await head_of(stranger) == (0, b"", b"")
            again = await enter(port)
        for stream in (guest, again):
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await stream.aclose()
    assert {entry["reason"] for entry in book.entries} == {"too many connections without a token"}


async def test_limits(book: LogBook) -> None:
    """All guests together, and those with one token, have a limit; a place is free again once somebody leaves."""
    tokens = table(token("alice"), token("bob", secret=OTHER_SECRET))
    bob = request(CF_Access_Client_Id="bob.access", CF_Access_Client_Secret=OTHER_SECRET)
    async with open_gate(tokens=tokens, max_connections=3, max_connections_per_token=2) as (port, gate):
        first, second = await enter(port), await enter(port)
        assert (await ask(port, request()))[0] == 429
        third = await enter(port, bob)
        assert (await ask(port, bob))[0] == 503
        await first.aclose()
        with trio.fail_after(5):
            while gate.inside == 3:
                await trio.lowlevel.checkpoint()
        for stream in (second, third, await enter(port, bob)):
            await stream.aclose()


async def test_rotation(book: LogBook) -> None:
    """A new secret is accepted beside the old one; once that is revoked, its connections end, and no others."""
    old, new = token(), token(secret=OTHER_SECRET)
    async with open_gate(tokens=table(old)) as (port, gate):
        before = await enter(port)
        gate.configure(GateOptions(tokens=table(old, new)))
        with_new = await enter(port, request(CF_Access_Client_Secret=OTHER_SECRET))
        await before.send_all(b"x")
        assert await before.receive_some() == b"x"
        gate.configure(GateOptions(tokens=table(new)))
        with trio.fail_after(5):
            with contextlib.suppress(trio.BrokenResourceError):
                assert await before.receive_some() == b""
        assert await ask(port, request()) == (403, _REFUSED)
        await with_new.send_all(b"y")
        assert await with_new.receive_some() == b"y"
        await before.aclose()
        await with_new.aclose()
    reasons = [entry["reason"] for entry in book.entries if entry["event"] == "connection ended"]
    assert reasons == ["its token is revoked"]


async def test_health(book: LogBook) -> None:
    """A load balancer may ask whether somebody is here; only where the settings say so."""
    async with open_gate(health_path="/health") as (port, _):
        status, answer = await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, answer[-7:]) == (200, b"\r\n\r\nok\n")
    assert book.entries == []
    async with open_gate() as (port, _):
        assert (await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 403


@pytest.mark.parametrize(
    ("method", "expected"),
    [("HEAD", (200, b"")), ("POST", (200, b"ok\n")), ("OPTIONS", (200, b"ok\n")), ("CONNECT", (403, b""))],
)
async def test_other_methods(book: LogBook, method: str, expected: tuple[int, bytes]) -> None:
    """Load balancers like HEAD, whose answer has no body; to a CONNECT, 200 would mean a tunnel."""
    async with open_gate(health_path="/health") as (port, _):
        status, answer = await ask(port, f"{method} /health HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (status, answer.partition(b"\r\n\r\n")[2]) == expected
        assert b"Content-Length: %d\r\n" % (3 if status == 200 else 0) in answer


async def test_health_is_nothing_for_guests(book: LogBook) -> None:
    """Where the path is the one that guests come to, they come in all the same."""
    async with open_gate(health_path="/") as (port, _):
        assert (await ask(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
        await (await enter(port)).aclose()
        assert (await ask(port, request(CF_Access_Client_Secret=OTHER_SECRET)))[0] == 403


async def test_one_guest_in_trouble(book: LogBook) -> None:
    """A mistake in what is done for one guest is logged, and hurts no other."""

    async def handle(guest: Guest) -> None:
        if guest.request.path == "/mistake":
            raise ZeroDivisionError("oops")
        if guest.request.path == "/no":
            raise Refused("not here", 404)
        stream = await guest.accept()
        await stream.send_all(await stream.receive_some())
        await stream.aclose()

    async with open_gate(handle) as (port, _):
        guest = await enter(port)
        assert await ask(port, request("/mistake")) == (0, b"")
        assert (await ask(port, request("/no")))[0] == 404
        await guest.send_all(b"x")
        assert await guest.receive_some() == b"x"
        await guest.aclose()
    assert [entry["event"] for entry in book.entries] == ["serving a connection failed", "refused"]
    book.entries.clear()


def _context(directory: Path, name: str) -> ssl.SSLContext:
    files = issue(directory, name)
    material = TlsMaterial(cert_file=str(files.cert), key_file=str(files.key))
    return client_context(ClientTls(mode=SslMode.REQUIRE, material=material))


async def _tls(port: int, directory: Path, name: str) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)


async def test_tls(book: LogBook, tmp_path: Path) -> None:
    """Tokens travel encrypted; a new certificate is shown after a reload, and open connections go on."""
    async with open_gate(context=_context(tmp_path / "a", "a.example.com")) as (port, gate):
        stream = await _tls(port, tmp_path / "a", "a.example.com")
        await stream.send_all(request())
        assert (await head_of(stream))[0] == 101
        gate.configure(GateOptions(tokens=table(), context=_context(tmp_path / "b", "b.example.com")))
        other = await _tls(port, tmp_path / "b", "b.example.com")
        await other.send_all(request())
        assert (await head_of(other))[0] == 101
        await stream.send_all(b"\x82\x81\0\0\0\0x")
        assert await stream.receive_some() == b"\x82\x01x"
        assert await ask(port, request()) == (0, b"")
        wrong = await _tls(port, tmp_path / "b", "a.example.com")
        with pytest.raises(trio.BrokenResourceError):
            await wrong.do_handshake()
        for one in (stream, other, wrong):
            await trio.aclose_forcefully(one)
        cut = await trio.open_tcp_stream("127.0.0.1", port)
        await cut.aclose()
        await book.wait_for("refused")
    assert all(entry["reason"].startswith("the TLS handshake failed: ") for entry in book.entries)
    assert len(book.entries) == 3
    assert "it ended the connection" in book.entries[-1]["reason"]


async def test_address_is_taken() -> None:
    """What cannot be listened on is named, and nothing is left open."""
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = taken.socket.getsockname()[1]
    with (
        no_descriptor_left(),
        pytest.raises(StartupError, match=f"127.0.0.1:{port}: .*see ingress.listen_port"),
    ):
        await listen(["::1", "127.0.0.1"], port, "ingress.listen_port")
    await taken.aclose()


async def test_many_refusals(book: LogBook) -> None:
    """An attacker does not fill the log: some are logged, the others counted."""
    async with open_gate() as (port, _):
        for _ in range(40):
            await ask(port, request(CF_Access_Client_Secret=""))
    assert 20 <= len(book.entries) < 40


@given(data=st.binary(min_size=1, max_size=300))
@settings(max_examples=40)
def test_guests_may_send_anything(data: bytes) -> None:
    """Frames that are none end the connection in good time, with no error of ours and nothing left over."""

    async def main() -> None:
        with log_book() as book:
            async with open_gate() as (port, _):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(request() + data)
                    await stream.send_eof()
                with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                await stream.aclose()
            assert [entry for entry in book.entries if entry["level"] == "error"] == []

    with no_descriptor_left():
        trio.run(main)
