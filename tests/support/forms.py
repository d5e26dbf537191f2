"""The leaf modules that are written twice, in Python and in C, each loaded in both forms."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hyperpool
from hyperpool import form

if TYPE_CHECKING:
    from types import ModuleType

_ROOT = Path(form.__file__).parent


def pure(name: str) -> ModuleType:
    """A module in Python, whatever form the pooler runs in; its name as in `form.LEAVES`."""
    path = _ROOT / f"{name}.py"
    alias = "pure_" + name.replace("/", "_")
    spec = spec_from_file_location(alias, path, loader=SourceFileLoader(alias, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(name: str) -> ModuleType:
    """The same module in C; skips the test where it has not been compiled."""
    full = f"hyperpool.{name.replace('/', '.')}"
    if not hyperpool.WHY_PURE:
        return importlib.import_module(full)
    kept = _loaded.get(full)
    if kept is not None:
        return kept
    for suffix in EXTENSION_SUFFIXES:
        path = _ROOT / f"{name}{suffix}"
        if path.exists():
            # An extension module insists on its name.
            python = importlib.import_module(full)
            try:
                spec = spec_from_file_location(full, path, loader=ExtensionFileLoader(full, str(path)))
                assert spec is not None
                assert spec.loader is not None
                module = module_from_spec(spec)
                sys.modules[full] = module
                spec.loader.exec_module(module)
            finally:
                sys.modules[full] = python
            _loaded[full] = module
            return module
    pytest.skip(f"{full} is not compiled here")


_loaded: dict[str, ModuleType] = {}
