"""The bucket that a time is counted in.

The bounds of buckets are powers of two, in microseconds, so that the number of the bucket is the number of bits: it
takes no search.

This is the form in Python; `buckets.pyx` is the same in C, which `hyperpool.form` prefers. tests/props/test_forms.py
holds them to be equal.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 52
"""The last one ends at 2 ** 51 microseconds: 71 years."""


def bucket_of(seconds: float) -> int:
    """The number of the bucket, from 0 to `BUCKETS` - 1."""
    return min(int(seconds * 1e6).bit_length(), BUCKETS - 1)
