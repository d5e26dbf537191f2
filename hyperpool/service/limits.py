"""The process's limit on open files."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from hyperpool.config import Settings

log = structlog.get_logger("limits")

_OWN_DESCRIPTORS: Final = 64
"""Descriptors that are not connections: standard streams, epoll objects, listeners, logs, logins under way."""


def raise_open_file_limit(settings: Settings) -> None:
    """Raise the soft limit on open files to the hard limit, and warn when that is lower than the settings may need.

    The estimate counts one full pool per database; a database without a forced user can have more.
    """
    pooler = settings.pooler
    connections = pooler.max_client_conn
    for database in settings.databases.values():
        size = pooler.default_pool_size if database.pool_size is None else database.pool_size
        reserve = (
            pooler.reserve_pool_size if database.reserve_pool_size is None else database.reserve_pool_size
        )
        connections += size + reserve
    if settings.agents is not None:
        connections += settings.agents.max_connections
    ensure_open_files(connections, "max_client_conn")


def ensure_open_files(connections: int, setting: str) -> None:
    """Raise the soft limit on open files to the hard limit, and warn when that is not enough.

    Args:
        connections: how many there may be.
        setting: what could be lowered instead.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    needed = connections + _OWN_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        log.warning(
            "the limit on open files is lower than the settings may need",
            limit=soft,
            needed=needed,
            remedy=f"raise it (ulimit -Hn, LimitNOFILE=) or lower {setting}",
        )
