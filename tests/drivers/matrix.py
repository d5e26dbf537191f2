"""Which drivers are tested, in which version, and which cells of the checklist do not apply to them.

This is the one place that says so. The tables in docs/drivers.md are made of it, and the tests are compared with it.
Drivers of other languages than Python stand in `tests.drivers.matrix_other`.
"""

from __future__ import annotations

from typing import Final

from tests.drivers.checklist import Driver
from tests.drivers.matrix_other import OTHER

_PSYCOPG: Final = {"psycopg": "3.3.9", "psycopg-binary": "3.3.9"}
_NO_CANCEL: Final = "it has no cancel requests"
_DRIVERS_OWN: Final = dict.fromkeys(("copy", "cancel", "notices", "listen"), "left to the driver below it")

PYTHON: Final = (
    Driver("psycopg3", "psycopg 3", "Python", _PSYCOPG),
    Driver("psycopg3_async", "psycopg 3, asyncio", "Python", _PSYCOPG),
    Driver(
        "psycopg2",
        "psycopg2",
        "Python",
        {"psycopg2-binary": "2.9.13"},
        {"pipelining": "it waits for the answer to each statement"},
    ),
    Driver("asyncpg", "asyncpg", "Python", {"asyncpg": "0.32.0"}),
    Driver(
        "pg8000",
        "pg8000, DB-API",
        "Python",
        {"pg8000": "1.31.6"},
        {"pipelining": "it waits for the answer to each statement", "cancel": _NO_CANCEL},
    ),
    Driver(
        "pg8000_native",
        "pg8000, native",
        "Python",
        {"pg8000": "1.31.6"},
        {"pipelining": "it waits for the answer to each statement", "cancel": _NO_CANCEL},
    ),
    Driver(
        "sqlalchemy_psycopg",
        "SQLAlchemy on psycopg 3",
        "Python",
        {"sqlalchemy": "2.1.9", "alembic": "1.20.1", **_PSYCOPG},
        _DRIVERS_OWN,
        mapper=True,
    ),
    Driver(
        "sqlalchemy_asyncpg",
        "SQLAlchemy on asyncpg",
        "Python",
        {"sqlalchemy": "2.1.9", "alembic": "1.20.1", "asyncpg": "0.32.0"},
        _DRIVERS_OWN,
        mapper=True,
    ),
    Driver(
        "django",
        "Django",
        "Python",
        {"django": "5.2.19", **_PSYCOPG},
        {"pipelining": "it waits for the answer to each statement", **_DRIVERS_OWN},
        mapper=True,
    ),
)

DRIVERS: Final = (*PYTHON, *OTHER)
"""All of them, in the order of the tables."""


def driver(key: str) -> Driver:
    """Return the driver with this key.

    Raises:
        LookupError: there is none.
    """
    for candidate in DRIVERS:
        if candidate.key == key:
            return candidate
    raise LookupError(f"no driver has the key {key!r}")
