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


def test_an_encoding_with_backslashes_in_its_characters(sharing: Sharing) -> None:
    """A character whose second byte is a backslash (SJIS) is a character, and neither an escape nor two."""
    client, other = sharing.client(client_encoding="SJIS"), sharing.client()
    client.send(raw.frame(b"Q", "SET my.setting = '表''表'\0".encode("shift_jis")))
    assert raw.kinds(client.receive_until()) == b"CZ"
    for _ in range(2):
        sql = "SELECT convert_to(current_setting('my.setting'), 'UTF8')"
        assert sharing.everywhere(client, sql) == rf"\x{'''表'表'''.encode().hex()}"
        assert sharing.everywhere(other, "SELECT coalesce(current_setting('my.setting', true), '')") == ""
