"""Side-by-side measurements of hyperpool, pgbouncer and plain PostgreSQL: ``python -m benchmarks``."""
