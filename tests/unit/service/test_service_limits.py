"""The limit on open files, with a kernel that does as the test says."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from hyperpool.config import DatabaseSettings, PoolerSettings, Settings
from hyperpool.service.limits import raise_open_file_limit

INFINITY = -1


class Kernel:
    """Stands in for the module `resource`.

    Attributes:
        limits: the soft and the hard limit.
        changes: what the limits were set to.
    """

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = INFINITY

    def __init__(self, soft: int, hard: int) -> None:
        self.limits = (soft, hard)
        self.changes: list[tuple[int, int]] = []

    def getrlimit(self, resource: int) -> tuple[int, int]:
        """Tell the limits."""
        assert resource == self.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, resource: int, limits: tuple[int, int]) -> None:
        """Set the limits."""
        assert resource == self.RLIMIT_NOFILE
        self.changes.append(limits)
        self.limits = limits


def run(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, **settings: Any) -> tuple[Kernel, list[Any]]:
    """Raise the limit for these settings, by default for 100 clients and no servers; returns what was logged, too."""
    kernel = Kernel(soft, hard)
    monkeypatch.setattr("hyperpool.service.limits.resource", kernel)
    with capture_logs() as logs:
        raise_open_file_limit(Settings(**settings))
    return kernel, logs


@pytest.mark.parametrize("hard", [4096, INFINITY])
def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    """An ordinary process may do that."""
    kernel, logs = run(monkeypatch, 1024, hard)
    assert kernel.changes == [(hard, hard)]
    assert logs == []


@pytest.mark.parametrize("limit", [4096, INFINITY])
def test_a_limit_that_is_high_already(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """It is left alone."""
    kernel, logs = run(monkeypatch, limit, limit)
    assert (kernel.changes, logs) == ([], [])


@pytest.mark.parametrize(("limit", "warned"), [(163, True), (164, False)])
def test_a_limit_that_is_too_low(monkeypatch: pytest.MonkeyPatch, limit: int, warned: bool) -> None:
    """It is logged, with the remedy: 100 clients, and 64 for ourselves."""
    kernel, logs = run(monkeypatch, 100, limit)
    assert kernel.limits == (limit, limit)
    assert [(entry["log_level"], entry["limit"], entry["needed"]) for entry in logs] == [
        ("warning", 163, 164)
    ] * warned
    assert all("ulimit" in entry["remedy"] for entry in logs)


def test_servers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool for each database, with its reserve; what a database says goes before what the pooler says."""
    _, logs = run(
        monkeypatch,
        10,
        10,
        pooler=PoolerSettings(max_client_conn=1000, default_pool_size=20, reserve_pool_size=5),
        databases={
            "standard": DatabaseSettings(),
            "large": DatabaseSettings(pool_size=300, reserve_pool_size=7),
            "bare": DatabaseSettings(reserve_pool_size=0),
        },
    )
    assert logs[0]["needed"] == 1000 + (20 + 5) + (300 + 7) + 20 + 64
