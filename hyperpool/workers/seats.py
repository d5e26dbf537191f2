"""Seats for clients: the supervisor's account of how many clients each worker may let in. Sans-IO.

Seats are lent to workers, some at a time, so that not every login costs a question. A worker keeps what it does not use
until it is asked for; nobody is turned away before all have given back what they do not use. What is lent, together,
never exceeds a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.workers.messages import SeatKey

_MOST_AT_ONCE: Final = 64
_PARTS: Final = 8
"""Of a limit, no worker gets more at once than its part, divided by this."""


@attrs.frozen
class Lend:
    """`worker` may let in `count` more clients; none for it has to turn away who asks."""

    worker: int
    seat: SeatKey
    count: int


@attrs.frozen
class Recall:
    """`worker` is to give back the seats that it does not use."""

    worker: int
    seat: SeatKey


Order: TypeAlias = "Lend | Recall"


@attrs.define(eq=False)
class _Kind:
    """The seats that one limit is about.

    Attributes:
        lent: to each worker.
        seeking: workers that wait for an answer, and how many seats they need.
        recalled: workers that have been asked to give seats back, and have not answered.
    """

    lent: dict[int, int] = attrs.field(factory=dict)
    seeking: dict[int, int] = attrs.field(factory=dict)
    recalled: set[int] = attrs.field(factory=set)


class Seats:
    """The account.

    Args:
        limit: gives the limit of a kind of seats, as it is now; infinite for none.
        workers: how many there are.
    """

    def __init__(self, limit: Callable[[SeatKey], float], workers: int) -> None:
        self._limit = limit
        self._workers = workers
        self._kinds: dict[SeatKey, _Kind] = {}

    def lent(self, seat: SeatKey) -> int:
        """How many seats workers have, used or not."""
        kind = self._kinds.get(seat)
        return 0 if kind is None else sum(kind.lent.values())

    def seek(self, worker: int, seat: SeatKey, count: int) -> list[Order]:
        """A worker needs so many more seats."""
        kind = self._kinds.setdefault(seat, _Kind())
        kind.seeking[worker] = count
        recalls: list[Order] = []
        if not kind.recalled and self._limit(seat) - self.lent(seat) < count:
            kind.recalled = {other for other, lent in kind.lent.items() if lent and other != worker}
            recalls += [Recall(other, seat) for other in sorted(kind.recalled)]
        return recalls + self._settle(seat, kind)

    def give_back(self, worker: int, seat: SeatKey, count: int) -> list[Order]:
        """A worker has answered a `Recall`: it does not use so many seats."""
        kind = self._kinds.get(seat)
        if kind is None:
            return []
        kind.lent[worker] = max(kind.lent.get(worker, 0) - count, 0)
        kind.recalled.discard(worker)
        return self._settle(seat, kind)

    def gone(self, worker: int) -> list[Order]:
        """A worker has died, and its clients with it."""
        orders: list[Order] = []
        for seat, kind in list(self._kinds.items()):
            kind.lent.pop(worker, None)
            kind.seeking.pop(worker, None)
            kind.recalled.discard(worker)
            orders += self._settle(seat, kind)
        return orders

    def recall_all(self) -> list[Order]:
        """Limits have changed: everything that is not used is to come back."""
        orders: list[Order] = []
        for seat, kind in self._kinds.items():
            asked = {worker for worker, lent in kind.lent.items() if lent} - kind.recalled
            kind.recalled |= asked
            orders += [Recall(worker, seat) for worker in sorted(asked)]
        return orders

    def _settle(self, seat: SeatKey, kind: _Kind) -> list[Order]:
        """Answer those who seek; as long as somebody may still give seats back, only those that there is a seat for."""
        orders: list[Order] = []
        limit = self._limit(seat)
        block = 1 if limit == float("inf") else int(limit) // (_PARTS * self._workers)
        free = limit - self.lent(seat)
        behind = sum(kind.seeking.values())
        for worker, count in list(kind.seeking.items()):
            behind -= count
            wanted = count
            if seat.kind == "all" and not kind.recalled:
                # More than it needs, of what those behind it do not need.
                wanted = max(count, int(min(block, _MOST_AT_ONCE, free - behind)))
            lent = int(max(min(wanted, free), 0))
            if lent or not kind.recalled:
                del kind.seeking[worker]
                kind.lent[worker] = kind.lent.get(worker, 0) + lent
                free -= lent
                orders.append(Lend(worker, seat, lent))
        if not (kind.recalled or kind.seeking or any(kind.lent.values())):
            del self._kinds[seat]
        return orders
