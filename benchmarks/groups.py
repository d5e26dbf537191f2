"""The groups of scenarios: what a reader has to know about each, which columns its table has, and how it is drawn."""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

REFERENCE: Final = "pgbouncer"


@frozen
class Plot:
    """A picture of a group.

    Attributes:
        kind: bars of a quantity's medians; bars of its multiples of the reference; or the latency by percentage, one
            curve for each target and a panel for each scenario.
        quantity: which; the empty string for latencies.
        title: over it.
    """

    kind: Literal["bars", "ratios", "quantiles"]
    quantity: str
    title: str


@frozen
class Group:
    """Scenarios that share a table.

    Attributes:
        name: see `benchmarks.scenarios.base.Scenario.group`.
        title: over the table.
        about: what it models and how it is measured; a paragraph.
        unit: of the rate.
        per: what processor time is counted for.
        columns: names of quantities, those that are compared with the reference first.
        compared: how many of them are.
        plots: its pictures.
        reference: the target that ratios are to.
    """

    name: str
    title: str
    about: str
    unit: str
    per: str
    columns: tuple[str, ...]
    compared: int
    plots: tuple[Plot, ...] = ()
    reference: str = REFERENCE


GROUPS: Final = {
    group.name: group
    for group in (
        Group(
            "select",
            "Queries as fast as they go",
            "pgbench in a closed loop: each client waits for its answer and asks again. `select` is one row by its"
            " primary key, in pgbench's three query modes, with 1, 16, 100 and 1,000 clients over 20 server"
            " connections; PostgreSQL does almost nothing for it, so the pooler's cost shows most clearly. `crowd` is"
            " the same with 2,000 clients over 50. `tpcb` is a transaction of seven statements that reads and writes;"
            " `range` answers with a hundred rows. With one client, the median is the latency that a pooler adds to.",
            "transactions/s",
            "query",
            ("rate", "cpu_us", "p50_ms", "p99_ms", "server_cpu_us", "load_share"),
            4,
            (
                Plot("ratios", "rate", "transactions per second, multiple of pgbouncer's"),
                Plot("bars", "cpu_us", "pooler's CPU, us per query"),
            ),
        ),
        Group(
            "hot",
            "Queries that the cache answers",
            "One of a thousand rows that everybody asks for. The same load runs for a second before, so that answers"
            " come from memory; what part of them did, hyperpool's own counters tell. pgpool-II's cache is in shared"
            " memory.",
            "queries/s",
            "query",
            ("rate", "cpu_us", "p50_ms", "p99_ms", "server_cpu_us", "load_share", "hit_share"),
            4,
            (
                Plot("ratios", "rate", "queries per second, multiple of pgbouncer's"),
                Plot("bars", "cpu_us", "pooler's CPU, us per query"),
            ),
        ),
        Group(
            "stampede",
            "A thousand clients ask the same at once",
            "Nobody has asked it before, and PostgreSQL takes some milliseconds for it. PostgreSQL's own statistics"
            " tell how often it was asked.",
            "clients/s",
            "client",
            ("answers", "seconds"),
            2,
        ),
        Group(
            "latency",
            "Latency at fixed rates",
            "An open loop: transactions begin at random moments (a Poisson process) at a rate that is a part of what"
            " pgbouncer takes at most on this machine, the same for all targets. Latency runs from the moment at which"
            " a transaction should have begun, so that a pause counts for all that should have begun in it, too"
            " (pgbench --rate; no coordinated omission).",
            "transactions/s",
            "query",
            ("p50_ms", "p99_ms", "p999_ms", "cpu_us", "offered", "rate"),
            4,
            (Plot("quantiles", "", "latency by percentage of transactions, ms"),),
        ),
        Group(
            "fairness",
            "Small queries beside a bulk reader",
            "Point queries at a tenth of what is possible, first alone, then beside one client that copies a gigabyte"
            " again and again. What a pooler does with its one thread shows in the last per cent of the small ones.",
            "transactions/s",
            "query",
            ("p50_ms", "p99_ms", "p999_ms", "bulk_rate", "rate"),
            4,
            (Plot("quantiles", "", "latency by percentage of transactions, ms"),),
        ),
        Group(
            "login",
            "Logins",
            "A new connection for each transaction, by 16 clients: a login and nothing else with auth_type trust and"
            " with SCRAM-SHA-256, and a login with one query. The median is the mean here: pgbench's log leaves logins"
            " out. The stored SCRAM secret has one iteration, since hashing is the client's work.",
            "logins/s",
            "login",
            ("rate", "cpu_us", "p50_ms", "server_cpu_us", "load_share"),
            3,
            (Plot("bars", "rate", "logins per second"),),
        ),
        Group(
            "storm",
            "Five thousand clients log in at once",
            "All connections are opened at the same moment; the time runs until the last client is logged in. All"
            " listeners have a backlog of 4096.",
            "logins/s",
            "login",
            ("seconds", "p50_ms", "p99_ms", "cpu_us", "load_share"),
            4,
            (Plot("bars", "seconds", "seconds until the last of 5,000 clients is logged in"),),
        ),
        Group(
            "bulk",
            "A gigabyte",
            "Read by a socket that drops it: COPY with rows of 1 kB and of 100 bytes, and SELECT with rows of 1 kB. MB"
            " are 10^6 bytes as they come over the wire. Memory growth is the largest sample of the pooler's resident"
            " memory minus the first.",
            "MB/s",
            "MB",
            ("rate", "cpu_us", "server_cpu_us", "growth_mib"),
            2,
            (Plot("bars", "rate", "MB/s"),),
        ),
        Group(
            "idle",
            "Memory of idle clients",
            "Each has logged in and run one query. It is the growth of the pooler's resident memory once it has"
            " settled; memory of the kernel's sockets is not part of it. The logins are one after the other.",
            "logins/s",
            "login",
            ("bytes_per_client", "rate", "cpu_us"),
            1,
            (Plot("bars", "bytes_per_client", "bytes per idle client"),),
        ),
        Group(
            "far",
            "A database that is 40 ms away: a new client",
            "A client of libpq logs in with SCRAM and runs one query: directly, and at a hyperpool that is near to it"
            " and has its server connections open already, over plain TCP and through tunnels. A proxy adds the round"
            " trip time to the path between PostgreSQL and who talks to it.",
            "clients/s",
            "client",
            ("first_ms", "next_ms"),
            2,
            (Plot("bars", "first_ms", "connect and first query, ms"),),
            reference="direct",
        ),
        Group(
            "far-reads",
            "A database that is 40 ms away: repeated reads",
            "One client asks for the same row again and again: directly, and at a hyperpool near to it without and with"
            " its cache.",
            "queries/s",
            "query",
            ("p50_ms", "p99_ms"),
            2,
            (Plot("bars", "p50_ms", "median of a repeated query, ms"),),
            reference="direct",
        ),
        Group(
            "tunnel-bulk",
            "Tunnels: bulk",
            "A hundred megabytes through each way, on one machine, without a round trip added: load, PostgreSQL, pooler"
            " and far end share its processors, so the ratios say how much more work a tunnel is for the whole machine."
            " `passed-on` is the path of a tunnel without one: plain TCP that one more process passes on. `gateway` is"
            " websockify alone, with a client that speaks WebSocket itself and costs next to nothing.",
            "MB/s",
            "MB",
            ("rate", "cpu_us"),
            2,
            (Plot("ratios", "rate", "MB/s, multiple of plain TCP's"),),
            reference="tcp",
        ),
        Group(
            "tunnel-queries",
            "Tunnels: small queries",
            "One row by its primary key, 16 clients.",
            "transactions/s",
            "query",
            ("rate", "cpu_us", "p50_ms", "p99_ms"),
            4,
            reference="tcp",
        ),
    )
}
"""By name, in the order of the report."""
