"""The matrix says what is tested: its cells are the tests that exist, its versions those that are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import runpy
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.drivers.checklist import CELLS, MAPPER_CELLS, Driver
from tests.drivers.matrix import DRIVERS, PYTHON

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[1]


def _cell(test: str) -> str:
    """The cell that a test belongs to: `test_CELL`, or `test_CELL_` and more words."""
    fitting = [cell for cell in (*CELLS, *MAPPER_CELLS) if f"{test}_".startswith(f"test_{cell}_")]
    assert fitting, f"{test} does not begin with the name of a cell"
    return max(fitting, key=len)


def _classes() -> dict[str, type]:
    """The classes of tests by the key of their driver."""
    names = sorted(path.stem for path in _HERE.glob("test_*.py"))
    modules = [importlib.import_module(f"tests.drivers.{name}") for name in names]
    classes = [
        (mark.args[0], thing)
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__
        for mark in vars(thing).get("pytestmark", ())
        if mark.name == "driver"
    ]
    assert len(dict(classes)) == len(classes), "a driver has two classes"
    return dict(classes)


def test_keys() -> None:
    """No two drivers have the same key."""
    assert len({driver.key for driver in DRIVERS}) == len(DRIVERS)


@pytest.mark.parametrize("driver", PYTHON, ids=lambda driver: driver.key)
def test_cells(driver: Driver) -> None:
    """A driver's tests are those of the cells that apply to it: none is missing, none is more."""
    tests = [name for name in dir(_classes()[driver.key]) if name.startswith("test_")]
    assert {_cell(test) for test in tests} == set(driver.cells)


def test_classes() -> None:
    """Every class of tests belongs to a driver of the matrix."""
    assert set(_classes()) == {driver.key for driver in PYTHON}


def test_versions() -> None:
    """The versions are those that are installed, and those that pyproject.toml asks for."""
    versions = {name: version for driver in PYTHON for name, version in driver.packages.items()}
    assert {name: importlib.metadata.version(name) for name in versions} == versions
    groups = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    pins = dict(re.sub(r"\[.*\]", "", pin).split("==") for pin in groups["drivers"])
    assert pins == {name: versions[name] for name in pins}
    assert set(versions) - set(pins) == {"psycopg-binary"}  # an extra of psycopg, always of the same version


def test_the_page_is_up_to_date() -> None:
    """docs/drivers.md is what the generator makes of the matrix."""
    page = (_ROOT / "docs" / "drivers.md").read_text("utf-8")
    render = runpy.run_path(str(_ROOT / "docs" / "generate_drivers.py"))["render"]
    assert page == render(page), "run python docs/generate_drivers.py"
