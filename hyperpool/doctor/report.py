"""What the doctor finds, shown to people: tables in the end, and what is under way before."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.text import Text

from hyperpool.doctor import advice
from hyperpool.doctor.findings import KINDS, Status, is_well, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderResult

    from hyperpool.doctor.examine import Examination
    from hyperpool.doctor.findings import DatabaseFinding, HopFinding, ServerFinding
    from hyperpool.doctor.walk import Walk

_STYLES: Final = {
    Status.OK: "green",
    Status.SKIPPED: "dim",
    Status.WARNING: "yellow",
    Status.FAILED: "bold red",
}
_MARKS: Final = {Status.OK: "✓", Status.SKIPPED: "-", Status.WARNING: "!", Status.FAILED: "✗"}
_PLAIN_MARKS: Final = {Status.OK: "ok", Status.SKIPPED: "-", Status.WARNING: "!", Status.FAILED: "x"}
"""For terminals whose encoding has no others."""

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER: Final = "|/-\\"
_PER_TURN: Final = 10
"""Pictures of the spinner per second."""

_INDENT: Final = 2
_KIND_WIDTH: Final = max(map(len, KINDS))
_TIME_WIDTH: Final = 8

_SPOKEN: Final = {
    "addresses": "{}",
    "address": "{}",
    "status": "{}",
    "version": "{}",
    "cipher": "{}",
    "alpn": "ALPN {}",
    "method": "{}",
    "server_version": "PostgreSQL {}",
    "protocol": "protocol {}",
}
"""How facts are told; any other is told with its name."""

_AGAIN: Final = {"postgresql tls": "then it was tried without TLS"}
_AGAIN_OTHERWISE: Final = "then it was tried in another way"
"""What came after a failure that was not the last word: as the pooler does it."""

_VERIFIED: Final = {"no": "not verified", "certificate": "verified but for its name"}
_CERTIFICATE: Final = {"subject", "issuer", "names", "not_before", "not_after", "verified"}


def show(findings: list[DatabaseFinding], console: Console) -> None:
    """Print all that was found, and what to make of it."""
    page = _Page(console)
    for finding in findings:
        page.add(finding)
    console.print(_summary(findings))


class Progress:
    """What is under way, to be rendered again and again.

    Args:
        examination: which is under way.
    """

    def __init__(self, examination: Examination) -> None:
        self._examination = examination

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """One line for each way, as many as fit on the screen."""
        pictures = _PLAIN_SPINNER if options.ascii_only else _SPINNER
        picture = pictures[int(time.monotonic() * _PER_TURN) % len(pictures)]
        ways = [(plan.finding.name, walk) for plan in self._examination.plans for walk in plan.walks]
        under_way = [(name, walk) for name, walk in ways if walk.began and walk.finding is None]
        room = max(options.size.height - 2, 1)
        for name, walk in under_way[:room]:
            yield _line(picture, name, walk)
        done = sum(walk.finding is not None for _, walk in ways)
        yield Text(f"{done} of {len(ways)} servers examined", style="dim")


def _line(picture: str, name: str, walk: Walk) -> Text:
    hop = walk.trace.hops[-1].name if walk.trace.hops else ""
    seconds = time.perf_counter() - walk.began
    return Text.assemble(
        (f"{picture} ", "cyan"),
        (printable(name), "bold"),
        f" {printable(walk.name)} ",
        (printable(hop), "cyan"),
        (f" {seconds:.1f} s", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def printable(text: str) -> str:
    """Text from elsewhere, with what cannot be printed escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class _Page:
    """Prints databases, one below the other: titles, and a table of hops with a column of text that wraps."""

    def __init__(self, console: Console) -> None:
        self._console = console
        plain = console.options.ascii_only
        self._marks = _PLAIN_MARKS if plain else _MARKS
        self._arrow = "->" if plain else "→"
        self._mark_width = max(map(len, self._marks.values()))

    def add(self, finding: DatabaseFinding) -> None:
        """Print one, and an empty line."""
        title = self._mark(finding.status)
        title.append(printable(finding.name), style="bold")
        if finding.user:
            title.append(
                f"  user {printable(finding.user)}, database {printable(finding.dbname)}", style="dim"
            )
        self._print(title, Text(), 0)
        if finding.note:
            self._print(Text(), Text(printable(finding.note), style="italic"), _INDENT)
        for server in finding.servers:
            self._server(server)
        self._console.print()

    def _server(self, finding: ServerFinding) -> None:
        title = Text(printable(finding.name), style="underline")
        more = f"via {printable(finding.via)}  " if finding.via else ""
        more += f"{_milliseconds(finding.seconds)} ms"
        if _INDENT + len(title) + 2 + len(more) > self._console.width:
            self._print(Text(), title, _INDENT)
            title = Text()
        else:
            title.append("  ")
        self._print(Text(), title.append(more, style="not underline dim"), _INDENT)
        for hop in finding.hops:
            start = self._mark(hop.status)
            start.append(hop.kind.ljust(_KIND_WIDTH), style="bold red" if hop.status is Status.FAILED else "")
            start.append(f"{_milliseconds(hop.seconds):>{_TIME_WIDTH}}  ", style="cyan")
            self._print(start, Text("\n").join(self._details(hop)), 2 * _INDENT)
        for warning in finding.warnings:
            self._print(self._mark(Status.WARNING), Text(printable(warning), style="yellow"), 2 * _INDENT)

    def _mark(self, status: Status) -> Text:
        return Text.assemble((f"{self._marks[status]:{self._mark_width}} ", _STYLES[status]))

    def _print(self, start: Text, text: Text, indent: int) -> None:
        """Print text behind a start, wrapped, so that no line is below the start, and none ends in spaces."""
        taken = indent + len(start)
        width = max(self._console.width - taken, 20)
        lines = text.wrap(self._console, width, overflow="fold") if text else [Text()]
        before = Text(" " * indent) + start
        for line in lines:
            whole = before + line
            whole.rstrip()
            self._console.print(whole, overflow="fold", soft_wrap=not text)
            before = Text(" " * taken)

    def _details(self, hop: HopFinding) -> Iterator[Text]:
        """What is to be said about a hop, line by line."""
        yield from _found(hop, self._arrow)
        if "subject" in hop.facts:
            yield from _certificate({name: printable(fact) for name, fact in hop.facts.items()})
        if hop.error:
            yield Text(printable(hop.error), style="yellow" if hop.overcome else "bold red")
        if hop.error and hop.overcome:
            yield Text(_AGAIN.get(hop.kind, _AGAIN_OTHERWISE), style="dim")
        elif hop.remedy:
            yield Text.assemble((f"{self._arrow} ", "bold cyan"), (printable(hop.remedy), "cyan"))
        for warning in hop.warnings:
            yield Text(printable(warning), style="yellow")


def _found(hop: HopFinding, arrow: str) -> Iterator[Text]:
    """Where a hop leads to, and what was negotiated."""
    words = []
    for name, fact in hop.facts.items():
        if name == "channel_binding":
            words.append("no channel binding" if fact == "no" else f"channel binding {fact}")
        elif name in {"in_hot_standby", "default_transaction_read_only"}:
            words += [name.replace("_", " ")] if fact == "on" else []
        elif name not in _CERTIFICATE and not (name.startswith("address") and fact in hop.target):
            words.append(_SPOKEN.get(name, f"{name.replace('_', ' ')} {{}}").format(fact))
    found = printable(", ".join(words))
    if hop.kind in {"resolve", "tcp"} and found:
        yield Text(f"{printable(hop.target)} {arrow} {found}")
        return
    if hop.target:
        yield Text(printable(hop.target))
    if found:
        yield Text(found, style="dim")


def _certificate(facts: dict[str, str]) -> Iterator[Text]:
    names = f" for {facts['names']}" if facts.get("names") else ""
    verified = _VERIFIED.get(facts.get("verified", ""), "verified") if "verified" in facts else "not accepted"
    yield Text(f"certificate of {facts['subject']}{names}: {verified}", style="dim")
    end = moment(facts["not_after"])
    left = end - advice.now()
    when = f"in {advice.days(left)}" if left >= timedelta() else f"{advice.days(-left)} ago"
    yield Text(f"issued by {facts['issuer']}, ends {end:%Y-%m-%d} ({when})", style="dim")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _summary(findings: list[DatabaseFinding]) -> Text:
    """One line about all of it."""
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    words = {
        Status.OK: "well",
        Status.WARNING: "with warnings",
        Status.SKIPPED: "not examined",
        Status.FAILED: "failed",
    }
    told = ", ".join(f"{count} {words[status]}" for status, count in counts.items() if count)
    total = len(findings)
    style = "bold green" if is_well(findings) else "bold red"
    return Text(f"{total} database{'s' * (total != 1)}: {told or 'there are none'}", style=style)
