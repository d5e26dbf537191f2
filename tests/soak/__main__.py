"""The command: ``python -m tests.soak --hours 1``. The exit code is 0 if nothing was wrong, and 1 otherwise."""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.soak.run import Soak
from tests.soak.site import Site

_WIDTH: Final = 160
_TRACEBACKS: Final = 5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, help="how long clients work")
    length.add_argument("--minutes", type=float, default=1.0, help="the same; 1 by default")
    parser.add_argument(
        "--pause", type=float, default=0.1, help="seconds between two steps of a client, on average"
    )
    parser.add_argument(
        "--faults", type=float, help="seconds between two faults, on average; by default 4 to 15"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of all dice")
    return parser.parse_args()


def _report(soak: Soak, site: Site, seconds: float) -> list[Table]:
    journal = site.journal
    load = Table(
        "client", "database", "connections", "steps", "explained errors", "unexplained", title="Load"
    )
    for (kind, route), line in sorted(journal.lines.items()):
        explained = ", ".join(f"{code} {count}" for code, count in line.explained.most_common())
        row = (f"{line.connections:,}", f"{line.steps:,}", explained or "-", str(line.unexplained))
        load.add_row(kind, route, *row)
    faults = Table("fault", "times", title="Faults")
    for name, count in journal.faults.most_common():
        faults.add_row(name, str(count))
    memory = Table(
        "process", "at first", "highest", "last", "descriptors", title="Memory (MB) and open descriptors"
    )
    for name, samples in soak.watches.items():
        figures = [samples[0].memory, max(one.memory for one in samples), samples[-1].memory]
        files = [one.files for one in samples]
        memory.add_row(name, *(f"{one / 1e6:.1f}" for one in figures), f"{min(files)} to {max(files)}")
    title = f"Verdict after {seconds / 60:.1f} minutes; the pooler took {soak.cpu:.0f} s of CPU under load"
    verdict = Table("what", "seen", "", title=title)
    for one in soak.verdicts:
        verdict.add_row(one.what, one.seen, "good" if one.good else "BAD")
    return [load, faults, memory, verdict]


def main() -> int:
    """Run, print the tables, and return the exit code."""
    arguments = _arguments()
    seconds = arguments.hours * 3600 if arguments.hours else arguments.minutes * 60
    interval = arguments.faults or min(max(seconds / 240, 1.0), 15.0)
    console = Console(width=_WIDTH, soft_wrap=True)
    begin = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - begin:7.0f} s  {line}", highlight=False, markup=False)

    tell(f"seed {arguments.seed}, a fault every {interval:.1f} s")
    with Site(arguments.seed, arguments.pause, tell) as site:
        soak = Soak(site, seconds, interval, tell)
        soak.run()
        for table in _report(soak, site, time.monotonic() - begin):
            console.print(table)
        for text in site.journal.wrong + site.journal.unexplained:
            console.print(text, highlight=False, markup=False)
        good = all(one.good for one in soak.verdicts)
        if not good:
            for where in list(re.finditer("Traceback", log := site.pooler.log_text()))[:_TRACEBACKS]:
                console.print(log[where.start() - 1000 : where.start() + 3000], highlight=False, markup=False)
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
