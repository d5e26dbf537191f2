"""Cancel keys that tell who has drawn them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.wire.cancelkeys import complete, mark, peer_of, spend

PIDS = st.integers(1, 0x7FFFFFFF)
SECRETS = st.binary(min_size=4, max_size=4) | st.binary(min_size=32, max_size=32)
PEERS = st.integers(1, 16383)


@given(PIDS, SECRETS, PEERS)
def test_a_key_tells_its_peer(pid: int, secret: bytes, peer_id: int) -> None:
    """And stays a positive number and a secret of the same length, with all other bits."""
    marked, other = mark(pid, secret, peer_id)
    assert peer_of(marked) == peer_id
    assert 0 <= marked <= 0x7FFFFFFF
    assert marked & 0xFF0000FF == pid & 0xFF0000FF
    assert (other[:3], other[3] | 3, other[4:]) == (secret[:3], secret[3] | 3, secret[4:])


def test_pgbouncer_reads_the_same() -> None:
    """The lower byte comes first, as its source has it."""
    pid, secret = mark(0, bytes(4), 0x1234)
    assert pid.to_bytes(4, "big") + secret == b"\x00\x34\x12\x00\x00\x00\x00\x03"


@given(PIDS, SECRETS, PEERS)
def test_a_request_takes_three_hops(pid: int, secret: bytes, peer_id: int) -> None:
    """Whoever has drawn the key knows it after each of them."""
    _, drawn = mark(pid, secret, peer_id)
    hop: bytes | None = drawn
    for _ in range(3):
        assert hop is not None
        hop = spend(hop)
        assert hop is not None
        assert complete(hop) == drawn
    assert hop is not None
    assert spend(hop) is None


@pytest.mark.parametrize("length", [4, 32])
def test_keys_differ(length: int) -> None:
    """In every bit that is not taken."""
    assert complete(bytes(length)) == bytes(3) + b"\x03" + bytes(length - 4)
