"""Settings that pgbouncer has and hyperpool does not."""

from __future__ import annotations

from typing import Final

UNSUPPORTED: Final = frozenset(
    """
    admin_users application_name_add_host auth_dbname auth_hba_file auth_ident_file auth_ldap_options auth_query
    auth_user autodb_idle_timeout client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams
    client_tls_ecdhcurve client_tls_key_file client_tls_protocols client_tls_sslmode client_tls13_ciphers conffile
    disable_pqexec dns_zone_check_period job_name logfile
    login_notify_message max_db_client_connections max_db_connections max_user_client_connections
    max_user_connections peer_id pidfile pkt_buf pool_idle_timeout resolv_conf sbuf_loopcnt scram_iterations
    server_fast_close server_round_robin server_tls_ca_file server_tls_cert_file server_tls_ciphers
    server_tls_key_file server_tls_protocols server_tls_sslmode server_tls13_ciphers service_name so_reuseport
    stats_users suspend_timeout syslog syslog_facility syslog_ident tcp_defer_accept tcp_socket_buffer
    unix_socket_group user verbose
    """.split()  # noqa: SIM905 - sixty lines of list would be no clearer
)
"""Names of pgbouncer 1.25, sections ``pgbouncer``, ``databases`` and ``users``; what hyperpool has is not here."""
