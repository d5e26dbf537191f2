"""What SHOW hyperpool.cache tells."""

from __future__ import annotations

import pytest

from hyperpool.relay.requests import SIMPLE, Request
from hyperpool.relay.switch import read


@pytest.mark.parametrize(
    ("caching", "off", "told"), [(True, False, b"on"), (False, False, b"off"), (True, True, b"off")]
)
def test_show_tells_whether_answers_are_cached(*, caching: bool, off: bool, told: bytes) -> None:
    """A user whose settings say no caching is not told that there is; the switch itself stays as it is."""
    found = read(Request(SIMPLE, b"SHOW hyperpool.cache", 26), caching=caching, off=off)
    assert found is not None
    answer, switched = found
    assert len(told).to_bytes(4, "big") + told in answer
    assert switched is caching
