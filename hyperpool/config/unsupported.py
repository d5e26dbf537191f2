"""Settings of pgbouncer that mean nothing here: its files may hold them, and a line of the log says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UNSUPPORTED: Final[Mapping[str, str]] = {
    "conffile": "a reload reads the file that was named at the start",
    "dns_zone_check_period": "zones are not watched: names in use are looked up again within dns_max_ttl",
    "job_name": "it names a service of Windows",
    "pkt_buf": "the relay reads into one buffer, which all connections share; its size is relay_buffer",
    "sbuf_loopcnt": "no connection can hold others up: each has its turn after one buffer, and relay_slice bounds all",
    "service_name": "it names a service of Windows",
}
"""Why, by the names of pgbouncer 1.25's section ``pgbouncer``."""
