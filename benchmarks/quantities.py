"""What is measured: the figures that results have, and how they are called, written and compared."""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

QUANTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0)
"""The percentages that results have the latency for; 100 is the slowest one."""


@frozen
class Quantity:
    """A kind of figure.

    Attributes:
        name: in results.
        heading: for tables; ``{unit}`` and ``{per}`` are those of the group.
        better: which way is good; None where neither is.
    """

    name: str
    heading: str
    better: Literal["more", "less"] | None = "less"


QUANTITIES: Final = {
    quantity.name: quantity
    for quantity in (
        Quantity("rate", "{unit}", "more"),
        Quantity("bulk_rate", "bulk reader, MB/s", "more"),
        Quantity("offered", "asked for, {unit}", None),
        Quantity("p50_ms", "median, ms"),
        Quantity("p99_ms", "p99, ms"),
        Quantity("p999_ms", "p99.9, ms"),
        Quantity("cpu_us", "pooler's CPU, us per {per}"),
        Quantity("server_cpu_us", "PostgreSQL's CPU, us per {per}"),
        Quantity("load_share", "load generator, share of a core", None),
        Quantity("hit_share", "answered from memory", "more"),
        Quantity("bytes_per_client", "bytes per client"),
        Quantity("growth_mib", "memory growth, MiB"),
        Quantity("first_ms", "connect and first query, ms"),
        Quantity("next_ms", "next query, ms"),
        Quantity("answers", "queries that PostgreSQL saw"),
        Quantity("seconds", "until all are served, s"),
    )
}
