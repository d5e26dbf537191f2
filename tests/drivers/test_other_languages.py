"""Drivers of other languages: programs run the checklist, and each of their lines is a test."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import pytest

from tests.drivers.matrix_other import OTHER
from tests.drivers.programs import Answer, BuildFailed, MissingTool, Program, ProgramEnded, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.checklist import Driver
    from tests.drivers.site import Site

_HERE: Final = Path(__file__).parent
_CASES: Final = [
    pytest.param(driver, cell, id=f"{driver.key}-{cell}", marks=pytest.mark.driver(driver.key))
    for driver in OTHER
    for cell in driver.checklist
]


class Ask(Protocol):
    """Has a driver's program run a cell."""

    def __call__(self, driver: Driver, cell: str, /) -> Answer:
        """Run the cell where the test's site is."""


@pytest.fixture(scope="module")
def _programs() -> Iterator[dict[tuple[str, int], Program]]:
    """The programs that run, by driver and by the port that they connect to."""
    programs: dict[tuple[str, int], Program] = {}
    yield programs
    for program in programs.values():
        program.close()


@pytest.fixture
def ask(_programs: dict[tuple[str, int], Program], site: Site, driver: Driver) -> Ask:
    """Has the test's driver run cells; its program is built and started when it is first needed."""
    try:
        words = command(driver.key)
    except MissingTool as missing:
        pytest.skip(str(missing))
    except BuildFailed as failed:
        pytest.fail(str(failed), pytrace=False)

    def ask(driver: Driver, cell: str, /) -> Answer:
        place = (driver.key, site.port)
        program = _programs.pop(place, None) or Program(words, site)
        try:
            answer = program.ask(cell)
        except ProgramEnded as ended:
            ended.add_note(program.errors())
            program.close()
            raise
        if answer.line.startswith("fail"):
            program.close()  # and with it what it has left open
        else:
            _programs[place] = program
        return answer

    return ask


@pytest.mark.parametrize(("driver", "cell"), _CASES)
def test_cell(driver: Driver, cell: str, site: Site, ask: Ask) -> None:
    """The program says that the cell is in order, or that the driver has no such feature, as the matrix does."""
    answer = ask(driver, cell)
    if cell in driver.without:
        assert answer.line == f"none {cell}: {driver.without[cell]}"
        return
    if answer.line != f"ok {cell}":
        pytest.fail(answer.line, pytrace=False)
    if cell == "prepared":
        servers = re.fullmatch(r"# prepared: a connection has met (\d+) servers", answer.notes[-1])
        assert servers is not None
        assert (int(servers[1]) > 1) == site.pooled


def _pinned() -> dict[str, str]:
    """Return the versions of packages, by name, as the languages' own files have them."""
    lock = json.loads((_HERE / "node" / "package-lock.json").read_text())
    go = (_HERE / "go" / "go.mod").read_text()
    pom = ET.parse(_HERE / "java" / "pom.xml")
    cargo = tomllib.loads((_HERE / "rust" / "Cargo.lock").read_text())
    return {
        **{
            path.removeprefix("node_modules/"): it["version"] for path, it in lock["packages"].items() if path
        },
        **dict(re.findall(r"^\t(\S+) v(\S+)$", go, re.MULTILINE)),
        **{
            dependency.findtext("{*}artifactId", ""): dependency.findtext("{*}version", "")
            for dependency in pom.iterfind(".//{*}dependency")
        },
        **{package["name"]: package["version"] for package in cargo["package"]},
    }


@pytest.mark.parametrize(
    "driver",
    [driver for driver in OTHER if driver.language not in {"Ruby", "PHP"}],  # theirs come with the system
    ids=lambda driver: driver.key,
)
def test_versions(driver: Driver) -> None:
    """The matrix names the versions that are built."""
    pinned = _pinned()
    assert {name: pinned[name] for name in driver.packages} == dict(driver.packages)
