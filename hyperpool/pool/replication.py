"""Replication connections: a server of its own for one client, in a pool of its own.

A server connection that was opened with the startup parameter ``replication`` speaks the streaming replication
protocol (PostgreSQL docs, chapter "Frontend/Backend Protocol", section "Streaming Replication Protocol"). It cannot be
given to another client, nor can the pooler run queries of its own on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hyperpool.config import PoolMode, SessionState
from hyperpool.errors import ClientRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hyperpool.config import PoolSettings


def replication_settings(
    settings: PoolSettings, replication: str, parameters: Mapping[str, str]
) -> PoolSettings:
    """The settings of a replication client's own pool.

    Its server is used once and by nobody else, it is opened when the client logs in, and the pooler asks it nothing.
    Time limits for queries do not hold: a stream is one query that does not end.

    Args:
        settings: of the pool that an ordinary client would have.
        replication: the startup parameter of that name.
        parameters: the client's other startup parameters, which go to the server as they are.
    """
    return attrs.evolve(
        settings,
        replication=replication,
        parameters={**settings.parameters, **parameters},
        pool_mode=PoolMode.SESSION,
        session_state=SessionState.KEEP,
        pool_size=1,
        min_pool_size=0,
        reserve_pool_size=0,
        server_lifetime=0.0,
        server_idle_timeout=0.0,
        server_reset_query="",
        server_check_query="",
        connect_query="",
        query_timeout=0.0,
        idle_transaction_timeout=0.0,
        transaction_timeout=0.0,
        client_idle_timeout=0.0,
        cache=None,
    )


def refuse_crowd(settings: PoolSettings, others: Iterable[PoolSettings]) -> None:
    """See to it that not more clients replicate than ``pool_size`` allows.

    They are counted by themselves: PostgreSQL does not count their connections in ``max_connections`` either, but in
    ``max_wal_senders``.

    Args:
        settings: of the pool that an ordinary client would have.
        others: of the pools of all replication clients that there are.

    Raises:
        ClientRefused: there are as many of the same database and user already.
    """
    same = sum((other.database, other.user) == (settings.database, settings.user) for other in others)
    if settings.pool_size and same >= settings.pool_size:
        raise crowded(settings, same)


def crowded(settings: PoolSettings, count: int) -> ClientRefused:
    """What a client is told when `count` others replicate already."""
    return ClientRefused(
        "no more replication connections allowed (pool_size)",
        "53300",
        f"{count} clients replicate from {settings.database} as {settings.user} already; see default_pool_size",
    )
