"""A query that has taken too long is ended at PostgreSQL, too, and not only for its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw
from tests.support import timelimits as tl
from tests.support.postgres import TRUDY
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_SLEEPS = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'"


@pytest.mark.parametrize("limit", ["query_timeout", "transaction_timeout"])
@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_nothing_goes_on_for_nobody(
    make_pooler: PoolerFactory, pg: PostgresCluster, mode: str, limit: str
) -> None:
    """A backend whose client has gone would finish its query, however long that takes, and hold its locks."""
    pooler = make_pooler(tl.config(pg, "app", {"app": {"pool_mode": mode, limit: tl.LIMIT}}))
    with pooler.raw("app", TRUDY) as client:
        client.send(raw.query("SELECT pg_sleep(600)"))
        assert client.receive_all()[-1].fields["M"] == limit
    eventually(lambda: not pg.sql(_SLEEPS), what="PostgreSQL ends the query")
    with pooler.raw("app", TRUDY) as following:
        assert following.value("SELECT 1") == "1"
