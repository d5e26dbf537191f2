"""Texts on their way to a server that deallocate statements by SQL.

A client's names are changed when the server says that it has done it (CommandComplete), and not when the text is sent:
it may fail. Until then, it is open what such a name means.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hyperpool.relay.rewriting import original

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hyperpool.relay.rewriting import Move


class _Text:
    """One text.

    Attributes:
        number: which ReadyForQuery ends its pipeline, counted as `Ledger.asked` counts.
        executes: Execute messages so far, without the one that will execute it; -1 if it is a Query.
        names: what it deallocates one by one, in order, as far as the server has not said that it has.
        open: those of them that the client has not given again behind it.
        everything: it deallocates all.
        moves: what has moved in it.
        later: names that have been given again behind it.
    """

    __slots__ = ("everything", "executes", "later", "moves", "names", "number", "open")

    def __init__(
        self, number: int, executes: int, names: Iterable[bytes], moves: Sequence[Move], *, everything: bool
    ) -> None:
        self.number = number
        self.executes = executes
        self.names = deque(names)
        self.open = set(self.names)
        self.moves = moves
        self.everything = everything
        self.later: set[bytes] = set()


class Deallocations:
    """The texts that are on their way, oldest first."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: deque[_Text] = deque()

    def __len__(self) -> int:
        return len(self._texts)

    def sent(
        self,
        names: Iterable[bytes],
        number: int,
        executes: int,
        moves: Sequence[Move] = (),
        *,
        everything: bool,
    ) -> None:
        """A text is sent.

        Args:
            names: what it deallocates one by one, in order.
            number: which ReadyForQuery will end its pipeline, counted as `Ledger.asked` counts.
            executes: Execute messages so far, without the one that will execute it; -1 if it is a Query.
            moves: where names in it have been replaced.
            everything: it deallocates all.
        """
        self._texts.append(_Text(number, executes, names, moves, everything=everything))

    def original(self, number: int, position: int) -> int:
        """Where in a client's Query it is that an error means.

        Args:
            number: which ReadyForQuery ends the Query.
            position: in the text that was sent, in characters from 1.
        """
        for text in self._texts:
            if text.number == number and text.executes < 0:
                return original(text.moves, position)
        return position

    def concern(self, name: bytes, executes: int) -> bool:
        """Whether a statement of this name may be gone in a moment.

        Args:
            name: the client's name for it.
            executes: Execute messages so far.
        """
        return any(
            text.executes < executes and (name in text.open or (text.everything and name not in text.later))
            for text in self._texts
        )

    def names(self) -> set[bytes]:
        """What is deallocated one by one."""
        return {name for text in self._texts for name in text.open}

    def given(self, name: bytes) -> None:
        """The client gives the name to another statement, behind the texts that are on their way."""
        for text in self._texts:
            text.later.add(name)
            text.open.discard(name)

    def closed(self, name: bytes) -> None:
        """The client has closed the statement of this name, behind the texts that are on their way."""
        for text in self._texts:
            text.later.discard(name)

    def one_done(self) -> tuple[bytes, bool]:
        """CommandComplete says DEALLOCATE: the name, and whether it means something else by now; b"" if unknown."""
        for text in self._texts:
            if text.names:
                name = text.names.popleft()
                replaced = name not in text.open
                text.open.discard(name)
                self._strike_done()
                return name, replaced
        return b"", True

    def all_done(self) -> set[bytes]:
        """CommandComplete says DEALLOCATE ALL or DISCARD ALL: the names that have been given again behind it."""
        for text in self._texts:
            if text.everything:
                text.everything = False
                self._strike_done()
                return text.later
        return set()

    def _strike_done(self) -> None:
        """Forget what has been done, for a pipeline may have no end; a Query has one, and its errors have positions."""
        texts = self._texts
        while texts and not (texts[0].names or texts[0].everything or texts[0].executes < 0):
            texts.popleft()

    def ready(self, settled: int) -> None:
        """A ReadyForQuery has come.

        Args:
            settled: see `Ledger.settled`.
        """
        while self._texts and self._texts[0].number <= settled:
            self._texts.popleft()
