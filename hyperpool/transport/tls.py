"""TLS as Trio streams: towards servers, and for those who come to a gate.

Towards servers it is a step of a transport, or PostgreSQL's own, which is asked for within its protocol.

Over a plain socket, the stream that comes out hands a `TlsSocket` over to the relay.

Source of the negotiation: PostgreSQL documentation, chapter "Frontend/Backend Protocol", section "SSL Session
Encryption"; of what the modes do: chapter "libpq", section "SSL Support".
"""

from __future__ import annotations

import enum
import errno
import os
import ssl
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import attrs
import structlog
import trio

from hyperpool.auth.binding import PLAIN, Channel, endpoint_hash
from hyperpool.config.kinds import SslMode, SslNegotiation
from hyperpool.config.tls import ALPN, SYSTEM, TlsFault, step_material
from hyperpool.config.tls_contexts import server_context
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.transport.ending import ended
from hyperpool.transport.endpoint import TlsSocket, explain, was_cut, wrap
from hyperpool.transport.plain import PlainStream
from hyperpool.wire import constants as c

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from hyperpool.config.tls import ServerTls, TlsMaterial
    from hyperpool.config.transports import TlsStep
    from hyperpool.errors import UpstreamError
    from hyperpool.transport.kinds import DialContext, Trace

log = structlog.get_logger("tls")

_REFUSED_BY_RULE: Final = "28000"
_SSL_REQUEST: Final = Struct("!II").pack(8, c.SSL_REQUEST)


class TlsFailed(ConnectFailed):
    """TLS with a server could not be had: another connection, without it, may do where that is allowed."""


class NoAnswer(TlsFailed):
    """What was asked for TLS hung up, or said something that PostgreSQL does not say."""


class Wish(enum.Enum):
    """What is done about TLS on one connection to a server."""

    PLAIN = "plain"
    OFFERED = "offered"
    """TLS if the server has it."""
    TLS = "tls"


def wishes(mode: SslMode) -> Sequence[Wish]:
    """What is tried, on one connection after the other; the next one after a failure for which `is_worth_another`."""
    if mode is SslMode.DISABLE:
        return (Wish.PLAIN,)
    if mode is SslMode.ALLOW:
        return (Wish.PLAIN, Wish.TLS)
    if mode is SslMode.PREFER:
        return (Wish.OFFERED, Wish.PLAIN)
    return (Wish.TLS,)


def is_worth_another(error: UpstreamError) -> bool:
    """Whether the next of the `wishes` may do better: TLS has failed, or a rule in pg_hba.conf has decided.

    libpq goes on after every refusal that comes before AuthenticationOk; here a wrong password is not tried twice. The
    same SQLSTATE behind it means the role: that it does not exist, or may not log in.
    """
    if isinstance(error, LoginFailed):
        return error.sqlstate == _REFUSED_BY_RULE and not error.authenticated
    return isinstance(error, TlsFailed)


class TlsStream(trio.abc.Stream):
    """TLS over a plain socket, as a Trio stream; errors and cancellation are those of `PlainStream`.

    Unlike a plain socket, it cannot be closed for sending alone: OpenSSL takes that for the end of both directions.

    Attributes:
        tls: the socket; also after it was handed over.
    """

    def __init__(self, sock: TlsSocket) -> None:
        self.tls = sock
        self._plain = PlainStream(sock)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`."""
        await self._plain.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more data."""
        await self._plain.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or b"" at the end of the stream."""
        return await self._plain.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close at once."""
        await self._plain.aclose()

    def close(self) -> None:
        """Close at once, from synchronous code."""
        self._plain.close()

    @property
    def unacknowledged_for(self) -> float:
        """Seconds for which nothing has been acknowledged of what is on its way; 0 when nothing is."""
        return self._plain.unacknowledged_for

    def detach(self) -> socket.socket:
        """Hand the socket over to the caller; from now on the stream behaves as if closed."""
        return self._plain.detach()


class Contexts:
    """Contexts for connections to servers, made when they are needed.

    Files that have changed are read again. Where they cannot be used (one half of a key and its certificate has been
    replaced), what they held before goes on to be used, and the log says so.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[object, ssl.SSLContext]] = {}

    def get(self, material: TlsMaterial, *, verify: bool, name: bool, alpn: bool) -> ssl.SSLContext:
        """The context for some material.

        Args:
            material: what our side has.
            verify: the server's certificate is verified.
            name: and its name.
            alpn: PostgreSQL's protocol is announced.

        Raises:
            TlsFailed: the material cannot be used, and never could.
        """
        key = (material, verify, name, alpn)
        signature = [_signature(file) for file in (material.ca_file, material.cert_file, material.key_file)]
        known = self._made.get(key)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            context = server_context(material, verify=verify, name=name)
        except TlsFault as fault:
            if known is None:
                raise TlsFailed(f"TLS settings cannot be used: {fault.part}: {fault.problem}") from fault
            log.error("the new TLS files cannot be used", part=fault.part, problem=fault.problem)
            context = known[1]
        if alpn:
            context.set_alpn_protocols([ALPN])
        self._made[key] = signature, context
        return context


_contexts: Final = Contexts()


def _signature(file: str) -> object:
    """What changes when a file does."""
    if file in {"", SYSTEM}:
        return None
    try:
        found = os.stat(file)  # noqa: PTH116 - a Path would cost more than the call
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


@attrs.frozen
class Secured:
    """A stream on which the login may begin.

    Attributes:
        stream: the caller owns it.
        channel: what the login must know about it.
    """

    stream: trio.abc.Stream
    channel: Channel


async def secure(
    stream: trio.abc.Stream, wish: Wish, tls: ServerTls, host: str, trace: Trace, name: str = ""
) -> Secured:
    """Begin PostgreSQL's own TLS on a new connection to a server, or leave it out.

    The answer to SSLRequest is one byte, and one byte is read: whatever somebody has put behind it goes into the
    handshake, which it breaks, and never counts as the server's words. A connection to a Unix socket never has TLS,
    as in libpq; `host` tells.

    Failed or cancelled, `stream` has been closed.

    Args:
        stream: nothing has been sent or received on it.
        wish: what is wanted.
        tls: the settings.
        host: the server's name, for its certificate.
        trace: gets what is done.
        name: what messages call the server, where its host is not what it is reached by.

    Raises:
        TlsFailed: there is no TLS to be had, or it is not trusted.
        ConnectFailed: the connection broke.
    """
    if wish is Wish.PLAIN or host.startswith(("/", "@")):
        return Secured(stream, PLAIN)
    server = name or f"server {host}"
    with trace.hop("postgresql tls", name or host) as hop:
        direct = tls.negotiation is SslNegotiation.DIRECT
        try:
            if not direct and not await _is_answered_yes(stream, wish, tls, server):
                hop.facts["answer"] = "no TLS"
                return Secured(stream, PLAIN)
            context = _contexts.get(
                tls.material, verify=tls.mode.verified, name=tls.mode is SslMode.VERIFY_FULL, alpn=True
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        secured = await _shake_hands(stream, context, host, server, hop.facts)
        session = _session(secured)
        if direct and session.selected_alpn_protocol() != ALPN:
            await trio.aclose_forcefully(secured)
            raise TlsFailed(
                f"{server} does not take part in direct TLS (no ALPN): before version 17, PostgreSQL does not "
                "know it; use sslnegotiation postgres"
            )
    certificate = session.getpeercert(binary_form=True)
    return Secured(secured, Channel(encrypted=True, endpoint=endpoint_hash(certificate or b"")))


async def _is_answered_yes(stream: trio.abc.Stream, wish: Wish, tls: ServerTls, server: str) -> bool:
    """Ask for TLS."""
    try:
        await stream.send_all(_SSL_REQUEST)
        answer = await stream.receive_some(1)
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"connection broke while TLS was asked for: {error}") from error
    if answer == b"S":
        return True
    if answer == b"N":
        if wish is Wish.TLS:
            raise TlsFailed(
                f"{server} has no TLS, and sslmode {tls.mode.value} wants it: turn ssl on in its settings, or "
                "choose another sslmode"
            )
        return False
    if answer == b"E":
        # Anybody could have sent this text: it is not shown (CVE-2024-10977).
        raise NoAnswer("server answered the request for TLS with an error")
    if not answer:
        raise NoAnswer(ended("server closed the connection when TLS was asked for", stream))
    raise NoAnswer("server broke the protocol: its answer to the request for TLS is none")


async def open_tls(step: TlsStep, below: trio.abc.Stream | None, context: DialContext) -> trio.abc.Stream:
    """Put TLS on the stream below.

    Raises:
        ConnectFailed: the handshake failed, or the other side is not trusted.
    """
    assert below is not None  # noqa: S101 - the settings see to it
    with context.trace.hop("tls", step.server_name) as hop:
        try:
            made = _contexts.get(step_material(step), verify=step.verify, name=step.verify, alpn=False)
        except BaseException:
            await trio.aclose_forcefully(below)
            raise
        try:
            return await _shake_hands(below, made, step.server_name, f"TLS to {step.server_name}", hop.facts)
        except TlsFailed as error:
            # It is on the way to the server: to do without TLS there would not help.
            raise ConnectFailed(str(error)) from error


async def _shake_hands(
    stream: trio.abc.Stream, context: ssl.SSLContext, server_name: str, what: str, facts: dict[str, str]
) -> trio.abc.Stream:
    """Do a handshake as the client; failed or cancelled, the stream has been closed.

    Raises:
        TlsFailed: it failed; `what` begins the message. `facts` has what was negotiated, and what the other side has
            shown, also then.
    """
    try:
        if isinstance(stream, PlainStream):
            return await _shake_hands_on_socket(stream, context, server_name, facts)
        try:
            above = trio.SSLStream(
                stream, context, server_hostname=server_name or None, https_compatible=True
            )
        except ValueError as error:
            await trio.aclose_forcefully(stream)
            raise OSError(errno.EPROTO, explain(error)) from error
        try:
            await above.do_handshake()
        except BaseException:
            facts.update(describe(above))
            await trio.aclose_forcefully(above)
            raise
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        raise TlsFailed(_advise(what, cause if isinstance(cause, OSError) else error)) from error
    except OSError as error:
        cause = error.__cause__
        raise TlsFailed(_advise(what, cause if isinstance(cause, OSError) else error)) from error
    facts.update(describe(above))
    return above


async def accept(stream: PlainStream, context: ssl.SSLContext) -> TlsStream:
    """Do the server's side of a handshake; failed or cancelled, the stream has been closed.

    Args:
        stream: from the peer; nothing of TLS has been received yet.
        context: of a server.

    Raises:
        OSError: it failed; the text is for people, and the cause tells whether the peer hung up (`was_cut`).
    """
    return await _shake_hands_on_socket(stream, context, "", {})


async def _shake_hands_on_socket(
    stream: PlainStream, context: ssl.SSLContext, server_name: str, facts: dict[str, str]
) -> TlsStream:
    sock = wrap(stream.detach(), context, server_name)
    secured = TlsStream(sock)
    try:
        await trio.lowlevel.checkpoint()
        while True:
            try:
                sock.shake_hands()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(sock)
    except BaseException:
        facts.update(describe(secured))
        secured.close()
        raise
    facts.update(describe(secured))
    return secured


_CUT_ADVICE: Final = (
    "check that TLS is spoken at that host and port, and look at the log there: it may have restarted, or want another "
    "name, version or certificate"
)
_ADVICE: Final = {
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS, or only a version that is too old",
    "UNSUPPORTED_PROTOCOL": "the other side speaks only a version that is too old: see the oldest version in the "
    "settings",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side wants another version: see the versions in the settings",
    "NO_PROTOCOLS_AVAILABLE": "OpenSSL's own settings forbid all versions that the settings allow",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "both sides have no cipher in common, or a certificate of ours is wanted",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not know who has issued our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other side wants a certificate of ours",
}


_NAMES: Final = "see the names in the certificate, and the host in the settings"
_ISSUER: Final = (
    "if it is the right one, let the settings name the certificate of its authority (ca_file of a step, sslrootcert of "
    "a database)"
)
_NOT_TRUSTED: Final = {
    9: "see the clocks here and there",
    10: "renew it there, or the one of its authority, and see whether the clock here is right",
    18: _ISSUER,
    19: _ISSUER,
    20: _ISSUER,
    21: _ISSUER,
    62: _NAMES,
    64: _NAMES,
}
"""What to do about a certificate, by OpenSSL's X509_V_ERR_* (x509_vfy.h): its time, its issuer, its name."""
_NOT_TRUSTED_OTHERWISE: Final = "see the file with the certificates that are trusted"


def _advise(what: str, error: Exception) -> str:
    """What to tell people about a handshake that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{what}: {explain(error)}; {_NOT_TRUSTED.get(error.verify_code, _NOT_TRUSTED_OTHERWISE)}"
    if was_cut(error):
        return f"{what}: the handshake failed: the other side ended the connection; {_CUT_ADVICE}"
    reason = getattr(error, "reason", None)
    advice = _ADVICE.get(reason or "", "")
    return f"{what}: the handshake failed: {explain(error)}" + (f"; {advice}" if advice else "")


def _session(stream: trio.abc.Stream) -> Any:  # noqa: ANN401 - an SSLStream has the methods of an SSLSocket
    return stream.tls if isinstance(stream, TlsStream) else stream


def describe(stream: trio.abc.Stream) -> dict[str, str]:
    """What was negotiated on a TLS stream, and what the other side has shown, for people.

    Args:
        stream: its handshake may have failed: its certificate is described all the same, if it has come.

    Returns:
        As far as they are known: ``version``, ``cipher``, ``alpn``; ``subject``, ``issuer``, ``names``,
        ``not_before`` and ``not_after`` of the certificate, and ``verified``: ``certificate and name``,
        ``certificate``, or ``no``.
    """
    tls = _session(stream)
    facts: dict[str, str] = {}
    try:
        facts["version"] = tls.version()
        cipher, alpn = tls.cipher(), tls.selected_alpn_protocol()
        if facts["version"] and cipher:
            facts["cipher"], facts["alpn"] = cipher[0], alpn
            facts["verified"] = _verified(tls.context)
        facts |= _shown(tls)
    except (OSError, ValueError, trio.BrokenResourceError, trio.NeedHandshakeError):
        pass  # It ended before there was anything to know.
    return {name: fact for name, fact in facts.items() if fact}


def _verified(context: ssl.SSLContext) -> str:
    """What a handshake that has succeeded proves."""
    if context.verify_mode is ssl.CERT_NONE:
        return "no"
    return "certificate and name" if context.check_hostname else "certificate"


def _shown(tls: Any) -> dict[str, str]:  # noqa: ANN401 - an SSLSocket or an SSLStream
    """The certificate that the other side has shown, verified or not.

    `ssl.SSLSocket.getpeercert` tells nothing about one that is not verified. What lies below does.
    """
    chain = getattr(getattr(tls, "_ssl_object", tls)._sslobj, "get_unverified_chain", lambda: None)()  # noqa: SLF001
    if not chain:
        return {}
    shown = chain[0].get_info()
    return {
        "subject": _distinguished(shown["subject"]),
        "issuer": _distinguished(shown["issuer"]),
        "names": ", ".join(str(name) for _, name in shown.get("subjectAltName", ())),
        "not_before": shown["notBefore"],
        "not_after": shown["notAfter"],
    }


def _distinguished(name: Any) -> str:  # noqa: ANN401 - as `ssl` gives it
    """A name in a certificate."""
    return ", ".join(value for part in name for _, value in part)
