"""What the front door wants to know and cannot know at once: it is found out by tasks, while the relay goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

import attrs
import structlog
import trio

from hyperpool.errors import ClientRefused, HyperpoolError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.config import AuthSource, Secret

log = structlog.get_logger("auth")

_THREADS: Final = 16
"""Questions to one of those who are asked that may block at once. What is in a thread cannot be called back."""

_COMPUTING: Final = 4
"""Questions at once that are computed here: they would take processors from those who are served, not wait."""

_PATIENCE: Final = 10.0
"""Seconds that a question waits for a thread, while others of its kind block."""


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
        whom: who is asked for it, in words for the log: if that one is slow, it holds up those alone that ask it, too;
            empty for what is computed here.
    """

    asker: Asker
    check: Callable[[], bool]
    then: Callable[[bool | HyperpoolError], None]
    whom: str = ""


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
        self._threads: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()
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
        try:
            threads = await self._place(inquiry.whom)
        except ClientRefused as refusal:
            if not inquiry.asker.closed:
                inquiry.then(refusal)
            return
        try:
            if inquiry.asker.closed:
                return
            # How many there may be has been seen to: what else runs in threads does not count.
            own = trio.CapacityLimiter(1)
            answer = await trio.to_thread.run_sync(inquiry.check, abandon_on_cancel=True, limiter=own)
        except HyperpoolError as error:
            answer = error
        finally:
            threads.release()
        if not inquiry.asker.closed:
            inquiry.then(answer)

    async def _place(self, whom: str) -> trio.CapacityLimiter:
        """Wait for a place among those that ask somebody; it must be released.

        Raises:
            ClientRefused: there has been none for too long.
        """
        threads = self._threads.get(whom)
        if threads is None:
            threads = self._threads[whom] = trio.CapacityLimiter(_THREADS if whom else _COMPUTING)
        with trio.move_on_after(_PATIENCE) as waiting:
            await threads.acquire()
        if waiting.cancelled_caught:
            log.warning(
                "logins wait for an answer that does not come", whom=whom, waiting=threads.borrowed_tokens
            )
            raise ClientRefused(
                "it takes too long to find out whether the password is right",
                "57P03",
                "try again later; the pooler's log says who does not answer",
            )
        return threads
