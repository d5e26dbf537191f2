"""What a text may do to a session, as values."""

from __future__ import annotations

import enum
from typing import Final

import attrs


class Pin(enum.IntFlag):
    """State that a text may create and that cannot be set up again on another server connection."""

    TEMPORARY = enum.auto()
    """Temporary tables, and what else lives in the session's temporary schema."""
    LISTEN = enum.auto()
    LOCK = enum.auto()
    """Advisory locks that outlive the transaction."""
    HOLD = enum.auto()
    """Cursors that outlive the transaction."""
    PREPARE = enum.auto()
    """Prepared statements made by SQL."""
    LOAD = enum.auto()
    """A loaded library."""
    FUNCTION = enum.auto()
    """A call of a function that the administrator has named (``pin_functions``)."""


NONE: Final = Pin(0)


@attrs.frozen
class Effects:
    """What session state executing a text may change; what is not here it does not change.

    Attributes:
        settings: names, in lower case, of the settings whose session value may change. ``SET ROLE`` is "role", and
            ``SET SESSION AUTHORIZATION``, which ends a role, is "session_authorization" and "role".
        unknown_settings: other settings may change, too.
        pins: what it may create.
        releases: it may end such state.
        deallocates: the names in ``DEALLOCATE name``, in order, as the server folds them, in the text's encoding.
        deallocates_all: it has ``DEALLOCATE ALL`` or ``DISCARD ALL``.
        discards_all: it has ``DISCARD ALL``.
        resets: of the settings, those that it leaves as the session began with them.
        resets_all: it has ``RESET ALL`` or ``DISCARD ALL``.
        sets: of the settings, those that it leaves with another value, behind any ``RESET ALL``.
        local: settings may change until the transaction ends: texts may be read otherwise meanwhile.
        schema: it may change the results of other statements, or which functions and triggers there are.
    """

    settings: frozenset[str] = frozenset()
    unknown_settings: bool = False
    pins: Pin = NONE
    releases: bool = False
    deallocates: tuple[bytes, ...] = ()
    deallocates_all: bool = False
    discards_all: bool = False
    resets: frozenset[str] = frozenset()
    resets_all: bool = False
    sets: frozenset[str] = frozenset()
    local: bool = False
    schema: bool = False


EVERYTHING: Final = Effects(
    unknown_settings=True,
    pins=Pin.TEMPORARY | Pin.LISTEN | Pin.LOCK | Pin.HOLD | Pin.PREPARE,
    releases=True,
    schema=True,
)
"""All that a text which cannot be read may do, apart from what no probe could tell: LOAD and FUNCTION."""
