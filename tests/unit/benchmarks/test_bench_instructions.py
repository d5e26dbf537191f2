"""Reading callgrind's profiles."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

import pytest

from benchmarks.instructions import Count, Instructions, by_object, kind_of, recorded, write

if TYPE_CHECKING:
    from pathlib import Path

_PROFILE = """\
version: 1
positions: line
events: Ir
summary: 175

ob=(1) /usr/lib/libc.so.6
fl=(1) printf.c
fn=(1) printf
10 100
+2 20
ob=(2) /somewhere/hyperpool/relay/client.cpython-311-x86_64-linux-gnu.so
fn=(2) readable
5 40
cob=(1)
cfn=(1)
calls=3 10
* 120
cob=(3) /usr/sbin/pgbouncer
cfn=(3) main
calls=1 10
* 7
6 2
ob=(3)
fn=(3)
10 7
ob=(1)
-1 15
totals: 175
"""


def test_by_object() -> None:
    """What called functions take is told where they are, not where they are called from."""
    assert by_object(_PROFILE.splitlines()) == {
        "/usr/lib/libc.so.6": 135,
        "/somewhere/hyperpool/relay/client.cpython-311-x86_64-linux-gnu.so": 42,
        "/usr/sbin/pgbouncer": 7,
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "libc"),
        ("/lib/libevent-2.1.so.7.0.1", "libevent"),
        ("/opt/libpython3.11.so.1.0", "libpython"),
        ("/x/hyperpool/wire/scan.cpython-311-x86_64-linux-gnu.so", "hyperpool, compiled"),
        ("/usr/sbin/pgbouncer", "pgbouncer"),
        ("", "unknown"),
    ],
)
def test_kinds(path: str, kind: str) -> None:
    """Libraries go by their name."""
    assert kind_of(path) == kind


def test_recording(tmp_path: Path) -> None:
    """It is read as it was written."""
    counts = [Count("pgbouncer", "simple", 100.0, {"libc": 100.0}), Count("hyperpool", "simple", 150.0)]
    found = Instructions("2026-01-01", "a machine", 2000, counts)
    path = tmp_path / "instructions.json"
    assert recorded(path) is None
    write(found, path)
    assert recorded(path) == found
    assert json.loads(path.read_text("utf-8"))["queries"] == 2000


def test_multiples() -> None:
    """They are of pgbouncer's count in the same mode."""
    counts = [
        Count("pgbouncer", "simple", 100.0),
        Count("hyperpool", "simple", 150.0),
        Count("hyperpool", "x", 1.0),
    ]
    found = Instructions("2026-01-01", "a machine", 2000, counts)
    assert [found.multiple(count) for count in counts] == ["1.00", "1.50", ""]


def test_shares() -> None:
    """The largest ones first."""
    assert (
        Count("x", "simple", 100.0, {"libc": 25.0, "hyperpool": 75.0}).shares() == "hyperpool 75%, libc 25%"
    )


def test_what_is_recorded() -> None:
    """There is a count for hyperpool and for pgbouncer in each mode."""
    found = recorded()
    assert found is not None
    known = {(count.target, count.mode) for count in found.counts}
    assert set(product(("pgbouncer", "hyperpool"), ("simple", "extended", "prepared"))) <= known
