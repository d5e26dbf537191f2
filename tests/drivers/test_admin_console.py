"""The admin console through drivers of other languages, with the simple and the extended protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.drivers.programs import BuildFailed, MissingTool, Program, command
from tests.drivers.site import Site
from tests.support.poolers import config_for
from tests.support.postgres import ANN

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_DRIVERS: Final = ("pgx", "lib_pq", "pgjdbc")
"""Those that go beyond what the others do: statements that they prepare by themselves, results in binary."""


@pytest.mark.parametrize("key", _DRIVERS)
def test_console(make_pooler: PoolerFactory, pg: PostgresCluster, key: str) -> None:
    """Tables, commands, settings, parameters, errors and transactions."""
    try:
        words = command(key)
    except MissingTool as missing:
        pytest.skip(str(missing))
    except BuildFailed as failed:
        pytest.fail(str(failed), pytrace=False)
    site = Site(pg, make_pooler(config_for(pg, admin_users=ANN.name)), database="pgbouncer")
    program = Program(words, site)
    try:
        answer = program.ask("console")
    finally:
        program.close()
    assert answer.line == "ok console"
