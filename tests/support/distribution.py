"""How tests are shared among processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

_QUIET: Final = frozenset(
    {
        "tests/faults/test_mixed_load.py",
        "tests/integration/test_limits.py",
        "tests/integration/test_pgbench.py",
        "tests/integration/test_quiet.py",
        "tests/integration/test_timeout_settings.py",
        "tests/integration/test_timeouts.py",
        "tests/integration/test_timeouts_cancel.py",
        "tests/integration/test_timeouts_idle.py",
    }
)
"""Modules that measure time or memory, or make much load: never two of them at a time."""


class Modules(LoadScopeScheduling):
    """Each process is given one module after the other, in the order in which they stand.

    Black-box tests come first by their names, so that what is left in the end takes little time.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return "quiet" if module in _QUIET else module
