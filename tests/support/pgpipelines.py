"""Random requests of a PostgreSQL client, for the model in `tests.support.pgmodel`.

A pipeline is a list of units, each of which makes sense to a server at any message boundary; what it makes of them
depends on errors and transactions before them. Units are drawn as small tuples, and written as bytes only when it is
known whose they are: ``$`` in a statement is replaced by a tag that names the client, ``#N`` by N spaces.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from tests.support.pglanguage import frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

Unit = tuple[str, ...]
"""Messages: a letter (the type byte), what is in it, and perhaps ``*N``: N times."""

SYNC: Final = frame(b"S")
FLUSH: Final = frame(b"H")
TERMINATE: Final = frame(b"X")
COPY_DONE: Final = frame(b"c")

_PLAIN: Final = (
    "rows 1 5 $",
    "rows 3 40 $",
    "rows 2 900 $",
    "rows 30 100 $",
    "rows 300 100 $",
    "rows 0 5 $",
    "error $",
    "syntax $",
    "deferred $",
    "notice $",
    "begin",
    "begin",
    "commit",
    "commit",
    "rollback",
    "set application_name = '$'",
    "set TimeZone = 'x''$; \\'",
    "set DateStyle = 'bad'",
    "show application_name",
    "show TimeZone",
    "show DateStyle",
    "copyout 3 $",
    "sleep $",
    "",
)
_COPY: Final = ("copyin $", "copyin $", "copyin $", "copyin-late $", "copyin-early $")
_COPY_MESSAGES: Final = ("d1", "d1", "d30", "d3000", "H", "S")
_COPY_ENDS: Final = ("c", "c", "c", "f")


def query(sql: str) -> bytes:
    """Build a Query."""
    return frame(b"Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    """Build a Parse without parameter types."""
    return frame(b"P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(name: str = "", portal: str = "") -> bytes:
    """Build a Bind without parameters."""
    return frame(b"B", portal.encode() + b"\0" + name.encode() + b"\0" + bytes(6))


def execute(limit: int = 0, portal: str = "") -> bytes:
    """Build an Execute; 0 rows means all."""
    return frame(b"E", portal.encode() + b"\0" + struct.pack("!i", limit))


def describe(target: bytes, name: str = "") -> bytes:
    """Build a Describe of a statement (``S``) or a portal (``P``)."""
    return frame(b"D", target + name.encode() + b"\0")


def close(target: bytes, name: str = "") -> bytes:
    """Build a Close of a statement (``S``) or a portal (``P``)."""
    return frame(b"C", target + name.encode() + b"\0")


def call(function: int, argument: str) -> bytes:
    """Build a FunctionCall as the model reads it: it fails when `function` is odd."""
    return frame(b"F", struct.pack("!I", function) + argument.encode())


def copy_data(size: int) -> bytes:
    """Build a CopyData with so many bytes, one line."""
    return frame(b"d", b"." * (size - 1) + b"\n")


def copy_fail(message: str) -> bytes:
    """Build a CopyFail."""
    return frame(b"f", message.encode() + b"\0")


def render(pipeline: list[Unit], tag: Callable[[], str]) -> bytes:
    """Write a pipeline as bytes; `tag` gives a new tag each time."""
    return b"".join(_render(message, tag) for unit in pipeline for message in unit)


def _render(message: str, tag: Callable[[], str]) -> bytes:
    message, _, times = message.partition("*")
    if times:
        return _render(message, tag) * int(times)
    kind = message[0]
    rest, _, padding = message[1:].partition("#")
    rest += " " * int(padding or 0)
    while "$" in rest:
        rest = rest.replace("$", tag(), 1)
    if kind in _FIXED:
        return _FIXED[kind]
    if kind == "P":
        name, _, sql = rest.partition(":")
        return parse(sql, name)
    return _WITH_TEXT[kind](rest)


_FIXED: Final = {"S": SYNC, "H": FLUSH, "X": TERMINATE, "c": COPY_DONE}
_WITH_TEXT: Final[dict[str, Callable[[str], bytes]]] = {
    "Q": query,
    "B": bind,
    "E": lambda limit: execute(int(limit or 0)),
    "D": lambda name: describe(name[:1].encode(), name[1:]),
    "C": lambda name: close(name[:1].encode(), name[1:]),
    "F": lambda argument: call(int(argument[0]), argument[1:]),
    "d": lambda size: copy_data(int(size)),
    "f": copy_fail,
}


@st.composite
def _queries(draw: st.DrawFn) -> Unit:
    """One Query of up to three statements, and blindly what its COPYs will read."""
    statements = draw(st.lists(st.sampled_from(_PLAIN + _COPY), min_size=1, max_size=3))
    padding = draw(st.sampled_from(("", "", "", "#700", "#6000")))
    return ("Q" + ";".join(statements) + padding, *_copies(draw, statements))


def _copies(draw: st.DrawFn, statements: list[str]) -> list[str]:
    messages = []
    for sql in statements:
        if sql.startswith("copyin"):
            messages += draw(st.lists(st.sampled_from(_COPY_MESSAGES), max_size=4))
            messages.append(draw(st.sampled_from(_COPY_ENDS)) + "$")
    return messages


@st.composite
def _extended(draw: st.DrawFn) -> Unit:
    """A batch of extended-query messages around unnamed objects, mostly with a Sync; again with what COPYs read."""
    batch: list[str] = []
    statements = draw(st.lists(st.sampled_from(_PLAIN + _COPY), min_size=1, max_size=3))
    for sql in statements:
        batch += ("P:" + sql, "B", *draw(st.sampled_from(_RUNS)))
    # libpq sends a Sync behind the Execute, which a COPY ignores, and one behind CopyDone.
    early = draw(st.booleans())
    return (*batch, *("S" * early), *_copies(draw, statements), draw(st.sampled_from("SSSSSH")))


@st.composite
def copies(draw: st.DrawFn) -> Unit:
    """A COPY that may fail, with Syncs before and behind its data, or without some of it; but with an end."""
    begun = draw(st.sampled_from(_BEGUN))
    messages = draw(st.lists(st.sampled_from(("S", "S", "S", "d1", "c", "c", "f$", "H")), max_size=5))
    return (*begun, *messages, *(() if {"c", "f$"} & set(messages) else ("c",)))


_BEGUN: Final[tuple[Unit, ...]] = (
    ("P:copyin-early $", "B", "E"),
    ("P:copyin-late $", "B", "E"),
    ("P:copyin $", "B", "E"),
    ("P:rows 1 5 $", "B", "E", "P:copyin-early $", "B", "E"),
    ("Qcopyin-early $",),
    ("Qcopyin-late $",),
    ("Qcopyin $;copyin-early $",),
)

_RUNS: Final = (
    ("E",),
    ("E",),
    ("DP", "E"),
    ("DS", "DP", "E"),
    ("E2", "E2", "E"),
    ("E1", "CP"),
    ("CS", "E"),
    ("DSmissing", "E"),
    ("DP",),
)

_SIMPLE: Final[tuple[Unit, ...]] = (
    ("Qrows 1 5 $",),
    ("Qrows 3 40 $",),
    ("Qrows 300 100 $",),
    ("Qshow application_name;show TimeZone",),
    ("Qset TimeZone = '$'",),
    ("Qsleep $",),
    ("Qbegin",),
    ("Qcommit",),
    ("P:rows 1 5 $", "B", "E", "S"),
    ("P:rows 1 5 $", "B", "E", "H"),
    ("P:syntax $", "H", "Qrows 1 9 $", "S"),
    ("P:copyin $", "B", "E", "S", "d5", "c", "S"),
    ("Qrows 1 5 $", "d3000", "H"),
    ("Qerror $", "H*2000", "Qrows 1 5 $"),
)

_OTHERS: Final[tuple[Unit, ...]] = (
    ("S",),
    ("H",),
    ("c",),
    ("f$",),
    ("d10",),
    ("d3000",),
    ("Qcopyin-late $", "d11*400", "c", "Qrows 1 5 $"),
    ("F2$",),
    ("F1$",),
    ("P:syntax $", "H"),
    ("P:rows 1 5 $", "B", "E", "Qrows 1 9 $", "S"),
    ("P:syntax $", "Qrows 1 9 $", "F2$", "S"),
    ("P:set application_name = '$'", "B", "E", "Qerror $", "S"),
    ("P:copyin-early $", "B", "E", "S", "d5", "c", "S", "Qrows 1 5 $"),
    ("P:", "H"),
)

ENDINGS: Final[tuple[Unit, ...]] = (
    ("Qfatal $",),
    ("X", "Qrows 1 5 $"),
    ("Qcopyin $", "Qrows 1 5 $"),
)
"""Units that end the session."""

NAMED: Final[tuple[Unit, ...]] = (
    ("Pn1:rows 2 10 $", "S"),
    ("Pn1:show search_path", "DSn1", "S"),
    ("Bn1", "E", "S"),
    ("CSn1", "S"),
    ("Qset search_path = '$'",),
    ("Qshow search_path",),
)
"""Units that leave something behind in the session: for session pooling alone."""

SHARED: Final[tuple[Unit, ...]] = (
    ("Pn1:rows 2 10 same", "S"),
    ("Pn2:rows 2 10 same", "S"),
    ("Pn1:rows 2 10 same", "Bn1", "E", "S"),
    ("Pn1:rows 1 5 $", "DSn1", "H"),
    ("Pn2:show TimeZone", "DSn2", "S"),
    ("Pn3:error $", "Bn3", "E", "S"),
    ("Pn3:syntax $", "Bn3", "S"),
    ("Pn2:begin", "Bn2", "E", "S"),
    ("Pn3:commit", "Bn3", "E", "CSn3", "S"),
    ("Pn4:copyin $", "Bn4", "E", "S", "d5", "c", "S"),
    ("Pn1:rows 1 5 $#700", "Bn1", "E", "S"),
    ("Pn5:set application_name = '$'", "Bn5", "E", "S"),
    ("Bn1", "E", "S"),
    ("Bn2", "DP", "E", "S"),
    ("Bn1", "E", "Bn2", "E", "Bn1", "E2", "S"),
    ("Bn2", "E", "H"),
    ("Bn1", "E", "Qrows 1 5 $", "S"),
    ("DSn1", "S"),
    ("DSn2", "Bn2", "E", "S"),
    ("CSn1", "S"),
    ("CSn2", "H"),
    ("CSn1", "Pn1:rows 1 5 $", "Bn1", "E", "S"),
    ("Bn1", "E", "CSn1", "Bn1", "S"),
    ("Bmissing", "Pn1:rows 1 5 same", "CSn2", "S"),
    ("P:rows 1 5 $", "S"),
    ("P:syntax $", "S"),
    ("B", "E", "S"),
    ("DS", "S"),
    ("Bmissing", "B", "E", "S"),
    ("Bmissing", "P:rows 1 5 $", "S"),
    ("P:rows 1 5 $", "B", "E", "P:rows 2 5 $", "B", "E", "S"),
    ("Bmissing", "CS", "S", "B", "E", "S"),
    ("Bn1", "Qrows 1 5 $", "B", "E", "S"),
    ("PHYPERPOOL_1:rows 1 5 $", "BHYPERPOOL_1", "E", "S"),
    ("BHYPERPOOL_1", "E", "S"),
    ("CSHYPERPOOL_1", "S"),
    ("Qdeallocate all",),
    ("Pn6:deallocate all", "Bn6", "E", "S"),
)
"""Units around named statements that clients which share servers may send."""


def pipelines(*more: Unit, max_size: int = 4) -> SearchStrategy[list[Unit]]:
    """Lists of units; half of them are of `more`, if there are any."""
    units = [st.sampled_from(_SIMPLE), _queries(), _extended(), st.sampled_from(_OTHERS)]
    units += [st.sampled_from(more)] * (len(units) if more else 0)
    return st.lists(st.one_of(units), min_size=1, max_size=max_size)
