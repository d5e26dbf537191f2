"""Answers on their way: who has asked for them, and who waits for the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

C = TypeVar("C")
R = TypeVar("R")


class Flight(Generic[C, R]):
    """One answer on its way, and the clients that wait for it.

    Attributes:
        key: everything that it depends on.
        mark: which writes had passed when it was asked for.
        waiting: what each client has asked, and until when it waits, monotonic seconds; the longest waiting first.
    """

    __slots__ = ("key", "mark", "waiting")

    def __init__(self, key: bytes, mark: int) -> None:
        self.key = key
        self.mark = mark
        self.waiting: dict[C, tuple[R, float]] = {}

    def join(self, client: C, request: R, deadline: float) -> None:
        """A client waits from now on."""
        self.waiting[client] = (request, deadline)

    def leave(self, client: C) -> None:
        """A client waits no longer."""
        self.waiting.pop(client, None)

    def land(self) -> dict[C, tuple[R, float]]:
        """The answer has come, or will not come: nobody waits any more. Returns who has waited."""
        waiting, self.waiting = self.waiting, {}
        return waiting

    def overdue(self, now: float) -> Iterator[C]:
        """Those who have waited long enough; they wait no longer."""
        for client, (_, deadline) in list(self.waiting.items()):
            if now < deadline:
                return
            del self.waiting[client]
            yield client
