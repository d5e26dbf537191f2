"""A login at a pooler's console, and what its views show."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import attrs
import trio

from hyperpool.config import DatabaseSettings, PoolerSettings, Secret, Settings
from hyperpool.config.kinds import SslMode
from hyperpool.errors import ConnectFailed, LoginFailed, PasswordMissing, ProtocolError
from hyperpool.overview.panels import PANELS
from hyperpool.pool.login import connect
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import constants as c
from hyperpool.wire import messages
from hyperpool.wire.frames import MAX_SERVER_LOGIN_FRAME, FrameReader
from hyperpool.wire.rows import data_row_fields, row_description_fields
from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.overview.model import Value

_DATABASE: Final = "pgbouncer"
_NUMBERS: Final = frozenset({20, 23, 1700})
"""Oids of int8, int4 and numeric (PostgreSQL, pg_type.dat); the console has whole numbers alone."""

_NOT_LET_IN: Final = "28000"
"""invalid_authorization_specification: to ask again does not help."""

_BYE: Final = 0.1
"""Seconds for a goodbye."""

VIEWS: Final = tuple(dict.fromkeys(name for panel in PANELS for name in panel.uses))
"""What the panels need."""

View = tuple[list[str], list[list["Value"]]]
"""Names of columns, and rows."""


@attrs.frozen(kw_only=True)
class Target:
    """Where the console is, and who asks.

    Attributes:
        host: a name or an address; a directory for a Unix socket.
        port: of the pooler.
        user: one of its ``admin_users`` or ``stats_users``.
        password: of the user; None for none.
        sslmode: whether TLS is used, and how far the pooler is trusted.
        sslrootcert: certificates that the pooler's is verified with; empty for none.
        timeout: seconds for the connection and for each look.
    """

    host: str
    port: int
    user: str
    password: Secret | None = None
    sslmode: SslMode = SslMode.PREFER
    sslrootcert: str = ""
    timeout: float = 10.0

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.route().targets[0].name

    def route(self) -> Route:
        """The way there."""
        entry = DatabaseSettings(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            sslmode=self.sslmode,
            sslrootcert=self.sslrootcert,
            application_name="hyperpool top",
        )
        settings = Settings(
            pooler=PoolerSettings(server_connect_timeout=self.timeout), databases={_DATABASE: entry}
        )
        pool = settings.pool_for(_DATABASE, self.user)
        assert pool is not None  # noqa: S101 - it is in the settings
        return Route(pool, DialContext(options=TcpOptions(), resolver=Resolver(0.0, 0.0)))


class ConsoleSession:
    """A login at the console; made by `open`.

    Args:
        stream: it waits for a query; belongs to the session from now on.
        timeout: seconds for each look.
    """

    def __init__(self, stream: trio.abc.Stream, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._frames = FrameReader(MAX_SERVER_LOGIN_FRAME)

    @classmethod
    async def open(cls, target: Target) -> Self:
        """Log in.

        Raises:
            ConnectFailed: nothing is there.
            LoginFailed: the pooler does not let us in.
        """
        try:
            login = await connect(target.route())
        except PasswordMissing:
            raise LoginFailed(
                f'the pooler asks for the password of user "{target.user}": set PGPASSWORD, or ask to be asked for it '
                "(-W); -U names another user",
                _NOT_LET_IN,
            ) from None
        except LoginFailed as error:
            hint = messages.error_fields(error.response[5:]).get("H") if error.response else None
            if hint is None:
                raise
            raise LoginFailed(f"{error} ({hint})", error.sqlstate, error.response) from None
        return cls(login.stream, target.timeout)

    async def show(self, names: Sequence[str] = VIEWS) -> dict[str, View | None]:
        """Ask for views, all at once.

        Returns:
            What each of them shows; None for one that the pooler does not have.

        Raises:
            ConnectFailed: the connection broke, or took longer than its timeout, or not the protocol came.
        """
        try:
            with trio.fail_after(self._timeout):
                await self._stream.send_all(b"".join(messages.query(f"SHOW {name}") for name in names))
                return {name: await self._answer() for name in names}
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectFailed(f"the connection broke: {error}") from error
        except trio.TooSlowError:
            raise ConnectFailed(f"the console did not answer within {self._timeout:g} s") from None
        except ProtocolError as error:
            raise ConnectFailed(f"the console broke the protocol: {error}") from error

    async def close(self) -> None:
        """Say goodbye, and close."""
        with trio.move_on_after(_BYE) as scope:
            scope.shield = True
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_all(messages.TERMINATE)
        await trio.aclose_forcefully(self._stream)

    async def _answer(self) -> View | None:
        """Read up to ReadyForQuery."""
        columns: list[tuple[str, int]] = []
        rows: list[list[Value]] = []
        refused = False
        while True:
            kind, body = await self._receive()
            if kind == c.ROW_DESCRIPTION:
                columns = row_description_fields(body)
            elif kind == c.DATA_ROW:
                values = zip(data_row_fields(body), columns, strict=True)
                rows.append([_value(raw, oid) for raw, (_, oid) in values])
            elif kind == c.ERROR_RESPONSE:
                refused = True
                fields = messages.error_fields(body)
                if fields.get("S") == "FATAL":
                    raise ConnectFailed(fields.get("M") or "the pooler has closed the connection")
            elif kind == c.READY_FOR_QUERY:
                return None if refused else ([name for name, _ in columns], rows)

    async def _receive(self) -> tuple[int, bytes]:
        while (frame := self._frames.next_frame()) is None:
            data = await self._stream.receive_some()
            if not data:
                raise ConnectFailed("the pooler closed the connection")
            self._frames.feed(data)
        return frame


def _value(raw: bytes | None, oid: int) -> Value:
    if raw is None:
        return None
    if oid in _NUMBERS:
        try:
            return int(raw)
        except ValueError:
            raise ProtocolError("a number is none") from None
    return decode(raw)


def may_be_repeated(error: ConnectFailed | LoginFailed) -> bool:
    """Whether to try again later helps: not when the pooler has said that we may not come in."""
    return isinstance(error, ConnectFailed) or not error.sqlstate.startswith("28")
