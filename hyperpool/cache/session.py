"""Settings of clients, as far as answers depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hyperpool.cache.catalog import search_path
from hyperpool.cache.keys import current_user, pack, pack_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_OFF: Final = frozenset({"off", "false", "no", "0", "of", "f", "n"})

SWITCH: Final = "hyperpool.cache"
"""The setting with which a client turns the cache off for its session."""


class HasValues(Protocol):
    """Session parameters: the same object for all clients that have the same."""

    @property
    def values(self) -> Mapping[str, str]:
        """Their values by name."""


class Session:
    """A client's settings, as the cache needs them; one for all clients that have the same.

    Attributes:
        settings: by name.
        key: what of them goes into every key.
        path: the schemas of the ``search_path``; None if that is not known.
        off: the client has turned the cache off.
        utf8: texts are in UTF-8.
        conforming: a backslash in a plain string is a backslash (``standard_conforming_strings``).
    """

    __slots__ = ("conforming", "key", "off", "path", "settings", "utf8")

    def __init__(self, settings: Mapping[str, str], user: str, path: str | None) -> None:
        self.settings = settings
        # What has no influence on an answer: a policy that reads it is provided for by the verdict.
        self.key = pack_settings(
            item
            for item in settings.items()
            if item[0] not in {"application_name", SWITCH} and not item[0].endswith("timeout")
        )
        shown = settings.get("search_path", path)
        self.path = None if shown is None else search_path(shown, current_user(settings, user))
        self.key += pack(*(name.encode(errors="surrogateescape") for name in self.path or ()))
        self.off = settings.get(SWITCH, "").lower() in _OFF
        self.utf8 = settings.get("client_encoding") == "UTF8"
        self.conforming = settings.get("standard_conforming_strings") == "on"
