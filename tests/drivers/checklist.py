"""What is checked with each driver: the cells of the matrix, with the same names in every language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

CELLS: Final = {
    "connect": "logs in, learns who it is, and is refused with a wrong password",
    "types": "values of the common types come back as the driver's own types",
    "parameters": "parameters of the common types, NULL, a long one, and one that does not fit",
    "prepared": "statements that are executed far more often than the driver's threshold for preparing them, "
    "on several connections, alternately and with different texts under one name",
    "pipelining": "statements sent ahead of the answers to others, one of them failing",
    "transactions": "COMMIT, ROLLBACK, and an error inside",
    "savepoints": "the part of a transaction behind a savepoint is undone alone",
    "copy": "COPY in and out, and one that fails",
    "cancel": "a running query is cancelled from outside, and the connection stays usable",
    "statement_timeout": "SET statement_timeout ends slow queries, also in later transactions, and nobody else's",
    "notices": "RAISE NOTICE reaches the client that caused it",
    "large_rows": "a value of several MB, many rows, and rows fetched in portions",
    "reconnect": "after the server's restart the driver's own error, then a new connection that works",
    "temporary_tables": "a temporary table is there in later transactions, and nobody else has it",
    "settings": "SET search_path, timezone and application_name hold in later transactions, for this client alone",
    "role": "SET ROLE holds in later transactions, for this client alone",
    "listen": "LISTEN outside of a transaction, then notifications from another client",
    "advisory_locks": "a lock of the session is held across transactions, against others, until it is unlocked",
}
"""Every driver's cells: name, and what it says about the driver where it passes."""

MAPPER_CELLS: Final = {
    "models": "objects are stored, changed, found by queries over relations, and deleted",
    "migrations": "a schema is migrated up and down again",
}
"""The further cells of object-relational mappers."""


@attrs.frozen
class Driver:
    """One driver of the matrix.

    Attributes:
        key: its name in code: a Python identifier, unique among all drivers.
        name: its name for readers.
        language: the language, with a capital letter.
        packages: the packages that are tested, by name, and their exact versions; the first is the driver.
        without: the cells that do not apply, and why not: half a sentence, without a full stop.
        mapper: whether it is an object-relational mapper, which has the cells of `MAPPER_CELLS` too.

    Raises:
        ValueError: a cell that does not apply is not on the checklist.
    """

    key: str
    name: str
    language: str
    packages: Mapping[str, str]
    without: Mapping[str, str] = attrs.field(factory=dict)
    mapper: bool = False

    def __attrs_post_init__(self) -> None:
        if unknown := set(self.without) - set(self.checklist):
            raise ValueError(f"{self.key} is without {sorted(unknown)}, which are no cells")

    @property
    def checklist(self) -> tuple[str, ...]:
        """The names of all cells that could apply, in the order of the table."""
        return (*CELLS, *(MAPPER_CELLS if self.mapper else ()))

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of the cells that do apply, in the order of the table."""
        return tuple(cell for cell in self.checklist if cell not in self.without)
