"""Failed logins are slow to guess with: how many passwords may be tried, and when the next one may be.

Sans-IO: time is passed in. Each failure of a user from an address costs an interval, and a few of them may be owed;
once more are owed, the next password is not looked at before enough time has passed. All users of an address together
may fail ten times as often, so that neither one user's broken program keeps others of its host out, nor can passwords
of many users be tried at will. Logins that succeed cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_LAXER: Final = 10
"""Users of an address together may fail so many times as often as one of them."""

_MOST: Final = 16384
"""Debts that are remembered; beyond that, the one that is untouched for longest is forgiven."""


class Penalties:
    """The debts of addresses, and of users at addresses.

    Args:
        burst: failures that may be owed; 0 for no limit at all.
        interval: seconds that one costs.
    """

    def __init__(self, burst: int, interval: float) -> None:
        # The time at which everything is paid: the generic cell rate algorithm (ITU-T I.371).
        self._paid: OrderedDict[tuple[str, str | None], float] = OrderedDict()
        self.configure(burst, interval)

    def configure(self, burst: int, interval: float) -> None:
        """Take over settings; what is owed stays owed."""
        self._burst = burst if interval else 0
        self._interval = interval

    def __len__(self) -> int:
        return len(self._paid)

    def ready_at(self, address: str, user: str) -> float:
        """When a password of this user may be looked at, in the same seconds as `failed`'s; 0 for at once."""
        if not self._burst or not self._paid:
            return 0.0
        alone = self._paid.get((address, user), 0.0) - (self._burst - 1) * self._interval
        together = self._paid.get((address, None), 0.0) - (self._burst - 1 / _LAXER) * self._interval
        return max(alone, together, 0.0)

    def failed(self, address: str, user: str, now: float) -> None:
        """A login of this user has failed.

        Args:
            address: where it came from.
            user: as whom.
            now: monotonic seconds.
        """
        if not self._burst:
            return
        for key, cost in (((address, user), self._interval), ((address, None), self._interval / _LAXER)):
            self._paid[key] = max(self._paid.get(key, 0.0), now) + cost
            self._paid.move_to_end(key)
        self._forgive(now)

    def _forgive(self, now: float) -> None:
        """Forget what is paid, of the debts that are untouched for longest, and what is too much to remember."""
        while self._paid:
            key, paid = next(iter(self._paid.items()))
            if paid > now and len(self._paid) <= _MOST:
                return
            del self._paid[key]
