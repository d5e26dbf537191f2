"""What the front door wants to know and cannot know at once: it is found out by tasks, while the relay goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import attrs
import structlog
import trio

from hyperpool.errors import ClientRefused, HyperpoolError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.config import AuthSource, Secret

log = structlog.get_logger("auth")

_THREADS: Final = 16
"""Questions that may block at once. LDAP servers and PAM are slow; what is in a thread cannot be called back."""


class Asker(Protocol):
    """Somebody who waits for an answer."""

    closed: bool


@attrs.frozen(eq=False)
class SecretInquiry:
    """What is stored about a user?

    Attributes:
        asker: who wants to know; once it is closed, nobody does.
        source: who knows.
        user: the user's name.
        then: called with the answer, or with what came in between.
    """

    asker: Asker
    source: AuthSource
    user: str
    then: Callable[[Secret | HyperpoolError | None], None]


@attrs.frozen(eq=False)
class CheckInquiry:
    """Is it true?

    Attributes:
        asker: who wants to know; once it is closed, nobody does.
        check: finds it out, in a thread: it may block.
        then: called with the answer, or with what came in between.
    """

    asker: Asker
    check: Callable[[], bool]
    then: Callable[[bool | HyperpoolError], None]


class Secrets(Protocol):
    """Knows, or can ask, what is stored about users."""

    async def secret(self, source: AuthSource, user: str) -> Secret | None:
        """What is stored; None if there is no such user.

        Raises:
            UpstreamError: that cannot be found out.
        """


class Inquiries:
    """Answers inquiries, each in a task of its own. They are bounded by the logins that may be under way.

    Args:
        secrets: for inquiries about users.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._threads = trio.CapacityLimiter(_THREADS)
        self._send, self._inquiries = trio.open_memory_channel[SecretInquiry | CheckInquiry](float("inf"))

    def ask(self, inquiry: SecretInquiry | CheckInquiry) -> None:
        """Take an inquiry on. Never blocks, and never answers at once."""
        self._send.send_nowait(inquiry)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            async for inquiry in self._inquiries:
                nursery.start_soon(self._answer, inquiry)

    async def _answer(self, inquiry: SecretInquiry | CheckInquiry) -> None:
        try:
            if isinstance(inquiry, SecretInquiry):
                await self._find_secret(inquiry)
            else:
                await self._check(inquiry)
        except Exception as error:
            log.error("a login's question cannot be answered", exc_info=error)
            if not inquiry.asker.closed:
                inquiry.then(ClientRefused("internal error", "XX000"))

    async def _find_secret(self, inquiry: SecretInquiry) -> None:
        answer: Secret | HyperpoolError | None
        try:
            answer = await self._secrets.secret(inquiry.source, inquiry.user)
        except UpstreamError as error:
            # Its words are the operator's business: whoever asks is not authenticated.
            answer = ClientRefused(
                "the secret of this user cannot be looked up (auth_query)",
                error.sqlstate,
                "the pooler's log says why",
            )
        if not inquiry.asker.closed:
            inquiry.then(answer)

    async def _check(self, inquiry: CheckInquiry) -> None:
        answer: bool | HyperpoolError
        async with self._threads:
            if inquiry.asker.closed:
                return
            try:
                answer = await trio.to_thread.run_sync(inquiry.check, abandon_on_cancel=True)
            except HyperpoolError as error:
                answer = error
        if not inquiry.asker.closed:
            inquiry.then(answer)
