"""What the tests of session state share, those of the result cache, and those of the doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import poolers
from tests.support import sharing as sharers
from tests.support.cachecatalog import DROP, SCHEMA, Oracle, catalog_of
from tests.support.cached import Stage, config_for, tables
from tests.support.doctor import Doctor
from tests.support.postgres import find_binaries
from tests.support.tlspostgres import TlsPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

    from hyperpool.cache.catalog import Catalog
    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.proxy import FaultProxy


@pytest.fixture(scope="module")
def tls_pg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsPostgres]:
    """A PostgreSQL with TLS."""
    binaries = find_binaries()
    if binaries is None or "pixeltable" in str(binaries):
        pytest.skip("there is no PostgreSQL that was built with TLS")
    cluster = TlsPostgres(binaries)
    try:
        cluster.create()
        cluster.switch_on(tmp_path_factory.mktemp("server"))
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture
def proxied(
    make_pooler: PoolerFactory, make_proxy: Callable[[int], FaultProxy], pg: PostgresCluster
) -> tuple[Pooler, FaultProxy]:
    """A pooler whose only server connection goes through a proxy, which can hold it up."""
    proxy = make_proxy(pg.port)
    config = poolers.config_for(pg, pool_mode="transaction", default_pool_size=1)
    config["databases"]["app"]["port"] = proxy.port
    return make_pooler(config), proxy


@pytest.fixture(scope="module")
def sharing_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """A pooler whose clients share two servers; a module that needs other settings has a fixture of this name."""
    with sharers.schema(_pg, sharers.DATABASE):
        yield make_module_pooler(sharers.config_for(_pg, sharers.DATABASE))


@pytest.fixture
def sharing(
    sharing_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]
) -> Iterator[sharers.Sharing]:
    """Clients that share two servers."""
    with sharers.Sharing(watch(sharing_pooler)) as sharing:
        yield sharing


@pytest.fixture
def sharing_superuser(sharing_pooler: Pooler, watch: Callable[[Pooler], Pooler]) -> Iterator[sharers.Sharing]:
    """Clients of a superuser that share two servers."""
    with sharers.Sharing(watch(sharing_pooler), sharers.ROOT) as sharing:
        yield sharing


@pytest.fixture(scope="module")
def caching_pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    """A pooler with the cache; a module that needs other settings has a fixture of this name."""
    with tables(_pg):
        yield make_module_pooler(config_for(_pg))


@pytest.fixture
def stage(caching_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Iterator[Stage]:
    """The pooler, with all tables as they were."""
    with Stage(watch(caching_pooler), pg) as stage:
        yield stage


@pytest.fixture(scope="module")
def judged(_pg: PostgresCluster) -> Iterator[psycopg.Connection[Any]]:
    """The objects that queries speak of which the judge of the cache is asked about."""
    with _pg.admin("app") as connection:
        connection.execute(SCHEMA)
        yield connection
        connection.execute(DROP)


@pytest.fixture(scope="module")
def judged_catalog(judged: psycopg.Connection[Any]) -> Catalog:
    """What the database says of them."""
    return catalog_of(judged)


@pytest.fixture(scope="module")
def oracle(judged: psycopg.Connection[Any]) -> Oracle:
    """PostgreSQL's own analysis of queries about them."""
    return Oracle(judged)


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """The command ``hyperpool doctor``."""
    return Doctor(tmp_path)
