"""client_idle_timeout counts from the last answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import timelimits as tl

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_idle_since_the_last_answer(make_pooler: PoolerFactory, pg: PostgresCluster, mode: str) -> None:
    """A client that had a long query is idle from its answer on, and not from a moment before."""
    config = tl.config(pg, "app", {"app": {"pool_mode": mode, "client_idle_timeout": tl.LIMIT}})
    run = partial(tl.run, make_pooler(config), "app", tl.idle_after_a_query)
    for _ in range(3):
        tl.check(tl.in_time(run), "client_idle_timeout")
