"""What a scrape costs: only one that has brought metrics counts."""

from __future__ import annotations

import sys

import pytest

from benchmarks import scrape
from hyperpool.http.metrics import Exporter


async def test_a_scrape_brings_the_metrics_of_all_pools() -> None:
    """More pools make it larger, and each scrape is timed."""
    seconds, small = await scrape.measure(pools=2, users=2, named=50, scrapes=1)
    assert len(seconds) == 1
    assert seconds[0] > 0
    _, large = await scrape.measure(pools=6, users=2, named=50, scrapes=1)
    assert large > small > 10_000


def test_what_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """How many pools there were, and the size."""
    monkeypatch.setattr(sys, "argv", ["scrape", "--pools", "2", "--users", "2", "--scrapes", "1"])
    scrape.main()
    printed = capsys.readouterr().out
    assert printed.startswith("2 pools, 2 with metrics of their own: ")
    assert "CPU time" in printed


def test_a_scrape_that_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The time of an error is no result."""

    async def fail(self: Exporter, *given: object, **named: object) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(Exporter, "scrape", fail)
    monkeypatch.setattr(sys, "argv", ["scrape", "--pools", "2", "--users", "2", "--scrapes", "1"])
    with pytest.raises(SystemExit) as ended:
        scrape.main()
    assert ended.value.code == (
        "python -m benchmarks.scrape: nothing is measured: a scrape was answered with HTTP status 500"
    )
    assert "CPU time" not in capsys.readouterr().out
