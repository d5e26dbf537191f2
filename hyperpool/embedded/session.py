"""A login at an embedded database, to find out whether it answers and to make what the settings ask for."""

from __future__ import annotations

from typing import Final, Self

import trio

from hyperpool.auth.client_side import ServerLogin
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.wire import messages
from hyperpool.wire.frames import MAX_SERVER_LOGIN_FRAME, FrameReader

_PARAMETERS: Final = {
    "application_name": "hyperpool",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",  # `literal` depends on it
    "log_min_error_statement": "panic",  # no statement with a password in it gets into the log
}


class Session:
    """One connection over a Unix socket; made by `open`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._frames = FrameReader(MAX_SERVER_LOGIN_FRAME)

    @classmethod
    async def open(cls, socket: str, user: str, database: str) -> Self:
        """Log in without a password.

        Raises:
            ConnectFailed: nothing listens there, or it hung up.
            LoginFailed: PostgreSQL does not let us in; SQLSTATE 57P03 while it starts.
        """
        try:
            session = cls(await trio.open_unix_socket(socket))
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {socket}: {error.strerror}") from error
        try:
            login = ServerLogin(user, None, {"database": database, **_PARAMETERS})
            await session._send(login.start())
            while not login.done:
                await session._send(login.receive(*await session._receive()))
        except BaseException:
            await trio.aclose_forcefully(session._stream)
            raise
        return session

    async def execute(self, sql: str) -> int:
        """Run one statement.

        Returns:
            How many rows it returned.

        Raises:
            LoginFailed: it failed; with PostgreSQL's words.
            ConnectFailed: PostgreSQL hung up.
        """
        await self._send(messages.query(sql))
        rows = 0
        failure: dict[str, str] | None = None
        while True:
            kind, body = await self._receive()
            if kind == ord("D"):
                rows += 1
            elif kind == ord("E"):
                failure = messages.error_fields(body)
            elif kind == ord("Z"):
                break
        if failure is not None:
            raise LoginFailed(failure.get("M", "unknown error"), failure.get("C", "XX000"))
        return rows

    async def close(self) -> None:
        """Log out."""
        with trio.CancelScope(shield=True):
            try:
                await self._send(messages.TERMINATE)
            except ConnectFailed:
                pass
            finally:
                await self._stream.aclose()

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise ConnectFailed("PostgreSQL closed the connection") from None

    async def _receive(self) -> tuple[int, bytes]:
        while (frame := self._frames.next_frame()) is None:
            try:
                data = await self._stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise ConnectFailed("PostgreSQL closed the connection")
            self._frames.feed(data)
        return frame


def identifier(name: str) -> str:
    """Quote `name` for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote `text` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"
