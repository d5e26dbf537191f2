"""A client with pg_temp in its search_path keeps its server, and no longer than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.sharing import Sharing, config_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_DATABASE: Final = "other"  # where a pooler may stay longer than a test


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Pooler:
    return make_module_pooler(config_for(_pg, _DATABASE))


@pytest.fixture
def sharing(_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Iterator[Sharing]:
    """Clients that share two servers."""
    with Sharing(watch(_pooler)) as sharing:
        yield sharing


@pytest.mark.parametrize("end", ["RESET search_path", "SET search_path = public", "RESET ALL", "DISCARD ALL"])
def test_pg_temp_in_the_search_path(sharing: Sharing, end: str) -> None:
    """With pg_temp in the search_path any table may be temporary; without it, the client is free again."""
    client = sharing.client()
    client.ask("SET search_path = pg_temp, public")
    sharing.stays(client)
    client.ask(end)
    sharing.everywhere(client)
