"""Opening a server connection, and cancelling what one does: conversations with PostgreSQL over any stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from hyperpool.auth.client_side import ServerLogin
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError, UpstreamError
from hyperpool.transport.dial import dial
from hyperpool.wire import messages
from hyperpool.wire.frames import MAX_SERVER_LOGIN_FRAME, FrameReader
from hyperpool.wire.startup import NEWEST_MINOR, OLDEST_MINOR

if TYPE_CHECKING:
    from hyperpool.config import PoolSettings
    from hyperpool.transport.plain import PlainStream
    from hyperpool.transport.sockets import TcpOptions


@attrs.frozen
class LoggedIn:
    """A stream on which PostgreSQL waits for a query.

    Attributes:
        stream: the caller owns it.
        parameters: the newest ParameterStatus of each parameter.
        pid: the server's process id.
        secret: the server's cancel secret.
        minor: the minor version of protocol 3 that it was asked for; it may have settled for less.
    """

    stream: PlainStream
    parameters: dict[str, str]
    pid: int
    secret: bytes
    minor: int


async def connect(settings: PoolSettings, options: TcpOptions, minor: int = NEWEST_MINOR) -> LoggedIn:
    """Open a connection to the server of a pool, and log in.

    A server that may be at a loss with the protocol version is asked again for 3.0, on a second connection: very old
    servers and some poolers refuse what they do not know, or hang up.

    Cancelled or failed, it leaves no connection behind.

    Args:
        settings: where to, and as whom.
        options: for TCP.
        minor: the minor version of protocol 3 to ask for.

    Raises:
        ConnectFailed: nothing is there, it broke, or it took longer than ``server_connect_timeout``.
        LoginFailed: the server refuses us.
    """
    timeout = settings.server_connect_timeout or float("inf")
    with trio.move_on_after(timeout):
        login = _new_login(settings, minor)
        try:
            stream = await _open(settings, options, login)
        except UpstreamError:
            if not login.baffled:
                raise
            login = _new_login(settings, OLDEST_MINOR)
            stream = await _open(settings, options, login)
        return LoggedIn(stream, login.parameters, login.pid, login.secret, login.minor)
    where = f"{settings.host}:{settings.port}"
    raise ConnectFailed(f"server {where} did not log us in within {timeout:g} s (server_connect_timeout)")


def _new_login(settings: PoolSettings, minor: int) -> ServerLogin:
    parameters = {**settings.parameters, "database": settings.dbname}
    if settings.replication:
        parameters["replication"] = settings.replication
    return ServerLogin(settings.user, settings.password, parameters, minor)


async def _open(settings: PoolSettings, options: TcpOptions, login: ServerLogin) -> PlainStream:
    stream = await dial(settings.host, settings.port, options)
    try:
        await _log_in(stream, login)
    except BaseException:
        stream.close()
        raise
    return stream


async def _log_in(stream: PlainStream, login: ServerLogin) -> None:
    reader = FrameReader(MAX_SERVER_LOGIN_FRAME)
    try:
        startup = login.start()
    except ProtocolError as error:
        raise LoginFailed(f"cannot ask the server for a session: {error}") from error
    try:
        await stream.send_all(startup)
        while not login.done:
            frame = reader.next_frame()
            if frame is None:
                data = await stream.receive_some()
                if not data:
                    raise ConnectFailed("server closed the connection during login")
                reader.feed(data)
                continue
            answer = login.receive(*frame)
            if answer:
                await stream.send_all(answer)
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"connection broke during login: {error}") from error
    except ProtocolError as error:
        raise LoginFailed(f"server broke the protocol during login: {error}") from error
    if reader.leftover():
        raise LoginFailed("server sent more than it was asked during login")


async def cancel(host: str, port: int, options: TcpOptions, pid: int, secret: bytes) -> None:
    """Ask the server to cancel what the backend `pid` does, and wait until it has taken the request.

    The server closes the connection once the signal is on its way (protocol chapter "Canceling Requests in
    Progress").

    Raises:
        ConnectFailed: the server cannot be reached.
    """
    stream = await dial(host, port, options)
    try:
        await stream.send_all(messages.cancel_request(pid, secret))
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"cancel request broke off: {error}") from error
    finally:
        stream.close()
