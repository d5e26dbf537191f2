"""A worker's end, as the supervisor sees it, without a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hyperpool.workers import messages

if TYPE_CHECKING:
    from hyperpool.workers.link import Link


class Inbox:
    """Stands in for a worker, and keeps what it is sent.

    Attributes:
        inbox: all of it, the oldest first.
    """

    def __init__(self) -> None:
        self.inbox: list[messages.Message] = []

    @property
    def link(self) -> Link:
        """What the supervisor posts to."""
        return cast("Link", self)

    def post(self, message: messages.Message) -> None:
        """As `Link.post`."""
        self.inbox.append(message)

    @property
    def welcome(self) -> messages.Welcome:
        """What it was greeted with."""
        first = self.inbox[0]
        assert isinstance(first, messages.Welcome)
        return first

    @property
    def deeds(self) -> list[str]:
        """What it has been told to do, without what it was greeted with."""
        return [
            f"{one.verb} {one.argument}".strip()
            for message in self.inbox
            if isinstance(message, messages.Do)
            for one in message.statements
        ]

    @property
    def answers(self) -> list[messages.Answers]:
        """What has come of what it has asked for."""
        return [one for one in self.inbox if isinstance(one, messages.Answers)]

    @property
    def held(self) -> list[bool]:
        """Whether it is to answer nothing from the result cache: what it was told, one after the other."""
        kinds = messages.Welcome, messages.HoldCache
        return [one.held for one in self.inbox if isinstance(one, kinds)]
