"""Instructions per query of the poolers, counted by callgrind: a figure that other work on the machine does not change.

    python -m benchmarks instructions              counts, and shows what is recorded beside
    python -m benchmarks instructions --record     and writes benchmarks/instructions.json

Needs valgrind (``apt-get install valgrind``). Counters of the processor would do the same at full speed (``perf stat -e
instructions:u``), but virtual machines often have none. callgrind counts instructions in user space; the kernel's part
of a query shows in the CPU times of `python -m benchmarks run`.

For each target and query mode, pgbench sends N queries by 16 clients, then twice as many by 16 other ones: the
difference is what N queries take, without logins. As callgrind slows the pooler down, there is always a client that
waits for it: so the count is that of a pooler that is busy.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import cattrs
from attrs import field, frozen

from benchmarks import machine, pgbench
from benchmarks.postgres import SCALE, Tools, connection_options
from benchmarks.processes import BenchError, Workspace, clean_environment
from benchmarks.stage import Stage, Variant
from benchmarks.targets import TARGETS, pgbouncer_command
from benchmarks.ways import find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.stage import Server

    Counter = Callable[[str, int], dict[str, int]]

FILE: Final = Path(__file__).resolve().parent / "instructions.json"
_TARGETS: Final = ("pgbouncer", "hyperpool", "hyperpool-pure")
_MODES: Final = ("simple", "extended", "prepared")
_CLIENTS: Final = 16
_PATIENCE: Final = 300.0
_OUTPUT: Final = "callgrind.out"
_SHOWN: Final = 4
_REFERENCE: Final = "pgbouncer"


@frozen
class Count:
    """What one target takes.

    Attributes:
        target: its name.
        mode: pgbench's query mode.
        per_query: instructions in user space.
        objects: the same by program or library.
    """

    target: str
    mode: str
    per_query: float
    objects: dict[str, float] = field(factory=dict)

    def shares(self) -> str:
        """Where most of them are, in words."""
        ordered = sorted(self.objects.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {count / self.per_query:.0%}" for name, count in ordered[:_SHOWN])


@frozen
class Instructions:
    """All counts, and what they were made with.

    Attributes:
        date: of the day.
        machine: processor and versions.
        queries: how many were sent for each count.
        counts: by target and mode.
    """

    date: str
    machine: str
    queries: int
    counts: list[Count]

    def multiple(self, count: Count) -> str:
        """A count as a multiple of pgbouncer's in the same mode; empty where that is not known."""
        others = [other for other in self.counts if (other.target, other.mode) == (_REFERENCE, count.mode)]
        return f"{count.per_query / others[0].per_query:.2f}" if others else ""


def recorded(path: Path = FILE) -> Instructions | None:
    """What has been recorded; None if nothing has."""
    if not path.exists():
        return None
    return cattrs.structure(json.loads(path.read_text("utf-8")), Instructions)


def write(found: Instructions, path: Path = FILE) -> None:
    """Record."""
    path.write_text(json.dumps(attrs.asdict(found), indent=1) + "\n", "utf-8")


def by_object(lines: Iterable[str]) -> dict[str, int]:
    """The instructions in each program and library, in a profile (valgrind, "Callgrind Format Specification")."""
    names: dict[str, str] = {}
    found: dict[str, int] = {}
    current, inclusive = "", False
    for line in lines:
        if line.startswith(("ob=", "cob=")):
            # A name has a number where it comes first, and is its number from then on.
            number, _, name = line.partition("=")[2].strip().partition(" ")
            name = names.setdefault(number, name)
            current = current if line.startswith("c") else name
        elif line.startswith("calls="):
            inclusive = True  # The next line has what the called function took, which is told there, too.
        elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
            if not inclusive:
                found[current] = found.get(current, 0) + int(line.split()[1])
            inclusive = False
    return found


def kind_of(path: str) -> str:
    """How a program or library is called in the result: hyperpool's own ones are one, and versions are left out."""
    if "/hyperpool/" in path:
        return "hyperpool, compiled"
    name = Path(path).name.partition(".")[0]
    return name.rstrip("-0123456789") if name.startswith("lib") else name or "unknown"


def count(queries: int, announce: Callable[[str], None]) -> Instructions:
    """Count.

    Args:
        queries: how many are sent for each count.
        announce: is told what comes next.

    Raises:
        BenchError: there is no valgrind, or something does not work.
        OSError: the same, from a file or a socket.
    """
    if not find_program("valgrind"):
        raise BenchError("valgrind is not installed: it counts the instructions (apt-get install valgrind)")
    with Workspace() as workspace:
        announce("starting PostgreSQL and filling its tables")
        stage = Stage(workspace, Tools.find(workspace), pgbouncer_command(None))
        stage.start_postgres()
        counts = [
            one
            for name in _TARGETS
            if TARGETS[name].missing(stage) is None
            for one in _counts(stage, name, queries, announce)
        ]
        about = machine.describe(stage)
    words = [
        str(about[name]) for name in ("processor", "hyperpool", "revision", "pgbouncer") if name in about
    ]
    return Instructions(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}", "; ".join(words), queries, counts)


def _counts(stage: Stage, name: str, queries: int, announce: Callable[[str], None]) -> Iterator[Count]:
    """Count for each mode: what twice as many queries take beyond what they take once is without login and start."""
    queries -= queries % _CLIENTS
    with _counter(stage, name) as counted:
        for mode in _MODES:
            announce(f"{name}, {mode}")
            counted(mode, queries // 4)  # What happens once is over.
            once, twice = counted(mode, queries), counted(mode, 2 * queries)
            objects: dict[str, float] = {}
            for path in twice.keys() | once.keys():
                more = (twice.get(path, 0) - once.get(path, 0)) / queries
                objects[kind_of(path)] = objects.get(kind_of(path), 0.0) + more
            if sum(objects.values()) <= 0:
                raise BenchError(f"callgrind has counted nothing for {name}")
            yield Count(name, mode, sum(objects.values()), objects)


@contextlib.contextmanager
def _counter(stage: Stage, name: str) -> Iterator[Counter]:
    """What sends queries to a target, and tells what it has executed meanwhile."""
    profiles = stage.workspace.owned_directory(f"callgrind-{name}")
    stage.wrapper = ("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={profiles / _OUTPUT}")
    if name == _REFERENCE:
        # It starts fast, and when it has changed its user, callgrind_control does not reach it any more.
        def whole(mode: str, queries: int) -> dict[str, int]:
            with stage.running(TARGETS[name], Variant()) as server:
                if stage.workspace.user is not None:
                    # It has become this user, and writes into a file that was opened by root.
                    shutil.chown(profiles / _OUTPUT, stage.workspace.user)
                _send(stage, server, mode, queries)
            return _profile(profiles)

        yield whole
        return
    # Python takes too long to start while everything is counted.
    stage.wrapper += ("--instr-atstart=no",)
    with stage.running(TARGETS[name], Variant()) as server:
        pgbench.warm_up(stage.workspace, stage.tools.pgbench, server.endpoint, clients=2)

        def control(*arguments: str) -> None:
            command = ["callgrind_control", *arguments, str(server.child.pid)]
            stage.workspace.run("callgrind", command, timeout=_PATIENCE)

        def part(mode: str, queries: int) -> dict[str, int]:
            control("-z")
            _send(stage, server, mode, queries)
            control("-d")
            return _profile(profiles)

        control("-i", "on")
        yield part


def _send(stage: Stage, server: Server, mode: str, queries: int) -> None:
    command: list[str | Path] = [stage.tools.pgbench, "-n", "-c", str(_CLIENTS), "-M", mode]
    command += ["-t", str(queries // _CLIENTS), "-D", f"scale={SCALE}", "-f", pgbench.SCRIPTS / "select.sql"]
    command += connection_options(server.endpoint)
    environment = clean_environment(PGSSLMODE="disable", PGGSSENCMODE="disable")
    output = stage.workspace.run("pgbench", command, timeout=_PATIENCE, environment=environment)
    pgbench.refuse_errors(output)


def _profile(profiles: Path) -> dict[str, int]:
    """The instructions in each program and library that have been written down; removes the files."""
    found: dict[str, int] = {}
    for file in profiles.glob(f"{_OUTPUT}*"):
        with file.open(encoding="utf-8") as lines:
            for name, number in by_object(lines).items():
                found[name] = found.get(name, 0) + number
        file.unlink()
    return found
