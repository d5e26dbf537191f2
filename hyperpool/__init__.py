"""hyperpool: a Trio-based connection pooler for PostgreSQL."""

__version__ = "0.1.0"
