"""The programs that run the checklist with drivers of other languages: built, started, and asked cell by cell.

They are built into `build/drivers`, once for each state of their sources. A program gets the names of cells on standard
input, and answers each with a line `ok NAME`, `fail NAME: reason` or `none NAME: why the driver has no such feature`.
Lines that begin with `#` and stand before it are notes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.drivers.site import Site

_SOURCES: Final = Path(__file__).parent
_BUILDS: Final = _SOURCES.parents[1] / "build" / "drivers"
_BUILD_LIMIT: Final = 600.0  # seconds
_CELL_LIMIT: Final = 30.0  # the programs give a cell up themselves before that
_END_LIMIT: Final = 5.0

_WRITTEN: Final = frozenset({"node_modules", "target"})
_HAS_PDO: Final = "exit(extension_loaded('pdo_pgsql') && extension_loaded('pcntl') ? 0 : 1);"


class MissingTool(Exception):
    """A program that is needed is missing or too old."""


class BuildFailed(Exception):
    """A program could not be built; the message is what the tool printed."""


class ProgramEnded(Exception):
    """A program ended, or gave no answer in time."""


@attrs.frozen(eq=False)
class Language:
    """What it takes to build and run the programs of one language.

    Attributes:
        directory: where the sources are.
        tools: the programs that must be there; the first one's version counts.
        oldest: the oldest version of it that will do.
        probe: a command that succeeds where what else is needed is installed; empty for none.
        steps: the commands that build; `{build}` and `{sources}` stand for the directories.
        stale: what to remove from the build's directory first.
        copied: whether the sources are copied to the build's directory, where the commands then run.
        environment: what is added to the environment of the commands.
    """

    directory: str
    tools: tuple[str, ...]
    oldest: tuple[int, ...]
    probe: tuple[str, ...] = ()
    steps: tuple[tuple[str, ...], ...] = ()
    stale: tuple[str, ...] = ()
    copied: bool = False
    environment: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def sources(self) -> Path:
        """The directory of the sources."""
        return _SOURCES / self.directory

    @property
    def files(self) -> list[Path]:
        """The sources, without what tools may have written beside them."""
        found = (path for path in self.sources.rglob("*") if not _WRITTEN.intersection(path.parts))
        return sorted(path for path in found if path.is_file())


_NODE: Final = Language(
    "node",
    ("node", "npm"),
    (18,),
    steps=(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),),
    copied=True,
)
_GO: Final = Language(
    "go", ("go",), (1, 25), steps=(("go", "build", "-buildvcs=false", "-o", "{build}/", "./pgx", "./pq"),)
)
_JAVA: Final = Language(
    "java",
    ("javac", "java", "mvn"),
    (17,),
    steps=(
        ("mvn", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory={build}/lib"),
        ("javac", "-encoding", "UTF-8", "-cp", "{build}/lib/*:.", "-d", "{build}/classes", "Pgjdbc.java"),
    ),
    stale=("lib", "classes"),
)
_RUST: Final = Language(
    "rust",
    ("cargo",),
    (1, 85),
    steps=(("cargo", "build", "--locked"),),
    environment={"CARGO_TARGET_DIR": "{build}"},
)
_RUBY: Final = Language("ruby", ("ruby",), (3, 0), probe=("ruby", "-rpg", "-e", ""))
_PHP: Final = Language("php", ("php",), (8, 1), probe=("php", "-r", _HAS_PDO))

_COMMANDS: Final[Mapping[str, tuple[Language, tuple[str, ...]]]] = {
    "node_pg": (_NODE, ("node", "{build}/pg.mjs", "-")),
    "postgresjs": (_NODE, ("node", "{build}/postgresjs.mjs", "-")),
    "pgx": (_GO, ("{build}/pgx", "-")),
    "lib_pq": (_GO, ("{build}/pq", "-")),
    "pgjdbc": (
        _JAVA,
        ("java", "-XX:TieredStopAtLevel=1", "-cp", "{build}/lib/*:{build}/classes", "Pgjdbc", "-"),
    ),
    "tokio_postgres": (_RUST, ("{build}/debug/drivers", "-")),
    "ruby_pg": (_RUBY, ("ruby", "{sources}/pg.rb", "-")),
    "pdo_pgsql": (_PHP, ("php", "{sources}/pdo.php", "-")),
}


def command(key: str) -> list[str]:
    """Return the command line of a driver's program, built if need be.

    Raises:
        MissingTool: a program that is needed is missing or too old.
        BuildFailed: it could not be built.
    """
    language, words = _COMMANDS[key]
    build = _attempt(language)
    if isinstance(build, Exception):
        raise build
    return _filled(words, language, build)


def _filled(words: Sequence[str], language: Language, build: Path) -> list[str]:
    return [word.format(build=build, sources=language.sources) for word in words]


@functools.cache
def _attempt(language: Language) -> Path | Exception:
    """Build once, and remember what came of it."""
    try:
        return _built(language)
    except (MissingTool, BuildFailed) as error:
        return error


def _built(language: Language) -> Path:
    state = _state(language)
    build = _BUILDS / language.directory
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = build / ".stamp"
        if not stamp.exists() or stamp.read_text() != state:
            stamp.unlink(missing_ok=True)
            _build(language, build)
            stamp.write_text(state)
    return build


def _state(language: Language) -> str:
    """Return a text that changes with the sources and the tool, after a check that all tools are there."""
    for tool in language.tools:
        if shutil.which(tool) is None:
            raise MissingTool(f"no {tool} on this machine")
    version = _output([language.tools[0], "version" if language is _GO else "--version"])
    found = re.search(r"\d+(\.\d+)+", version)
    if found is None or tuple(int(part) for part in found[0].split(".")) < language.oldest:
        oldest = ".".join(str(part) for part in language.oldest)
        raise MissingTool(f"{version.strip()} is older than {oldest}")
    if language.probe:
        try:
            _output(language.probe)
        except BuildFailed as error:
            raise MissingTool(f"the driver is not installed: {error}") from None
    digest = hashlib.sha256(version.encode())
    for path in language.files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _build(language: Language, build: Path) -> None:
    for name in language.stale:
        shutil.rmtree(build / name, ignore_errors=True)
    if language.copied:
        for path in language.files:
            shutil.copy(path, build)
    added = {name: value.format(build=build) for name, value in language.environment.items()}
    for step in language.steps:
        _output(
            _filled(step, language, build),
            cwd=build if language.copied else language.sources,
            env={**os.environ, **added},
        )


def _output(words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_LIMIT,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


@attrs.frozen
class Answer:
    """What a program said about one cell.

    Attributes:
        line: the line of the cell.
        notes: the notes before it.
    """

    line: str
    notes: tuple[str, ...]


class Program:
    """A driver's program that waits for cells.

    Args:
        words: its command line.
        site: where it connects to.
    """

    def __init__(self, words: Sequence[str], site: Site) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self._errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - it lives as long as the program
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env={**inherited, **site.environment, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, cell: str) -> Answer:
        """Have the program run a cell.

        Raises:
            ProgramEnded: it ended, or gave no answer in time.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(cell + "\n")
            self._process.stdin.flush()
        notes: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=_CELL_LIMIT)
            except queue.Empty:
                raise ProgramEnded(f"no answer within {_CELL_LIMIT} s") from None
            if line is None:
                raise ProgramEnded(f"it ended with {self._process.wait()}")
            if not line.startswith("#"):
                return Answer(line, tuple(notes))
            notes.append(line)

    def errors(self) -> str:
        """Return what it has written to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def close(self) -> None:
        """Let it end, by the end of its input; by force if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)
