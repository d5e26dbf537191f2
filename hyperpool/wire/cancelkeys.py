"""Cancel keys that tell which pooler has drawn them: pgbouncer's encoding. Sans-IO.

The second and third byte of a key, which is the process id and the secret behind it, hold the ``peer_id``, the lower
byte first; the two lowest bits of the eighth byte count down the hops that a cancel request may still take (pgbouncer,
src/proto.c and src/objects.c).
"""

from __future__ import annotations

from typing import Final

_HOPS: Final = 3
_LAST: Final = 3
"""The place of the eighth byte of a key in its secret."""


def mark(pid: int, secret: bytes, peer_id: int) -> tuple[int, bytes]:
    """Put a ``peer_id`` into a key, with all its hops.

    Args:
        pid: the process id.
        secret: the secret, of four bytes or more.
        peer_id: from 1 to 16383.
    """
    marked = pid & 0xFF0000FF | (peer_id & 0xFF) << 16 | (peer_id >> 8) << 8
    return marked, complete(secret)


def peer_of(pid: int) -> int:
    """The ``peer_id`` in a key."""
    return pid >> 16 & 0xFF | pid & 0xFF00


def complete(secret: bytes) -> bytes:
    """The secret as it was drawn, whatever hops the request has taken."""
    return secret[:_LAST] + bytes((secret[_LAST] | _HOPS,)) + secret[_LAST + 1 :]


def spend(secret: bytes) -> bytes | None:
    """The secret for the next hop; None if there is none left."""
    if not secret[_LAST] & _HOPS:
        return None
    return secret[:_LAST] + bytes((secret[_LAST] - 1,)) + secret[_LAST + 1 :]
