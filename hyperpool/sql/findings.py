"""What has been found in one text so far, and how names are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.sql.reading import ANYTHING, Writes
from hyperpool.sql.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message

    from hyperpool.sql.reading import Cast, Function, Name

__all__ = ["Findings", "number_type", "strings"]

_INT8: Final = range(-(1 << 63), 1 << 63)


class Findings:
    """What has been found in one text.

    Attributes: as in `hyperpool.sql.reading.Reading`, as sets that grow; and:
        strings: what the strings hold.
        positions: where, in bytes, numbers stand for columns of the result (``ORDER BY 1``).
        kinds: what kinds of statements there are, for people.
        plain: there are none but those whose literals `postgast.normalize` takes out.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.relations: set[Name] = set()
        self.types: set[Name] = set()
        self.casts: set[Cast] = set()
        self.constants: set[str] = set()
        self.parameters: set[int] = set()
        self.functions: set[Function] = set()
        self.operators: set[Name] = set()
        self.compares = False
        self.columns: set[str] = set()
        self.attributes: set[str] = set()
        self.strings: list[str] = []
        self.positions: set[int] = set()
        self.kinds = ""
        self.plain = True
        self._star = False
        self._rows: set[str] = set()
        self._tables: set[Name] = set()
        self._anything = False
        self._any_table = False

    @property
    def star(self) -> bool:
        """All columns of something may be read."""
        return self._star or not self._rows.isdisjoint(self.columns | self.attributes)

    @property
    def writes(self) -> Writes:
        """What it may write."""
        return ANYTHING if self._anything else Writes(frozenset(self._tables), anything=self._any_table)

    def refuse(self, reason: Reason) -> None:
        """Note why it cannot be cached, if that is not known yet."""
        if self.reason is None:
            self.reason = reason

    def _write_anything(self) -> None:
        self._anything = True

    # -- names ---------------------------------------------------------------------------------------------------

    def _operator(self, name: Iterable[Message]) -> None:
        self.operators.add(self._name(strings(name)))

    def _name(self, parts: Sequence[str]) -> Name:
        """The last two parts of a name. What is in front of them could only name the database itself."""
        schema = parts[-2] if len(parts) > 1 else ""
        return self._fold(schema) or None, self._fold(parts[-1])

    def _fold(self, name: str) -> str:
        """Take a name as the parser has folded it, if servers of all encodings and languages fold it alike."""
        if not name.isascii() and name != name.lower():
            self.refuse(Reason.ENCODING)
            self._write_anything()
        return name


def strings(nodes: Iterable[Message]) -> list[str]:
    """What String nodes hold."""
    return [node.string.sval for node in nodes]


def number_type(number: str) -> str:
    """The type of a number that is not an int4."""
    try:
        value = int(number.replace("_", ""), 0)
    except ValueError:
        return "numeric"
    return "int8" if value in _INT8 else "numeric"
