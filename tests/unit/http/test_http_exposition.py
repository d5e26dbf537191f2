"""What is kept from one scrape to the next is never older than what has been counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.http.exposition import Metric, Writer
from hyperpool.stats import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

_METRIC = Metric("some_seconds", "histogram", "Some.", ("user",))


def _lines(writer: Writer, *parts: Sequence[Histogram]) -> list[str]:
    times = [[(one.buckets, one.seconds) for one in some] for some in parts]
    labels = [(f"user_{number}",) for number in range(len(parts))]
    writer.begin()
    return b"".join(writer.histograms(_METRIC, 1, labels, list(times))).decode().splitlines()


def test_each_time_that_is_added_is_told() -> None:
    """Also one that does not change the sum, and one beside a histogram that stays as it is."""
    writer, changing, staying = Writer(), Histogram(), Histogram()
    staying.observe(1.0)
    for seconds in (0.5, 0.0, 2.0, 0.0):
        changing.observe(seconds)
        expected = _lines(Writer(), [changing], [staying])
        assert f'some_seconds_count{{user="user_0"}} {changing.count}' in expected
        assert _lines(writer, [changing], [staying]) == expected == _lines(writer, [changing], [staying])


def test_parts_that_come_and_go() -> None:
    """With one part, with two, and with the first one again: the lines are those of the parts that there are."""
    writer, one, other = Writer(), Histogram(), Histogram()
    one.observe(0.5)
    other.observe(2.0)
    for parts in ([one], [one, other], [one], [other], [], [one]):
        assert _lines(writer, parts) == _lines(Writer(), parts)
