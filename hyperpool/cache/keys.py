"""Keys: everything that an answer depends on, in one piece of bytes.

The number of fields and the length of each stand in front, so that no two lists of fields make the same key.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def pack(*fields: bytes) -> bytes:
    """One piece of bytes for a list of fields."""
    count = len(fields)
    return struct.pack(f"!{count + 1}I", count, *map(len, fields)) + b"".join(fields)


def pack_settings(settings: Iterable[tuple[str, str]]) -> bytes:
    """Names and values of session parameters, sorted by name."""
    return pack(*(part.encode(errors="surrogateescape") for setting in sorted(settings) for part in setting))


def current_user(settings: Mapping[str, str], user: str) -> str:
    """Who runs the queries of a session that has these settings and has logged in as `user`."""
    role = settings.get("role", "none")
    return role if role != "none" else settings.get("session_authorization", user)
