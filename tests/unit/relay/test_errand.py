"""The answers to the pooler's own queries."""

from __future__ import annotations

import struct

import pytest

from hyperpool.relay.errand import Errand


def row(*values: bytes | None) -> bytes:
    """A DataRow's body."""
    cells = (b"\xff" * 4 if one is None else struct.pack("!i", len(one)) + one for one in values)
    return struct.pack("!H", len(values)) + b"".join(cells)


@pytest.mark.parametrize(
    ("bodies", "rows"),
    [
        ([], []),
        ([b"\0\0"], [[]]),
        ([b"\0\1\0\0\0\1t"], [["t"]]),
        ([b"\0\3\0\0\0\1t\xff\xff\xff\xff\0\0\0\0"], [["t", None, ""]]),
        (
            [row(b"work_mem", b"7MB", None), row(b"x.y", "é".encode(), b"")],
            [["work_mem", "7MB", None], ["x.y", "é", ""]],
        ),
        ([row(b"\xff\xfe")], [["\udcff\udcfe"]]),
        ([row(*[b"x" * size for size in range(300)])], [["x" * size for size in range(300)]]),
    ],
)
def test_rows(bodies: list[bytes], rows: list[list[str | None]]) -> None:
    """Texts and nulls; what is no UTF-8 can be sent back as it came."""
    errand = Errand("probe", lambda _: None)
    for body in bodies:
        errand.row(body)
    assert errand.rows == rows
    assert errand.error == {}


def test_repr() -> None:
    """What stands in a log."""
    assert repr(Errand("reset", lambda _: None)) == "<Errand reset>"
