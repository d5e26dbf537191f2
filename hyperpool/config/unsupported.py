"""Settings that pgbouncer has and hyperpool does not."""

from __future__ import annotations

from typing import Final

UNSUPPORTED: Final = frozenset(
    """
    application_name_add_host auth_dbname auth_hba_file auth_ident_file auth_ldap_options auth_query
    auth_user autodb_idle_timeout conffile disable_pqexec dns_zone_check_period job_name logfile
    login_notify_message max_db_client_connections max_db_connections max_user_client_connections
    max_user_connections pidfile pkt_buf pool_idle_timeout resolv_conf sbuf_loopcnt scram_iterations
    server_fast_close server_round_robin service_name syslog
    syslog_facility syslog_ident tcp_defer_accept tcp_socket_buffer unix_socket_group user verbose
    """.split()  # noqa: SIM905 - sixty lines of list would be no clearer
)
"""Names of pgbouncer 1.25, sections ``pgbouncer``, ``databases`` and ``users``; what hyperpool has is not here."""
