"""What many clients are answered who share few servers is what each would be answered by a server of its own.

Scripts of several clients are drawn at random, run directly on PostgreSQL, and run again through the pooler: every
answer must be the same, byte by byte. What is compared, and what is not, is said in `tests.support.pgscripts_replay`.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings

from tests.support.pgscripts import Script
from tests.support.pgscripts_compare import Comparison, config_for
from tests.support.pgscripts_draw import scripts
from tests.support.pgscripts_replay import Difference
from tests.support.pgscripts_shorten import shorten

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

# The profile `thorough` takes long, and so does the search for a short script that fails. Every wait has its own bound.
pytestmark = [pytest.mark.hyperpool_only, pytest.mark.bound(24 * 3600)]


def _compare_scripts(comparison: Comparison, clients: int, part: float, *, stateful: bool = True) -> None:
    """Draw scripts and compare.

    Args:
        comparison: of what.
        clients: how many there are in a script.
        part: how many scripts, as a part of what the profile says.
        stateful: see `scripts`.
    """
    failed: list[tuple[Script, Exception]] = []
    phases = [phase for phase in settings().phases if phase not in {Phase.shrink, Phase.explain}]

    @settings(max_examples=int(settings().max_examples * part), phases=phases, report_multiple_bugs=False)
    @given(script=scripts(clients, stateful=stateful))
    def compare(script: Script) -> None:
        try:
            comparison.check(script)
        except Exception as error:
            failed.append((script, error))
            raise

    faulthandler.cancel_dump_traceback_later()
    try:
        compare()
    except Exception:
        if not failed:
            raise
    if failed:
        _report(comparison, *failed[0])


def _report(comparison: Comparison, script: Script, error: Exception) -> None:
    """Fail with the shortest script that can be found."""
    shortest = script, error

    def fails(candidate: Script) -> bool:
        nonlocal shortest
        try:
            comparison.check(candidate)
        except type(error) as again:
            shortest = candidate, again
            return True
        except Exception:  # noqa: BLE001 - another failure, which is not looked for now
            return False
        return False

    shorten(script, fails)
    script, error = shortest
    pytest.fail(f"{type(error).__name__}: {error}\n\n{script!r}", pytrace=False)


def test_a_difference_is_found(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """A pooler that passes names on as they are is found out, and that takes two messages."""
    config = config_for(pg, "transaction", 1, max_prepared_statements=0, session_state="keep")
    script = Script.of(
        """
        0: Pa: select 1 | S
        1: Q select 1 | P: select 2 | B | E | S
        1: Q begin; select 3 | ...
        0: Q select 1 | Ba | E | S
        1: Pa: select 4 | S
        """
    )
    with Comparison(pg, make_pooler(config), 1) as comparison:

        def fails(candidate: Script) -> bool:
            try:
                comparison.check(candidate)
            except Difference:
                return True
            return False

        assert shorten(script, fails) == Script.of("0: Pa: select 1\n1: Pa: select 4")


def test_postgres_answers_as_it_did_before(pg: PostgresCluster) -> None:
    """The comparison compares what can be compared: two runs without a pooler agree."""
    with Comparison(pg, None, 2) as comparison:
        _compare_scripts(comparison, 6, 0.1)


def test_session_mode(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Four clients with four servers."""
    with Comparison(pg, make_pooler(config_for(pg, "session", 4)), 4) as comparison:
        _compare_scripts(comparison, 4, 0.15)


@pytest.mark.parametrize(("clients", "servers"), [(6, 2), (5, 3)])
def test_transaction_mode(
    pg: PostgresCluster, make_pooler: PoolerFactory, clients: int, servers: int
) -> None:
    """More clients than servers, with whatever a session keeps."""
    with Comparison(pg, make_pooler(config_for(pg, "transaction", servers)), servers) as comparison:
        _compare_scripts(comparison, clients, 0.25)


def test_transaction_mode_with_few_statements(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """Each server keeps one prepared statement: the others are prepared again and again."""
    config = config_for(pg, "transaction", 2, max_prepared_statements=1)
    with Comparison(pg, make_pooler(config), 2) as comparison:
        _compare_scripts(comparison, 6, 0.15)


def test_transaction_mode_without_session_state(pg: PostgresCluster, make_pooler: PoolerFactory) -> None:
    """The pooler neither translates statements nor watches the session, for clients that keep nothing in it."""
    config = config_for(pg, "transaction", 2, max_prepared_statements=0, session_state="keep")
    with Comparison(pg, make_pooler(config), 2) as comparison:
        _compare_scripts(comparison, 6, 0.1, stateful=False)
