"""Which form the hot path runs in."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import zipfile
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
import setuptools  # type: ignore[import-untyped]

import hyperpool
from hyperpool import form
from hyperpool.wire import constants

ROOT = Path(form.__file__).parent


def _ask(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    return done.stdout.strip()


def test_pure_when_told_so() -> None:
    """Then every module is what is written."""
    code = (
        "import hyperpool, importlib; from hyperpool import form\n"
        "names = ['hyperpool.' + name.replace('/', '.') for name in (*form.LEAVES, *form.TYPED)]\n"
        "print(hyperpool.WHY_PURE, {importlib.import_module(name).__file__.rpartition('.')[2] for name in names})"
    )
    assert _ask(code, HYPERPOOL_PURE="1") == "HYPERPOOL_PURE is set {'py'}"


def test_in_an_archive(tmp_path: Path) -> None:
    """Where nothing lies beside anything, Python finds what is written, as ever."""
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("__init__", "form", "buckets", "stats"):
            archive.write(ROOT / f"{name}.py", f"hyperpool/{name}.py")
    path = f"{tmp_path}/all.zip"
    code = f"import sys; sys.path.insert(0, {path!r}); import hyperpool, hyperpool.stats as it; print(it.__file__)"
    assert _ask(code) == f"{path}/hyperpool/stats.py"


def test_one_form_at_a_time() -> None:
    """The modules that run now are all of the form that is told of."""
    for name in (*form.LEAVES, *form.TYPED):
        module = __import__(f"hyperpool.{name.replace('/', '.')}", fromlist=["_"])
        is_python = str(module.__file__).endswith(".py")
        assert is_python == bool(hyperpool.WHY_PURE), name
    assert ("pure" if hyperpool.WHY_PURE else "compiled") == hyperpool.FORM


def test_compiled_where_that_is_asked_for() -> None:
    """Continuous integration says so, for the form that must be there."""
    wanted = os.environ.get("HYPERPOOL_COMPILED", "0") not in {"", "0"}
    assert not wanted or not hyperpool.WHY_PURE


def test_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compiled of other sources does not run."""
    monkeypatch.delenv("HYPERPOOL_PURE", raising=False)
    monkeypatch.setattr(form, "_HERE", tmp_path)
    for name in (*form.LEAVES, *form.TYPED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".py", ".pyx", ".pxd"):
            path.with_suffix(suffix).write_text(name)
    assert form._obstacle() == "it was installed without a C compiler"
    for name in (*form.LEAVES, *form.TYPED):
        (tmp_path / f"{name}{EXTENSION_SUFFIXES[0]}").touch()
    assert form._obstacle() == "its sources have changed since it was compiled"
    (tmp_path / form.DIGEST).write_text(form.digest() + "\n")
    assert form._obstacle() == ""
    (tmp_path / f"{form.LEAVES[0]}.pyx").write_text("changed")
    assert form._obstacle() == "its sources have changed since it was compiled"
    (tmp_path / f"{form.LEAVES[0]}.pyx").unlink()
    assert form._obstacle() == "its sources have changed since it was compiled"


def _setup(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py tells setuptools; nothing is made by Cython."""
    told: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: told.update(arguments))
    monkeypatch.setattr(
        "Cython.Build.cythonize",
        # It passes on only what it knows.
        lambda given, **_: [setuptools.Extension(one.name, one.sources) for one in given],
    )
    monkeypatch.chdir(ROOT.parent)
    runpy.run_path(str(ROOT.parent / "setup.py"))
    return told


@pytest.mark.parametrize(("value", "optional"), [("", True), ("0", True), ("1", False)])
def test_whether_a_compiler_is_needed(monkeypatch: pytest.MonkeyPatch, value: str, optional: bool) -> None:
    """Only where that is asked for."""
    monkeypatch.setenv("HYPERPOOL_COMPILED", value)
    monkeypatch.delenv("HYPERPOOL_PURE", raising=False)
    made = _setup(monkeypatch)["ext_modules"]
    assert len(made) == len(form.LEAVES) + len(form.TYPED)
    assert {one.optional for one in made} == {optional}


@pytest.mark.parametrize("works", [True, False])
def test_what_could_not_be_compiled_counts_as_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool
) -> None:
    """What an earlier build has left is not taken for what the sources are now."""
    for variable in ("CC", "LDSHARED"):
        monkeypatch.setenv(variable, "true" if works else "false")
    monkeypatch.setenv("HYPERPOOL_PURE", "1")
    (tmp_path / "some.c").touch()
    some = setuptools.Extension("hyperpool.some", [str(tmp_path / "some.c")], optional=True)
    build = _setup(monkeypatch)["cmdclass"]["build_ext"](setuptools.Distribution({"ext_modules": [some]}))
    build.build_lib = build.build_temp = str(tmp_path)
    monkeypatch.chdir(tmp_path)
    digest = tmp_path / "hyperpool" / form.DIGEST
    digest.parent.mkdir()
    digest.write_text("old")
    build.ensure_finalized()
    build.run()
    assert digest.exists() == works
    assert not works or digest.read_text() == form.digest() + "\n"


def test_every_declaration_is_used() -> None:
    """Each file of C types belongs to a module that is compiled, and the other way round."""
    declared = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("**/*.pxd")}
    declared = {name for name in declared if not name.endswith("__init__")} - {"wire/constants"}
    assert declared <= {*form.LEAVES, *form.TYPED}
    written = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("**/*.pyx")}
    assert written == set(form.LEAVES)


def test_constants() -> None:
    """Compiled code has the same numbers for messages."""
    text = (ROOT / "wire/constants.pxd").read_text()
    told = {name: int(value, 16) for name, value in re.findall(r"    (\w+) = (0x[0-9a-f]+)", text)}
    own = {name: value for name, value in vars(constants).items() if isinstance(value, int)}
    assert told == own


def test_every_attribute_has_a_type() -> None:
    """A class that is compiled has the attributes that it says it has, and no others."""
    for name in form.TYPED:
        if not (ROOT / f"{name}.pxd").exists():
            continue
        declared = _declared((ROOT / f"{name}.pxd").read_text())
        written = _written((ROOT / f"{name}.py").read_text())
        for one in declared.keys() & written.keys():
            assert declared[one] == written[one], f"{name}.pxd: class {one}"


def _declared(text: str) -> dict[str, set[str]]:
    """The attributes of each class of a file of C types."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        head = re.match(r"cdef class (\w+).*:$", line)
        if head:
            attributes = found[head[1]] = set()
        elif attribute := re.match(r"    cdef (?:public )?[\w ]+ (\w+)$", line):
            attributes.add(attribute[1])
    return found


def _written(text: str) -> dict[str, set[str]]:
    """What stands in the ``__slots__`` of each class of a module."""
    names: dict[str, object] = {}
    found: dict[str, set[str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            with suppress(NameError):
                names[node.target.id] = eval(ast.unparse(node.value), {}, names)
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__slots__":
                    found[node.name] = set(eval(ast.unparse(line.value), {}, names))
    return found
