"""Fixtures of the tests that log in to servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.config import DatabaseSettings, PoolSettings, Secret, Settings, SslMode
from tests.support.memorynet import MemoryNetwork, PeerEnd

if TYPE_CHECKING:
    import trio


@pytest.fixture
def settings() -> PoolSettings:
    """A pool at db.example, with startup parameters of its own."""
    database = DatabaseSettings(
        host="db.example",
        port=5433,
        dbname="shop",
        user="ann",
        password=Secret("pencil"),
        timezone="UTC",
        sslmode=SslMode.DISABLE,
    )
    found = Settings(databases={"app": database}).pool_for("app", "client")
    assert found is not None
    return found


@pytest.fixture
async def network(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    """Where `connect` and `cancel` dial to; the test sets its script."""

    async def silent(server: PeerEnd) -> None:
        await server.read_packet()

    found = MemoryNetwork(nursery, silent)
    found.install(monkeypatch)
    return found
