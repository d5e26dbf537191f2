"""The lines of histograms, which are nine tenths of what a scrape has to write.

This is the form in Python; `lines.pyx` is the same in C, which `hyperpool.form` prefers. tests/props/test_forms.py
holds them to be equal.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from hyperpool.buckets import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

Times: TypeAlias = "tuple[list[int], float]"
"""What a `hyperpool.stats.Histogram` holds: its buckets, and the sum of all times in seconds."""


def histograms(texts: list[tuple[bytes, ...]], shown: tuple[int, ...], parts: list[Sequence[Times]]) -> bytes:
    """Write histograms one behind the other.

    Args:
        texts: of each histogram, what stands in front of its numbers: of each bound that is shown, of the count twice,
            and of the sum.
        shown: which bounds, as places of buckets.
        parts: of each histogram, its times, which are added up; no number is negative.

    Raises:
        ValueError: there are not as many texts as histograms, or as numbers.
        IndexError: there is no such bucket.
    """
    pieces: list[bytes] = []
    for text, times in zip(texts, parts, strict=True):
        buckets, seconds = [0] * BUCKETS, 0.0
        for more, time in times:
            buckets = [one + other for one, other in zip(buckets, more, strict=True)]
            seconds += time
        sums = list(accumulate(buckets))
        if min(shown, default=0) < 0:
            raise IndexError("there is no such bucket")
        numbers = [*map(sums.__getitem__, shown), sums[-1], sums[-1]]
        for before, number in zip(text, (*numbers, seconds), strict=True):
            pieces.append(b"%b%a\n" % (before, number))
    return b"".join(pieces)
