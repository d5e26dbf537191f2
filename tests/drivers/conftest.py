"""Fixtures of the drivers' checks; each check runs directly and through the pooler."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.drivers.site import TARGETS, Site, prepare, start_pooler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers.client import Client
    from tests.drivers.common import Connect
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of this directory."""
    config.addinivalue_line(
        "markers", "driver(key): what drives the tests of a class, see tests/drivers/matrix.py"
    )


@pytest.fixture(
    params=[
        pytest.param(target, marks=[pytest.mark.hyperpool_only] if target == "pooled" else [])
        for target in TARGETS
    ]
)
def target(request: pytest.FixtureRequest) -> str:
    """PostgreSQL itself, then hyperpool in transaction mode."""
    return str(request.param)


@pytest.fixture(scope="package")
def _drivers_pooler(_pg: PostgresCluster) -> Iterator[Pooler]:
    prepare(_pg)
    yield from _running(_pg)


@pytest.fixture(scope="package")
def _mortal_drivers_pooler(_mortal_pg: PostgresCluster) -> Iterator[Pooler]:
    if not _mortal_pg.running:
        _mortal_pg.start()
    prepare(_mortal_pg)
    yield from _running(_mortal_pg)


def _running(pg: PostgresCluster) -> Iterator[Pooler]:
    pooler = start_pooler(pg)
    try:
        yield pooler
        pooler.stop()
    finally:
        pooler.destroy()


@pytest.fixture
def site(
    target: str,
    pg: PostgresCluster,
    request: pytest.FixtureRequest,
    watch: Callable[[Pooler], Pooler],
) -> Iterator[Site]:
    """Where the driver connects to; afterwards no transaction may be open, nor a traceback in the pooler's log."""
    prepare(pg)
    pooler = watch(request.getfixturevalue("_drivers_pooler")) if target == "pooled" else None
    site = Site(pg, pooler)
    yield site
    site.close()
    site.clean()


@pytest.fixture
def mortal_site(
    target: str,
    mortal_pg: PostgresCluster,
    request: pytest.FixtureRequest,
    watch: Callable[[Pooler], Pooler],
) -> Iterator[Site]:
    """The same, with a server of its own that the test may restart."""
    prepare(mortal_pg)
    pooler = watch(request.getfixturevalue("_mortal_drivers_pooler")) if target == "pooled" else None
    site = Site(mortal_pg, pooler)
    yield site
    site.close()


@pytest.fixture
def table(request: pytest.FixtureRequest, site: Site) -> str:
    """The name of a table for this test alone; it is dropped when the test's connections are closed."""
    nodeid = request.node.nodeid.lower().removeprefix("tests/drivers/")
    name = "t_" + "".join(letter if letter.isalnum() else "_" for letter in nodeid)[-60:]
    site.tables.append(name)
    return name


@pytest.fixture
def connect(site: Site, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Opens connections of the test's driver, see `CommonCells.kind`; they are closed with the test."""
    with _opener(request.cls.kind, site) as opener:
        yield opener


@pytest.fixture
def mortal_connect(mortal_site: Site, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """The same to the server that the test may restart."""
    with _opener(request.cls.kind, mortal_site) as opener:
        yield opener


@contextlib.contextmanager
def _opener(kind: type[Client], site: Site) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def connect(*, password: str | None = None, **settings: str) -> Client:
            return stack.enter_context(contextlib.closing(kind.open(site, password=password, **settings)))

        yield connect
