"""How old an answer may be when it is served."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.config.cache import CacheRule, CacheSettings
    from hyperpool.sql.reading import Hint

_JITTER: Final = 0.1
"""The part of ``max_age`` by which entries of one moment become stale at different moments."""

_doubles: Final = Struct("!ddd").pack

LONGEST: Final = 86400.0
"""Seconds beyond which no hint reaches: the largest value of the settings, too."""


@attrs.frozen
class Ages:
    """How old an answer may be.

    Attributes:
        fresh: seconds for which it is served as it is.
        stale: seconds behind that for which it is served while a new one is fetched.
        empty: `fresh` for answers without rows.
    """

    fresh: float
    stale: float
    empty: float

    @property
    def key(self) -> bytes:
        """What of it goes into keys: whoever wants to have it fresher must not get what others take."""
        return _doubles(self.fresh, self.stale, self.empty)

    @property
    def never(self) -> bool:
        """Nothing is to be kept."""
        return self.fresh + self.stale <= 0.0

    def limits(self, started: float, rows: int, random: Callable[[], float]) -> tuple[float, float]:
        """Until when an answer is fresh, and until when it is served at all.

        Args:
            started: when its query was sent: what it says may be as old as that. Monotonic seconds.
            rows: how many it has.
            random: numbers in [0, 1); entries that were made at once become stale one after the other, never later than
                promised.
        """
        fresh = self.fresh if rows else min(self.empty, self.fresh)
        return started + fresh * (1.0 - _JITTER * random()), started + fresh + self.stale


def ages(settings: CacheSettings, rule: CacheRule | None, hint: Hint | None) -> Ages:
    """What holds for one query: a hint goes before a rule, and a rule before the database's settings."""
    fresh, stale, empty = settings.max_age, settings.stale_while_revalidate, settings.max_age_empty
    for own in (rule, hint):
        if own is None:
            continue
        if own.max_age is not None:
            fresh = min(own.max_age, LONGEST)
        if own.stale_while_revalidate is not None:
            stale = min(own.stale_while_revalidate, LONGEST)
    return Ages(fresh, stale, fresh if empty is None else empty)


def find_rule(rules: tuple[CacheRule, ...], fingerprint: str, tables: tuple[str, ...]) -> CacheRule | None:
    """The first rule that fits a query.

    Args:
        rules: of the database.
        fingerprint: of the query.
        tables: that it reads, as ``schema.name``.
    """
    for rule in rules:
        if rule.fingerprint:
            if rule.fingerprint == fingerprint:
                return rule
        elif any(name == rule.table or name.partition(".")[2] == rule.table for name in tables):
            return rule
    return None
