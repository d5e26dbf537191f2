"""The result caches of several processes that are one pooler: each keeps its own answers, and hears of all writes.

Nothing of a database is served or kept in a process before all others have been told that it is cached there, and which
database it is: from then on they tell of what they write to it, by whatever name they reach it.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol

from hyperpool.cache import board

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hyperpool.cache.board import Board
    from hyperpool.cache.database import DatabaseCache
    from hyperpool.cache.results import ResultCache
    from hyperpool.config import PoolSettings


_BESIDE: Final = object()
"""What is not certain while another pooler serves clients beside this one."""


class Announce(Protocol):
    """Tells other processes that a database is cached; see `Sharing`."""

    def __call__(self, settings: PoolSettings, identity: str, then: Callable[[], None]) -> None:
        """Tell them, and call back when all have heard.

        Args:
            settings: of a pool that leads to it.
            identity: as for `ResultCache.identified`; empty if it is not known.
            then: called once.
        """


class Sharing:
    """What a process tells others of its result cache, and hears from them.

    Args:
        cache: the cache of this process.
        notes: the log that all write to.
        announce: tells others what is cached here.
    """

    def __init__(self, cache: ResultCache[Any, Any, Any], notes: Board, announce: Announce) -> None:
        self._cache = cache
        self._board = notes
        self._announce = announce
        self._digests: dict[tuple[object, ...], bytes] = {}
        self._doubted: dict[DatabaseCache, set[bytes]] = {}

    def began(self, database: DatabaseCache) -> None:
        """Something is known of a database for the first time."""
        database.tell = partial(self._tell, database)

    def announce(self, database: DatabaseCache, settings: PoolSettings, identity: str = "") -> None:
        """Others must know of a database, or which one it is, before anything of it is kept here."""
        unheard = object()
        database.open.add(unheard)
        # They may have told of doubts before that was known here, and tell of further ones no more.
        database.open |= self._board.doubting()
        database.drop(None, "workers")
        self._announce(settings, identity, partial(database.open.discard, unheard))

    def hear(self) -> None:
        """Take in what others have told: behind this, nothing is served that is older than what they have told of."""
        if not self._board.has_news():
            return
        for note in self._board.hear():
            if note is None:
                self._lost()
            elif note.what == board.HELD:
                for database in self._all():
                    database.open.add(_BESIDE)
                    database.drop(None, "workers")
            elif note.what == board.DIED:
                dead = note.table - 1
                for database in self._all():
                    database.died(dead)
                    # The one in its place may have told of doubts since: they were read before.
                    database.open |= self._board.doubting() & {dead}
            else:
                for endpoint, database in list(self._cache.databases.items()):
                    if self._digest(endpoint) == note.database:
                        database.changed_elsewhere(note)
        for database in self._all():
            if database.open:
                database.open -= self._board.certain()

    def alone(self) -> None:
        """No other pooler serves clients beside this one any more."""
        for database in self._all():
            database.open.discard(_BESIDE)

    def _lost(self) -> None:
        """Something was told that cannot be read any more: it may have been anything."""
        doubting = self._board.doubting()
        for database in self._all():
            database.changed_elsewhere(board.ANYTHING)
            database.open |= doubting

    def _all(self) -> set[DatabaseCache]:
        return set(self._cache.databases.values())

    def _tell(self, database: DatabaseCache, tables: Collection[int] | None, what: int) -> None:
        found = {self._digest(way) for way, one in self._cache.databases.items() if one is database}
        if what == board.DOUBTS:
            self._doubted.setdefault(database, set()).update(found)
        elif what == board.KNOWS:
            # Ways that have led to it before count, too.
            found |= self._doubted.pop(database, set())
        for name in found:
            self._board.tell(name, tables, what)

    def _digest(self, endpoint: tuple[object, ...]) -> bytes:
        """What a database is called among all processes: they have the same settings."""
        found = self._digests.get(endpoint)
        if found is None:
            text = repr(endpoint).encode(errors="surrogatepass")
            found = self._digests[endpoint] = blake2b(text, digest_size=8).digest()
        return found
