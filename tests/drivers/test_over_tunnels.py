"""The checklist of a driver, with the database in a private network: each way there is as good as a cable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drivers import test_psycopg3 as driver
from tests.drivers.site import Site, prepare
from tests.support import scenes
from tests.support.paths import TUNNELS, WAYS, missing_program
from tests.support.scenes import Scene, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.paths import PrivatePostgres

pytestmark = [pytest.mark.hyperpool_only]

private_pg = scenes.private_pg


@pytest.fixture(scope="module", params=TUNNELS)
def scene(request: pytest.FixtureRequest, private_pg: PrivatePostgres) -> Iterator[Scene]:
    """A pooler in front of a server that only the far end reaches."""
    if (program := missing_program(request.param)) is not None:
        pytest.skip(f"no {program} on this machine")
    prepare(private_pg)
    with WAYS[request.param](private_pg) as path, started(path.config()) as pooler:
        scene = Scene(path, pooler)
        yield scene
        scene.no_secrets()


@pytest.fixture
def target() -> str:
    """There is no direct way."""
    return "pooled"


@pytest.fixture
def site(scene: Scene) -> Iterator[Site]:
    """The pooler."""
    site = Site(scene.pg, scene.pooler)
    yield site
    site.close()
    site.clean()


@pytest.fixture
def mortal_site(site: Site) -> Site:
    """The private server is a test's own."""
    return site


class TestPsycopg3(driver.TestPsycopg3):
    """psycopg 3, over each tunnel."""
