"""The columns of every view of the console, as those who read them know them: by name."""

from __future__ import annotations

from typing import Final

COLUMNS: Final = {
    "databases": (
        "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime "
        "pool_mode load_balance_hosts max_connections current_connections max_client_connections "
        "current_client_connections paused disabled"
    ),
    "users": (
        "name pool_size reserve_pool_size pool_mode max_user_connections current_connections "
        "max_user_client_connections current_client_connections"
    ),
    "pools": (
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active "
        "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us "
        "pool_mode load_balance_hosts"
    ),
    "peers": "peer_id host port pool_size",
    "peer_pools": "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
    "lists": "list items",
    "mem": "name size used free memtotal",
    "dns_hosts": "hostname ttl addrs",
    "dns_zones": "zonename serial count",
    "pins": "database user client_id server_id addr remote_pid reasons age",
    "transports": "database user transport sv_connections sv_login last_error",
    "tunnels": "agent agents waiting connections",
    "cache": (
        "database entries bytes limit hits stale_hits misses stored refreshes coalesced evictions "
        "bytes_sent saved_time invalidated invalidations catalog"
    ),
    "cache_queries": (
        "database fingerprint calls hits stale_hits misses refreshes coalesced bytes_sent saved_time "
        "last_refusal query"
    ),
    "cache_reasons": "database reason count found_in what meaning remedy",
    "latencies": "database user what count avg_time p50_time p90_time p99_time max_time",
    "hops": "database user hop name time facts error",
    "busy": "database user client_id addr application_name state time server_id server_addr remote_pid",
    "errors": "time level event details count",
    "workers": "worker pid clients servers pools cpu_time",
    "clients": (
        "type user database replication state addr port local_addr local_port connect_time request_time "
        "wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id"
    ),
    "servers": (
        "type user database replication state addr port local_addr local_port connect_time request_time "
        "wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id"
    ),
    "sockets": (
        "type user database replication state addr port local_addr local_port connect_time request_time "
        "wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id "
        "recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"
    ),
    "active_sockets": (
        "type user database replication state addr port local_addr local_port connect_time request_time "
        "wait wait_us close_needed ptr link remote_pid tls application_name prepared_statements id "
        "recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail"
    ),
    "fds": (
        "fd task user database addr port cancel link client_encoding std_strings datestyle timezone "
        "password scram_client_key scram_server_key"
    ),
    "stats": (
        "database total_server_assignment_count total_xact_count total_query_count total_received "
        "total_sent total_xact_time total_query_time total_wait_time total_client_parse_count "
        "total_server_parse_count total_bind_count total_client_login_count avg_server_assignment_count "
        "avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time "
        "avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count"
    ),
    "stats_totals": (
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time "
        "query_time wait_time client_parse_count server_parse_count bind_count client_login_count"
    ),
    "stats_averages": (
        "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time "
        "query_time wait_time avg_client_parse_count avg_server_parse_count avg_bind_count "
        "avg_client_login_count"
    ),
    "totals": "name value",
    "config": "key value default changeable",
    "state": "key value",
    "version": "version",
}
"""Of each view, in order. Those of pgbouncer's views are its own (1.25), which monitoring and scripts go by."""
