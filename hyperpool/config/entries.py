"""The settings of what a settings file has several of: databases, users and peers.

As in `hyperpool.config.model`; where nothing is said, the pooler's setting holds.
"""

# ruff: noqa: RUF009 - what is called to make a default is `_setting`, and it makes a field
from __future__ import annotations

from typing import Literal

import attrs

from hyperpool.config import kinds, tls
from hyperpool.config.cache import CacheSettings, UserCacheSettings, database_cache, user_cache
from hyperpool.config.fields import setting as _setting
from hyperpool.config.kinds import ChannelBinding, PoolMode, SessionState, SslMode, SslNegotiation
from hyperpool.config.secret import Secret  # noqa: TC001 - cattrs evaluates the annotations
from hyperpool.config.transports import Steps
from hyperpool.config.transports import transport as read_transport


@attrs.frozen(kw_only=True)
class DatabaseSettings:
    """An entry of the section ``databases``; None stands for the pooler's setting.

    The metadata of each field explains it.
    """

    dbname: str | None = _setting(
        None, kinds.name, "the database's name on the server; by default the one that the client asks for"
    )
    host: str = _setting(
        "127.0.0.1",
        kinds.hosts,
        "name or address, or a Unix socket's directory (/...) or abstract name (@...); or several of them",
    )
    port: int | tuple[int, ...] = _setting(
        5432, kinds.ports, "port, also in a Unix socket's name; or as many ports as hosts"
    )
    load_balance_hosts: Literal["round-robin", "disable"] = _setting(
        "round-robin",
        kinds.load_balance,
        "host of a new connection; round-robin: the next one; disable: the same one until it fails",
    )
    transport: Steps = _setting(
        (),
        read_transport,
        "how a byte stream to the server is made, if not by connecting to host and port",
    )
    user: str | None = _setting(
        None, kinds.name, "log in to the server as this user, whoever the client is: one pool for all"
    )
    password: Secret | None = _setting(None, kinds.secret, "that user's password", secret=True)
    password_file: str = _setting("", kinds.secret_file, "file that holds the password, or credential:NAME")
    auth_user: str | None = _setting(None, kinds.text, "instead of the pooler's auth_user")
    auth_query: str | None = _setting(None, kinds.name, "instead of the pooler's auth_query")
    auth_dbname: str | None = _setting(None, kinds.text, "instead of the pooler's auth_dbname")
    pool_size: int | None = _setting(None, kinds.whole(0), "instead of default_pool_size")
    min_pool_size: int | None = _setting(None, kinds.whole(0), "instead of the pooler's min_pool_size")
    reserve_pool_size: int | None = _setting(
        None, kinds.whole(0), "instead of the pooler's reserve_pool_size"
    )
    max_db_connections: int | None = _setting(
        None, kinds.whole(0), "instead of the pooler's max_db_connections"
    )
    max_db_client_connections: int | None = _setting(
        None, kinds.whole(0), "instead of the pooler's max_db_client_connections"
    )
    pool_mode: PoolMode | None = _setting(None, kinds.pool_mode, "instead of the pooler's pool_mode")
    session_state: SessionState | None = _setting(
        None, kinds.session_state, "instead of the pooler's session_state"
    )
    max_pinned: int | None = _setting(None, kinds.whole(0), "instead of the pooler's max_pinned")
    pin_functions: tuple[str, ...] | None = _setting(
        None, kinds.names, "instead of the pooler's pin_functions"
    )
    query_wait_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the pooler's query_wait_timeout"
    )
    query_timeout: float | None = _setting(None, kinds.seconds(), "instead of the pooler's query_timeout")
    log_slow_queries: float | None = _setting(
        None, kinds.seconds(), "instead of the pooler's log_slow_queries"
    )
    idle_transaction_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the pooler's idle_transaction_timeout"
    )
    transaction_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the pooler's transaction_timeout"
    )
    client_idle_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the pooler's client_idle_timeout"
    )
    server_lifetime: float | None = _setting(None, kinds.seconds(), "instead of the pooler's server_lifetime")
    connect_query: str = _setting("", kinds.text, "run on each new server connection")
    client_encoding: str | None = _setting(None, kinds.name, "session parameter for new server connections")
    datestyle: str | None = _setting(None, kinds.name, "session parameter for new server connections")
    timezone: str | None = _setting(None, kinds.name, "session parameter for new server connections")
    application_name: str | None = _setting(None, kinds.name, "session parameter for new server connections")
    sslmode: SslMode | None = _setting(None, kinds.sslmode, "instead of the pooler's server_tls_sslmode")
    sslnegotiation: SslNegotiation = _setting(
        SslNegotiation.POSTGRES,
        kinds.sslnegotiation,
        "how TLS begins; postgres: after a request; direct: at once (PostgreSQL 17 and newer)",
    )
    sslrootcert: str | None = _setting(None, tls.certificates, "instead of the pooler's server_tls_ca_file")
    sslcert: str | None = _setting(None, kinds.secret_file, "instead of the pooler's server_tls_cert_file")
    sslkey: str | None = _setting(None, kinds.secret_file, "key of sslcert")
    ssl_min_protocol_version: str = _setting(
        "", tls.version, "oldest version of TLS, like TLSv1.3; empty: as in server_tls_protocols"
    )
    channel_binding: ChannelBinding = _setting(
        ChannelBinding.PREFER,
        kinds.channel_binding,
        "whether the login proves that nobody stands between us and the server; require: or there is no login",
    )
    cache: CacheSettings | None = _setting(
        None,
        database_cache,
        "answers to repeated queries are kept and served from memory; needs pool_mode transaction or statement, and "
        "session_state follow",
    )
    embedded: bool = _setting(
        default=False, parse=kinds.flag, about="hyperpool runs a PostgreSQL server of its own", reload=False
    )

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each server."""
        return pair_hosts(self.host, self.port)


@attrs.frozen(kw_only=True)
class UserSettings:
    """An entry of the section ``users``; None stands for the database's setting or the pooler's.

    The metadata of each field explains it.
    """

    password: Secret | None = _setting(
        None, kinds.secret, "password, md5... or SCRAM-SHA-256$...; goes before auth_file", secret=True
    )
    password_file: str = _setting("", kinds.secret_file, "file that holds the password, or credential:NAME")
    pool_mode: PoolMode | None = _setting(None, kinds.pool_mode, "instead of the database's pool_mode")
    pool_size: int | None = _setting(None, kinds.whole(0), "instead of the database's pool_size")
    reserve_pool_size: int | None = _setting(
        None, kinds.whole(0), "instead of the database's reserve_pool_size"
    )
    max_user_connections: int | None = _setting(
        None, kinds.whole(0), "instead of the pooler's max_user_connections"
    )
    max_user_client_connections: int | None = _setting(
        None, kinds.whole(0), "instead of the pooler's max_user_client_connections"
    )
    query_wait_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the database's query_wait_timeout"
    )
    query_timeout: float | None = _setting(None, kinds.seconds(), "instead of the database's query_timeout")
    idle_transaction_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the database's idle_transaction_timeout"
    )
    transaction_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the database's transaction_timeout"
    )
    client_idle_timeout: float | None = _setting(
        None, kinds.seconds(), "instead of the database's client_idle_timeout"
    )
    cache: UserCacheSettings | None = _setting(
        None, user_cache, "other ages for this user in the databases' caches, or false: no caching"
    )


@attrs.frozen(kw_only=True)
class PeerSettings:
    """An entry of the section ``peers``: another pooler, which has drawn cancel keys with its own ``peer_id``."""

    host: str = _setting("127.0.0.1", kinds.hosts, "name or address, or a Unix socket's directory (/...)")
    port: int = _setting(6432, kinds.port, "port, also in a Unix socket's name")
    pool_size: int | None = _setting(
        None, kinds.whole(0), "cancel requests that may be under way to it; by default, default_pool_size"
    )


def pair_hosts(host: str, port: int | tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Hosts with their ports.

    Args:
        host: with commas between them.
        port: one for all, or as many as hosts.
    """
    hosts = host.split(",")
    ports = port if isinstance(port, tuple) else (port,) * len(hosts)
    return tuple(zip(hosts, ports, strict=True))
