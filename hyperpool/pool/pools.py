"""All pools of the pooler: which there are, what settings they have, and what holds for several of them.

Sans-IO, as `hyperpool.pool.state` is.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic

from hyperpool.cache.database import anything
from hyperpool.config.settings import FALLBACK
from hyperpool.pool.quota import Quota
from hyperpool.pool.replication import refuse_crowd, replication_settings
from hyperpool.pool.state import C, Pool, S
from hyperpool.stats import PoolStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hyperpool.cache.results import ResultCache
    from hyperpool.config import PoolSettings, Settings
    from hyperpool.pool.statements import Statement


class Pools(Generic[S, C]):
    """All pools of the pooler, created when they are first asked for.

    Args:
        settings: the whole settings; replaced on reload.
        random: a source of numbers in [0, 1), for jitter.
        cache: the result cache; None for none.

    Attributes:
        past: the counters of pools that are gone, by database; ``*`` for those that have no entry in the settings.
        all_paused: every pool is paused (PAUSE), also those to come.
        paused: the databases whose pools are paused (PAUSE db, KILL db).
        disabled: the databases that take no new clients (DISABLE).
        found: what `find` has found, by database and user; the same dictionary always.
    """

    def __init__(
        self,
        settings: Settings,
        random: Callable[[], float],
        cache: ResultCache[C, Any, Statement] | None = None,
    ) -> None:
        self._settings = settings
        self._random = random
        self._cache = cache
        self.past: dict[str, PoolStats] = {}
        self.all_paused = False
        self.paused: set[str] = set()
        self.disabled: set[str] = set()
        self._pools: dict[tuple[str, str], Pool[S, C]] = {}
        self.found: dict[tuple[str, str], Pool[S, C]] = {}
        self._private: dict[Pool[S, C], Mapping[str, str]] = {}
        self._quotas: dict[tuple[str, str], Quota[S, C]] = {}

    def __iter__(self) -> Iterator[Pool[S, C]]:
        return chain(self._pools.values(), self._private)

    def find(self, database: str, user: str) -> Pool[S, C] | None:
        """The pool for a client that asks for `database` as `user`; None when there is no such database."""
        pool = self.found.get((database, user))
        if pool is None:
            settings = self._settings.pool_for(database, user)
            if settings is None:
                return None
            pool = self.found[database, user] = self._pool(settings)
        return pool

    def private(
        self, database: str, user: str, replication: str, parameters: Mapping[str, str]
    ) -> Pool[S, C] | None:
        """A new pool for one client that asks for a replication connection; None when there is no such database.

        Args:
            database: the name that the client asks for.
            user: the client's name.
            replication: the startup parameter of that name.
            parameters: the client's other startup parameters, for its server.

        Raises:
            ClientRefused: as many clients replicate from this database as this user already as ``pool_size`` allows.
        """
        settings = self._settings.pool_for(database, user)
        if settings is None:
            return None
        refuse_crowd(settings, (pool.settings for pool in self._private if not pool.unused))
        pool = self._new(replication_settings(settings, replication, parameters))
        self._private[pool] = parameters
        return pool

    def totals(self) -> dict[str, PoolStats]:
        """The counters of each database, those of its pools that are gone included: copies."""
        totals = {database: stats.plus(PoolStats()) for database, stats in self.past.items()}
        for pool in self:
            database = pool.settings.database
            totals[database] = totals.get(database, PoolStats()).plus(pool.stats)
        return totals

    def warm(self) -> list[Pool[S, C]]:
        """The pools that have connections before any client comes."""
        pools = [self._pool(settings) for settings in self._settings.warm_pools()]
        for pool in self._pools.values():
            pool.kept = pool in pools
        return pools

    def reload(self, settings: Settings) -> tuple[list[Pool[S, C]], list[Pool[S, C]]]:
        """Take over new settings.

        Returns:
            The pools whose servers must be replaced, because where they connect to, or as whom, has changed; and those
            that are no longer there, because their database is gone.
        """
        self._settings = settings
        self.found.clear()
        outdated = []
        removed = []
        for pool in self:
            old = pool.settings
            new = settings.pool_for(old.database, old.user)
            if new is None:
                removed.append(pool)
                continue
            if pool in self._private:
                new = replication_settings(new, old.replication, self._private[pool])
            pool.configure(new)
            self._set_quotas(pool)
            if _endpoint(new) != _endpoint(old):
                pool.parameters = None
                pool.renew()
                outdated.append(pool)
            self._attach(pool)
        for pool in removed:
            pool.give_up()
        self._forget(removed)
        for pool in self:
            # Its database may be cached since a later one was looked at.
            self._attach(pool)
        return outdated, removed

    def prune(self, now: float) -> None:
        """Forget the pools that nobody has used for as long as their settings say (``pool_idle_timeout``).

        Those of replication clients, and those that no server has ever been in, are forgotten at once.

        Args:
            now: monotonic time in seconds.
        """
        gone = [pool for pool in self if self._is_over(pool, now)]
        if gone:
            self._forget(gone)

    def _is_over(self, pool: Pool[S, C], now: float) -> bool:
        if not pool.unused:
            pool.unused_since = None
            return False
        if pool.unused_since is None:
            if pool in self._private or pool.parameters is None:
                return True
            pool.unused_since = now
            # Its servers are gone, and the next one may be another version: who comes next waits for what it says.
            pool.parameters = None
        timeout = pool.settings.idle_timeout
        return timeout > 0 and now - pool.unused_since >= timeout

    def _forget(self, gone: list[Pool[S, C]]) -> None:
        self._pools = {key: pool for key, pool in self._pools.items() if pool not in gone}
        self._private = {pool: own for pool, own in self._private.items() if pool not in gone}
        self.found.clear()
        for pool in gone:
            if pool.cache is not None:
                pool.cache.database.prepared.discard(pool.statements)
            for quota in pool.quotas:
                quota.pools.discard(pool)
            database = pool.settings.database
            # Clients can think of any number of names that `*` stands for.
            if database not in self._settings.databases:
                database = FALLBACK
            self.past[database] = self.past.get(database, PoolStats()).plus(pool.stats)
        self._quotas = {key: quota for key, quota in self._quotas.items() if quota.pools}

    def _pool(self, settings: PoolSettings) -> Pool[S, C]:
        key = (settings.database, settings.user)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._new(settings)
            if pool.cache is not None:
                # Others may reach the same database, and have not been cached so far.
                self.attach()
        return pool

    def attach(self) -> None:
        """More is known of what is cached by now: pools may have to tell what is written."""
        for pool in self:
            self._attach(pool)

    def _attach(self, pool: Pool[S, C]) -> None:
        if self._cache is not None:
            before = pool.cache
            pool.attach(self._cache.lane(pool.settings, before))
            if before is not None and before is not pool.cache:
                # Its servers may be at work where it has led so far.
                before.database.doubt(anything())
                before.database.prepared.discard(pool.statements)
            if pool.cache is not None:
                pool.cache.database.prepared.add(pool.statements)
            if before is None and pool.cache is not None:
                for server in pool.servers:
                    server.becomes_cached()
            if pool.tells is None and self._cache.in_use and not pool.settings.replication:
                pool.tells = partial(self._identified, pool)
                pool.untold = bool(pool.servers)

    def hold_cache(self, *, held: bool) -> None:
        """Answer nothing from the result cache for now: another process may write what this one does not see.

        Args:
            held: False for that it may again.
        """
        if self._cache is None:
            return
        released = self._cache.held and not held
        self._cache.held = held
        for pool in (*self, *self):
            # Twice: the database of the first ones may be cached since a later one was looked at.
            self._attach(pool)
        if released:
            for database in set(self._cache.databases.values()):
                database.missed("restart")

    def _identified(self, pool: Pool[S, C], identity: str) -> None:
        """A server of a pool has told which database it is, whatever way leads there."""
        if self._cache is not None and self._cache.identified(pool.settings, identity):
            self.attach()

    def _new(self, settings: PoolSettings) -> Pool[S, C]:
        pool: Pool[S, C] = Pool(settings, self._random)
        pool.paused = self.is_paused(settings.database)
        pool.quotas = (
            self._quotas.setdefault(("database", settings.database), Quota()),
            self._quotas.setdefault(("user", settings.user), Quota()),
        )
        for quota in pool.quotas:
            quota.pools.add(pool)
        self._set_quotas(pool)
        self._attach(pool)
        return pool

    def _set_quotas(self, pool: Pool[S, C]) -> None:
        of_database, of_user = pool.quotas
        of_database.limit = pool.settings.max_db_connections
        of_user.limit = pool.settings.max_user_connections

    def is_paused(self, database: str) -> bool:
        """Whether a database's pools are to be paused."""
        return self.all_paused or database in self.paused


def _endpoint(settings: PoolSettings) -> tuple[object, ...]:
    """What a server connection cannot change later; with the pool mode goes how its state was cleaned up."""
    return (
        settings.pool_mode,
        settings.host,
        settings.port,
        settings.transport,
        settings.dbname,
        settings.user,
        settings.password,
        settings.parameters,
        settings.connect_query,
        settings.session_state,
    )
