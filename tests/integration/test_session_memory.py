"""What one client does in one transaction, or without an end of its pipeline, costs no more and more memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory

pytestmark = pytest.mark.hyperpool_only

_KEPT = 10
_MIB = 1 << 20
_COUNT = "SELECT count(*) FROM pg_prepared_statements"


def _prepare_and_close(client: raw.RawClient, times: int) -> None:
    for number in range(times):
        name = f"s{number}"
        close = raw.frame(b"C", b"S" + raw.cstring(name))
        client.send(raw.parse(f"SELECT {number}", name), close, raw.SYNC)
        assert raw.kinds(client.receive_until()) == b"13Z"


@pytest.mark.parametrize("keeps", ["BEGIN", "LISTEN a"])
def test_statements_that_have_been_closed(make_pooler: PoolerFactory, keeps: str) -> None:
    """A client that keeps its server, and closes what it has prepared, leaves nothing there for long."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1, max_prepared_statements=_KEPT)
    with pooler.raw() as client:
        client.ask(keeps)
        _prepare_and_close(client, 100)
        assert int(client.value(_COUNT)) <= _KEPT


def test_a_notification_for_a_function_that_listens(make_pooler: PoolerFactory) -> None:
    """Nobody knew before that it would."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        client.send(raw.query("DO $$ BEGIN EXECUTE 'LISTEN a'; EXECUTE 'NOTIFY a'; END $$"))
        assert raw.kinds(client.receive_until()) == b"CAZ"


def test_statements_under_long_settings(make_pooler: PoolerFactory) -> None:
    """A statement depends on the settings that it was prepared under, but does not keep them."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        before = pooler.memory()
        for number in range(600):
            client.ask(f"SET a.b = '{number}{'x' * 50_000}'")
            assert client.value("SELECT 1") == "1"
            client.send(raw.parse("SELECT 1", f"s{number}"), raw.SYNC)
            assert raw.kinds(client.receive_until()) == b"1Z"
        assert pooler.memory() - before < 20 * _MIB


def test_deallocating_without_an_end(make_pooler: PoolerFactory) -> None:
    """A pipeline that does not end, in which statements are deallocated again and again: it costs no more each time."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        client.send(raw.parse("DEALLOCATE ALL"), (raw.bind() + raw.execute()) * 1500, raw.FLUSH)
        client.send((raw.bind() + raw.execute()) * 1500, raw.SYNC)
        assert raw.kinds(client.receive_until()) == b"1" + b"2C" * 3000 + b"Z"


def test_deallocating_without_doing_it(make_pooler: PoolerFactory) -> None:
    """What is never executed, in a pipeline that does not end, is refused some time."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        client.send(raw.parse("DEALLOCATE ALL"), raw.bind() * 3000, raw.FLUSH)
        last = client.receive_all()[-1].fields
        assert (last["S"], last["C"]) == ("FATAL", "54000")
    with pooler.raw() as client:
        assert client.value("SELECT 1") == "1"


def test_many_queries_that_deallocate(make_pooler: PoolerFactory) -> None:
    """Each has an end: the next one waits for it."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.raw() as client:
        client.send(raw.query("DEALLOCATE ALL") * 5000, raw.query("SELECT 1"))
        assert raw.kinds(client.receive_until(b"D")).endswith(b"CZCZTD")
