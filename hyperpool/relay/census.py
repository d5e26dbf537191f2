"""How many clients each database and each user has."""

from __future__ import annotations


class Census:
    """Counts clients, as limits on them need it.

    Attributes:
        databases: clients by the name of the database that they asked for, where there are any.
        users: clients by the name that they logged in as, the same.
    """

    def __init__(self) -> None:
        # `collections.Counter` takes several times as long, and every login counts.
        self.databases: dict[str, int] = {}
        self.users: dict[str, int] = {}

    def enter(self, database: str, user: str) -> None:
        """A client comes."""
        self.databases[database] = self.databases.get(database, 0) + 1
        self.users[user] = self.users.get(user, 0) + 1

    def leave(self, database: str, user: str) -> None:
        """A client has gone."""
        _lessen(self.databases, database)
        _lessen(self.users, user)


def _lessen(counts: dict[str, int], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
