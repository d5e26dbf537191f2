"""What `make` installs, and when."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hyperpool import form

ROOT = Path(__file__).parents[2]
_LONG_AGO = (0, 0)
_COMPILED = ("hyperpool/stats.py", "hyperpool/relay/parses.py")
"""Of the modules that are compiled, one that has C types for what it names, and one that has none."""
_TOOL = "#!/bin/sh\n"
_PYTHON = f"""{_TOOL}case "$*" in *--editable*) echo "${{HYPERPOOL_PURE:-0}}" >> installed;; esac\n"""


class Checkout:
    """A copy in which nothing is installed: `python` only takes down that it was asked for that, and in which form."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for name in ("Makefile", "pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, path)
        for name in ("form.py", "stats.py", "stats.pxd", "cli.py", "relay/parses.py"):
            (path / "hyperpool" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "hyperpool" / name, path / "hyperpool" / name)
        programs = path / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name in ("python", "ruff", "hyperpool"):
            (programs / name).write_text(_PYTHON if name == "python" else _TOOL)
            (programs / name).chmod(0o755)

    def make(self, target: str, pure: str) -> list[str]:
        """What has been installed for a target: the values of HYPERPOOL_PURE."""
        told = self._path / "installed"
        told.unlink(missing_ok=True)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--silent", target]
        subprocess.run(
            command, cwd=self._path, env={**environ, "HYPERPOOL_PURE": pure}, capture_output=True, check=True
        )
        return told.read_text().split() if told.exists() else []

    def change(self, changed: str) -> None:
        """One file is newer than all others, and than what was installed."""
        for path in self._path.rglob("*"):
            os.utime(path, _LONG_AGO)
        (self._path / changed).touch()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout with nothing installed."""
    return Checkout(tmp_path)


@pytest.mark.parametrize("target", ["lint", "run"])
def test_the_compiled_form_is_installed_after_the_pure_one(checkout: Checkout, target: str) -> None:
    """What was installed pure is not taken for compiled; either is installed once."""
    assert checkout.make(target, "1") == ["1"]
    assert checkout.make(target, "1") == []
    assert checkout.make(target, "") == ["0"]
    assert checkout.make(target, "0") == []


@pytest.mark.parametrize("target", ["lint", "run"])
def test_what_is_installed_compiled_serves_both_forms(checkout: Checkout, target: str) -> None:
    """Nothing is installed again for the pure one, nor for the compiled one behind it."""
    assert checkout.make(target, "0") == ["0"]
    assert checkout.make(target, "1") == []
    assert checkout.make(target, "") == []


def test_what_serves_development_serves_a_run(checkout: Checkout) -> None:
    """It is more of the same."""
    assert checkout.make("lint", "1") == ["1"]
    assert checkout.make("run", "1") == []
    assert checkout.make("run", "0") == ["0"]
    assert checkout.make("lint", "0") == ["0"]
    assert checkout.make("run", "0") == []


@pytest.mark.parametrize("changed", [*_COMPILED, "hyperpool/stats.pxd", "setup.py"])
def test_what_is_compiled_has_changed(checkout: Checkout, changed: str) -> None:
    """It is compiled again, but not before it is wanted compiled."""
    assert checkout.make("lint", "0") == ["0"]
    checkout.change(changed)
    assert checkout.make("lint", "1") == []
    assert checkout.make("lint", "0") == ["0"]


def test_every_module_that_is_compiled_counts() -> None:
    """The Makefile knows all that the compiled form is made of: else it would be out of date, and not run."""
    command = ["make", "--silent", "--print-data-base", "--question", "help"]
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "HYPERPOOL_"))
    }
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False).stdout
    (line,) = (line for line in told.splitlines() if line.startswith("HOT := "))
    assert {str(path.relative_to(ROOT)) for path in form.sources()} <= set(line.split())


def test_what_is_installed_has_changed(checkout: Checkout) -> None:
    """Both forms want what is new in pyproject.toml; what is not compiled is used where it lies."""
    assert checkout.make("lint", "0") == ["0"]
    checkout.change("hyperpool/cli.py")
    assert checkout.make("lint", "0") == []
    checkout.change("pyproject.toml")
    assert checkout.make("lint", "1") == ["1"]
    assert checkout.make("lint", "0") == ["0"]
