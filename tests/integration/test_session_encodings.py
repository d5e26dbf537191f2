"""Session state of clients that are not UTF-8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.sharing import Sharing, config_for, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_DATABASE: Final = "other"  # where a pooler may stay longer than a test


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Iterator[Pooler]:
    with schema(_pg, _DATABASE):
        yield make_module_pooler(config_for(_pg, _DATABASE))


@pytest.fixture
def sharing(_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Iterator[Sharing]:
    """Clients that share two servers."""
    with Sharing(watch(_pooler)) as sharing:
        yield sharing


def test_values_in_an_encoding(sharing: Sharing) -> None:
    """What a client has set in its own encoding is the same text on each server."""
    client, other = sharing.client(client_encoding="LATIN1"), sharing.client()
    client.send(raw.frame(b"Q", "SET my.setting = 'é'; SET application_name = 'x'\0".encode("latin-1")))
    client.receive_until()
    for _ in range(2):
        assert sharing.everywhere(client, "SELECT ascii(current_setting('my.setting'))") == str(ord("é"))
        assert (
            sharing.everywhere(other, "SELECT current_setting('my.setting', true) IS NOT DISTINCT FROM 'é'")
            == "f"
        )


def test_names_in_an_encoding(sharing: Sharing) -> None:
    """A search_path with names that are not ASCII is the same names on each server."""
    client, other = sharing.client(client_encoding="LATIN1"), sharing.client()
    client.send(raw.frame(b"Q", "SET search_path = public, \"Käse\", 'größe'\0".encode("latin-1")))
    client.receive_until()
    for _ in range(2):
        sql = "SELECT convert_to(current_setting('search_path'), 'UTF8')"
        expected = 'public, "Käse", "größe"'.encode()
        assert sharing.everywhere(client, sql) == rf"\x{expected.hex()}"
        assert sharing.everywhere(other, "SHOW search_path") == '"$user", public'
