"""What differs between pgbouncer and hyperpool is what docs/pgbouncer-differences.md says, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.compare import compare, documented, explains
from tests.peers.stage import pgbouncer_command

if TYPE_CHECKING:
    from tests.support.postgres import PostgresCluster

pytestmark = [pytest.mark.hyperpool_only, pytest.mark.bound(240)]


def test_the_page_of_differences_is_true(pg: PostgresCluster) -> None:
    """Every difference has an entry with a reason, and every entry is a difference."""
    if pgbouncer_command() is None:
        pytest.skip("no pgbouncer that is new enough; see benchmarks/get_pgbouncer.sh")
    outcomes = compare(pg)
    entries = documented()
    different = {outcome.name: outcome for outcome in outcomes if outcome.differs}
    assert len(outcomes) >= 150
    unexplained = [
        one for one in different.values() if not any(explains(entry, one.name) for entry in entries)
    ]
    assert not unexplained, "\n\n".join(
        f"{one.name}\n{one.pgbouncer}\n{one.hyperpool}" for one in unexplained
    )
    assert [entry for entry in entries if not any(explains(entry, name) for name in different)] == []
