"""Time limits: what takes too long is ended, at its time and not before, and its server connection serves nobody else.

All situations run at once, in threads, each with a pool of its own; each test looks at what has become of one of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import timelimits as tl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


ENDED: Final[dict[str, tuple[str, Callable[[tl.Client], None]]]] = {
    "an idle client": ("client_idle_timeout", tl.idle),
    "an idle client that listens": ("client_idle_timeout", tl.idle_and_listening),
    "a query": ("query_timeout", tl.query),
    "an extended query": ("query_timeout", tl.extended_query),
    "a query that sends notices": ("query_timeout", tl.query_with_notices),
    "a query in a transaction": ("query_timeout", tl.query_in_a_transaction),
    "COPY that gets no data": ("query_timeout", tl.copy),
    "a busy transaction": ("transaction_timeout", tl.transaction),
    "an idle transaction, as a whole": ("transaction_timeout", tl.idle_transaction),
    "a query without BEGIN, as a transaction": ("transaction_timeout", tl.query),
    "an idle transaction": ("idle_transaction_timeout", tl.idle_transaction),
    "an idle transaction after a query": ("idle_transaction_timeout", tl.idle_transaction_after_a_query),
    "a failed transaction": ("idle_transaction_timeout", tl.failed_transaction),
    "half a pipeline": ("idle_transaction_timeout", tl.half_a_pipeline),
}
"""Situations that a limit ends."""

ROWS: Final = "a query that sends rows"

ELSEWHERE: Final[dict[tuple[str, str], Callable[[tl.Client], None]]] = {
    ("session", "query_timeout"): tl.query,
    ("session", "transaction_timeout"): tl.transaction,
    ("session", "idle_transaction_timeout"): tl.idle_transaction,
    ("session", "client_idle_timeout"): tl.idle,
    ("statement", "query_timeout"): tl.query,
    ("statement", "transaction_timeout"): tl.query,
    ("statement", "client_idle_timeout"): tl.idle,
}
"""Situations that a limit ends in other pool modes."""

GOES_ON: Final[dict[str, tuple[str, Callable[[tl.Client], None]]]] = {
    "short queries": ("query_timeout", tl.busy),
    "short queries in a long transaction": ("query_timeout", tl.busy_in_a_transaction),
    "a pause in a transaction is no query": ("query_timeout", tl.long_transaction),
    "short transactions": ("transaction_timeout", tl.busy_with_transactions),
    "a pause between transactions": ("transaction_timeout", tl.long_rest),
    "a pause of who keeps his server": ("transaction_timeout", tl.long_rest_with_a_pin),
    "queries in a transaction": ("idle_transaction_timeout", tl.busy_in_a_transaction),
    "a long query is not idle": ("idle_transaction_timeout", tl.long_query),
    "a pause outside of transactions": ("idle_transaction_timeout", tl.long_rest),
    "a pause with a pin": ("idle_transaction_timeout", tl.long_rest_with_a_pin),
    "a client that asks": ("client_idle_timeout", tl.busy),
    "a client with a long query": ("client_idle_timeout", tl.long_query),
    "a client in a transaction": ("client_idle_timeout", tl.long_transaction),
}
"""Situations that the limit does not mean."""


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Pooler:
    entries: dict[str, dict[str, object]] = {
        name: {limit: tl.LIMIT} for name, (limit, _) in {**ENDED, **GOES_ON}.items()
    }
    entries[ROWS] = {"query_timeout": tl.LIMIT}
    entries |= {f"{mode} {limit}": {"pool_mode": mode, limit: tl.LIMIT} for mode, limit in ELSEWHERE}
    return make_module_pooler(tl.config(_pg, "other", entries))


@pytest.fixture(scope="module")
def _outcomes(_pooler: Pooler) -> Iterator[Callable[[str], Any]]:
    """Everything, run at once; what went wrong comes when it is asked for."""
    ended = {name: situation for name, (_, situation) in ENDED.items()}
    ended[ROWS] = tl.query_with_rows
    ended |= {f"{mode} {limit}": situation for (mode, limit), situation in ELSEWHERE.items()}
    runs: dict[str, Callable[[], object]] = {
        name: partial(tl.in_time, partial(tl.run, _pooler, name, situation))
        for name, situation in ended.items()
    }
    runs |= {name: partial(tl.goes_on, _pooler, name, situation) for name, (_, situation) in GOES_ON.items()}
    with ThreadPoolExecutor(len(runs)) as threads:
        futures = {name: threads.submit(run) for name, run in runs.items()}
        yield lambda name: futures[name].result(timeout=30)


@pytest.fixture
def outcomes(
    _outcomes: Callable[[str], Any], _pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]
) -> Callable[[str], Any]:
    """Tells what has become of a situation."""
    watch(_pooler)
    return _outcomes


@pytest.mark.parametrize("name", ENDED)
def test_ended(outcomes: Callable[[str], tl.Outcome], name: str) -> None:
    """The client is told which limit it was, and its server connection is nobody else's afterwards."""
    limit, _ = ENDED[name]
    outcome = outcomes(name)
    tl.check(outcome, limit)
    if limit != "client_idle_timeout":
        assert outcome.pid not in {0, outcome.next_pid}


def test_ended_within_a_message(outcomes: Callable[[str], tl.Outcome]) -> None:
    """In the middle of a row no error can be sent; the connection ends all the same."""
    outcome = outcomes(ROWS)
    assert outcome.error == {}
    assert tl.LIMIT - 0.02 <= outcome.seconds <= tl.LIMIT + 0.3
    assert outcome.pid not in {0, outcome.next_pid}


@pytest.mark.parametrize(("mode", "limit"), ELSEWHERE)
def test_ended_in_other_modes(outcomes: Callable[[str], tl.Outcome], mode: str, limit: str) -> None:
    """Limits are the same in session and in statement pooling."""
    outcome = outcomes(f"{mode} {limit}")
    tl.check(outcome, limit)
    if limit != "client_idle_timeout":
        assert outcome.pid not in {0, outcome.next_pid}


@pytest.mark.parametrize("name", GOES_ON)
def test_goes_on(outcomes: Callable[[str], list[bytes]], name: str) -> None:
    """Who does what the limit does not mean is not disturbed."""
    assert outcomes(name) == [b"T", b"D", b"C", b"Z"]
