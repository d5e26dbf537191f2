"""The settings of the pooler as a whole: every name, its default and what it is for.

Names and defaults are pgbouncer's wherever pgbouncer has the setting. Durations are seconds and sizes are bytes,
unless a setting says otherwise. Each field's metadata holds ``help`` (one line for people), ``reload`` (whether a
reload of the file changes it), ``parse`` (its kind) and ``secret``.
"""

# ruff: noqa: RUF009 - what is called to make a default is `_setting`, and it makes a field
from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import attrs

from hyperpool.config import kinds, tls
from hyperpool.config.fields import metadata as _metadata
from hyperpool.config.fields import setting as _setting
from hyperpool.config.kinds import AuthType, PoolMode, SessionState, SslMode
from hyperpool.config.ldap import LdapOptions, ldap_options
from hyperpool.config.source import default_state_dir

MAX_WORKERS: Final = 256

MAX_PEER_ID: Final = 16383
"""The largest ``peer_id``, as in pgbouncer: it has two bytes of the cancel keys."""

AUTH_QUERY: Final = (
    "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL ELSE rolpassword END "
    "FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin"
)
"""pgbouncer's, with every name in its schema, whatever the search_path of the user is."""


@attrs.frozen(kw_only=True)
class PoolerSettings:
    """The section ``pooler``; the metadata of each field explains it."""

    listen_addr: tuple[str, ...] = _setting(
        (),
        kinds.addresses,
        "addresses to listen on; * is all of them, an empty list means no TCP",
        reload=False,
    )
    listen_port: int = _setting(6432, kinds.port, "port, also in the Unix socket's name", reload=False)
    unix_socket_dir: str = _setting(
        "",
        kinds.socket_directory,
        "directory of the Unix socket, or an abstract name (@...), which has no permissions; empty: no Unix socket",
        reload=False,
    )
    unix_socket_mode: int = _setting(
        0o777, kinds.file_mode, "permissions of the Unix socket, octal", reload=False
    )
    unix_socket_group: str = _setting(
        "", kinds.text, "group of the Unix socket, a name or a number; empty: the process's own", reload=False
    )
    listen_backlog: int = _setting(
        128, kinds.whole(0), "connections that the kernel may hold until they are accepted", reload=False
    )
    so_reuseport: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="let several processes listen on the same TCP port, each with a unix_socket_dir of its own",
        reload=False,
    )
    workers: int = _setting(
        1,
        kinds.workers(MAX_WORKERS),
        "processes that serve clients together, as one pooler; auto: one for each processor that may be used",
        reload=False,
    )
    peer_id: int = _setting(
        0,
        kinds.whole(0, MAX_PEER_ID),
        "this process among those in `peers`, to which cancel requests for their clients are passed on; 0: none",
        reload=False,
    )
    admin_users: tuple[str, ...] = _setting(
        (), kinds.names, "users who may run all commands of the admin console"
    )
    stats_users: tuple[str, ...] = _setting(
        (), kinds.names, "users who may read in the admin console (SHOW, but for SHOW FDS)"
    )
    auth_type: AuthType = _setting(AuthType.MD5, kinds.auth_type, "how clients prove who they are")
    auth_file: str = _setting(
        "", kinds.secret_file, "users and secrets in pgbouncer's format; empty: only `users`"
    )
    auth_hba_file: str = _setting(
        "", kinds.path, "with auth_type hba: who may come in from where, and how, as in pg_hba.conf"
    )
    auth_ident_file: str = _setting(
        "", kinds.path, "with auth_type hba: maps that rules with cert and peer name, as in pg_ident.conf"
    )
    auth_user: str = _setting(
        "", kinds.text, "user as whom servers are asked about users without a secret here; empty: nobody asks"
    )
    auth_query: str = _setting(
        AUTH_QUERY, kinds.name, "what they are asked: $1 is the user; returns a name and a secret"
    )
    auth_dbname: str = _setting("", kinds.text, "entry of `databases` that is asked; empty: the client's own")
    auth_query_ttl: float = _setting(
        0.0, kinds.seconds(), "time for which an answer of auth_query is used again; 0: each login asks anew"
    )
    auth_ldap_options: LdapOptions | None = _setting(
        None, ldap_options, "with auth_type ldap: options as in pg_hba.conf, like ldapurl=...", secret=True
    )
    auth_pam_service: str = _setting("pgbouncer", kinds.name, "with auth_type pam: the name of PAM's service")
    auth_failure_burst: int = _setting(
        10,
        kinds.whole(0),
        "failed logins of one user from one address before each more costs auth_failure_interval; 0 is no limit",
    )
    auth_failure_interval: float = _setting(
        1.0, kinds.seconds(3600.0), "time that a failed login costs then; all users of an address: a tenth"
    )
    scram_iterations: int = _setting(
        4096, kinds.whole(1, 1_000_000), "rounds of hashing when a client's password is stored as it is"
    )
    pool_mode: PoolMode = _setting(
        PoolMode.SESSION, kinds.pool_mode, "when a server connection is given back"
    )
    session_state: SessionState = _setting(
        SessionState.FOLLOW,
        kinds.session_state,
        "what a session keeps (SET, LISTEN, temporary tables, advisory locks) in transaction and statement mode; "
        "follow: settings follow the client, which keeps its server connection for the rest; reset: cleaned away when "
        "the transaction ends; keep: left on the server connection, as in pgbouncer",
    )
    max_pinned: int = _setting(
        10,
        kinds.whole(0),
        "clients of a pool that may keep their server connection for session state; beyond it, what would need that "
        "is refused",
    )
    pin_functions: tuple[str, ...] = _setting(
        (
            "dblink_connect",
            "dblink_connect_u",
            "pg_backup_start",
            "pg_copy_logical_replication_slot",
            "pg_copy_physical_replication_slot",
            "pg_create_logical_replication_slot",
            "pg_create_physical_replication_slot",
            "pg_replication_origin_session_setup",
        ),
        kinds.names,
        "functions whose call makes the client keep its server connection until it leaves",
    )
    max_prepared_statements: int = _setting(
        200,
        kinds.whole(0),
        "prepared statements kept on each server connection in transaction and statement mode; 0: names are passed on "
        "as they are",
    )
    max_prepared_memory: int = _setting(
        256 * 1024**2,
        kinds.size(1),
        "texts of clients' prepared statements that the pooler holds; a client with more keeps its server connection",
    )
    cache_size: int = _setting(
        64 * 1024**2,
        kinds.size(1024**2, 1024**4),
        "memory for the answers that the databases' caches keep, keys and overhead counted",
        reload=False,
    )
    max_client_conn: int = _setting(100, kinds.whole(1), "clients at a time")
    max_db_connections: int = _setting(
        0, kinds.whole(0), "server connections per database, whoever the user is; 0 is no limit"
    )
    max_db_client_connections: int = _setting(
        0, kinds.whole(0), "clients per database, whoever the user is; 0 is no limit"
    )
    max_user_connections: int = _setting(
        0,
        kinds.whole(0),
        "server connections per user, whatever the database is; 0 is no limit; counts for the user of the pool",
    )
    max_user_client_connections: int = _setting(
        0,
        kinds.whole(0),
        "clients per user, whatever the database is; 0 is no limit; counts for the user that the client logs in as",
    )
    default_pool_size: int = _setting(
        20, kinds.whole(0), "server connections per database and user; 0 is no limit"
    )
    min_pool_size: int = _setting(
        0, kinds.whole(0), "server connections that are kept open per pool, also when no client needs them"
    )
    reserve_pool_size: int = _setting(
        0, kinds.whole(0), "more server connections for clients that wait longer than reserve_pool_timeout"
    )
    reserve_pool_timeout: float = _setting(5.0, kinds.seconds(), "wait before the reserve is used")
    server_round_robin: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="hand out the server connection that has been idle for longest, not the one that has just become idle",
    )
    server_fast_close: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="in session mode, close a server connection that must be replaced as soon as no transaction is open, and "
        "its client with it, instead of waiting until the client leaves",
    )
    server_lifetime: float = _setting(
        3600.0, kinds.seconds(), "age at which an unused server connection is closed; 0: each is used once"
    )
    server_idle_timeout: float = _setting(
        600.0, kinds.seconds(), "idle time after which a server connection is closed; 0 is no limit"
    )
    server_connect_timeout: float = _setting(
        15.0, kinds.seconds(), "limit for connecting and logging in to a server; 0 is no limit"
    )
    host_connect_timeout: float = _setting(
        5.0,
        kinds.seconds(),
        "limit for connecting and logging in to one of several hosts, before the next one is tried; 0 is no limit",
    )
    server_login_retry: float = _setting(
        15.0, kinds.seconds(), "longest pause between attempts to log in to a server"
    )
    query_wait_timeout: float = _setting(
        120.0, kinds.seconds(), "longest time that a client waits for a server connection; 0 is no limit"
    )
    query_wait_notify: float = _setting(
        5.0, kinds.seconds(), "wait after which a client is told that it waits for a server; 0 is never"
    )
    query_timeout: float = _setting(0.0, kinds.seconds(), "longest time that a query may take; 0 is no limit")
    idle_transaction_timeout: float = _setting(
        0.0, kinds.seconds(), "longest time that a client may be idle in a transaction; 0 is no limit"
    )
    transaction_timeout: float = _setting(
        0.0, kinds.seconds(), "longest time that a transaction may take; 0 is no limit"
    )
    client_idle_timeout: float = _setting(
        0.0, kinds.seconds(), "longest time that a client may be idle; 0 is no limit"
    )
    client_login_timeout: float = _setting(60.0, kinds.seconds(), "limit for a client's login; 0 is no limit")
    autodb_idle_timeout: float = _setting(
        3600.0,
        kinds.seconds(),
        "time after which an unused pool of a database that the entry * stands for is forgotten, and its statistics",
    )
    pool_idle_timeout: float = _setting(
        0.0,
        kinds.seconds(),
        "time after which an unused pool of any other database is forgotten, and its statistics; 0 is never",
    )
    cancel_wait_timeout: float = _setting(
        10.0, kinds.seconds(), "longest time that a cancel request may take; 0 is no limit"
    )
    drain_timeout: float = _setting(
        0.0,
        kinds.seconds(),
        "longest time that SIGTERM, SIGINT and SHUTDOWN WAIT_FOR_... wait; in its last tenth, each client is closed as "
        "soon as it is idle; 0 is no limit, and no client is closed for that",
    )
    drain_rate: int = _setting(
        0,
        kinds.whole(0, 1_000_000),
        "idle clients that are closed per second meanwhile, those that have been idle for longest first; 0: none",
    )
    suspend_timeout: float = _setting(
        10.0,
        kinds.seconds(),
        "longest time that SUSPEND waits for a connection to take what it was sent, before it is closed",
    )
    server_reset_query: str = _setting(
        "DISCARD ALL",
        kinds.text,
        "run when a session ends, before another client gets its server; empty: none",
    )
    server_reset_query_always: bool = _setting(
        default=False, parse=kinds.flag, about="run it also in transaction and statement mode"
    )
    server_check_query: str = _setting(
        "<empty>",
        kinds.text,
        "checks an idle server before reuse; <empty> is an empty query, empty: no check",
    )
    server_check_delay: float = _setting(
        30.0, kinds.seconds(), "idle time after which a server is checked before reuse"
    )
    max_packet_size: int = _setting(0x7FFFFFFF, kinds.size(1), "longest message of a client")
    disable_pqexec: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="refuse the simple query protocol, in which one text may hold several statements",
    )
    application_name_add_host: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="add the client's address and port to the application_name that it asks for",
    )
    login_notify_message: str = _setting(
        "", kinds.text, "text of a NOTICE that each client gets when it has logged in; empty: none"
    )
    ignore_startup_parameters: tuple[str, ...] = _setting(
        (), kinds.names, "startup parameters of clients that are dropped instead of refused"
    )
    track_extra_parameters: tuple[str, ...] = _setting(
        ("IntervalStyle",), kinds.names, "more session parameters that follow the client", reload=False
    )
    log_connections: bool = _setting(default=True, parse=kinds.flag, about="log each client that comes")
    log_disconnections: bool = _setting(
        default=True, parse=kinds.flag, about="log each client that goes, with the reason"
    )
    log_pooler_errors: bool = _setting(
        default=True, parse=kinds.flag, about="log errors that the pooler sends to clients"
    )
    log_slow_queries: float = _setting(
        0.0,
        kinds.seconds(),
        "log each query that takes longer, by its fingerprint, ten in a second at most; 0: none",
    )
    log_slow_query_texts: bool = _setting(
        default=False, parse=kinds.flag, about="log them with the values that stand in them"
    )
    log_stats: bool = _setting(default=True, parse=kinds.flag, about="log statistics each stats_period")
    stats_period: float = _setting(60.0, kinds.seconds(), "time between two lines of statistics; 0 is never")
    dns_max_ttl: float = _setting(
        15.0,
        kinds.seconds(),
        "time for which addresses of host names are used before they are looked up again",
    )
    dns_nxdomain_ttl: float = _setting(
        15.0, kinds.seconds(), "time for which a host name that does not exist is not looked up again"
    )
    resolv_conf: str = _setting(
        "",
        kinds.path,
        "file like /etc/resolv.conf that says which DNS servers are asked; empty: the system's own resolver",
        reload=False,
    )
    tcp_defer_accept: bool = _setting(
        default=False,
        parse=kinds.flag,
        about="let the kernel keep new connections back until their first bytes are there, for up to 45 seconds",
    )
    tcp_socket_buffer: int = _setting(
        0, kinds.size(0), "size of the kernel's buffers for each TCP connection; 0 is the system's default"
    )
    tcp_keepalive: bool = _setting(default=True, parse=kinds.flag, about="send TCP keepalive probes")
    tcp_keepcnt: int = _setting(
        0, kinds.whole(0, 127), "probes without an answer that end a connection; 0 is the system's default"
    )
    tcp_keepidle: int = _setting(
        0, kinds.whole_seconds(32767), "silence before the first probe; 0 is the system's default"
    )
    tcp_keepintvl: int = _setting(
        0, kinds.whole_seconds(32767), "time between probes; 0 is the system's default"
    )
    tcp_user_timeout: int = _setting(
        0, kinds.milliseconds, "milliseconds that data may stay unacknowledged; 0 is the system's default"
    )
    client_tls_sslmode: SslMode = _setting(
        SslMode.DISABLE,
        kinds.sslmode,
        "TLS of clients; allow, prefer: for those that ask; require: for all; verify-ca, verify-full: and they must "
        "show a certificate",
    )
    client_tls_key_file: str = _setting("", kinds.secret_file, "key of client_tls_cert_file")
    client_tls_cert_file: str = _setting("", kinds.secret_file, "certificate that clients are shown")
    client_tls_ca_file: str = _setting(
        "", kinds.path, "certificates that clients' certificates are verified with"
    )
    client_tls_protocols: tls.Versions = _setting(
        tls.SECURE,
        tls.protocols,
        "versions of TLS: secure (1.2 and newer), all, or a list like tlsv1.2, tlsv1.3",
    )
    client_tls_ciphers: str = _setting(
        "",
        tls.ciphers,
        "ciphers of TLS 1.2 and older, in OpenSSL's form, or default, secure, normal, fast or all",
    )
    client_tls13_ciphers: str = _setting(
        "", tls.no_tls13_ciphers, "must be empty: the ciphers of TLS 1.3 cannot be chosen"
    )
    client_tls_ecdhcurve: str = _setting(
        "", tls.curve, "the one curve that keys are agreed on, like prime256v1; auto: OpenSSL's choice"
    )
    client_tls_dheparams: str = _setting(
        "auto", tls.no_dheparams, "auto or none: keys are agreed on with elliptic curves"
    )
    server_tls_sslmode: SslMode = _setting(
        SslMode.PREFER,
        kinds.sslmode,
        "TLS of servers: disable, allow, prefer, require; verify-ca: the certificate is verified; verify-full: and its "
        "name",
    )
    server_tls_ca_file: str = _setting(
        "",
        tls.certificates,
        "certificates that servers are verified with; system: those that the system trusts",
    )
    server_tls_key_file: str = _setting("", kinds.secret_file, "key of server_tls_cert_file")
    server_tls_cert_file: str = _setting("", kinds.secret_file, "certificate that servers are shown")
    server_tls_protocols: tls.Versions = _setting(
        tls.SECURE, tls.protocols, "versions of TLS, as in client_tls_protocols"
    )
    server_tls_ciphers: str = _setting(
        "", tls.ciphers, "ciphers of TLS 1.2 and older, as in client_tls_ciphers"
    )
    server_tls13_ciphers: str = _setting(
        "", tls.no_tls13_ciphers, "must be empty: the ciphers of TLS 1.3 cannot be chosen"
    )
    relay_buffer: int = _setting(
        256 * 1024, kinds.size(1024, 64 * 1024**2), "bytes that the relay reads at once", reload=False
    )
    relay_linger: float = _setting(
        0.001,
        kinds.seconds(0.1),
        "time that the relay waits for more work before it sleeps; 0 is off",
    )
    relay_slice: float = _setting(
        0.01, kinds.seconds(0.1), "time that the relay works before other tasks have their turn"
    )
    state_dir: Path = attrs.field(
        factory=lambda: default_state_dir(os.environ, Path()),
        metadata=_metadata(
            kinds.state_directory,
            "where embedded databases live; empty: $STATE_DIRECTORY, .state beside this file if it is there, "
            "$XDG_STATE_HOME/hyperpool or ~/.local/state/hyperpool",
            reload=False,
        ),
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = _setting(
        "info", kinds.word("debug", "info", "warning", "error", "critical"), "the least that is logged"
    )
    log_format: Literal["auto", "console", "json", "journald", "pgbouncer"] = _setting(
        "auto",
        kinds.word("auto", "console", "json", "journald", "pgbouncer"),
        "auto: coloured on a terminal, journald where standard error leads to it, plain lines elsewhere; "
        "journald: entries with fields for systemd's journal; pgbouncer: lines as pgbouncer writes them",
    )
    log_repeats: int = _setting(
        50,
        kinds.whole(0),
        "warnings or errors that are alike and are logged within log_repeat_interval; then they are counted; 0: all",
    )
    log_repeat_interval: float = _setting(60.0, kinds.seconds(86400), "see log_repeats")
    logfile: str = _setting(
        "",
        kinds.path,
        "file that the log is written to besides standard error; opened again on each reload; empty: none",
    )
    verbose: int = _setting(0, kinds.whole(0), "1 and more: log_level is debug, whatever it says")
    syslog: bool = _setting(
        default=False, parse=kinds.flag, about="write the log to the system's syslog, too"
    )
    syslog_ident: str = _setting("pgbouncer", kinds.name, "name under which syslog gets the log")
    syslog_facility: str = _setting(
        "daemon",
        kinds.word("auth", "authpriv", "daemon", "user", *(f"local{number}" for number in range(8))),
        "syslog's facility",
    )
    trace_every: int = _setting(
        0,
        kinds.whole(0),
        "of so many logins and server connections, one is traced with OpenTelemetry, and so are slow queries; 0: none",
        reload=False,
    )
    pidfile: str = _setting(
        "", kinds.path, "file that holds the process id while the pooler runs; empty: none", reload=False
    )
    control_socket: str = _setting(
        "",
        kinds.path,
        "Unix socket for `hyperpool restart`, `drain` and `serve --take-over`, of the same user or root; empty: "
        "$RUNTIME_DIRECTORY/control, or what pidfile says with .control behind it, or none",
        reload=False,
    )
    user: str = _setting(
        "",
        kinds.text,
        "user that the process becomes after its start, when it is started by root",
        reload=False,
    )
