"""Plays all scenarios with pgbouncer and with hyperpool, and tells the differences.

``python -m tests.peers.compare`` prints them; `tests/peers/test_differences.py` compares them with the page
``docs/pgbouncer-differences.md``.
"""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from tests.peers import scenarios
from tests.peers.stage import PASSWORDS, Side, Stage
from tests.support.postgres import PostgresCluster, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = Path(__file__).parents[2] / "docs/pgbouncer-differences.md"
_ENTRY: Final = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


@attrs.frozen
class Outcome:
    """What came of one case.

    Attributes:
        name: of the case.
        pgbouncer: what pgbouncer did.
        hyperpool: what hyperpool did.
    """

    name: str
    pgbouncer: str
    hyperpool: str

    @property
    def differs(self) -> bool:
        """They did not do the same."""
        return self.pgbouncer != self.hyperpool


def compare(pg: PostgresCluster) -> list[Outcome]:
    """Run all cases."""
    outcomes: list[Outcome] = []
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        settings = scenarios.stages(PASSWORDS)
        stages = {
            name: stack.enter_context(Stage(pg, setting.ini, setting.files))
            for name, setting in settings.items()
        }
        for stage in stages.values():
            stage.wait()
        outcomes += _views(stages["trust"])
        for scenario in scenarios.SCENARIOS:
            played = pool.map(partial(Side.play, script=scenario.script), stages[scenario.stage].sides)
            outcomes.append(Outcome(scenario.name, *map("\n".join, played)))
    return outcomes


def _views(stage: Stage) -> Iterator[Outcome]:
    """The console's tables: their columns, some of their rows, and every setting that pgbouncer has."""
    for view in scenarios.VIEWS:
        yield Outcome(f"columns: {view}", *(side.rows(view)[0] for side in stage.sides))
    for view in scenarios.ROWS:
        names = [" ".join(row[0] for row in side.rows(view)[1]) for side in stage.sides]
        yield Outcome(f"rows: {view}", *names)
    theirs, ours = ({row[0]: " | ".join(row[1:]) for row in side.rows("CONFIG")[1]} for side in stage.sides)
    for key, value in theirs.items():
        yield Outcome(f"config: {key}", value, ours.get(key, "not there"))


def documented() -> list[str]:
    """The names of cases, or patterns of them, that the page of differences has."""
    return _ENTRY.findall(PAGE.read_text("utf-8"))


def explains(pattern: str, name: str) -> bool:
    """Whether an entry of the page is about a case; ``*`` stands for anything."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def main() -> None:
    """Print the differences."""
    binaries = find_binaries()
    if binaries is None:
        sys.exit("no PostgreSQL found")
    cluster = PostgresCluster(binaries)
    try:
        cluster.create()
        outcomes = compare(cluster)
    finally:
        cluster.destroy()
    different = [outcome for outcome in outcomes if outcome.differs]
    lines = []
    for outcome in different:
        known = any(explains(pattern, outcome.name) for pattern in documented())
        lines.append(f"{outcome.name}{'' if known else '  (not in the list)'}")
        lines += (f"    pgbouncer: {outcome.pgbouncer}", f"    hyperpool: {outcome.hyperpool}")
    lines.append(f"{len(outcomes)} cases, {len(different)} differences")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
