"""A language for what several PostgreSQL clients do in turn, to be run twice and compared.

A script is a list of steps, one per line. A step is sent in one go, and what it is answered is read up to the end::

    0: Pa: select $1::int | DSa | S
    1: Q begin; select 1
    0: Ba=7 | E | S

The number says whose turn it is. Each client has a connection, made with its first step; after it has left, its next
step makes another one. Messages are separated by ``|`` with spaces around it. A message is its type byte and:

============================  ==========================================================================================
``Q sql``                     ``@`` is the client's own table, and ``#N`` at the end means N spaces
``Pname: sql``                the same
``Bname>portal=v,v!``         values are text, ``~`` for NULL, or ``#5`` for a binary int4; ``!`` for binary results
``DSname`` ``DPportal``       also ``CSname`` and ``CPportal``
``Eportal/rows``              no rows means all
``F40``                       a FunctionCall that adds 2
``d1,x``                      CopyData with one line
``c`` ``freason``             end of COPY
``S`` ``H`` ``X``             Sync, Flush, Terminate
============================  ==========================================================================================

All parts but the type byte may be missing. Words at the end of a step say what else happens:

============================  ==========================================================================================
``...``                       the answer is read later, before the client's next step
``!cut``                      the client leaves with the last bytes not sent
``!close`` ``!reset``         it leaves without having read the answer; ``!reset`` as after a crash
============================  ==========================================================================================
"""

from __future__ import annotations

import re
import struct
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Final, Self

import attrs

from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter

Message = str | bytes
"""A word of the language, or whole frames as they are."""

LATER: Final = "..."
CUT: Final = "!cut"
RESET: Final = "!reset"
LEAVES: Final = frozenset({CUT, RESET, "!close"})
CUT_OFF: Final = 3
"""Bytes that a client does not send when it leaves in the middle of a message."""

SLEEP: Final = "select pg_sleep(30) /* asleep: @ */"
"""A statement that runs until the runner cancels it, which it does when somebody waits for the answer."""

_INT4PL: Final = 177
"""The OID of int4pl(int4, int4), see pg_proc.dat."""

_BIND: Final = re.compile(r"([^>=!]*)(?:>([^=!]*))?(?:=([^!]*))?(!?)")
_PADDING: Final = re.compile(r"#(\d+)$")


@attrs.frozen(repr=False)
class Step:
    """What one client does in its turn.

    Attributes:
        client: its number.
        messages: what it sends.
    """

    client: int
    messages: tuple[Message, ...]

    def __repr__(self) -> str:
        words = (one if isinstance(one, str) else f"<{len(one)} bytes>" for one in self.messages)
        return f"{self.client}: " + " | ".join(words)

    @property
    def ending(self) -> str:
        """What else happens, "" for nothing."""
        last = self.messages[-1] if self.messages else ""
        return last if isinstance(last, str) and last in LEAVES | {LATER} else ""

    def render(self) -> bytes:
        """What is sent."""
        messages = self.messages[:-1] if self.ending else self.messages
        own = table(self.client)
        return b"".join(one if isinstance(one, bytes) else render(one, own) for one in messages)


@attrs.frozen(repr=False)
class Script:
    """What several clients do.

    Attributes:
        steps: in this order.
        chunks: a number that decides in which pieces bytes are sent; 0 is for whole steps.
    """

    steps: tuple[Step, ...]
    chunks: int = 0

    @classmethod
    def of(cls, text: str, chunks: int = 0) -> Self:
        """Read a script."""
        return cls(tuple(_read_step(line) for line in dedent(text).splitlines() if line), chunks)

    @classmethod
    def made_of(cls, *steps: Step) -> Self:
        """A script of these steps."""
        return cls(steps)

    def __repr__(self) -> str:
        lines = indent("\n".join(map(repr, self.steps)), "    ")
        return f'Script.of("""\n{lines}\n""", chunks={self.chunks})'

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        printer.text(repr(self))


def table(client: int) -> str:
    """The name of a client's own table."""
    return f"own{client}"


def _read_step(line: str) -> Step:
    client, _, messages = line.partition(":")
    return Step(int(client), tuple(messages.removeprefix(" ").split(" | ")))


def render(message: str, own: str) -> bytes:
    """Write a message as bytes.

    Args:
        message: in the words of this module.
        own: the table that ``@`` stands for.
    """
    kind, rest = message[0], message[1:]
    if kind == "Q":
        return pp.query(_sql(rest, own))
    if kind == "P":
        name, _, sql = rest.partition(":")
        return pp.parse(_sql(sql, own), name)
    if kind == "B":
        return _bind(rest)
    if kind == "E":
        portal, _, rows = rest.partition("/")
        return pp.execute(int(rows or 0), portal)
    if kind == "F":
        return frame(b"F", struct.pack("!ihhhiiiih", _INT4PL, 1, 1, 2, 4, int(rest), 4, 2, 1))
    if kind == "d":
        return frame(b"d", rest.replace(",", "\t").encode() + b"\n")
    if kind in "DC":
        return frame(kind.encode(), rest.encode() + b"\0")
    return pp.copy_fail(rest) if kind == "f" else frame(kind.encode())


def _sql(text: str, own: str) -> str:
    text = text.strip().replace("@", own)
    padding = _PADDING.search(text)
    return text[: padding.start()] + " " * int(padding[1]) if padding else text


def _bind(words: str) -> bytes:
    found = _BIND.fullmatch(words)
    assert found, words
    name, portal, values, binary = found.groups()
    formats, parts = [], []
    for value in values.split(",") if values is not None else []:
        formats.append(int(value.startswith("#")))
        if value == "~":
            parts.append(struct.pack("!i", -1))
        else:
            data = struct.pack("!i", int(value[1:])) if value.startswith("#") else value.encode()
            parts.append(struct.pack("!i", len(data)) + data)
    body = name.encode() + b"\0" + struct.pack(f"!h{len(parts)}h", len(parts), *formats)
    body += struct.pack("!h", len(parts)) + b"".join(parts)
    results = struct.pack("!hh", 1, 1) if binary else struct.pack("!h", 0)
    return frame(b"B", (portal or "").encode() + b"\0" + body + results)
