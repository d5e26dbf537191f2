"""How many clients each database and each user has."""

from __future__ import annotations

from collections import Counter


class Census:
    """Counts clients, as limits on them need it.

    Attributes:
        databases: clients by the name of the database that they asked for.
        users: clients by the name that they logged in as.
    """

    def __init__(self) -> None:
        self.databases: Counter[str] = Counter()
        self.users: Counter[str] = Counter()

    def enter(self, database: str, user: str) -> None:
        """A client comes."""
        self.databases[database] += 1
        self.users[user] += 1

    def leave(self, database: str, user: str) -> None:
        """A client has gone."""
        _lessen(self.databases, database)
        _lessen(self.users, user)


def _lessen(counter: Counter[str], key: str) -> None:
    left = counter[key] - 1
    if left:
        counter[key] = left
    else:
        del counter[key]
