"""The cache of the whole pooler: one store, and what belongs to databases and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from hyperpool.cache.database import DatabaseCache
from hyperpool.cache.keys import pack
from hyperpool.cache.lane import Lane
from hyperpool.cache.store import Store
from hyperpool.config import PoolMode, SessionState
from hyperpool.sql.reader import QueryReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hyperpool.cache.sharing import Sharing
    from hyperpool.cache.store import Entry
    from hyperpool.config import PoolSettings

C = TypeVar("C")
R = TypeVar("R")
U = TypeVar("U")
Endpoint = tuple[object, ...]

_SEVERAL: Final = ""
"""What a way leads to that leads to several databases in turn, so that it is no name for any of them."""


class ResultCache(Generic[C, R, U]):
    """The result cache.

    Args:
        limit: bytes for all answers.
        random: numbers in [0, 1), for jitter.

    Attributes:
        sharing: what other processes of the pooler are told and tell; None if there are none.
        store: all entries.
        random: as given.
        held: nothing is kept or served for now; see `hyperpool.pool.pools.Pools.hold_cache`.
    """

    def __init__(self, limit: int, random: Callable[[], float]) -> None:
        self.store = Store(limit, self._forgotten)
        self.random = random
        self.sharing: Sharing | None = None
        self.held = False
        self._reader = QueryReader()
        self._databases: dict[Endpoint, DatabaseCache] = {}
        self._identities: dict[Endpoint, list[str]] = {}

    @property
    def in_use(self) -> bool:
        """Whether anything may be cached."""
        return bool(self._databases)

    @property
    def databases(self) -> Mapping[Endpoint, DatabaseCache]:
        """What is known of each database, by where it is."""
        return self._databases

    def lane(self, settings: PoolSettings, old: Lane[C, R, U] | None = None) -> Lane[C, R, U] | None:
        """The cache's part of a pool.

        Args:
            settings: of the pool.
            old: the one that it has had so far; it is kept if the database is still the same.

        Returns:
            None if nothing of this database is cached, whoever asks for it.
        """
        endpoint = _endpoint(settings)
        fits = follows(settings) and not (settings.replication or self.held)
        cache = settings.cache if fits else None
        database = self._databases.get(endpoint)
        if database is None and cache is not None:
            self._databases[endpoint] = self._made()
            self._share(endpoint)
            database = self._databases[endpoint]
            if self.sharing is not None:
                self.sharing.announce(database, settings)
        if database is None:
            return None
        if old is None or old.database is not database:
            identity = pack(settings.database.encode(), settings.user.encode(), repr(endpoint).encode())
            flights = {} if old is None else old.flights
            old = Lane(identity, settings.user, database, self.store, self._reader, self.random, flights)
        old.configure(cache)
        return old

    # -- ways to one database ------------------------------------------------------------------------------------

    def identified(self, settings: PoolSettings, identity: str) -> bool:
        """A server has told which database it is.

        Args:
            settings: of its pool.
            identity: the same for all ways to one database, and for nothing else.

        Returns:
            Whether something is known of other pools' databases now than before: `lane` tells.
        """
        endpoint = _endpoint(settings)
        told = self._identities.setdefault(endpoint, [])
        if told and told[-1] in (identity, _SEVERAL):
            return False
        first = not told
        told.append(_SEVERAL if identity in told else identity)
        database = self._databases.get(endpoint)
        if database is not None and not first:
            database.renew("failover")
            if sum(one is database for one in self._databases.values()) > 1:
                self._databases[endpoint] = self._made()
        shared = self._share(endpoint)
        database = self._databases.get(endpoint)
        if self.sharing is not None and database is not None:
            self.sharing.announce(database, settings, identity)
        return shared or not first

    def _made(self) -> DatabaseCache:
        database = DatabaseCache(self.store.remove)
        if self.sharing is not None:
            self.sharing.began(database)
        return database

    def _share(self, endpoint: Endpoint) -> bool:
        """Have all ways to one database know the same of it. Returns whether there are several."""
        identity = self._identities.get(endpoint, [_SEVERAL])[-1]
        ways = [way for way, told in self._identities.items() if told[-1] == identity != _SEVERAL]
        known = [self._databases[way] for way in ways if way in self._databases]
        if not known or len(ways) < 2:
            return False
        for way in ways:
            before = self._databases.get(way)
            if before is not None and before is not known[0]:
                before.changed("identity")
            self._databases[way] = known[0]
        return True

    def _forgotten(self, entry: Entry, evicted: bool) -> None:
        for front in entry.fronts:
            front.forget()
        entry.fronts.clear()
        entry.database.removed(entry)
        entry.database.stats.evictions += evicted

    # -- purging -------------------------------------------------------------------------------------------------

    def purge(self, databases: Iterator[DatabaseCache] | None = None) -> int:
        """Drop everything, or everything of some databases. Returns how many entries that were."""
        chosen = set(self._databases.values() if databases is None else databases)
        return sum(database.drop(None, "purge") for database in chosen)

    def purge_fingerprint(self, fingerprint: str) -> int:
        """Drop the answers to the queries with one fingerprint. Returns how many that were."""
        return sum(database.purge(fingerprint) for database in set(self._databases.values()))


def _endpoint(settings: PoolSettings) -> Endpoint:
    return (settings.servers, settings.transport, settings.dbname)


def follows(settings: PoolSettings) -> bool:
    """Whether it is known what sessions of a pool look like."""
    return settings.pool_mode is not PoolMode.SESSION and settings.session_state is SessionState.FOLLOW
