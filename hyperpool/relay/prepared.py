"""What a client has prepared whose names are its own: in session mode, where the pooler gives no other names.

The result cache must know what is executed, and a Bind tells no more than a name. What cannot be told may be anything.
"""

from __future__ import annotations

from typing import Final

_MAX_NAMES: Final = 2000
_MAX_TEXT: Final = 16384
"""Bytes; of longer texts nothing is remembered."""

_MAX_MEANT: Final = 4
"""Texts that one name may stand for."""

_UNKNOWN: Final = (None,)


class PreparedTexts:
    """The texts that names stand for on one server connection.

    Args:
        complete: nothing has been prepared on it so far.
    """

    __slots__ = ("_complete", "_texts")

    def __init__(self, *, complete: bool) -> None:
        self._complete = complete
        self._texts: dict[bytes, tuple[bytes | None, ...]] = {}

    def prepare(self, name: bytes, text: bytes | None, *, certain: bool) -> None:
        """A text is about to be prepared.

        Args:
            name: the statement's name.
            text: the SQL; None if nobody knows it.
            certain: the server will look at it, so that an unnamed statement takes the place of the one before.
        """
        if len(self._texts) >= _MAX_NAMES:
            self.lose_track()
        # A name that is taken keeps its meaning, and so does any if the server discards what comes.
        before = () if certain and not name else self.meant(name) if name in self._texts else None
        if before is None:
            before = () if self._complete and name else _UNKNOWN
        meant = (*before, text)
        known = None not in meant and len(meant) <= _MAX_MEANT and (text is None or len(text) <= _MAX_TEXT)
        self._texts[name] = meant if known else _UNKNOWN

    def close(self, name: bytes) -> None:
        """A statement is about to be closed, for certain."""
        self._texts.pop(name, None)

    def lose_track(self) -> None:
        """Nobody knows any more what names stand for, or which there are."""
        self._complete = False
        self._texts.clear()

    def meant(self, name: bytes) -> tuple[bytes | None, ...]:
        """The texts that a name may stand for; None among them for any text."""
        return self._texts.get(name, _UNKNOWN)
