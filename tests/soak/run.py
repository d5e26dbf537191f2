"""The course of a soak: rehearsal, load with faults, quiet, replacement of the process under load, quiet."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import attrs

from tests.soak.drivers import AsyncpgVisitor, CachedVisitor, Psycopg2Visitor, PsycopgVisitor, SessionVisitor
from tests.soak.exact import ExactVisitor
from tests.soak.faults import Faults
from tests.soak.site import ROUTES
from tests.soak.watch import ALLOWED_GROWTH, SHORTEST, Sample, Watch, cpu_seconds, growth, sample
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tests.soak.site import Site
    from tests.soak.visitor import Visitor

_REHEARSAL: Final = 0.05
_RESTARTS: Final = 0.15
"""Parts of the whole time: before the load, and after it."""

_LONGEST_REHEARSAL: Final = 60.0
_QUIET: Final = 60.0
_LEAVE: Final = 60.0
_MINUTE: Final = 60.0


@attrs.define
class Verdict:
    """One thing that was judged.

    Attributes:
        what: in words.
        seen: what was seen, in words.
        good: whether it is as it must be.
    """

    what: str
    seen: str
    good: bool


@attrs.frozen
class Rest:
    """What a quiet pooler and far end hold.

    Attributes:
        files: descriptors of each.
        tasks: Trio tasks of each, by name.
    """

    files: tuple[int, int]
    tasks: tuple[Counter[str], Counter[str]]


class Soak:
    """One soak.

    Args:
        site: where.
        seconds: how long clients work, all in all.
        interval: seconds between two faults, on average.
        tell: takes a line about the progress.

    Attributes:
        verdicts: what was judged.
        watches: of the pooler and of the far end, by name.
        cpu: seconds of CPU that the pooler has taken while it was loaded.
    """

    def __init__(self, site: Site, seconds: float, interval: float, tell: Callable[[str], None]) -> None:
        self._site = site
        self._seconds = seconds
        self._tell = tell
        self._interval = interval
        self._visitors = _visitors(site)
        self.verdicts: list[Verdict] = []
        self.watches: dict[str, list[Sample]] = {}
        self.cpu = 0.0

    def run(self) -> None:
        """Run it to its end."""
        site = self._site
        threading.Thread(target=site.write_behind, name="behind", daemon=True).start()
        for visitor in self._visitors:
            visitor.thread.start()
        self._load(min(self._seconds * _REHEARSAL, _LONGEST_REHEARSAL), "rehearsal")
        before = self._rest()
        watches = {
            "pooler": Watch(lambda: site.pooler.pid),
            "far end": Watch(lambda: site.far.process.pid),
        }
        faults = Faults(site, self._interval)
        faults.thread.start()
        cpu = cpu_seconds(site.pooler.pid)
        self._load(self._seconds * (1 - _REHEARSAL - _RESTARTS), "load with faults", until=faults.stop)
        self.cpu = cpu_seconds(site.pooler.pid) - cpu
        for name, watch in watches.items():
            watch.stop()
            self.watches[name] = watch.samples
        self._judge_rest(before)
        self._judge_memory()
        self._restarts(before)
        self._finish()

    def _load(self, seconds: float, what: str, until: Callable[[], None] | None = None) -> None:
        """Let clients work, then let them leave."""
        site = self._site
        site.is_open.set()
        end = time.monotonic() + seconds
        self._tell(f"{what}: {seconds:.0f} s")
        while (left := end - time.monotonic()) > 0:
            site.ended.wait(min(left, _MINUTE))
            self._progress()
        if until is not None:
            until()
        site.is_open.clear()
        self._wait_left()

    def _progress(self) -> None:
        steps, explained, unexplained = self._site.journal.totals()
        at = sample(self._site.pid, 0)
        self._tell(
            f"{steps:,} steps, {self._site.journal.faults.total()} faults, {explained} explained errors,"
            f" {unexplained} unexplained, {len(self._site.journal.wrong)} wrong; pooler {at.memory / 1e6:.1f} MB,"
            f" {at.files} descriptors"
        )

    def _wait_left(self) -> None:
        """All clients have left, and nobody hangs."""

        def present() -> list[str]:
            return [visitor.thread.name for visitor in self._visitors if visitor.is_here]

        end = time.monotonic() + _LEAVE
        while (left := present()) and time.monotonic() < end:
            time.sleep(0.05)
        for name in left:
            self._site.journal.mistake(name, "-", f"it still waits for an answer after {_LEAVE:.0f} s")

    def _rest(self) -> Rest:
        """What is there when all clients have left and all server connections are closed."""
        site = self._site
        for route in ROUTES:
            site.command(f"KILL {route}")
        for route in ROUTES:
            site.command(f"RESUME {route}")
        eventually(lambda: not site.pg.backends(), within=_QUIET, what="no server connection is left")
        rests: list[Rest] = []

        def settled() -> bool:
            files = tuple(sample(pid, 0).files for pid in (site.pooler.pid, site.far.process.pid))
            rests.append(Rest((files[0], files[1]), site.tasks()))
            return len(rests) > 20 and all(rest == rests[-1] for rest in rests[-20:])

        eventually(settled, within=_QUIET, what="descriptors and tasks do not change any more")
        return rests[-1]

    def _judge_rest(self, before: Rest) -> None:
        after = self._rest()
        for n, name in enumerate(("pooler", "far end")):
            files = (before.files[n], after.files[n])
            self._judge(
                f"descriptors of the {name}, idle",
                f"{files[0]} before, {files[1]} after",
                files[1] <= files[0],
            )
            tasks = (before.tasks[n].total(), after.tasks[n].total())
            more = ", ".join(after.tasks[n] - before.tasks[n])
            self._judge(
                f"Trio tasks of the {name}, idle",
                f"{tasks[0]} before, {tasks[1]} after {more}".strip(),
                not more,
            )

    def _judge_memory(self) -> None:
        for name, samples in self.watches.items():
            grown = growth(samples)
            short = samples[-1].seconds < SHORTEST
            self._judge(
                f"memory of the {name} after its warm-up",
                f"{samples[-1].memory / 1e6:.1f} MB at the end, {grown / 1e6:+.2f} MB{', not judged' if short else ''}",
                short or grown <= ALLOWED_GROWTH,
            )

    def _restarts(self, before: Rest) -> None:
        """The process is replaced twice while clients work, and the last one holds no more than the first one did."""
        site = self._site
        outcome: list[str] = []

        def replace() -> None:
            for _ in range(2):
                site.ended.wait(self._seconds * _RESTARTS / 4)
                with site.journal.fault("replacement of the process"):
                    try:
                        site.restart()
                    except Exception as error:  # noqa: BLE001 - whatever it is, the report has it
                        outcome.append(f"{type(error).__name__}: {error}")

        thread = threading.Thread(target=replace, name="restarts", daemon=True)
        thread.start()
        self._load(self._seconds * _RESTARTS, "replacements of the process", until=thread.join)
        self._judge(
            "replacement of the process under load", outcome[0] if outcome else "2 times", not outcome
        )
        for route in ROUTES:
            site.command(f"KILL {route}")
        limit = before.files[0]
        eventually(
            lambda: sample(site.pid, 0).files <= limit,
            within=_QUIET,
            what=f"at most {limit} descriptors are open",
        )

    def _finish(self) -> None:
        """What the database holds, what the journal has, and what the log has."""
        site = self._site
        site.ended.set()
        wrong = [text for one in self._visitors for text in one.entries.check(site.check_entries(one.number))]
        count = sum(len(one.entries.committed) for one in self._visitors)
        self._judge("committed transactions are there, others are not", f"{count:,} committed", not wrong)
        site.journal.wrong += wrong
        steps, explained, unexplained = site.journal.totals()
        self._judge("wrong answers", f"{len(site.journal.wrong)} in {steps:,} steps", not site.journal.wrong)
        self._judge("errors without a fault", f"{unexplained}; {explained} explained", not unexplained)
        missing = [name for name, line in site.journal.lines.items() if not line.steps]
        self._judge("every kind of client has worked", f"{len(site.journal.lines)} kinds", not missing)
        log = site.pooler.log_text()
        errors = sum("level=error" in line or "[error" in line for line in log.splitlines())
        self._judge(
            "log of the pooler",
            f"{errors} errors, {log.count('Traceback')} tracebacks",
            "Traceback" not in log,
        )

    def _judge(self, what: str, seen: str, good: bool) -> None:
        self.verdicts.append(Verdict(what, seen, good))


def _visitors(site: Site) -> list[Visitor]:
    kinds: list[tuple[type[Visitor], str]] = [
        (PsycopgVisitor, "direct"),
        (PsycopgVisitor, "tunnel"),
        (Psycopg2Visitor, "direct"),
        (Psycopg2Visitor, "tunnel"),
        (Psycopg2Visitor, "session"),
        (AsyncpgVisitor, "direct"),
        (AsyncpgVisitor, "tunnel"),
        (ExactVisitor, "direct"),
        (ExactVisitor, "session"),
        (ExactVisitor, "cachedtunnel"),
        (SessionVisitor, "direct"),
        (SessionVisitor, "tunnel"),
    ]
    visitors = [kind(site, number, route) for number, (kind, route) in enumerate(kinds, 1)]
    cached = [("cached", True), ("cached", False), ("cachedtunnel", True), ("direct", False)]
    return visitors + [
        CachedVisitor(site, len(kinds) + mark, route, prepared=prepared, mark=mark)
        for mark, (route, prepared) in enumerate(cached, 1)
    ]
