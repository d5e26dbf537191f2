"""The process's limit on open files."""

from __future__ import annotations

import resource

import structlog

log = structlog.get_logger("limits")

_OWN_DESCRIPTORS = 64
"""Descriptors that are not connections: standard streams, epoll objects, listeners, logs, logins under way."""


def raise_open_file_limit(connections: int) -> None:
    """Raise the soft limit on open files to the hard limit, and warn when that is too low.

    Args:
        connections: client and server connections that the settings allow.
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
            remedy="raise it (ulimit -Hn, LimitNOFILE=) or lower max_client_conn",
        )
