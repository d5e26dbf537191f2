"""All settings together, and what follows from them for one pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import attrs

from hyperpool.config.cache import for_pool
from hyperpool.config.entries import DatabaseSettings, UserSettings, pair_hosts
from hyperpool.config.kinds import AuthType, SslMode
from hyperpool.config.model import PoolerSettings
from hyperpool.config.secret import Secret
from hyperpool.config.tls import ServerTls, server_tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config.cache import CacheSettings
    from hyperpool.config.entries import PeerSettings
    from hyperpool.config.hba import HbaRule
    from hyperpool.config.http import HttpSettings
    from hyperpool.config.ident import IdentEntry
    from hyperpool.config.kinds import PoolMode, SessionState
    from hyperpool.config.transports import Steps
    from hyperpool.config.tunnel import AgentsSettings

T = TypeVar("T")

FALLBACK: Final = "*"
"""The database that stands for every name that has no entry of its own."""

RESERVED: Final = ("pgbouncer", "hyperpool")
"""Names of the admin console: pgbouncer's, and our own."""

_NO_SETTINGS: Final = UserSettings()
_NO_SECRET: Final = Secret("")
_NO_TLS: Final = ServerTls(mode=SslMode.DISABLE)
_DEFAULTS: Final[Any] = attrs.fields(PoolerSettings)


@attrs.frozen
class Portion:
    """What one of several processes has of something that is divided among them.

    Attributes:
        number: which process, from 0.
        among: how many there are.
    """

    number: int = 0
    among: int = 1

    def of(self, whole: int) -> int:
        """The portions together are the whole."""
        return whole // self.among + (self.number < whole % self.among)

    def at_least_one(self, whole: int) -> int:
        """The same, but nobody goes without, unless there is nothing."""
        return max(self.of(whole), 1) if whole else 0


_WHOLE: Final = Portion()


@attrs.frozen(kw_only=True)
class PoolSettings:
    """What one pool needs to know: the settings of pooler, database and user, resolved.

    Attributes:
        database: the name that clients ask for.
        user: as whom the pool logs in to the server: the database's forced user, or the client's.
        dbname: the database's name on the server.
        host: host name or address; a directory that starts with ``/`` or an abstract name that starts with ``@`` for
            a Unix socket; several of them with commas between.
        port: of the servers, or one for each.
        password: for the login to the server: the database's own, else what is stored about `user`; None if there is
            none.
        learns: what clients show at their logins may be used for the login to the server.
        pool_mode: when a server connection is given back.
        session_state: what happens to what a session keeps, in transaction and statement mode.
        max_pinned: clients that may keep their server connection for session state.
        pin_functions: functions whose call makes the client keep its server connection.
        max_prepared_statements: prepared statements that are kept on a server connection, in transaction and statement
            mode; 0 passes on names as they are.
        pool_size: server connections at most; 0 is no limit.
        min_pool_size: server connections that are kept.
        max_db_connections: server connections of all pools of this database; 0 is no limit.
        max_user_connections: server connections of all pools of this user; 0 is no limit.
        idle_timeout: seconds after which an unused pool is forgotten; 0 is never.
        reserve_pool_size: more server connections, for clients that wait for long.
        reserve_pool_timeout: seconds of waiting that count as long.
        query_wait_timeout: seconds that a client may wait; 0 is no limit.
        query_wait_notify: seconds of waiting after which the client is told; 0 is never.
        query_timeout: seconds that a query may take; 0 is no limit.
        log_slow_queries: seconds that a query may take without being logged; 0 is no limit.
        idle_transaction_timeout: seconds that a client may be idle in a transaction; 0 is no limit.
        transaction_timeout: seconds that a transaction may take; 0 is no limit.
        client_idle_timeout: seconds that a client may be idle; 0 is no limit.
        server_lifetime: seconds; 0 is for one use only.
        server_idle_timeout: seconds; 0 is no limit.
        server_connect_timeout: seconds; 0 is no limit.
        server_login_retry: seconds.
        server_reset_query: empty for none.
        server_reset_query_always: run it in every pool mode.
        server_check_query: ``<empty>`` for an empty query, empty for no check.
        server_check_delay: seconds.
        server_round_robin: the server connection that has been idle for longest is handed out first.
        server_fast_close: in session mode, one that must be replaced takes its client with it.
        connect_query: empty for none.
        parameters: startup parameters that the database forces, by the server's names for them.
        embedded: the server is hyperpool's own.
        load_balance_hosts: what chooses the host of a new connection.
        transport: the steps of the way to the server; empty for a connection to host and port.
        host_connect_timeout: seconds until the next one of several hosts is tried; 0 is no limit.
        tls: PostgreSQL's own TLS.
        cache: of its answers; None when none are kept.
        replication: the startup parameter ``replication`` of a connection of its own for one client; empty for none.
    """

    database: str
    user: str
    dbname: str
    host: str
    port: int | tuple[int, ...]
    password: Secret | None
    pool_mode: PoolMode
    pool_size: int
    min_pool_size: int
    reserve_pool_size: int
    reserve_pool_timeout: float
    query_wait_timeout: float
    server_lifetime: float
    server_idle_timeout: float
    server_connect_timeout: float
    server_login_retry: float
    server_reset_query: str
    server_reset_query_always: bool
    server_check_query: str
    server_check_delay: float
    connect_query: str
    parameters: Mapping[str, str]
    embedded: bool
    learns: bool = False
    session_state: SessionState = _DEFAULTS.session_state.default
    max_pinned: int = _DEFAULTS.max_pinned.default
    pin_functions: tuple[str, ...] = _DEFAULTS.pin_functions.default
    max_prepared_statements: int = _DEFAULTS.max_prepared_statements.default
    query_wait_notify: float = _DEFAULTS.query_wait_notify.default
    query_timeout: float = _DEFAULTS.query_timeout.default
    log_slow_queries: float = _DEFAULTS.log_slow_queries.default
    idle_transaction_timeout: float = _DEFAULTS.idle_transaction_timeout.default
    transaction_timeout: float = _DEFAULTS.transaction_timeout.default
    client_idle_timeout: float = _DEFAULTS.client_idle_timeout.default
    load_balance_hosts: Literal["round-robin", "disable"] = "round-robin"
    transport: Steps = ()
    host_connect_timeout: float = _DEFAULTS.host_connect_timeout.default
    tls: ServerTls = _NO_TLS
    cache: CacheSettings | None = None
    replication: str = ""
    max_db_connections: int = 0
    max_user_connections: int = 0
    idle_timeout: float = 0.0
    server_round_robin: bool = False
    server_fast_close: bool = False

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each server."""
        return pair_hosts(self.host, self.port)


@attrs.frozen
class AuthSource:
    """A server that is asked for secrets of users.

    Attributes:
        settings: where it is, and as whom to ask.
        query: what it is asked; ``$1`` is the user's name.
    """

    settings: PoolSettings
    query: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Tells sources apart."""
        return self.settings.database, self.settings.user, self.query


@attrs.frozen(kw_only=True)
class Settings:
    """The whole settings.

    Attributes:
        pooler: the section ``pooler``.
        databases: the section ``databases``, by name.
        users: the section ``users``, by name.
        peers: the section ``peers``, by ``peer_id``.
        userlist: what the ``auth_file`` says, by user name.
        agents: the section ``agents``; None if there is none.
        http: the section ``http``; None if there is none.
        notes: what was accepted and does not what it says, one line each.
        hba: what the ``auth_hba_file`` says, with ``auth_type`` hba.
        portion: of what is divided, such as ``min_pool_size``, what this process gets.
        ident: the maps of the ``auth_ident_file`` by name, with ``auth_type`` hba.
        credentials: what is stored about each known user. An entry of `users` goes before one of `userlist`; a user
            that has no secret at all is known with an empty one, which is enough for ``auth_type`` trust alone. Beside
            an ``auth_file``, as in pgbouncer, an entry of `users` without a secret says nothing about who is known.
    """

    pooler: PoolerSettings = attrs.field(factory=PoolerSettings)
    databases: Mapping[str, DatabaseSettings] = attrs.field(factory=dict)
    users: Mapping[str, UserSettings] = attrs.field(factory=dict)
    peers: Mapping[int, PeerSettings] = attrs.field(factory=dict)
    userlist: Mapping[str, Secret] = attrs.field(factory=dict)
    agents: AgentsSettings | None = None
    http: HttpSettings | None = None
    notes: tuple[str, ...] = attrs.field(default=(), eq=False)
    hba: tuple[HbaRule, ...] = ()
    ident: Mapping[str, tuple[IdentEntry, ...]] = attrs.field(factory=dict)
    portion: Portion = _WHOLE
    credentials: Mapping[str, Secret] = attrs.field(init=False)

    @credentials.default
    def _merge_credentials(self) -> Mapping[str, Secret]:
        alone = not self.pooler.auth_file
        declared = {
            name: user.password or _NO_SECRET
            for name, user in self.users.items()
            if user.password or (alone and name not in self.userlist)
        }
        return {**self.userlist, **declared}

    def find_database(self, database: str) -> DatabaseSettings | None:
        """The entry for the name that a client asks for: its own, or ``*``; None when there is no such database."""
        return self.databases.get(database) or self.databases.get(FALLBACK)

    def pool_for(self, database: str, user: str) -> PoolSettings | None:
        """Resolve the settings of one pool; the pool's user decides, as in pgbouncer, before database and pooler.

        Args:
            database: the name that a client asks for.
            user: the client's name; a database with a forced user has one pool for all clients.

        Returns:
            The settings, or None when there is no such database.
        """
        entry = self.find_database(database)
        if entry is None:
            return None
        return self._resolve(database, entry, entry.user or user)

    def client_limits(self, database: str, user: str) -> tuple[int, int]:
        """How many clients there may be; 0 is no limit.

        Args:
            database: the name that a client asks for.
            user: as whom it logs in.

        Returns:
            For the database, and for the user.
        """
        entry = self.databases.get(database) or self.databases.get(FALLBACK) or DatabaseSettings()
        own = self.users.get(user, _NO_SETTINGS)
        return (
            _first(entry.max_db_client_connections, self.pooler.max_db_client_connections),
            _first(own.max_user_client_connections, self.pooler.max_user_client_connections),
        )

    def auth_source(self, database: str) -> AuthSource | None:
        """Who knows the secrets of users that are not known here.

        Nothing of what the entry says about sessions and other users is taken over: the connection is for this alone.

        Args:
            database: the name that a client asks for.

        Returns:
            What to ask, or None when nobody is asked: there is no ``auth_user``, no such database, or no database
            named ``auth_dbname``.
        """
        pooler = self.pooler
        entry = self.databases.get(database) or self.databases.get(FALLBACK)
        if database in RESERVED:
            # The console has no server of its own that could be asked.
            entry = DatabaseSettings() if pooler.auth_dbname else None
        if entry is None:
            return None
        user = _first(entry.auth_user, pooler.auth_user)
        name = _first(entry.auth_dbname, pooler.auth_dbname) or database
        asked = self.databases.get(name) or self.databases.get(FALLBACK)
        if not user or asked is None:
            return None
        bare = attrs.evolve(
            asked,
            user=None,
            password=None,
            connect_query="",
            client_encoding=None,
            datestyle=None,
            timezone=None,
            application_name=None,
        )
        return AuthSource(self._resolve(name, bare, user), _first(entry.auth_query, pooler.auth_query))

    def uses(self, kind: AuthType) -> bool:
        """Whether clients may be asked to prove who they are in this way."""
        own = self.pooler.auth_type
        return own is kind or (own is AuthType.HBA and any(rule.method is kind for rule in self.hba))

    def warm_pools(self) -> list[PoolSettings]:
        """The pools that open connections before any client comes: ``min_pool_size`` and a forced user are set."""
        pools = [
            self._resolve(name, entry, entry.user)
            for name, entry in self.databases.items()
            if entry.user is not None and name != FALLBACK
        ]
        return [pool for pool in pools if pool.min_pool_size > 0]

    def _resolve(self, database: str, entry: DatabaseSettings, user: str) -> PoolSettings:
        pooler = self.pooler
        own = self.users.get(user, _NO_SETTINGS)
        return PoolSettings(
            database=database,
            user=user,
            dbname=entry.dbname or database,
            host=entry.host,
            port=entry.port,
            password=entry.password or self.credentials.get(user) or None,
            pool_mode=_first(own.pool_mode, entry.pool_mode, pooler.pool_mode),
            pool_size=_first(own.pool_size, entry.pool_size, pooler.default_pool_size),
            min_pool_size=self.portion.of(_first(entry.min_pool_size, pooler.min_pool_size)),
            reserve_pool_size=_first(
                own.reserve_pool_size, entry.reserve_pool_size, pooler.reserve_pool_size
            ),
            reserve_pool_timeout=pooler.reserve_pool_timeout,
            query_wait_timeout=_first(
                own.query_wait_timeout, entry.query_wait_timeout, pooler.query_wait_timeout
            ),
            server_lifetime=_first(entry.server_lifetime, pooler.server_lifetime),
            server_idle_timeout=pooler.server_idle_timeout,
            server_connect_timeout=pooler.server_connect_timeout,
            server_login_retry=pooler.server_login_retry,
            server_reset_query=pooler.server_reset_query,
            server_reset_query_always=pooler.server_reset_query_always,
            server_check_query=pooler.server_check_query,
            server_check_delay=pooler.server_check_delay,
            connect_query=entry.connect_query,
            parameters=_parameters(entry),
            embedded=entry.embedded,
            learns=entry.password is None,
            session_state=_first(entry.session_state, pooler.session_state),
            max_pinned=_first(entry.max_pinned, pooler.max_pinned),
            pin_functions=_first(entry.pin_functions, pooler.pin_functions),
            max_prepared_statements=pooler.max_prepared_statements,
            query_wait_notify=pooler.query_wait_notify,
            log_slow_queries=_first(entry.log_slow_queries, pooler.log_slow_queries),
            query_timeout=_first(own.query_timeout, entry.query_timeout, pooler.query_timeout),
            idle_transaction_timeout=_first(
                own.idle_transaction_timeout, entry.idle_transaction_timeout, pooler.idle_transaction_timeout
            ),
            transaction_timeout=_first(
                own.transaction_timeout, entry.transaction_timeout, pooler.transaction_timeout
            ),
            client_idle_timeout=_first(
                own.client_idle_timeout, entry.client_idle_timeout, pooler.client_idle_timeout
            ),
            load_balance_hosts=entry.load_balance_hosts,
            transport=entry.transport,
            host_connect_timeout=pooler.host_connect_timeout,
            tls=_NO_TLS if entry.embedded else server_tls(pooler, entry),
            max_db_connections=_first(entry.max_db_connections, pooler.max_db_connections),
            max_user_connections=_first(own.max_user_connections, pooler.max_user_connections),
            idle_timeout=pooler.pool_idle_timeout
            if database in self.databases
            else pooler.autodb_idle_timeout,
            server_round_robin=pooler.server_round_robin,
            server_fast_close=pooler.server_fast_close,
            cache=for_pool(entry.cache, own.cache),
        )


def _first(*values: T | None) -> T:
    """The first that is set; the last one always is."""
    for value in values:
        if value is not None:
            return value
    raise AssertionError("the last one is set")


def _parameters(entry: DatabaseSettings) -> dict[str, str]:
    wanted = {
        "client_encoding": entry.client_encoding,
        "DateStyle": entry.datestyle,
        "TimeZone": entry.timezone,
        "application_name": entry.application_name,
    }
    return {name: value for name, value in wanted.items() if value is not None}
