"""What the doctor finds, shown to people: tables in the end, and what is under way before."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hyperpool.doctor import advice
from hyperpool.doctor.findings import Status, is_well, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

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

_UNNAMED: Final = ("version", "cipher", "addresses", "address", "status", "method")
"""Facts that need no name to be understood."""

_CERTIFICATE: Final = ("subject", "issuer", "names", "not_before", "not_after")
_HIDDEN: Final = {"server_version", "protocol", *_UNNAMED, *_CERTIFICATE}


def show(findings: list[DatabaseFinding], console: Console) -> None:
    """Print all that was found, and what to make of it."""
    plain = console.options.ascii_only
    for finding in findings:
        console.print(_database(finding, plain=plain))
        console.print()
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
        f" {printable(walk.target.name)} ",
        (printable(hop), "cyan"),
        (f" {seconds:.1f} s", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def printable(text: str) -> str:
    """Text from elsewhere, with what cannot be printed escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


# -- A database ------------------------------------------------------------------------------------------------------


def _database(finding: DatabaseFinding, *, plain: bool) -> RenderableType:
    status = finding.status
    marks = _PLAIN_MARKS if plain else _MARKS
    title = Text.assemble(
        (f"{marks[status]} ", _STYLES[status]), (printable(finding.name), "bold"), overflow="fold"
    )
    if finding.user:
        title.append(f"  user {printable(finding.user)}, database {printable(finding.dbname)}", style="dim")
    parts: list[RenderableType] = [title]
    if finding.note:
        parts.append(Padding(Text(printable(finding.note), style="italic"), (0, 0, 0, 2)))
    parts += [Padding(_server(server, plain=plain), (0, 0, 0, 2)) for server in finding.servers]
    return Group(*parts)


def _server(finding: ServerFinding, *, plain: bool) -> RenderableType:
    title = Text.assemble(printable(finding.name), overflow="fold")
    if finding.via:
        title.append(f" via {finding.via}", style="dim")
    title.append(f"  {_milliseconds(finding.seconds)} ms", style="dim")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(width=2 if plain else 1)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    marks = _PLAIN_MARKS if plain else _MARKS
    for hop in finding.hops:
        table.add_row(
            Text(marks[hop.status], style=_STYLES[hop.status]),
            Text(printable(hop.kind), style="bold" if hop.error else ""),
            Text(_milliseconds(hop.seconds), style="cyan"),
            Text("\n").join(_details(hop, arrow="->" if plain else "→")),
        )
    warnings = [Text(f"{marks[Status.WARNING]} {printable(one)}", style="yellow") for one in finding.warnings]
    return Group(title, table, *warnings)


def _details(hop: HopFinding, arrow: str) -> Iterator[Text]:
    """What is to be said about a hop, line by line."""
    if hop.target:
        yield Text(printable(hop.target), style="dim")
    facts = {name: printable(fact) for name, fact in hop.facts.items()}
    words = [facts[name] for name in _UNNAMED if name in facts]
    if "server_version" in facts:
        words += [f"PostgreSQL {facts['server_version']}", f"protocol {facts['protocol']}"]
    words += [f"{name.replace('_', ' ')} {fact}" for name, fact in facts.items() if name not in _HIDDEN]
    if words and words != [hop.target]:
        yield Text(", ".join(words))
    if "subject" in facts:
        yield from _certificate(facts)
    style = "yellow" if hop.overcome else "bold red"
    if hop.error:
        yield Text(printable(hop.error), style=style)
    if hop.remedy and not hop.overcome:
        yield Text(f"{arrow} {printable(hop.remedy)}", style="bold")
    for warning in hop.warnings:
        yield Text(printable(warning), style="yellow")
    if hop.overcome and hop.error:
        yield Text("went on with another attempt", style="dim")


def _certificate(facts: dict[str, str]) -> Iterator[Text]:
    yield Text(
        f"certificate of {facts['subject']}" + (f" for {facts['names']}" if facts.get("names") else "")
    )
    end = moment(facts["not_after"])
    left = end - advice.now()
    when = f"in {advice.days(left)}" if left.days >= 0 else f"{advice.days(-left)} ago"
    yield Text(f"issued by {facts['issuer']}, ends {end:%Y-%m-%d} ({when})")


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
