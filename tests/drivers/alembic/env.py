"""Alembic's environment: how migrations reach the database, for synchronous and asynchronous drivers.

Alembic runs this file with the settings that the test gives it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import engine_from_config, pool
from sqlalchemy.ext.asyncio import async_engine_from_config

if TYPE_CHECKING:
    from sqlalchemy import Connection

settings = context.config.get_section(context.config.config_ini_section, {})


def migrate(connection: Connection) -> None:
    """Run the migrations that were asked for, in one transaction unless one of them leaves it."""
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_with_asyncio() -> None:
    """The same with an asynchronous engine."""
    engine = async_engine_from_config(settings, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if "asyncpg" in settings["sqlalchemy.url"]:
    asyncio.run(migrate_with_asyncio())
else:
    with engine_from_config(settings, poolclass=pool.NullPool).connect() as synchronous:
        migrate(synchronous)
