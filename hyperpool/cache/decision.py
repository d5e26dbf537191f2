"""What the settings make of what the catalog says of a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.cache.ages import Ages, ages, find_rule
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from hyperpool.cache.verdict import Verdict
    from hyperpool.config.cache import CacheSettings
    from hyperpool.sql.reading import Reading


def decide(settings: CacheSettings, reading: Reading, verdict: Verdict) -> tuple[Reason | None, Ages, bool]:
    """Say what the settings make of a verdict.

    Args:
        settings: of the database and user.
        reading: what the text says.
        verdict: what the catalog says.

    Returns:
        Why the query is not cached, or None; how old an answer may be; whether somebody has signed for what the catalog
        refuses.
    """
    rule = find_rule(settings.rules, reading.fingerprint, verdict.table_names)
    how_old = ages(settings, rule, reading.hint)
    waived = rule is not None and bool(rule.always) and verdict.reason in _WAIVED
    reason = None if waived else verdict.reason
    if rule is not None and rule.never:
        reason = Reason.RULE
    elif reason is None:
        if verdict.unlogged and not settings.unlogged:
            reason = Reason.UNLOGGED_TABLE
        elif reading.hint is not None and (reading.hint.nocache or how_old.never):
            reason = Reason.HINT
        elif how_old.never:
            reason = Reason.RULE
    return reason, how_old, waived


_WAIVED: Final = frozenset(
    {
        Reason.VOLATILE_FUNCTION,
        Reason.STABLE_FUNCTION,
        Reason.UNKNOWN_FUNCTION,
        Reason.UNCERTAIN,
        Reason.FOREIGN_TABLE,
    }
)
"""What somebody may have signed for that it does not matter."""
