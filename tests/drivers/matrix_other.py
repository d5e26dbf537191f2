"""The drivers of other languages than Python, see `tests.drivers.matrix`."""

from __future__ import annotations

from typing import Final

from tests.drivers.checklist import Driver

OTHER: Final[tuple[Driver, ...]] = (
    Driver(
        "node_pg",
        "node-postgres",
        "JavaScript",
        {"pg": "8.23.1", "pg-cursor": "2.22.0", "pg-copy-streams": "7.0.0"},
    ),
    Driver("postgresjs", "Postgres.js", "JavaScript", {"postgres": "3.4.9"}),
    Driver("pgx", "pgx", "Go", {"github.com/jackc/pgx/v5": "5.12.0"}),
    Driver(
        "lib_pq",
        "lib/pq",
        "Go",
        {"github.com/lib/pq": "1.12.3"},
        {"pipelining": "database/sql waits for the answer to each statement"},
    ),
    Driver("pgjdbc", "pgjdbc", "Java", {"postgresql": "42.7.14"}),
    Driver("tokio_postgres", "tokio-postgres", "Rust", {"tokio-postgres": "0.7.18", "tokio": "1.54.1"}),
    Driver("ruby_pg", "pg", "Ruby", {"pg": "1.4.5"}),
    Driver(
        "pdo_pgsql",
        "PDO",
        "PHP",
        {"pdo_pgsql": "8.2"},
        {
            "pipelining": "PDO waits for the answer to each statement",
            "cancel": "PDO has no call that cancels a statement",
            "notices": "PDO shows notices from PHP 8.4 on",
        },
    ),
)
