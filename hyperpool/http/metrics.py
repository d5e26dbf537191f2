"""``/metrics``: what Prometheus scrapes.

docs/grafana.json shows every metric that is told of here, and docs/metrics.md explains them; tests compare the three.
"""

from __future__ import annotations

import sys
import time
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

import prometheus_client
import trio
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from hyperpool import __version__
from hyperpool.admin.caching import named
from hyperpool.http.exposition import COARSE, FINE, Metric, Writer, merged
from hyperpool.http.series import OTHER, SeriesTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from starlette.requests import Request

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.cache.counters import CacheStats
    from hyperpool.config.http import HttpSettings
    from hyperpool.http.exposition import Labels
    from hyperpool.http.lines import Times
    from hyperpool.http.series import Series
    from hyperpool.http.site import Site
    from hyperpool.relay.handover import RelayPool
    from hyperpool.stats import Histogram, PoolStats

_POOL: Final = ("database", "user")

COUNTERS: Final[dict[Metric, Callable[[PoolStats], float]]] = {
    Metric(f"hyperpool_{name}", "counter", about, _POOL): read
    for name, about, read in (
        ("received_bytes", "Bytes from clients that were sent on to servers.", lambda stats: stats.received),
        ("sent_bytes", "Bytes from servers that were sent on to clients.", lambda stats: stats.sent),
        ("server_assignments", "Times that a client got a server.", lambda stats: stats.assignments),
        ("client_prepares", "Named statements that clients prepared.", lambda stats: stats.client_parses),
        ("server_prepares", "Named statements prepared on servers.", lambda stats: stats.server_parses),
        ("binds", "Times that a named statement was bound.", lambda stats: stats.binds),
    )
}
"""What each pool counts."""

HISTOGRAMS: Final[dict[Metric, Callable[[PoolStats], Times]]] = {
    Metric(f"hyperpool_{name}_seconds", "histogram", about, _POOL, shown): read
    for name, shown, about, read in (
        (
            "query",
            FINE,
            "Time from a request to its end (ReadyForQuery).",
            attrgetter("query_buckets", "query_time"),
        ),
        (
            "transaction",
            COARSE,
            "Time that transactions took, also while they were idle.",
            attrgetter("transaction_buckets", "transaction_time"),
        ),
        (
            "wait",
            COARSE,
            "Time that clients waited for a server, if they had to.",
            attrgetter("wait_buckets", "waited"),
        ),
    )
}
"""What each pool takes the time of."""

_TIMES: Final[Callable[[Histogram], Times]] = attrgetter("buckets", "seconds")

_DATABASE: Final = ("database",)
LOGINS: Final = Metric(
    "hyperpool_login_seconds", "histogram", "Time from accepting a client to letting it in.", _DATABASE
)

GAUGES: Final = tuple(
    Metric(f"hyperpool_{name}", "gauge", about, _POOL)
    for name, about in (
        ("pool_size", "Servers that the pool may have; 0 is no limit."),
        ("pool_paused", "1 while no server is handed out (PAUSE)."),
        ("pinned_servers", "Servers that clients keep for state of sessions."),
        ("oldest_wait_seconds", "For how long the first client in the queue has waited."),
    )
)
"""How each pool is: the first numbers of `_look`."""

_STATE: Final = (*_POOL, "state")
CLIENTS: Final = Metric(
    "hyperpool_clients", "gauge", "Clients: active, waiting for a server, or idle.", _STATE
)
SERVERS: Final = Metric(
    "hyperpool_servers", "gauge", "Servers: active, idle, in preparation, or being connected.", _STATE
)
PINS: Final = Metric(
    "hyperpool_pins", "counter", "Times that a client began to keep its server.", (*_POOL, "reason")
)
CONNECTS: Final = Metric(
    "hyperpool_server_connect_seconds",
    "histogram",
    "Time that each hop on the way to a server took.",
    (*_DATABASE, "hop"),
)
CONNECT_FAILURES: Final = Metric(
    "hyperpool_server_connect_failures",
    "counter",
    "Times that a hop on the way to a server failed.",
    (*_DATABASE, "hop"),
)
CACHE_RESULTS: Final = Metric(
    "hyperpool_cache_requests",
    "counter",
    "Queries that may be cached: hit, stale (a hit, too), coalesced, or miss.",
    (*_DATABASE, "result"),
)
CACHE_REFUSALS: Final = Metric(
    "hyperpool_cache_refusals",
    "counter",
    "Queries that were not cached, and answers that were not kept.",
    (*_DATABASE, "what", "reason"),
)
CACHE_INVALIDATIONS: Final = Metric(
    "hyperpool_cache_invalidations", "counter", "Answers that were dropped.", (*_DATABASE, "source")
)
CACHE_COUNTERS: Final[dict[Metric, Callable[[CacheStats], float]]] = {
    Metric(f"hyperpool_cache_{name}", "counter", about, _DATABASE): read
    for name, about, read in (
        ("stored", "Answers that were kept.", lambda stats: stats.stored),
        ("refreshes", "Answers that were fetched in the background.", lambda stats: stats.refreshes),
        ("evictions", "Answers that made room for others.", lambda stats: stats.evictions),
        ("sent_bytes", "Bytes that were sent from memory.", lambda stats: stats.bytes),
        ("saved_seconds", "Time that servers would have taken for hits.", lambda stats: stats.saved),
    )
}
TOTALS: Final[dict[Metric, Callable[[Surroundings], float]]] = {
    Metric(f"hyperpool_{name}", "gauge", about): read
    for name, about, read in (
        ("connections", "Clients, those that log in included.", lambda around: around.relay.population),
        (
            "max_connections",
            "Clients that there may be (max_client_conn).",
            lambda around: around.settings().pooler.max_client_conn,
        ),
        (
            "pools",
            "Pools, those without series of their own included.",
            lambda around: len(list(around.pools)),
        ),
        ("cache_entries", "Answers in the cache.", lambda around: len(around.cache.store)),
        ("cache_bytes", "Bytes that the cache takes.", lambda around: around.cache.store.size),
        ("cache_limit_bytes", "Bytes that it may take.", lambda around: around.cache.store.limit),
    )
}
"""How the pooler is."""

AGENTS: Final = Metric("hyperpool_agents", "gauge", "Agents that are connected.", ("agent",))
AGENT_CONNECTIONS: Final = Metric(
    "hyperpool_agent_connections",
    "gauge",
    "Connections of agents: all, and those that wait.",
    ("agent", "state"),
)
LOG_ENTRIES: Final = Metric("hyperpool_log_entries", "counter", "Entries of the log.", ("level",))
INFO: Final = Metric("hyperpool", "info", "Versions.", ("version", "python"))

METRICS: Final = (
    *(INFO, *TOTALS, *COUNTERS, *GAUGES, *HISTOGRAMS),
    *(CLIENTS, SERVERS, PINS, LOGINS, CONNECTS, CONNECT_FAILURES),
    *(
        CACHE_RESULTS,
        CACHE_REFUSALS,
        CACHE_INVALIDATIONS,
        *CACHE_COUNTERS,
        AGENTS,
        AGENT_CONNECTIONS,
        LOG_ENTRIES,
    ),
)
"""All of them; those of the process, which prometheus_client has, come on top."""


_TURN: Final = 0.001
"""Seconds that are worked until the relay has its turn, which takes about a tenth of that."""


class Exporter:
    """Writes all metrics.

    Args:
        around: what is told of.
        clock: monotonic seconds.
    """

    def __init__(self, around: Surroundings, clock: Callable[[], float] = time.monotonic) -> None:
        self._around = around
        self._clock = clock
        self._by_pool = SeriesTable(lambda pool: (pool.settings.database, pool.settings.user), (OTHER, OTHER))
        self._by_database = SeriesTable(lambda pool: (pool.settings.database,), (OTHER,))
        self._writer = Writer()
        self._lock = trio.Lock()
        self._process = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._process)

    async def scrape(self, max_pools: int, *, openmetrics: bool = False) -> bytes:
        """Everything, as it is now; the relay has its turn in between, about once in a millisecond.

        Args:
            max_pools: as the setting of this name.
            openmetrics: in that format.
        """
        async with self._lock:
            self._writer.begin()
            pieces: list[bytes] = []
            newest = None
            began = self._clock()
            for metric, text in self._texts(max_pools):
                if metric is not newest:
                    pieces.append(metric.header(openmetrics=openmetrics).encode())
                pieces.append(text)
                newest = metric
                if self._clock() - began >= _TURN:
                    await trio.lowlevel.checkpoint()
                    began = self._clock()
        accept = "application/openmetrics-text" if openmetrics else "text/plain"
        pieces.append(choose_encoder(accept)[0](self._process))
        return b"".join(pieces)

    def _texts(self, max_pools: int) -> Iterator[tuple[Metric, bytes]]:
        """Samples of one metric after the other; what takes longer comes in several pieces."""
        around, write = self._around, self._writer.samples
        series = self._by_pool.update(around.pools, max_pools)
        databases = self._by_database.update(around.pools, max_pools)
        yield INFO, self._merged(INFO, [((__version__, sys.version.split()[0]), 1)])
        for metric, read in TOTALS.items():
            yield metric, self._merged(metric, [((), read(around))])
        version = self._by_pool.version
        labels = [one.labels for one in series]
        parts = [one.parts for one in series]
        for metric, count in COUNTERS.items():
            yield metric, write(metric, version, lambda: labels, [sum(map(count, some)) for some in parts])
        now = around.relay.time()
        looks = [_look_at_all(one, now) for one in series]
        for place, metric in enumerate(GAUGES):
            yield metric, write(metric, version, lambda: labels, [look[place] for look in looks])
        yield CLIENTS, self._states(CLIENTS, labels, _CLIENT_STATES, [look[_FIRST:_MIDDLE] for look in looks])
        yield SERVERS, self._states(SERVERS, labels, _SERVER_STATES, [look[_MIDDLE:] for look in looks])
        for metric, times in HISTOGRAMS.items():
            told: list[Sequence[Times]] = [list(map(times, some)) for some in parts]
            for text in self._writer.histograms(metric, version, labels, told):
                yield metric, text
        yield PINS, self._merged(PINS, _counted(labels, parts, attrgetter("pins")))
        yield from self._login_texts(databases)
        yield from self._cache_texts(max_pools)
        yield from self._agent_texts()
        entries = [((level,), count) for level, count in around.entries.items()]
        yield LOG_ENTRIES, self._merged(LOG_ENTRIES, entries)

    def _states(
        self, metric: Metric, labels: list[Labels], states: tuple[str, ...], counts: list[tuple[float, ...]]
    ) -> bytes:
        return self._writer.samples(
            metric,
            self._by_pool.version,
            lambda: [(*one, state) for one in labels for state in states],
            chain.from_iterable(counts),
        )

    def _merged(self, metric: Metric, found: Iterable[tuple[Labels, float]]) -> bytes:
        samples = merged(found)
        return self._writer.samples(metric, tuple(samples), lambda: samples, samples.values())

    def _login_texts(self, databases: list[Series]) -> Iterator[tuple[Metric, bytes]]:
        version = self._by_database.version
        labels = [one.labels for one in databases]
        parts = [one.parts for one in databases]
        logins: list[Sequence[Times]] = [[_TIMES(part.login_times) for part in some] for some in parts]
        for text in self._writer.histograms(LOGINS, version, labels, logins):
            yield LOGINS, text
        hops = list(map(_hops, parts))
        every = ((*one, kind) for one, found in zip(labels, hops, strict=True) for kind in found)
        times: list[Sequence[Times]] = [one for found in hops for one in found.values()]
        for text in self._writer.histograms(CONNECTS, (version, tuple(map(tuple, hops))), every, times):
            yield CONNECTS, text
        failures = _counted(labels, parts, attrgetter("hop_failures"))
        yield CONNECT_FAILURES, self._merged(CONNECT_FAILURES, failures)

    def _cache_texts(self, max_pools: int) -> Iterator[tuple[Metric, bytes]]:
        found = [
            (name if place < max_pools else OTHER, database.stats)
            for place, (name, database) in enumerate(named(self._around))
        ]
        for metric, read in CACHE_COUNTERS.items():
            yield metric, self._merged(metric, [((name,), read(stats)) for name, stats in found])
        results = [
            ((name, result), getattr(stats, field))
            for name, stats in found
            for result, field in _CACHE_RESULTS.items()
        ]
        yield CACHE_RESULTS, self._merged(CACHE_RESULTS, results)
        refusals = [
            ((name, what, reason.value), count)
            for name, stats in found
            for what, counts in (("query", stats.refused), ("answer", stats.unstored))
            for reason, count in counts.items()
        ]
        yield CACHE_REFUSALS, self._merged(CACHE_REFUSALS, refusals)
        sources = [
            ((name, *one), count) for name, stats in found for *one, count in stats.invalidations.items()
        ]
        yield CACHE_INVALIDATIONS, self._merged(CACHE_INVALIDATIONS, sources)

    def _agent_texts(self) -> Iterator[tuple[Metric, bytes]]:
        agents = {} if self._around.agents is None else self._around.agents.counts()
        yield AGENTS, self._merged(AGENTS, [((name,), counts[0]) for name, counts in agents.items()])
        states = [
            ((name, state), count)
            for name, (_, waiting, everything) in agents.items()
            for state, count in (("waiting", waiting), ("all", everything))
        ]
        yield AGENT_CONNECTIONS, self._merged(AGENT_CONNECTIONS, states)


def _hops(parts: Iterable[PoolStats]) -> dict[str, list[Times]]:
    """Times of the hops to servers, by the kind of hop."""
    found: dict[str, list[Times]] = {}
    for part in parts:
        for kind, times in part.hops.items():
            found.setdefault(kind, []).append(_TIMES(times))
    return found


_CLIENT_STATES: Final = ("active", "waiting", "idle")
_SERVER_STATES: Final = ("active", "idle", "conditioning", "connecting")


def _look(pool: RelayPool, now: float) -> tuple[float, ...]:
    """How a pool is: the numbers of `GAUGES`, of clients in each state, and of servers in each state."""
    waiting, idle, conditioning = len(pool.waiting), len(pool.idle), len(pool.conditioning)
    active = len(pool.servers) - idle - conditioning
    return (
        *(pool.settings.pool_size, int(pool.paused), pool.pinned),
        now - next(iter(pool.waiting.values())) if waiting else 0.0,
        *(active, waiting, max(pool.clients - waiting - active, 0)),
        *(active, idle, conditioning, pool.dialing),
    )


def _look_at_all(series: Series, now: float) -> tuple[float, ...]:
    """The same of a series: sums, but for the wait, of which it is the longest."""
    looks = [_look(pool, now) for pool in series.pools]
    if len(looks) == 1:
        return looks[0]
    sums = [sum(column) for column in zip(*looks, strict=True)] or [0.0] * _LOOKS
    sums[_OLDEST_WAIT] = max((look[_OLDEST_WAIT] for look in looks), default=0.0)
    return tuple(sums)


_OLDEST_WAIT: Final = len(GAUGES) - 1
_FIRST: Final = len(GAUGES)
_MIDDLE: Final = _FIRST + len(_CLIENT_STATES)
_LOOKS: Final = _MIDDLE + len(_SERVER_STATES)
_CACHE_RESULTS: Final = {"hit": "hits", "stale": "stale", "coalesced": "coalesced", "miss": "misses"}


def _counted(
    labels: list[Labels], parts: list[list[PoolStats]], read: Callable[[PoolStats], Mapping[str, int]]
) -> list[tuple[Labels, float]]:
    return [
        ((*one, name), count)
        for one, some in zip(labels, parts, strict=True)
        for counts in map(read, some)
        if counts
        for name, count in counts.items()
    ]


class Scrape(Protocol):
    """Gives all metrics as text, as `Exporter.scrape` does."""

    async def __call__(self, max_pools: int, *, openmetrics: bool = False) -> bytes:
        """Everything, as it is now."""


def add_metrics(site: Site, scrape: Scrape, settings: Callable[[], HttpSettings]) -> None:
    """Add the route.

    Args:
        site: gets it.
        scrape: gives what is told.
        settings: gives the section as it is now.
    """

    async def metrics(request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        text = await scrape(settings().max_pools, openmetrics=openmetrics)
        kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
        return Response(text, headers={"Content-Type": f"{kind}; charset=utf-8"})

    site.add("/metrics", metrics)
