"""The gate: connections come in, and those with a service token go through as WebSockets.

::

    accept ─▶ TLS ─▶ request ─▶ token ─▶ limits ─▶ handler ─▶ WebSocket
              └──── handshake_timeout, max_handshakes ────┘

Whoever has no token gets a status without a body, and nothing of what is behind.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool.errors import StartupError
from hyperpool.transport.endpoint import was_cut
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.passed import AGENTS, PassedSockets
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.sockets import TcpOptions, address_name
from hyperpool.transport.tls import TlsStream, accept
from hyperpool.tunnel.refusals import RefusalLog
from hyperpool.tunnel.upgrade import Handshake, Refused

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from hyperpool.auth.tokens import Token, TokenTable
    from hyperpool.tunnel.upgrade import UpgradeRequest

log = structlog.get_logger("gate")

_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FULL_PAUSE: Final = 0.1
_FAREWELL: Final = 2.0
"""Seconds that a refusal may take to be sent."""
_TCP: Final = TcpOptions()
_REFUSED: Final = 403
"""One status for everything about tokens: none, an unknown one, a wrong secret."""
_TOO_MANY: Final = 429
_BUSY: Final = 503


@attrs.frozen(kw_only=True)
class GateOptions:
    """What a reload may change.

    Attributes:
        tokens: who is let in.
        context: TLS for the connections to come; None for plain HTTP.
        max_connections: let in at a time; 0 is no limit.
        max_connections_per_token: let in at a time with one token; 0 is no limit.
        max_handshakes: connections at a time that are not let in yet; when there are more, the oldest has to go.
        handshake_timeout: seconds from the connection to its being let in.
        max_header_size: bytes of a request.
        max_message_size: bytes of a message that a guest may send.
        keepalive: seconds between two pings while nothing moves; 0 for none.
        health_path: answered with 200 to everybody; empty for none.
    """

    tokens: TokenTable
    context: ssl.SSLContext | None = None
    max_connections: int = 0
    max_connections_per_token: int = 0
    max_handshakes: int = 100
    handshake_timeout: float = 10.0
    max_header_size: int = 16384
    max_message_size: int = 1 << 24
    keepalive: float = 30.0
    health_path: str = ""


@attrs.define(eq=False)
class Visitor:
    """A peer on its way in.

    Attributes:
        peer: its address, for people.
        scope: everything that is done for it.
        verdict: why it has to go, when `scope` was cancelled.
        stream: from it.
        handshake: once there is one.
        token: what it has shown; it is a stranger before.
        request: what it asks for.
    """

    peer: str
    scope: trio.CancelScope
    stream: trio.abc.Stream
    verdict: str = ""
    handshake: Handshake | None = None
    token: Token | None = None
    request: UpgradeRequest | None = None

    def dismiss(self, verdict: str) -> None:
        """End what is done for it."""
        self.verdict = verdict
        self.scope.cancel()


@attrs.frozen
class Guest:
    """A peer whose token is good, and who waits for the answer to its request.

    Attributes:
        peer: its address, for people.
        token: what it has shown.
        request: what it asks for.
    """

    peer: str
    token: Token
    request: UpgradeRequest
    _visitor: Visitor
    _handshake: Handshake
    _options: GateOptions

    def verdict(self) -> str:
        """Why it has to go, for people; empty as long as it may stay."""
        return self._visitor.verdict

    async def accept(self, name: str = "") -> WebSocketStream:
        """Answer that the WebSocket is open.

        Args:
            name: what messages call the guest; by default, its address.

        Raises:
            trio.BrokenResourceError: the peer has gone.
        """
        early = await self._handshake.accept()
        options = self._options
        return WebSocketStream(
            self._visitor.stream,
            client=False,
            received=early,
            max_received=options.max_message_size,
            keepalive=options.keepalive,
            name=name or self.peer,
        )


class Gate:
    """Takes connections in.

    Args:
        name: for the log.
        options: see there.
        handle: what is done with a guest. It raises `Refused` for a refusal, returns when the guest has left, and is
            cancelled when the guest's token is revoked. The connection is closed behind it.
    """

    def __init__(self, name: str, options: GateOptions, handle: Callable[[Guest], Awaitable[None]]) -> None:
        self._name = name
        self._log = structlog.get_logger(name)
        self._refusals = RefusalLog(self._log, trio.current_time)
        self._options = options
        self._handle = handle
        self._strangers: dict[Visitor, None] = {}
        self._inside: dict[Visitor, Token] = {}
        self._per_token: Counter[str] = Counter()
        self._accepting = trio.CancelScope()

    @property
    def inside(self) -> int:
        """How many have been let in and are still there."""
        return len(self._inside)

    def configure(self, options: GateOptions) -> None:
        """Take other options over; whoever came in with a token that is revoked now has to go."""
        self._options = options
        for visitor, token in self._inside.items():
            if not options.tokens.holds(token):
                visitor.dismiss("its token is revoked")

    def close(self) -> None:
        """Let nobody in any more; those inside stay."""
        self._accepting.cancel()
        for visitor in self._strangers:
            visitor.dismiss("shutting down")

    async def run(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serve until `close` was called and all have left.

        Args:
            listeners: closed when nobody is let in any more.
        """
        async with trio.open_nursery() as nursery:
            with self._accepting:
                async with trio.open_nursery() as acceptors:
                    for listener in listeners:
                        acceptors.start_soon(self._accept, listener, nursery)

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        complained = False
        async with listener:
            while True:
                try:
                    sock, address = await listener.socket.accept()
                except OSError as error:
                    if error.errno in _FULL:
                        if not complained:
                            self._log.error(
                                "cannot accept connections",
                                error=os.strerror(error.errno),
                                remedy="raise the limit on open files (ulimit -n, LimitNOFILE=)",
                            )
                        complained = True
                        await trio.sleep(_FULL_PAUSE)
                    continue
                complained = False
                nursery.start_soon(self._welcome, sock, address_name(sock.family, address))

    async def _welcome(self, accepted: trio.socket.SocketType, peer: str) -> None:
        """Do everything for one connection; nothing that it does may hurt the others."""
        options = self._options
        deadline = trio.current_time() + options.handshake_timeout
        visitor = Visitor(peer, trio.CancelScope(deadline=deadline), _plain_stream(accepted))
        try:
            try:
                with self._among_strangers(visitor, options), visitor.scope:
                    await self._attend(visitor, options)
                if visitor.scope.cancelled_caught:
                    self._cut_off(visitor)
            except Refused as refusal:
                await self._refuse(visitor, refusal)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # It has gone.
        except Exception as error:
            log.error("serving a connection failed", gate=self._name, peer=peer, exc_info=error)
        finally:
            await trio.aclose_forcefully(visitor.stream)

    @contextmanager
    def _among_strangers(self, visitor: Visitor, options: GateOptions) -> Iterator[None]:
        """Count a visitor as a stranger until it is let in; when there are too many, the oldest one has to go."""
        self._strangers[visitor] = None
        if len(self._strangers) > options.max_handshakes:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.dismiss("too many connections without a token")
        try:
            yield
        finally:
            self._strangers.pop(visitor, None)

    async def _attend(self, visitor: Visitor, options: GateOptions) -> None:
        guest = await self._admit(visitor, options)
        if guest is None:
            return
        self._strangers.pop(visitor, None)
        visitor.scope.deadline = float("inf")
        self._inside[visitor] = guest.token
        self._per_token[guest.token.name] += 1
        try:
            await self._handle(guest)
        finally:
            del self._inside[visitor]
            self._per_token[guest.token.name] -= 1

    async def _admit(self, visitor: Visitor, options: GateOptions) -> Guest | None:
        """Find out who it is.

        Returns:
            The guest; None when it wanted to know no more than whether somebody is here.

        Raises:
            Refused: it is not let in.
        """
        if options.context is not None:
            assert isinstance(visitor.stream, PlainStream)  # noqa: S101 - it has just come
            visitor.stream = await _start_tls(visitor.stream, options.context)
        visitor.handshake = handshake = Handshake(visitor.stream, options.max_header_size)
        visitor.request = request = await handshake.receive()
        if _is_about_health(request, options.health_path):
            await handshake.respond(200, b"ok\n")
            await visitor.stream.aclose()
            return None
        # Not the tokens that there were when it came.
        token = self._options.tokens.verify(request.token_id, request.token_secret)
        if token is None:
            raise Refused("no token, or one that is not accepted", _REFUSED)
        visitor.token = token
        handshake.check()
        if options.max_connections and len(self._inside) >= options.max_connections:
            raise Refused("max_connections is reached", _BUSY)
        limit = options.max_connections_per_token
        if limit and self._per_token[token.name] >= limit:
            raise Refused("max_connections_per_token is reached", _TOO_MANY)
        return Guest(visitor.peer, token, request, visitor, handshake, options)

    async def _refuse(self, visitor: Visitor, refusal: Refused) -> None:
        """Say no, and nothing else."""
        if refusal.noteworthy:
            facts = self._facts(visitor)
            self._refusals.refused("refused", reason=str(refusal), **facts)
        if refusal.status and visitor.handshake is not None:
            with trio.move_on_after(_FAREWELL):
                await visitor.handshake.respond(refusal.status)
                await visitor.stream.aclose()

    def _cut_off(self, visitor: Visitor) -> None:
        """Log why a visitor had to go."""
        if visitor.token is None:
            reason = visitor.verdict or "no request within handshake_timeout"
            self._refusals.refused("refused", reason=reason, **self._facts(visitor))
        else:
            self._log.warning(
                "connection ended", peer=visitor.peer, token=visitor.token.name, reason=visitor.verdict
            )

    def _facts(self, visitor: Visitor) -> dict[str, str]:
        facts = {"peer": visitor.peer}
        if visitor.request is not None:
            facts["token"] = self._options.tokens.describe(visitor.request.token_id)
        return facts


def _is_about_health(request: UpgradeRequest, path: str) -> bool:
    """Whether somebody wants to know no more than whether we are here; a CONNECT would make it a tunnel."""
    asks = request.method != b"CONNECT" and b"upgrade" not in request.headers
    return bool(path) and request.path == path and asks


def _plain_stream(accepted: trio.socket.SocketType) -> PlainStream:
    family, kind, proto = accepted.family, accepted.type, accepted.proto
    sock = socket.socket(family, kind, proto, fileno=accepted.detach())
    with suppress(OSError):  # It has gone already; whoever reads will find out.
        _TCP.apply(sock)
    return PlainStream(sock)


async def _start_tls(stream: PlainStream, context: ssl.SSLContext) -> TlsStream:
    """Do the server's side of a TLS handshake; failed, `stream` has been closed."""
    try:
        return await accept(stream, context)
    except OSError as error:
        cause = error.__cause__
        if cause is not None and was_cut(cause):
            raise Refused(
                "the TLS handshake failed: it ended the connection; its own log may say why, as when it does not trust "
                "our certificate"
            ) from None
        raise Refused(f"the TLS handshake failed: {error.strerror}") from None


async def listen(
    addresses: Sequence[str], port: int, where: str, passed: PassedSockets | None = None
) -> list[trio.SocketListener]:
    """Open listeners.

    Args:
        addresses: names and addresses, or ``*`` for all.
        port: for each of them.
        where: what messages call the settings.
        passed: sockets that are open already; those that are of use to agents are taken.

    Raises:
        StartupError: an address cannot be had; nothing is left open then, but what has not been taken.
    """
    passed = passed or PassedSockets()
    listeners = [_listener(sock) for sock in passed.fixed(AGENTS)]
    if listeners:
        return listeners
    try:
        for address in addresses:
            host = None if address == "*" else address
            taken = await _taken(passed, host, port) if passed else []
            # All of an address were opened together.
            listeners += taken or await trio.open_tcp_listeners(port, host=host)
    except BaseException as error:
        for listener in listeners:
            listener.socket.close()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise StartupError(f"cannot listen on {address}:{port}: {reason}; see {where}") from error
        raise
    return listeners


async def _taken(passed: PassedSockets, host: str | None, port: int) -> list[trio.SocketListener]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound = [passed.bound(AGENTS, address) for *_, address in found]
    return [_listener(sock) for sock in bound if sock is not None]


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
