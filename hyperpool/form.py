"""Which form the hot path runs in: compiled, or as it is written.

What relays bytes is ordinary typed Python that Cython also compiles to C: a ``.py`` file with a sibling ``.pxd`` that
gives C types to what it names. What cannot be said in Python (system calls, integers in bytes) is in a few leaf modules
that have a ``.pyx`` file of the same name: the same functions in C. `setup.py` compiles all that where a C compiler is
there. The compiled form is taken if it was made of the sources that lie beside it; ``HYPERPOOL_PURE=1`` in the
environment selects the other one, which behaves the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HERE: Final = Path(__file__).parent

LEAVES: Final = ("buckets", "cache/fronts", "http/lines", "relay/system", "sql/glance", "wire/scan")
"""The modules that have a form of their own in C."""

TYPED: Final = (
    "auth/proof",
    "cache/counters",
    "cache/store",
    "frontdoor/acceptor",
    "frontdoor/doorstep",
    "frontdoor/guest",
    "frontdoor/handshake",
    "frontdoor/precedents",
    "pool/places",
    "pool/statements",
    "relay/backend",
    "relay/caching",
    "relay/census",
    "relay/client",
    "relay/connection",
    "relay/events",
    "relay/failures",
    "relay/following",
    "relay/frontend",
    "relay/handover",
    "relay/hits",
    "relay/ledger",
    "relay/loop",
    "relay/parameters",
    "relay/parses",
    "relay/placement",
    "relay/server",
    "relay/shortcut",
    "relay/supply",
    "relay/transient",
    "relay/translate",
    "relay/upkeep",
    "stats",
)
"""The modules that are compiled as they are written."""

DIGEST: Final = f"form{EXTENSION_SUFFIXES[0]}.sha256"
"""The file that says which sources the compiled form was made of: one for each kind of Python."""


def sources() -> list[Path]:
    """All that the compiled form is made of."""
    found = [_HERE / f"{name}.pyx" for name in LEAVES] + [_HERE / f"{name}.py" for name in TYPED]
    return sorted(found + list(_HERE.glob("**/*.pxd")))


def digest() -> str:
    """Tells one state of these sources from another."""
    total = hashlib.sha256()
    for path in sources():
        total.update(path.relative_to(_HERE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


class _PureFinder:
    """Finds the source in Python of modules beside which there is a compiled form."""

    def __init__(self) -> None:
        self._paths = {
            f"{__package__}.{name.replace('/', '.')}": _HERE / f"{name}.py" for name in (*LEAVES, *TYPED)
        }

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as finders are called
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        found = self._paths.get(fullname)
        if found is None or not found.exists():
            # In an archive, it is found as everything else there.
            return None
        return spec_from_file_location(fullname, found, loader=SourceFileLoader(fullname, str(found)))


def choose() -> str:
    """Choose the form, before any of its modules is imported.

    Returns:
        Why it is not the compiled one; "" if it is.
    """
    why = _obstacle()
    if why:
        sys.meta_path.insert(0, _PureFinder())
    return why


def _obstacle() -> str:
    if os.environ.get("HYPERPOOL_PURE", "0") not in {"", "0"}:
        return "HYPERPOOL_PURE is set"
    if not all(
        any((_HERE / f"{name}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)
        for name in (*LEAVES, *TYPED)
    ):
        return "it was installed without a C compiler"
    try:
        current = (_HERE / DIGEST).read_text("ascii").strip() == digest()
    except OSError:
        # Its sources need not be there, but then nobody knows.
        current = False
    return "" if current else "its sources have changed since it was compiled"
