"""The front door: from an accepted socket to a logged-in client in the relay.

A client's login costs no round trip to a server: its password is checked here, and what the server would report at
login is known from the pool's first server connection.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.errors import (
    ClientRefused,
    ConnectFailed,
    HyperpoolError,
    ProtocolError,
    UpstreamError,
)
from hyperpool.frontdoor.startup import requested_parameters
from hyperpool.pool.login import cancel
from hyperpool.relay.handover import ClientReady
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from hyperpool.wire.frames import FrameReader
from hyperpool.wire.startup import (
    CancelRequest,
    StartupMessage,
    negotiate,
    parse_startup,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from hyperpool.config import Settings
    from hyperpool.pool.state import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.server import ServerConnection

log = structlog.get_logger("login")

_SPARE_LOGINS: Final = 256
"""Connections that may be logging in beyond max_client_conn: cancel requests, and clients that will be refused."""

_FAREWELL_TIME: Final = 2.0
"""Seconds that a refused client has to take its error message."""

_FAREWELL_BYTES: Final = 1 << 20


class FrontDoor:
    """Logs clients in.

    Args:
        settings: the whole settings; replaced on reload.
        relay: the data plane; limits count its clients.
        pools: where clients get their servers from.
        clients: takes the clients that are logged in.
    """

    def __init__(
        self,
        settings: Settings,
        relay: Relay,
        pools: Pools[ServerConnection, ClientConnection],
        clients: trio.MemorySendChannel[ClientReady],
    ) -> None:
        self.settings = settings
        self._relay = relay
        self._pools = pools
        self._clients = clients
        self._mock_key = secrets.token_bytes(32)
        self._logging_in = 0

    def welcome(self, nursery: trio.Nursery, sock: socket.socket, address: str) -> None:
        """Start to log in an accepted socket; turn it away when too many are at it already."""
        if self._logging_in >= self.settings.pooler.max_client_conn + _SPARE_LOGINS:
            log.warning("too many connections are logging in", client=address)
            sock.close()
            return
        self._logging_in += 1
        nursery.start_soon(self._attend, PlainStream(sock), address)

    async def _attend(self, stream: PlainStream, address: str) -> None:
        try:
            with self._relay.attention():
                await self._attend_in_time(stream, address)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.info("client went away during login", client=address, reason=str(error))
        except Exception as error:
            log.error("a login failed unexpectedly", client=address, exc_info=error)
        finally:
            self._logging_in -= 1
            stream.close()

    async def _attend_in_time(self, stream: PlainStream, address: str) -> None:
        timeout = self.settings.pooler.client_login_timeout or float("inf")
        with trio.move_on_after(timeout) as scope:
            try:
                await self._log_in(stream, address)
            except HyperpoolError as error:
                await self._refuse(stream, address, error)
        if scope.cancelled_caught:
            await self._refuse(stream, address, ClientRefused("client_login_timeout", "08P01"))

    async def _refuse(self, stream: PlainStream, address: str, error: HyperpoolError) -> None:
        """Send a FATAL error so that it arrives: the peer's unread bytes would make a plain close destroy it."""
        if self.settings.pooler.log_pooler_errors:
            log.warning("login refused", client=address, reason=str(error), sqlstate=error.sqlstate)
        response = error.response if isinstance(error, UpstreamError) else b""
        if not response:
            hint = error.hint if isinstance(error, ClientRefused) else ""
            response = messages.error_response(str(error), error.sqlstate, hint=hint)
        with trio.move_on_after(_FAREWELL_TIME):
            await stream.send_all(response)
            await stream.send_eof()
            left = _FAREWELL_BYTES
            while left > 0 and (data := await stream.receive_some()):
                left -= len(data)

    async def _log_in(self, stream: PlainStream, address: str) -> None:
        reader = FrameReader()
        message = await self._startup(stream, reader)
        if message is None:
            return
        if self._relay.population >= self.settings.pooler.max_client_conn:
            raise ClientRefused(
                "no more connections allowed (max_client_conn)",
                "53300",
                "raise max_client_conn, or let clients close connections that they do not use",
            )
        with self._relay.key() as (pid, secret):
            requested = requested_parameters(message, self.settings.pooler, self._relay.tracker)
            pending = await self._authenticate(stream, reader, message)
            pool = self._pools.find(message.database, message.user)
            if pool is None:
                raise ClientRefused(f'database "{message.database}" does not exist', "3D000")
            reported = {**await self._relay.parameters(pool), **requested}
            welcome = pending + _greeting(reported, pid, secret)
            tracked = self._relay.tracker.intern(reported)
            sock = stream.detach()
            try:
                await self._clients.send(
                    ClientReady(sock, pool, tracked, pid, secret, welcome, reader.leftover(), address)
                )
            except BaseException:
                sock.close()
                raise

    async def _startup(self, stream: PlainStream, reader: FrameReader) -> StartupMessage | None:
        """Read up to the StartupMessage; None when it was a cancel request, which has been dealt with."""
        asked: set[type] = set()
        while True:
            packet = reader.next_startup_packet()
            if packet is None:
                reader.feed(await _receive(stream))
                continue
            message = parse_startup(packet)
            if isinstance(message, StartupMessage):
                return message
            if isinstance(message, CancelRequest):
                await self._cancel(message)
                return None
            if type(message) in asked:
                raise ProtocolError("repeated request for encryption")
            asked.add(type(message))
            await stream.send_all(b"N")

    async def _authenticate(self, stream: PlainStream, reader: FrameReader, message: StartupMessage) -> bytes:
        """Check the client's password. Returns what must be sent to it before AuthenticationOk."""
        settings = self.settings
        secret = settings.credentials.get(message.user)
        exchange = ClientAuthentication(settings.pooler.auth_type, message.user, secret, self._mock_key)
        pending = negotiate(message) + exchange.start()
        while not exchange.done:
            if pending:
                await stream.send_all(pending)
                pending = b""
            frame = reader.next_frame()
            if frame is None:
                reader.feed(await _receive(stream))
            else:
                pending = exchange.receive(*frame)
        return pending

    async def _cancel(self, request: CancelRequest) -> None:
        server = self._relay.cancel_target(request.pid, request.secret)
        if server is None:
            return
        timeout = self.settings.pooler.cancel_wait_timeout or float("inf")
        try:
            with trio.move_on_after(timeout):
                options = TcpOptions.of(self.settings.pooler)
                await cancel(server.pool.settings, options, server.pid, server.secret)
        except ConnectFailed as error:
            log.warning("cannot cancel", pool=server.pool.name, pid=server.pid, error=str(error))
        finally:
            server.end_cancel()


async def _receive(stream: PlainStream) -> bytes:
    data = await stream.receive_some()
    if not data:
        raise trio.BrokenResourceError("end of stream")
    return data


def _greeting(reported: Mapping[str, str], pid: int, secret: bytes) -> bytes:
    """From AuthenticationOk to ReadyForQuery."""
    statuses = b"".join(messages.parameter_status(name, value) for name, value in reported.items())
    return (
        messages.authentication_ok()
        + statuses
        + messages.backend_key_data(pid, secret)
        + messages.ready_for_query()
    )
