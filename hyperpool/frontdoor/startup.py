"""What a client asks for in its StartupMessage, besides a user and a database."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config import SessionState
from hyperpool.errors import ClientRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.parameters import ParameterTracker
    from hyperpool.wire.startup import StartupMessage


_REMEMBERED: Final = 256


@lru_cache(_REMEMBERED)
def requested_parameters(message: StartupMessage, ignored: frozenset[str]) -> Mapping[str, str]:
    """The session parameters that the client wants, by the names that it gives them; of two spellings, the last counts.

    Remembered, as messages are.

    Args:
        message: what the client sent.
        ignored: the names in ``ignore_startup_parameters``, in lower case.

    Raises:
        ClientRefused: ``options`` cannot be understood.
    """
    wanted = {name.lower(): (name, value) for name, value in _settings(message, ignored)}
    return {name: value for key, (name, value) in wanted.items() if key not in ignored}


@attrs.frozen
class Wanted:
    """What a client's session begins with, sorted by who knows about it.

    Attributes:
        reported: parameters that servers report, by the servers' names.
        others: other parameters, by their names in lower case.
        unproven: whether a server must be asked first if it takes these values.
    """

    reported: dict[str, str]
    others: dict[str, str]
    unproven: bool


def sort_parameters(requested: Mapping[str, str], pool: RelayPool, tracker: ParameterTracker) -> Wanted:
    """Decide what becomes of the parameters that a client has asked for.

    Whatever the pool's servers can be told is honoured. If session state is not followed, that is only what servers
    report: as in pgbouncer, anything else is refused and not dropped, because a client that asks for
    ``statement_timeout`` and does not get it would be surprised much later.

    Args:
        requested: from `requested_parameters`.
        pool: the client's pool, which knows its servers' parameters.
        tracker: knows what is tracked.

    Raises:
        ClientRefused: a parameter cannot be honoured.
    """
    reported: dict[str, str] = {}
    others: dict[str, str] = {}
    unproven = False
    for name, value in requested.items():
        key = name.lower()
        proven = _is_plain(key, value) or (key, value) in pool.accepted
        known = pool.accepted.get((key, value), value)
        canonical = tracker.canonical(name)
        if canonical is not None and key in pool.reported:
            reported[canonical] = known
        elif pool.settings.session_state is SessionState.FOLLOW:
            others[key] = known
        else:
            raise ClientRefused(
                f"unsupported startup parameter: {name}",
                "08P01",
                f"servers do not report {name}, so it can be honoured only with session_state follow; or add it to"
                " ignore_startup_parameters to have it ignored",
            )
        unproven = unproven or not proven
    return Wanted(reported, others, unproven)


def _is_plain(key: str, value: str) -> bool:
    """Whether every server takes this as it is."""
    return key == "application_name" and value.isascii() and value.isprintable() and len(value) < 64


def wanted_replication(message: StartupMessage) -> str:
    """The startup parameter ``replication``, if the client asks for a replication connection.

    As in PostgreSQL it is a boolean, of which every unambiguous beginning will do, or the word "database".

    Returns:
        What the client sent, or "" for an ordinary connection.

    Raises:
        ClientRefused: it is something else.
    """
    value = message.parameters.get("replication", "")
    word = value.lower()
    if word in _FALSE:
        return ""
    if value != "database" and word not in _TRUE:
        raise ClientRefused(
            f'invalid value for parameter "replication": "{value}"',
            "22023",
            'Valid values are: "false", 0, "true", 1, "database".',
        )
    return value


_TRUE: Final = frozenset({"1", "on", "t", "tr", "tru", "true", "y", "ye", "yes"})
_FALSE: Final = frozenset({"", "0", "of", "off", "f", "fa", "fal", "fals", "false", "n", "no"})


def own_parameters(message: StartupMessage) -> dict[str, str]:
    """The startup parameters that are settings of the session, as the client sent them."""
    return {name: value for name, value in message.parameters.items() if name not in _NO_SETTINGS}


_NO_SETTINGS: Final = frozenset({"user", "database", "replication"})


def _settings(message: StartupMessage, ignored: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, value in own_parameters(message).items():
        if name == "options" and "options" not in ignored:
            yield from _options(value)
        else:
            yield name, value


def _options(text: str) -> Iterator[tuple[str, str]]:
    """Settings in the ``options`` parameter: ``-c name=value``, ``-cname=value`` and ``--name=value``.

    White space separates, a backslash keeps the next character (PostgreSQL docs, section "Parameter Interaction via
    the Configuration File", and libpq's ``options``).

    Raises:
        ClientRefused: it holds anything else.
    """
    words = iter(_words(text))
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith(("-c", "--")):
            assignment = word[2:]
        else:
            assignment = ""
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ClientRefused(
                f"unsupported startup parameter in options: {word}",
                "08P01",
                "only -c name=value is understood; add options to ignore_startup_parameters to have all of it ignored",
            )
        yield name.replace("-", "_"), value


_SPACE: Final = frozenset(" \t\n\v\f\r")
"""What separates words: white space of the C locale. Other characters that Python calls spaces belong to values."""


def _words(text: str) -> list[str]:
    words: list[str] = []
    word: str | None = None
    characters = iter(text)
    for character in characters:
        if character in _SPACE:
            if word is not None:
                words.append(word)
            word = None
        else:
            kept = next(characters, "") if character == "\\" else character
            word = (word or "") + kept
    if word is not None:
        words.append(word)
    return words
