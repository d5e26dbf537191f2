"""What the database must hold, and how old an answer may be: kept by the soak beside PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from tests.soak.journal import WrongAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNTS: Final = 40
TOTAL: Final = ACCOUNTS * 100
MARKS: Final = 12
"""Rows of `mark` that are written through the pooler; as many more are written behind its back."""

MAX_AGE: Final = 2.0
STALE: Final = 1.0
_KEPT: Final = 600.0  # seconds of what marks were

SCHEMA: Final = f"""
CREATE TABLE account (id int PRIMARY KEY, amount int NOT NULL);
INSERT INTO account SELECT i, 100 FROM generate_series(1, {ACCOUNTS}) i;
CREATE TABLE entry (client int, n int, PRIMARY KEY (client, n));
CREATE TABLE mark (id int PRIMARY KEY, value bigint NOT NULL);
INSERT INTO mark SELECT i, 0 FROM generate_series(1, {2 * MARKS}) i;
CREATE TABLE copied (client int, word text);
GRANT ALL ON account, entry, mark, copied TO PUBLIC;
ALTER TABLE account SET (autovacuum_enabled = true);
"""


class Entries:
    """The entries of one client: numbers that are in its transactions.

    Attributes:
        committed: their COMMIT was acknowledged.
        doubtful: the connection was lost while the COMMIT was on its way.
    """

    def __init__(self, client: int) -> None:
        self._client = client
        self._next = 0
        self.committed: set[int] = set()
        self.doubtful: set[int] = set()

    def draw(self) -> int:
        """A number for the next transaction."""
        self._next += 1
        return self._next

    def check(self, found: Iterable[int]) -> list[str]:
        """Compare with what the database holds; what is wrong, as texts."""
        there = set(found)
        wrong = []
        if lost := self.committed - there:
            wrong.append(
                f"client {self._client}: entries {sorted(lost)[:5]} were committed and are not there"
            )
        if extra := there - self.committed - self.doubtful:
            wrong.append(
                f"client {self._client}: entries {sorted(extra)[:5]} are there and were never committed"
            )
        return wrong


class Marks:
    """What rows of `mark` were set to, and when that was acknowledged.

    A row is written by one thread only, with a value that grows by one each time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acknowledged: dict[int, deque[tuple[float, int]]] = {
            mark: deque([(0.0, 0)]) for mark in range(1, 2 * MARKS + 1)
        }
        self._begun = dict.fromkeys(self._acknowledged, 0)

    def begin(self, mark: int) -> int:
        """The value to write next; from now on, somebody may read it."""
        with self._lock:
            self._begun[mark] += 1
            return self._begun[mark]

    def acknowledge(self, mark: int, value: int) -> None:
        """The write of a value was acknowledged."""
        with self._lock:
            history = self._acknowledged[mark]
            history.append((now := time.monotonic(), value))
            while len(history) > 1 and history[1][0] < now - _KEPT:
                history.popleft()

    def oldest(self, mark: int, moment: float) -> int:
        """The oldest value that a reader may be told who must not be told what was outdated at a moment."""
        with self._lock:
            return max(value for when, value in self._acknowledged[mark] if when <= moment)

    def check(self, mark: int, value: int, oldest: int) -> None:
        """Check what a reader was told.

        Args:
            mark: the row.
            value: what was read there.
            oldest: of `oldest`, asked for before the query was sent.

        Raises:
            WrongAnswer: it is older than that, or from the future.
        """
        with self._lock:
            newest = self._begun[mark]
        if not oldest <= value <= newest:
            raise WrongAnswer(f"mark {mark} is {value}, and must be {oldest} to {newest}")
