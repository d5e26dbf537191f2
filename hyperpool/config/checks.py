"""Contradictions: settings that are fine one by one and make no sense together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.config.auth_checks import MD5, check_auth
from hyperpool.config.cache import MIN_ENTRIES
from hyperpool.config.http import check_http
from hyperpool.config.kinds import PoolMode, SessionState
from hyperpool.config.report import dotted
from hyperpool.config.settings import FALLBACK, RESERVED
from hyperpool.config.tls_checks import check_tls
from hyperpool.config.transports import AgentStep
from hyperpool.config.tunnel import check_gate

if TYPE_CHECKING:
    from collections.abc import Collection

    from hyperpool.config.entries import DatabaseSettings
    from hyperpool.config.report import KeyPath, Report
    from hyperpool.config.settings import Settings

_SCRAM_PREFIX: Final = "SCRAM-SHA-256$"
_MIN_POOL_SIZE: Final[KeyPath] = ("pooler", "min_pool_size")
_DEFAULT_POOL_SIZE: Final[KeyPath] = ("pooler", "default_pool_size")


def check(settings: Settings, given: Collection[KeyPath], report: Report) -> None:
    """Look for contradictions.

    Args:
        settings: all settings; what could not be read has its default.
        given: the paths that stand in the file, to tell what was set from what has its default.
        report: knows what could not be read, and gets the problems.
    """
    _check_listeners(settings, report)
    check_auth(settings, given, report)
    check_tls(settings, report)
    _check_agents(settings, report)
    if settings.http is not None:
        check_http(settings.http, report)
    _check_workers(settings, report)
    pooler = settings.pooler
    _compare(_MIN_POOL_SIZE, pooler.min_pool_size, _DEFAULT_POOL_SIZE, pooler.default_pool_size, report)
    if not settings.databases and report.is_sound(("databases",)):
        report.doubt(
            ("databases",), "found none, expected one or more; add an entry, '*' stands for every name"
        )
    for name, database in settings.databases.items():
        path = ("databases", name)
        if name in RESERVED:
            report.add(path, "found a name that is kept for the admin console; choose another one")
        _check_hosts(path, database, report)
        if database.embedded:
            _check_embedded(path, database, given, report)
        else:
            _check_login(path, database, report)
        _check_sizes(name, settings, report)
        _check_cache(path, database, settings, report)


def _check_listeners(settings: Settings, report: Report) -> None:
    addresses, directory = ("pooler", "listen_addr"), ("pooler", "unix_socket_dir")
    if settings.pooler.listen_addr or settings.pooler.unix_socket_dir:
        return
    if report.is_sound(addresses, directory):
        report.add(
            addresses,
            "found nothing to listen on, expected an address such as 127.0.0.1 here, or a directory as "
            "pooler.unix_socket_dir",
        )


def _check_workers(settings: Settings, report: Report) -> None:
    if settings.pooler.workers == 1:
        return
    if settings.agents is not None:
        report.add(
            ("pooler", "workers"),
            "found several workers together with the section agents, but an agent connects to one process alone; "
            "set it to 1, or reach that network through a WebSocket tunnel (ingress)",
        )


def _check_agents(settings: Settings, report: Report) -> None:
    if settings.agents is not None:
        check_gate("agents", settings.agents, report)
    known = {token.agent_name for token in settings.agents.tokens.values()} if settings.agents else set()
    for name, database in settings.databases.items():
        for step in database.transport:
            if isinstance(step, AgentStep) and step.name not in known and report.is_sound(("agents",)):
                report.add(
                    ("databases", name, "transport"),
                    f"found agent {step.name!r}, for which no token lets anybody in; add one to agents.tokens",
                )


def _check_hosts(path: KeyPath, database: DatabaseSettings, report: Report) -> None:
    host, port, transport = (*path, "host"), (*path, "port"), (*path, "transport")
    if not report.is_sound(host, port, transport):
        return
    count = database.host.count(",") + 1
    if isinstance(database.port, tuple) and len(database.port) != count:
        report.add(
            port,
            f"found {len(database.port)} ports, expected one, or one for each of {count} hosts; correct one list",
        )
    if database.transport and count > 1:
        report.add(
            transport,
            f"found together with {count} hosts, expected one; the transport says what to connect to",
        )


def _check_embedded(
    path: KeyPath, database: DatabaseSettings, given: Collection[KeyPath], report: Report
) -> None:
    if path[1] == FALLBACK:
        report.add(
            (*path, "embedded"), "found true for '*', expected it below a database's own name; move it"
        )
    for key in ("host", "port", "transport"):
        if (*path, key) in given:
            report.add(
                (*path, key), "found together with embedded: true, which decides it; remove one of the two"
            )
    user, password = (*path, "user"), (*path, "password")
    if database.user is None and report.is_sound(user):
        report.add(user, "found nothing, expected the user that owns the embedded database")
    if database.password is None:
        if report.is_sound(password, (*path, "password_file")):
            report.add(password, "found nothing, expected a password for the embedded database's user")
    elif _is_hash(database.password.reveal()):
        report.add(password, "found a hash, expected the embedded database's password itself")


def _check_login(path: KeyPath, database: DatabaseSettings, report: Report) -> None:
    user, password = (*path, "user"), (*path, "password")
    if database.password is None:
        return
    if database.user is None and report.is_sound(user):
        report.add(password, "found without a user, expected both or none; add user, or remove the password")
    if database.password.reveal().startswith(_SCRAM_PREFIX):
        report.add(password, "found a SCRAM verifier, expected the password itself; a verifier cannot log in")


def _check_sizes(name: str, settings: Settings, report: Report) -> None:
    """Compare the ``min_pool_size`` and the size of the pools of a database; of its one pool if a user is forced."""
    database = settings.databases[name]
    minimum, minimum_path = settings.pooler.min_pool_size, _MIN_POOL_SIZE
    limit, limit_path = settings.pooler.default_pool_size, _DEFAULT_POOL_SIZE
    if database.min_pool_size is not None:
        minimum, minimum_path = database.min_pool_size, ("databases", name, "min_pool_size")
    if database.pool_size is not None:
        limit, limit_path = database.pool_size, ("databases", name, "pool_size")
    user = settings.users.get(database.user) if database.user is not None else None
    if user is not None and user.pool_size is not None:
        limit, limit_path = user.pool_size, ("users", str(database.user), "pool_size")
    if (minimum_path, limit_path) != (_MIN_POOL_SIZE, _DEFAULT_POOL_SIZE):
        _compare(minimum_path, minimum, limit_path, limit, report)


def _check_cache(path: KeyPath, database: DatabaseSettings, settings: Settings, report: Report) -> None:
    """Only where session state follows the client is it known what an answer depends on."""
    cache, pooler = database.cache, settings.pooler
    here = (*path, "cache")
    if cache is None:
        return
    mode = database.pool_mode or pooler.pool_mode
    if mode is PoolMode.SESSION and _is_sound(path, database, "pool_mode", report):
        report.add(
            here, "found with pool_mode session, in which nothing is cached; set transaction or statement"
        )
    state = database.session_state or pooler.session_state
    if state is not SessionState.FOLLOW and _is_sound(path, database, "session_state", report):
        report.add(
            here,
            f"found with session_state {state.value}, in which nobody knows a client's settings; set follow",
        )
    if not pooler.max_prepared_statements and report.is_sound(("pooler", "max_prepared_statements")):
        report.add(
            here,
            "found with max_prepared_statements 0, so that nobody knows what prepared statements write; raise that",
        )
    if cache.max_entry > pooler.cache_size // MIN_ENTRIES and report.is_sound(("pooler", "cache_size")):
        report.add(
            (*here, "max_entry"),
            f"found more than 1/{MIN_ENTRIES} of pooler.cache_size; make that larger, or this smaller",
        )


def _is_sound(path: KeyPath, database: DatabaseSettings, name: str, report: Report) -> bool:
    """Whether a setting of a database is what the file says, there or, where it has none, for the pooler."""
    if getattr(database, name) is not None:
        return report.is_sound((*path, name))
    return report.is_sound((*path, name), ("pooler", name))


def _compare(minimum_path: KeyPath, minimum: int, limit_path: KeyPath, limit: int, report: Report) -> None:
    if limit and minimum > limit and report.is_sound(minimum_path, limit_path):
        report.doubt(
            minimum_path,
            f"found {minimum}, expected no more than the {limit} of {dotted(limit_path)}; change one of them",
        )


def _is_hash(password: str) -> bool:
    return password.startswith(_SCRAM_PREFIX) or MD5.fullmatch(password) is not None
