"""Settings of the result cache: the mapping ``cache`` of a database and of a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config import kinds
from hyperpool.config.fields import Problems
from hyperpool.config.fields import setting as _setting
from hyperpool.config.kinds import Unfit
from hyperpool.config.report import describe_type
from hyperpool.config.sections import section

if TYPE_CHECKING:
    from typing import Any

    from hyperpool.config.kinds import Parser
    from hyperpool.config.report import KeyPath
    from hyperpool.config.source import Source

MIN_ENTRIES: Final = 8
"""How many of the largest answers the cache must have room for."""

_DAY: Final = 86400.0
_EXPECTED: Final = "true, false, or a mapping with settings of the cache"


@attrs.frozen(kw_only=True)
class CacheRule:
    """What holds for some queries; the first rule that fits decides."""

    fingerprint: str = _setting("", kinds.name, "queries with this fingerprint, as SHOW CACHE_QUERIES has it")
    table: str = _setting("", kinds.name, "queries that read this table: name, or schema.name")
    never: bool = _setting(default=False, parse=kinds.flag, about="they are not cached")
    max_age: float | None = _setting(None, kinds.seconds(_DAY), "instead of the database's max_age")
    stale_while_revalidate: float | None = _setting(
        None, kinds.seconds(_DAY), "instead of the database's stale_while_revalidate"
    )
    always: str = _setting(
        "",
        kinds.name,
        "cached also when functions in them are not known to be immutable; the value says who has decided that, and "
        "why it is right",
    )


def _rules(value: object, source: Source) -> tuple[CacheRule, ...]:
    if not isinstance(value, list):
        raise Unfit("a list of mappings, each with a fingerprint or a table, and with what holds for it")
    rules: list[CacheRule] = []
    problems: list[tuple[KeyPath, str]] = []
    for number, one in enumerate(value, 1):
        place = str(number)
        try:
            rule = section(CacheRule)(one, source)
        except Unfit as error:
            problems.append(((place,), f"found {describe_type(one)}, expected {error.expected}"))
            continue
        except Problems as inner:
            problems += [((place, *path), problem) for path, problem in inner.found]
            continue
        if bool(rule.fingerprint) == bool(rule.table):
            problems.append(
                ((place,), "found both or neither of fingerprint and table, expected one of them")
            )
        elif rule.never and (rule.always or rule.max_age is not None):
            problems.append(((place, "never"), "found together with what is for cached queries; remove one"))
        elif not (
            rule.never or rule.always or rule.max_age is not None or rule.stale_while_revalidate is not None
        ):
            problems.append(
                ((place,), "found nothing that holds for its queries; add never, max_age or always")
            )
        rules.append(rule)
    if problems:
        raise Problems(problems)
    return tuple(rules)


@attrs.frozen(kw_only=True)
class CacheSettings:
    """The mapping ``cache`` of a database; the metadata of each field explains it."""

    max_age: float = _setting(60.0, kinds.seconds(_DAY), "age up to which an answer is served from memory")
    stale_while_revalidate: float = _setting(
        15.0,
        kinds.seconds(_DAY),
        "time after max_age for which an answer is still served, while a new one is fetched in the background",
    )
    max_age_empty: float | None = _setting(
        None, kinds.seconds(_DAY), "instead of max_age for answers without rows, such as 'this name is free'"
    )
    max_entry: int = _setting(1024**2, kinds.size(1024), "the largest answer that is kept")
    wait: float = _setting(
        5.0,
        kinds.seconds(_DAY),
        "longest time that a client waits for the answer to the same query of another client before it asks itself",
    )
    catalog_age: float = _setting(
        60.0,
        kinds.seconds(_DAY),
        "age at which what is known of the database's tables and functions is read again; DDL through the pooler makes "
        "that due at once",
    )
    unlogged: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="queries that read unlogged tables are cached, too; a crash of the server empties those",
    )
    rules: tuple[CacheRule, ...] = _setting(
        (), _rules, "what holds for some queries: a list; the first that fits decides"
    )
    off: bool = False
    """For the user of a pool, whatever the database's entry says."""


@attrs.frozen(kw_only=True)
class UserCacheSettings:
    """The mapping ``cache`` of a user; None stands for the database's setting."""

    enabled: bool = _setting(default=True, parse=kinds.flag, about="false: nothing is cached for this user")
    max_age: float | None = _setting(None, kinds.seconds(_DAY), "instead of the database's max_age")
    stale_while_revalidate: float | None = _setting(
        None, kinds.seconds(_DAY), "instead of the database's stale_while_revalidate"
    )


def _switch(parse: Parser, on: object, off: object) -> Parser:
    """A mapping, or true or false instead of it."""

    def parse_switch(value: object, source: Source) -> Any:  # noqa: ANN401 - of the type that the field says
        if value is True or value is False:
            return on if value else off
        try:
            return parse(value, source)
        except Unfit:
            raise Unfit(_EXPECTED) from None

    return parse_switch


database_cache: Final = _switch(section(CacheSettings), CacheSettings(), None)
"""A database's ``cache``: a mapping, or true for the defaults, or false."""

user_cache: Final = _switch(section(UserCacheSettings), UserCacheSettings(), UserCacheSettings(enabled=False))
"""A user's ``cache``: a mapping, or false."""


def for_pool(database: CacheSettings | None, user: UserCacheSettings | None) -> CacheSettings | None:
    """What holds for the pool of a database and user; None when nothing is cached."""
    if database is None or user is None:
        return database
    if not user.enabled:
        return attrs.evolve(database, off=True)
    changes = {
        name: value
        for name in ("max_age", "stale_while_revalidate")
        if (value := getattr(user, name)) is not None
    }
    return attrs.evolve(database, **changes)
