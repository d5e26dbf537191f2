"""The embedded databases of a pooler: started before it serves, stopped behind it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from hyperpool.embedded import EmbeddedPostgres
from hyperpool.errors import StartupError
from hyperpool.service.shutdown import SIGNALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from hyperpool.config import DatabaseSettings, Settings

log = structlog.get_logger("pooler")


class EmbeddedDatabases:
    """Runs a PostgreSQL for each database that is ``embedded``.

    Attributes:
        servers: by the name of the database; those that have been started.
    """

    def __init__(self) -> None:
        self.servers: dict[str, EmbeddedPostgres] = {}

    async def start(self, settings: Settings, signals: AsyncIterator[int], stack: AsyncExitStack) -> bool:
        """Start them one after the other.

        Args:
            settings: all of them.
            signals: one that asks to end stops the start.
            stack: stops them.

        Returns:
            False when a signal asked to end before they were up.

        Raises:
            StartupError: one does not start.
        """
        started = False
        failure: StartupError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            try:
                for name, database in settings.databases.items():
                    if database.embedded:
                        await self._start(name, database, settings, stack)
                started = True
            except StartupError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return started

    async def _start(
        self, name: str, database: DatabaseSettings, settings: Settings, stack: AsyncExitStack
    ) -> None:
        assert database.user  # noqa: S101 - checked with the settings
        assert database.password is not None  # noqa: S101
        server = EmbeddedPostgres(
            name,
            user=database.user,
            password=database.password,
            dbname=database.dbname or name,
            state_dir=settings.pooler.state_dir,
        )
        stack.push_async_callback(server.stop)
        await server.start()
        self.servers[name] = server

    def located(self, settings: Settings) -> Settings:
        """The settings, with embedded databases pointing at their servers."""
        databases = dict(settings.databases)
        for name, server in self.servers.items():
            if name in databases and databases[name].embedded:
                databases[name] = attrs.evolve(databases[name], host=server.host, port=server.port)
        return attrs.evolve(settings, databases=databases)

    def announce(self, settings: Settings, address: str | None) -> None:
        """Log how they are reached.

        Args:
            settings: all of them.
            address: where the pooler listens; None if it has no TCP listener.
        """
        for name, server in self.servers.items():
            if address is not None:
                user = settings.databases[name].user
                log.info("embedded database is served", connect=f"psql postgres://{user}@{address}/{name}")
            if shutil.which("psql") is None:
                log.info(
                    "psql and pgbench come with it",
                    psql=str(server.psql_path),
                    pgbench=str(server.pgbench_path),
                )


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """End what is under way when a signal asks for it; there is nothing to reload yet."""
    async for number in signals:
        if number in SIGNALS:
            scope.cancel()
