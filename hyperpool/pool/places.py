"""Where the server connections and clients of one pool are: what the relay touches for every query.

`hyperpool.pool.state.Pool` is all of a pool; this part of it is compiled.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperpool.cache.fronts import Fronts
    from hyperpool.sql.effects import EffectReader
    from hyperpool.sql.glance import Glance
    from hyperpool.stats import PoolStats


class Places:
    """Who is idle and who waits in one pool, and what decides which way a query takes; see `Pool` for each.

    Attributes:
        idle: servers that are ready to be linked, the next one at the end.
        waiting: clients that want a server, and since when.
        paused: no server is handed out.
        session: the pool mode is session.
        blocks: clients may have transaction blocks.
        watched: session state is followed, or reset.
        translates: what clients send is looked into.
        keeps_texts: what servers are asked is kept.
        slow: seconds beyond which a query is slow.
        round_robin: the server that has been idle for longest comes first.
        check_after: seconds of idleness after which a server is checked before reuse.
        cache: its part of the result cache.
        fronts: the cache's shortest ways to answers; None without a cache.
        reader: tells what session state a text may change.
        glance: the reader's first look.
        statements: the prepared statements of clients that share servers.
        stats: what has been counted.
    """

    __slots__ = (
        "blocks",
        "cache",
        "check_after",
        "fronts",
        "glance",
        "idle",
        "keeps_texts",
        "paused",
        "reader",
        "round_robin",
        "session",
        "slow",
        "statements",
        "stats",
        "translates",
        "waiting",
        "watched",
    )

    def __init__(self, stats: PoolStats) -> None:
        self.idle: list[Any] = []
        self.waiting: OrderedDict[Any, float] = OrderedDict()
        self.paused = False
        self.session = False
        self.blocks = True
        self.watched = False
        self.translates = False
        self.keeps_texts = False
        self.slow = float("inf")
        self.round_robin = False
        self.check_after = float("inf")
        self.cache: Any = None
        self.fronts: Fronts | None = None
        self.reader: EffectReader | None = None
        self.glance: Glance | None = None
        self.statements: Any = None
        self.stats = stats

    def attach(self, lane: Any) -> None:  # noqa: ANN401 - layers: see `Pool.cache`
        """Have another part of the result cache from now on, or none."""
        self.cache = lane
        self.fronts = None if lane is None else lane.fronts

    def rest(self, server: Any) -> None:  # noqa: ANN401 - any kind of server connection
        """A server connection becomes idle."""
        if self.round_robin:
            self.idle.insert(0, server)
        else:
            self.idle.append(server)
