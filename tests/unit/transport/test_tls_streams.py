"""TLS towards servers: Trio's contract for streams, the negotiation, and servers that mean no good."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import check_two_way_stream, memory_stream_pair, wait_all_tasks_blocked

from hyperpool.auth.binding import PLAIN, endpoint_hash
from hyperpool.config import SslMode, SslNegotiation
from hyperpool.config.tls import ServerTls, TlsMaterial
from hyperpool.config.transports import TlsStep
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.transport.endpoint import TlsSocket, wrap
from hyperpool.transport.kinds import DialContext, Trace
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from hyperpool.transport.tls import (
    Contexts,
    Secured,
    TlsFailed,
    TlsStream,
    Wish,
    is_worth_another,
    open_tls,
    secure,
    wishes,
)
from tests.support.certificates import CA, OTHER_CA, client_side, issue, server_side
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.support.certificates import Files

    Talk = Callable[[trio.abc.Stream], Awaitable[None]]


pytestmark = pytest.mark.usefixtures("nothing_left_open")

SERVER = server_side()
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate of ours, and the authority's."""
    return issue(tmp_path, "hyperpool")


# -- The contract ------------------------------------------------------------------------------------------------


async def handshake(sock: TlsSocket) -> None:
    """Do the handshake of one end."""
    while True:
        try:
            sock.shake_hands()
        except ssl.SSLWantReadError:
            await trio.lowlevel.wait_readable(sock)
        else:
            return


async def tls_pair(family: str) -> tuple[TlsStream, TlsStream]:
    """Two ends of a TLS connection over sockets."""
    if family == "unix":
        near, far = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    for sock in (near, far):
        sock.setblocking(False)
    ours, theirs = wrap(near, client_side(), "localhost"), wrap(far, SERVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake, ours)
        nursery.start_soon(handshake, theirs)
    return TlsStream(ours), TlsStream(theirs)


@pytest.mark.parametrize("family", ["tcp", "unix"])
async def test_two_way_contract(family: str) -> None:
    """Trio's own checks of sending, receiving, closing and cancellation hold."""
    await check_two_way_stream(partial(tls_pair, family), None)


async def test_a_clogged_stream_waits() -> None:
    """Sending waits for the peer, and goes on with the same bytes."""
    sent = bytes(range(256)) * 40_000
    ours, theirs = await tls_pair("tcp")
    done = trio.Event()

    async def send() -> None:
        await ours.send_all(sent)
        done.set()

    async with trio.open_nursery() as nursery, ours, theirs:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert not done.is_set()
        got = bytearray()
        while len(got) < len(sent):
            got += await theirs.receive_some(100_000)

    assert done.is_set()
    assert got == sent


async def test_detached_it_is_the_relays() -> None:
    """What comes out is the TLS socket."""
    ours, theirs = await tls_pair("tcp")
    async with theirs:
        with ours.detach() as sock:
            assert sock is ours.tls
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")


# -- Servers -----------------------------------------------------------------------------------------------------


async def dial(talk: Talk, nursery: trio.Nursery) -> PlainStream:
    """Connect to a server that does what `talk` does."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def serve() -> None:
        async with listener:
            stream = await listener.accept()
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await talk(stream)

    nursery.start_soon(serve)
    sock = socket.create_connection(listener.socket.getsockname())
    return PlainStream(sock)


def postgres(context: ssl.SSLContext, answer: bytes = b"S", *, smuggled: bytes = b"") -> Talk:
    """A server that answers SSLRequest, does a handshake and echoes once."""

    async def talk(stream: trio.abc.Stream) -> None:
        assert await stream.receive_some(100) == SSL_REQUEST
        await stream.send_all(answer + smuggled)
        if answer == b"S":
            await echo(context)(stream)

    return talk


def echo(context: ssl.SSLContext) -> Talk:
    """A server that begins with a handshake and echoes once."""

    async def talk(stream: trio.abc.Stream) -> None:
        above = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await above.send_all(await above.receive_some(100))
        await stream.receive_some(1)

    return talk


def saying(answer: bytes) -> Talk:
    """A server that answers whatever it is asked with some bytes."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(answer)

    return talk


def verified(
    files: Files,
    mode: SslMode = SslMode.VERIFY_FULL,
    negotiation: SslNegotiation = SslNegotiation.POSTGRES,
) -> ServerTls:
    """Settings that verify the server."""
    return ServerTls(mode=mode, negotiation=negotiation, material=TlsMaterial(ca_file=str(files.ca)))


REQUIRED = ServerTls(mode=SslMode.REQUIRE)
PREFERRED = ServerTls()


async def secured(talk: Talk, tls: ServerTls, wish: Wish = Wish.TLS, host: str = "localhost") -> Secured:
    """Begin TLS with a server, and have something echoed; closed afterwards.

    Raises:
        ConnectFailed: it could not be had.
    """
    trace = Trace()
    failure: ConnectFailed | None = None
    async with trio.open_nursery() as nursery:
        try:
            with trio.fail_after(5):
                found = await secure(await dial(talk, nursery), wish, tls, host, trace)
                async with found.stream:
                    if found.channel.encrypted:
                        await found.stream.send_all(b"hello")
                        assert await found.stream.receive_some(100) == b"hello"
        except ConnectFailed as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        assert trace.hops[-1].error == str(failure)
        raise failure
    return found


async def test_a_request_for_tls(files: Files) -> None:
    """The hash of the certificate is known afterwards."""
    found = await secured(postgres(SERVER), verified(files))

    assert isinstance(found.stream, TlsStream)
    assert found.channel.encrypted
    assert len(found.channel.endpoint) == 32


async def test_over_anything_else_than_a_socket(files: Files) -> None:
    """The result is a stream for a bridge."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(postgres(SERVER), far)
        found = await secure(near, Wish.TLS, verified(files), "localhost", Trace())
        await found.stream.send_all(b"hello")
        assert await found.stream.receive_some(100) == b"hello"
        assert found.channel.endpoint
        await found.stream.aclose()


async def test_over_a_stream_with_tls(files: Files) -> None:
    """TLS over TLS: a tunnel's, and PostgreSQL's own in it."""

    async def talk(stream: trio.abc.Stream) -> None:
        outer = trio.SSLStream(stream, SERVER, server_side=True, https_compatible=True)
        await postgres(SERVER)(outer)

    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    async with trio.open_nursery() as nursery:
        below = await dial(talk, nursery)
        outer = await open_tls(TlsStep(server_name="localhost", ca_file=str(files.ca)), below, context)
        found = await secure(outer, Wish.TLS, verified(files), "localhost", context.trace)
        await found.stream.send_all(b"hello")
        assert await found.stream.receive_some(100) == b"hello"
        await found.stream.aclose()

    assert [hop.name for hop in context.trace.hops] == ["tls localhost", "postgresql tls localhost"]
    assert context.trace.hops[0].facts["version"] == "TLSv1.3"
    assert "cipher" in context.trace.hops[1].facts
    assert "not_after" in context.trace.hops[1].facts


async def test_direct_tls(files: Files) -> None:
    """The handshake comes first, and PostgreSQL's name must be agreed on in it."""
    context = server_side()
    context.set_alpn_protocols(["postgresql"])
    found = await secured(echo(context), verified(files, negotiation=SslNegotiation.DIRECT))

    assert found.channel.encrypted


async def test_direct_tls_without_alpn(files: Files) -> None:
    """A server that does not know PostgreSQL's name is another one, or an old one."""
    with pytest.raises(TlsFailed, match=r"no ALPN.*use sslnegotiation postgres"):
        await secured(echo(SERVER), verified(files, negotiation=SslNegotiation.DIRECT))


async def test_no_tls() -> None:
    """Where TLS is an offer, the connection goes on without; where it must be, it ends."""
    found = await secured(saying(b"N"), PREFERRED, Wish.OFFERED)
    assert found.channel == PLAIN
    with pytest.raises(TlsFailed, match="server localhost has no TLS, and sslmode require wants it"):
        await secured(saying(b"N"), REQUIRED)


async def test_nothing_is_asked_for() -> None:
    """Without TLS, and with Unix sockets, not a byte is sent."""
    for wish, host in ((Wish.PLAIN, "localhost"), (Wish.TLS, "/run"), (Wish.OFFERED, "@abstract")):
        near, far = memory_stream_pair()
        found = await secure(near, wish, REQUIRED, host, Trace())
        assert found.channel == PLAIN
        await near.aclose()
        assert await far.receive_some(100) == b""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"E\x00\x00\x00\x20SFATAL\x00Mlies\x00\x00", "answered the request for TLS with an error$"),
        (b"X", "its answer to the request for TLS is none"),
        (b"\x00", "its answer to the request for TLS is none"),
        (b"", "closed the connection when TLS was asked for"),
    ],
)
@pytest.mark.parametrize("wish", [Wish.OFFERED, Wish.TLS])
async def test_other_answers(answer: bytes, message: str, wish: Wish) -> None:
    """They end the connection; what an error says is not shown, as nobody knows who has said it."""
    with pytest.raises(TlsFailed, match=message):
        await secured(saying(answer), REQUIRED, wish)


@pytest.mark.parametrize("smuggled", [b"R\x00\x00\x00\x08\x00\x00\x00\x00", b"S", b"\x16\x03\x03\x00\x01x"])
async def test_smuggled_bytes(files: Files, smuggled: bytes) -> None:
    """What stands in clear behind the server's yes breaks the handshake, and is never read as the server's."""
    with pytest.raises(TlsFailed, match="server localhost: the handshake failed"):
        await secured(postgres(SERVER, smuggled=smuggled), verified(files))


async def test_a_server_that_hangs_up_in_the_handshake() -> None:
    """The message says so."""
    with pytest.raises(TlsFailed, match="the other side ended the connection; check that TLS"):
        await secured(saying(b"S"), REQUIRED)


@pytest.mark.parametrize(
    ("host", "mode", "said"),
    [
        ("db.example.com", SslMode.VERIFY_FULL, "Hostname mismatch.*see the names in the certificate"),
        ("10.0.0.1", SslMode.VERIFY_FULL, "IP address mismatch.*see the names in the certificate"),
        ("db.example.com", SslMode.VERIFY_CA, ""),
        ("127.0.0.1", SslMode.VERIFY_FULL, ""),
    ],
)
async def test_names(files: Files, host: str, mode: SslMode, said: str) -> None:
    """verify-full wants the name or the address that was dialed."""
    if said:
        with pytest.raises(TlsFailed, match=said):
            await secured(postgres(SERVER), verified(files, mode), host=host)
    else:
        assert (await secured(postgres(SERVER), verified(files, mode), host=host)).channel.encrypted


async def test_an_authority_that_nobody_trusts(files: Files) -> None:
    """The certificate is refused where it is verified, and taken where it is not."""
    context = server_side(ca=OTHER_CA)
    with pytest.raises(
        TlsFailed, match=r"certificate is not accepted.*name the certificate of its authority"
    ):
        await secured(postgres(context), verified(files, SslMode.VERIFY_CA))
    assert (await secured(postgres(context), REQUIRED)).channel.encrypted


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (-10, "certificate has expired; renew it there, or the one of its authority"),
        (1, "certificate is not yet valid; see the clocks"),
    ],
)
async def test_a_certificate_out_of_its_time(files: Files, begins: int, said: str) -> None:
    """The message says so, and does not send anybody to look at authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begin = dt.datetime.now(dt.UTC) + dt.timedelta(days=begins)
    CA.issue_cert("localhost", not_before=begin, not_after=begin + dt.timedelta(days=9)).configure_cert(
        context
    )
    with pytest.raises(TlsFailed, match=said):
        await secured(postgres(context), verified(files))


async def test_a_server_whose_address_is_not_known(files: Files) -> None:
    """It is called by its way, in messages and in the trace; the name that was verified is in the reason."""
    async with trio.open_nursery() as nursery:
        trace = Trace()
        near = await dial(postgres(SERVER), nursery)
        with pytest.raises(
            TlsFailed, match=r"^PostgreSQL behind gw: the certificate .*'10\.0\.0\.1'; see the names"
        ):
            await secure(
                near,
                Wish.TLS,
                verified(files, SslMode.VERIFY_FULL),
                "10.0.0.1",
                trace,
                "PostgreSQL behind gw",
            )
        nursery.cancel_scope.cancel()
    assert trace.hops[0].name == "postgresql tls PostgreSQL behind gw"


@pytest.mark.parametrize(
    ("alert", "said"),
    [
        (b"\x02\x46", "protocol version; the other side wants another version"),
        (b"\x02\x28", "handshake failure; both sides have no cipher in common"),
        (b"\x02\x78", "the handshake failed: TLS: "),
    ],
    ids=["an old version", "no cipher", "ALPN"],
)
async def test_a_server_that_breaks_the_handshake_off(alert: bytes, said: str) -> None:
    """What the server says in its alert (RFC 8446, section 6) is told, with advice."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"S")
        await stream.receive_some(10_000)
        await stream.send_all(b"\x15\x03\x01\x00\x02" + alert)

    with pytest.raises(TlsFailed, match=said):
        await secured(talk, REQUIRED)


async def test_a_server_that_does_not_speak_tls() -> None:
    """It says yes, and goes on in clear."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"S")
        await stream.receive_some(10_000)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(TlsFailed, match="what answers there does not speak TLS"):
        await secured(talk, REQUIRED)


async def test_the_name_is_sent() -> None:
    """SNI: always, whatever is verified, but for addresses."""
    names: list[str | None] = []
    context = server_side()
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    await secured(postgres(context), REQUIRED)
    await secured(postgres(context), REQUIRED, host="127.0.0.1")

    assert names == ["localhost", None]


async def test_cancelled_anywhere_nothing_stays_open(files: Files) -> None:
    """A server that never answers, before the handshake and within it."""
    for answer in (b"", b"S"):

        async def talk(stream: trio.abc.Stream, answer: bytes = answer) -> None:
            if answer:
                await stream.send_all(answer)
            while await stream.receive_some(1000):
                pass

        async with trio.open_nursery() as nursery:
            below = await dial(talk, nursery)
            with trio.move_on_after(0.05) as over:
                await secure(below, Wish.TLS, verified(files), "localhost", Trace())
            assert over.cancelled_caught
            with pytest.raises(trio.ClosedResourceError):
                below.detach()


@pytest.mark.parametrize("layers", [1, 2])
async def test_cancelled_at_every_checkpoint(files: Files, layers: int) -> None:
    """TLS over a socket, and TLS in that."""
    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    step = TlsStep(server_name="localhost", ca_file=str(files.ca))

    async def serve(sock: socket.socket) -> None:
        async with PlainStream(sock) as stream:
            below: trio.abc.Stream = stream
            with contextlib.suppress(trio.BrokenResourceError, AssertionError):
                if layers == 2:
                    below = trio.SSLStream(stream, SERVER, server_side=True, https_compatible=True)
                await postgres(SERVER)(below)

    async with trio.open_nursery() as nursery:

        async def open_and_close() -> None:
            near, far = socket.socketpair()
            nursery.start_soon(serve, far)
            below: trio.abc.Stream = PlainStream(near)
            if layers == 2:
                below = await open_tls(step, below, context)
            found = await secure(below, Wish.TLS, verified(files), "localhost", Trace())
            await trio.aclose_forcefully(found.stream)

        assert await cancel_everywhere(open_and_close) >= 3 * layers
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("name", [".example.com", "dä..example.com"])
async def test_a_name_that_cannot_be_one(files: Files, name: str) -> None:
    """It is a failure like others, and what is below is closed: also where nobody has looked the name up before."""
    near, far = memory_stream_pair()
    step = TlsStep(server_name=name, ca_file=str(files.ca))
    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    with pytest.raises(ConnectFailed, match="the handshake failed"):
        await open_tls(step, near, context)
    assert await far.receive_some(10) == b""


# -- What is tried -----------------------------------------------------------------------------------------------


def test_wishes() -> None:
    """Only modes that do not insist try two ways."""
    assert {mode: tuple(wishes(mode)) for mode in SslMode} == {
        SslMode.DISABLE: (Wish.PLAIN,),
        SslMode.ALLOW: (Wish.PLAIN, Wish.TLS),
        SslMode.PREFER: (Wish.OFFERED, Wish.PLAIN),
        SslMode.REQUIRE: (Wish.TLS,),
        SslMode.VERIFY_CA: (Wish.TLS,),
        SslMode.VERIFY_FULL: (Wish.TLS,),
    }


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (TlsFailed("x"), True),
        (LoginFailed("no pg_hba.conf entry", "28000"), True),
        (LoginFailed("role does not exist", "28000", authenticated=True), False),
        (LoginFailed("wrong password", "28P01"), False),
        (ConnectFailed("nobody is there"), False),
    ],
)
def test_what_is_worth_another_try(error: ConnectFailed | LoginFailed, worth: bool) -> None:
    """Where TLS has failed, or a rule has decided."""
    assert is_worth_another(error) is worth


# -- Contexts ----------------------------------------------------------------------------------------------------


def test_contexts_are_kept_until_a_file_changes(files: Files, tmp_path: Path) -> None:
    """Then they are made anew; what cannot be used is not, and the log says so."""
    contexts = Contexts()

    def get() -> ssl.SSLContext:
        return contexts.get(files.material, verify=True, name=True, alpn=True)

    first = get()
    assert get() is first
    issue(tmp_path, "hyperpool", common_name="a longer one")
    second = get()
    assert second is not first

    files.key.write_text("no key")
    with capture_logs() as entries:
        assert get() is second
        assert get() is second
    assert [(entry["event"], entry["part"]) for entry in entries] == [
        ("the new TLS files cannot be used", "key_file")
    ]


def test_a_context_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the part."""
    material = TlsMaterial(ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(TlsFailed, match="ca_file: cannot read the file that is named here"):
        Contexts().get(material, verify=True, name=True, alpn=False)


async def test_a_step_that_fails_closes_what_is_below(tmp_path: Path) -> None:
    """A step owns what it is put on."""
    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    near, far = memory_stream_pair()
    step = TlsStep(server_name="localhost", ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(ConnectFailed, match="ca_file"):
        await open_tls(step, near, context)
    assert await far.receive_some(10) == b""


async def test_the_hash_is_that_of_the_servers_certificate(files: Files) -> None:
    """Channel binding takes what the server has shown."""
    shown = CA.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.configure_cert(context)
    der = ssl.PEM_cert_to_DER_cert(shown.cert_chain_pems[0].bytes().decode())

    assert (await secured(postgres(context), verified(files))).channel.endpoint == endpoint_hash(der)
