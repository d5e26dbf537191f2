"""hyperpool: a Trio-based connection pooler for PostgreSQL."""

from hyperpool.form import choose

__version__ = "0.1.0"

COMPATIBLE = "1.25.2"
"""The version of pgbouncer that it can stand in for."""

WHY_PURE = choose()
"""Why the hot path runs as it is written, in Python; "" where it is compiled."""

FORM = "pure" if WHY_PURE else "compiled"
