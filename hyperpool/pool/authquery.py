"""Asking servers for the secrets of users: pgbouncer's ``auth_query``.

Each source has one connection of its own, which serves nobody else. It is opened with a user and a database and nothing
more: no client's startup parameter, no ``connect_query`` and no parameter of the database ever reaches it
(CVE-2025-12819), and a user's name reaches it as the value of a parameter and never as SQL (CVE-2015-6817).

Questions that come while others are being answered are sent together, in one pipeline. Nothing is remembered here.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.config import Secret
from hyperpool.errors import ConnectFailed, LoginFailed, ProtocolError, UpstreamError
from hyperpool.pool.backoff import Backoff
from hyperpool.pool.login import connect
from hyperpool.transport.route import Route
from hyperpool.wire import constants as c
from hyperpool.wire import extended, messages
from hyperpool.wire.frames import MAX_SERVER_LOGIN_FRAME, FrameReader
from hyperpool.wire.rows import data_row_fields
from hyperpool.wire.text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from hyperpool.config import AuthSource
    from hyperpool.transport.kinds import DialContext

    Outcome: TypeAlias = "Secret | UpstreamError | None"

log = structlog.get_logger("auth")

_BATCH: Final = 64
"""Questions that are sent at once."""

_SWEEP: Final = 1.0
"""Seconds between two looks for connections that nobody needs."""

_NOT_A_VALUE: Final = "22"
"""Class of the SQLSTATEs with which a server refuses a text that can be no name, in its encoding: no user has it."""


class AuthQueries:
    """Connections to servers that are asked for secrets.

    Args:
        context: for the steps of the ways to them, as it is now.
        attention: entered while somebody is waiting for an answer.
        random: a source of numbers in [0, 1), for jitter.
    """

    def __init__(
        self,
        context: Callable[[], DialContext],
        attention: Callable[[], AbstractContextManager[None]],
        random: Callable[[], float],
    ) -> None:
        self._context = context
        self._attention = attention
        self._random = random
        self._directories: dict[tuple[str, str, str], _Directory] = {}

    async def secret(self, source: AuthSource, user: str) -> Secret | None:
        """What is stored about a user.

        Args:
            source: whom to ask.
            user: the user's name.

        Returns:
            The secret, an empty one if the user is there without one, or with one that is not valid any more; None if
            there is no such user.

        Raises:
            ConnectFailed: the server cannot be reached, or takes longer than ``server_connect_timeout``.
            LoginFailed: it refuses us, or the query, or answers with something else than a name and a secret.
        """
        directory = self._directories.get(source.key)
        if directory is None:
            directory = self._directories[source.key] = _Directory(self._random)
        with self._attention():
            return await directory.secret(source, self._context(), user)

    async def run(self) -> None:
        """Close connections that nobody has needed for ``server_idle_timeout``, until cancelled; then close all."""
        try:
            while True:
                await trio.sleep(_SWEEP)
                for key, directory in list(self._directories.items()):
                    if directory.unneeded(time.monotonic()):
                        del self._directories[key]
                        await directory.close()
        finally:
            with trio.CancelScope(shield=True):
                for directory in list(self._directories.values()):
                    await directory.close()


class _Question:
    """What is known of one user.

    Attributes:
        settled: there is an outcome.
        outcome: what came out.
    """

    __slots__ = ("outcome", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.outcome: Outcome = None

    def settle(self, outcome: Outcome) -> None:
        self.settled, self.outcome = True, outcome


class _Directory:
    """One source: its connection, and the questions for it."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._lock = trio.Lock()
        self._questions: dict[str, _Question] = {}
        self._session: _Session | None = None
        self._source: AuthSource | None = None
        self._backoff = Backoff(0.0, random)
        self._used = 0.0

    async def secret(self, source: AuthSource, context: DialContext, user: str) -> Secret | None:
        # A question that has been sent may be answered with what was true before this one was asked.
        question = self._questions.get(user)
        if question is None:
            question = self._questions[user] = _Question()
        async with self._lock:
            if not question.settled:
                await self._serve(source, context, user)
        if isinstance(question.outcome, UpstreamError):
            raise question.outcome
        return question.outcome

    async def _serve(self, source: AuthSource, context: DialContext, first: str) -> None:
        """Answer questions: the one that has brought us here, and those that have come with it."""
        users = [first, *(user for user in self._questions if user != first)][:_BATCH]
        questions = [self._questions.pop(user) for user in users]
        outcomes: Sequence[Outcome] = [ConnectFailed("the pooler ends")] * len(users)
        try:
            outcomes = await self._ask(source, context, users)
        except UpstreamError as error:
            outcomes = [error] * len(users)
        finally:
            for question, outcome in zip(questions, outcomes, strict=True):
                question.settle(outcome)
        failures = {str(outcome): None for outcome in outcomes if isinstance(outcome, UpstreamError)}
        for failure in failures:
            database, user = source.settings.database, source.settings.user
            log.warning("auth_query failed", database=database, user=user, error=failure)

    async def _ask(self, source: AuthSource, context: DialContext, users: list[str]) -> list[Outcome]:
        if self._source != source:
            await self.close()
            self._source = source
            self._backoff.reset()
            self._backoff.limit = source.settings.server_login_retry
        timeout = source.settings.server_connect_timeout or float("inf")
        if self._session is not None:
            try:
                with trio.move_on_after(timeout):
                    return await self._converse(self._session, source, users)
            except ConnectFailed:
                # It was old, and the server may have gone meanwhile. Asking once more does no harm.
                pass
        now = time.monotonic()
        if self._backoff.holds(now) and self._backoff.error is not None:
            raise self._backoff.error
        try:
            login = await connect(Route(source.settings, context, time.monotonic))
        except UpstreamError as error:
            self._backoff.failed(error, time.monotonic())
            raise
        self._backoff.succeeded(time.monotonic())
        self._session = _Session(login.stream)
        with trio.move_on_after(timeout):
            return await self._converse(self._session, source, users)
        raise ConnectFailed(f"auth_query took longer than {timeout:g} s (server_connect_timeout)")

    async def _converse(self, session: _Session, source: AuthSource, users: list[str]) -> list[Outcome]:
        """Ask on a connection, and close it unless everything is as it should be afterwards."""
        sound = False
        try:
            outcomes = await session.ask(source.query, users)
            sound = True
        finally:
            self._used = time.monotonic()
            if not sound:
                self._session = None
                await trio.aclose_forcefully(session.stream)
        return outcomes

    def unneeded(self, now: float) -> bool:
        """Whether it may be forgotten."""
        timeout = self._source.settings.server_idle_timeout if self._source is not None else 0.0
        idle = not self._questions and not self._lock.locked() and not self._backoff.holds(now)
        return idle and now - self._used >= (timeout or float("inf"))

    async def close(self) -> None:
        """Log out."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Session:
    """A connection on which PostgreSQL waits for a question."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._frames = FrameReader(MAX_SERVER_LOGIN_FRAME)
        self._asking = False

    async def ask(self, query: str, users: list[str]) -> list[Outcome]:
        """Ask for the secrets of several users.

        Raises:
            ConnectFailed: the connection broke.
            LoginFailed: the server broke the protocol.
        """
        text = encode(query)
        self._asking = True
        try:
            await self.stream.send_all(b"".join(extended.ask(text, encode(user)) for user in users))
            outcomes = [await self._answer(user) for user in users]
            if self._frames.leftover():
                raise LoginFailed("the server sent more than it was asked")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectFailed(f"connection broke during auth_query: {error}") from error
        except ProtocolError as error:
            raise LoginFailed(f"server broke the protocol during auth_query: {error}") from error
        finally:
            self._asking = False
        return outcomes

    async def close(self) -> None:
        """Log out, unless somebody is still talking: then, hang up."""
        if not self._asking:
            with trio.move_on_after(_SWEEP) as scope:
                scope.shield = True
                with suppress(trio.BrokenResourceError):
                    await self.stream.send_all(messages.TERMINATE)
        await trio.aclose_forcefully(self.stream)

    async def _answer(self, user: str) -> Outcome:
        """Read up to ReadyForQuery."""
        rows: list[list[bytes | None]] = []
        failure: dict[str, str] | None = None
        while True:
            kind, body = await self._receive()
            if kind == c.DATA_ROW:
                rows.append(data_row_fields(body))
            elif kind == c.ERROR_RESPONSE:
                failure = messages.error_fields(body)
            elif kind == c.READY_FOR_QUERY:
                break
        if failure is not None:
            if failure.get("C", "").startswith(_NOT_A_VALUE):
                return None
            return LoginFailed(f"the server refused auth_query: {failure.get('M', 'without a message')}")
        return _secret(rows, user)

    async def _receive(self) -> tuple[int, bytes]:
        while (frame := self._frames.next_frame()) is None:
            data = await self.stream.receive_some()
            if not data:
                raise ConnectFailed("the server closed the connection during auth_query")
            self._frames.feed(data)
        return frame


def _secret(rows: list[list[bytes | None]], user: str) -> Outcome:
    """What rows of the query tell about a user."""
    if not rows:
        return None
    if len(rows) > 1:
        return LoginFailed("auth_query returned more than one row, expected one with a name and a secret")
    (row,) = rows
    if len(row) != 2:
        return LoginFailed(f"auth_query returned {len(row)} columns, expected two: a name and a secret")
    name, secret = row
    if name != encode(user):
        # PostgreSQL cuts long names off.
        return None
    return Secret("" if secret is None else decode(secret))
