"""hyperpool: a Trio-based connection pooler for PostgreSQL."""

__version__ = "0.1.0"

COMPATIBLE = "1.25.2"
"""The version of pgbouncer that it can stand in for."""
