"""Opening a server connection, and cancelling what one does: conversations with PostgreSQL over any stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from hyperpool.auth.binding import BINDING_TYPE
from hyperpool.auth.client_side import ServerLogin
from hyperpool.auth.scram import MECHANISM_PLUS
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError, UpstreamError
from hyperpool.transport.ending import ended
from hyperpool.transport.kinds import Trace
from hyperpool.transport.tls import NoAnswer, Wish, is_worth_another, secure, wishes
from hyperpool.wire import messages
from hyperpool.wire.frames import MAX_SERVER_LOGIN_FRAME, FrameReader
from hyperpool.wire.startup import NEWEST_MINOR, OLDEST_MINOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.auth.binding import Channel
    from hyperpool.transport.route import Route, Target


@attrs.frozen
class Way:
    """How to reach the server of a connection once more.

    Attributes:
        route: the one that has led to it; the pool may have another one by now.
        target: the server.
        encrypted: with PostgreSQL's own TLS, which a cancel request gets, too.
    """

    route: Route
    target: Target
    encrypted: bool = False


@attrs.frozen
class LoggedIn:
    """A stream on which PostgreSQL waits for a query.

    Attributes:
        stream: the caller owns it.
        way: leads to the same server.
        target: the server, as the route knows it.
        parameters: the newest ParameterStatus of each parameter.
        pid: the server's process id.
        secret: the server's cancel secret.
        minor: the minor version of protocol 3 that it was asked for; it may have settled for less.
        baffled: it was at a loss with a newer one before.
    """

    stream: trio.abc.Stream
    way: Way
    target: Target
    parameters: dict[str, str]
    pid: int
    secret: bytes
    minor: int
    baffled: bool = False


def _newest(_target: Target) -> int:
    return NEWEST_MINOR


async def connect(
    route: Route, minor_for: Callable[[Target], int] = _newest, trace: Trace | None = None
) -> LoggedIn:
    """Open a connection to a server of a pool, and log in.

    A server that may be at a loss with the protocol version is asked again for 3.0, on a second connection: very old
    servers and some poolers refuse what they do not know, or hang up.

    Cancelled or failed, it leaves no connection behind.

    Args:
        route: leads there, and knows as whom to log in.
        minor_for: the minor version of protocol 3 to ask a server for.
        trace: gets what is done.

    Raises:
        ConnectFailed: nothing is there, it broke, or it took longer than ``server_connect_timeout``.
        LoginFailed: the server refuses us.
    """
    settings = route.settings
    timeout = settings.server_connect_timeout or float("inf")
    failures: list[str] = []
    trace = route.trace = trace or Trace()
    with trio.move_on_after(timeout):
        return await route.first(lambda target: connect_to(route, target, minor_for(target), trace), failures)
    where = ", ".join(target.name for target in route.targets)
    before = f"; before that: {'; '.join(failures)}" if failures else ""
    who = f"server {where}" if route.targets[0].known else where
    raise ConnectFailed(
        f"{who} did not log us in within {timeout:g} s (server_connect_timeout){trace.waits}{before}"
    )


async def connect_to(
    route: Route, target: Target, minor: int = NEWEST_MINOR, trace: Trace | None = None
) -> LoggedIn:
    """Open a connection to one server of a pool, and log in; there is no limit for the time that it takes.

    Cancelled or failed, it leaves no connection behind.

    Args:
        route: leads there, and knows as whom to log in.
        target: the server.
        minor: the minor version of protocol 3 to ask it for.
        trace: gets what is done; of every attempt, if one with TLS and one without, or with another version, are made.

    Raises:
        ConnectFailed: nothing is there, or it broke.
        LoginFailed: the server refuses us.
    """
    trace = trace or Trace()
    *others, last = wishes(route.settings.tls.mode)
    for wish in others:
        try:
            return await _connect_with(wish, route, target, minor, trace)
        except UpstreamError as error:
            if not is_worth_another(error):
                raise
            if isinstance(error, NoAnswer):
                # Whoever is at a loss with the request for TLS may be so with a new version, and hang up once more.
                minor = OLDEST_MINOR
    return await _connect_with(last, route, target, minor, trace)


async def _connect_with(wish: Wish, route: Route, target: Target, minor: int, trace: Trace) -> LoggedIn:
    login = _new_login(route, minor)
    baffled = False
    try:
        stream, way = await _open(wish, route, target, login, trace)
    except UpstreamError:
        if not login.baffled:
            raise
        login, baffled = _new_login(route, OLDEST_MINOR), True
        stream, way = await _open(wish, route, target, login, trace)
    return LoggedIn(stream, way, target, login.parameters, login.pid, login.secret, login.minor, baffled)


def _new_login(route: Route, minor: int) -> ServerLogin:
    settings = route.settings
    parameters = {**settings.parameters, "database": settings.dbname}
    if settings.replication:
        parameters["replication"] = settings.replication
    return ServerLogin(settings.user, settings.password, parameters, minor, settings.tls.binding, route.shown)


async def _open(
    wish: Wish, route: Route, target: Target, login: ServerLogin, trace: Trace
) -> tuple[trio.abc.Stream, Way]:
    opened = await route.reach(target, trace)
    secured = await secure(
        opened.stream, wish, route.settings.tls, target.host, trace, "" if target.known else target.name
    )
    try:
        with trace.hop("login", route.settings.user) as hop:
            try:
                await _log_in(secured.stream, login, secured.channel)
            finally:
                hop.facts.update(_describe(login))
    except BaseException:
        await trio.aclose_forcefully(secured.stream)
        raise
    return secured.stream, Way(route, opened.target, secured.channel.encrypted)


def _describe(login: ServerLogin) -> dict[str, str]:
    """What is known of a login, for people."""
    if not login.method:
        return {}
    facts = {
        "method": login.method,
        "channel_binding": BINDING_TYPE.decode() if login.method == MECHANISM_PLUS else "no",
    }
    if login.done:
        facts["protocol"] = f"3.{login.settled}"
        reported = ("server_version", "in_hot_standby", "default_transaction_read_only")
        facts |= {name: login.parameters[name] for name in reported if name in login.parameters}
    return facts


async def _log_in(stream: trio.abc.Stream, login: ServerLogin, channel: Channel) -> None:
    reader = FrameReader(MAX_SERVER_LOGIN_FRAME)
    try:
        startup = login.start(channel)
    except ProtocolError as error:
        # No cause: it is not the server that broke the protocol.
        raise LoginFailed(f"cannot ask the server for a session: {error}") from None
    try:
        await stream.send_all(startup)
        while not login.done:
            frame = reader.next_frame()
            if frame is None:
                data = await stream.receive_some()
                if not data:
                    raise ConnectFailed(ended("server closed the connection during login", stream))
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


async def cancel(way: Way, pid: int, secret: bytes) -> None:
    """Ask the server to cancel what the backend `pid` does, and wait until it has taken the request.

    The server closes the connection once the signal is on its way (protocol chapter "Canceling Requests in
    Progress").

    Args:
        way: leads to that server.
        pid: as the server has told it.
        secret: as the server has told it.

    Raises:
        ConnectFailed: the server cannot be reached.
    """
    reopened = await way.route.reopen(way.target)
    wish = Wish.TLS if way.encrypted else Wish.PLAIN
    target = way.target
    secured = await secure(
        reopened, wish, way.route.settings.tls, target.host, Trace(), "" if target.known else target.name
    )
    stream = secured.stream
    try:
        await stream.send_all(messages.cancel_request(pid, secret))
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"cancel request broke off: {error}") from error
    finally:
        await trio.aclose_forcefully(stream)
