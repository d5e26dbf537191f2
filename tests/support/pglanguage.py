"""The words of the model of PostgreSQL: frames, and the small language that it runs instead of SQL.

Statements are separated by ``;``:

==========================  ============================================================================================
``rows N SIZE tag``         N rows of SIZE bytes that repeat the tag
``error tag``               an error while the statement runs
``syntax tag``              an error while the text is parsed, as of anything that is not in this list
``deferred tag``            an error when the transaction commits
``begin|commit|rollback``   transaction control, with PostgreSQL's warnings
``set NAME = 'VALUE'``      sets a parameter, rolled back with its transaction; a value that starts with ``bad`` fails
``show NAME``               one row with the parameter's value
``copyin tag``              COPY FROM STDIN
``copyin-late tag``         the same, failing at the first CopyData
``copyin-early tag``        the same, failing after CopyInResponse, before anything is read (as ``COPY view``)
``copyout N tag``           COPY TO STDOUT
``notice tag``              a notice
``sleep tag``               runs until it is woken or cancelled
``fatal tag``               a FATAL error
``discard all``             resets the session; not in a transaction block
``deallocate all``          drops the named statements
==========================  ============================================================================================
"""

from __future__ import annotations

import struct
from typing import Final

DEFAULTS: Final = {
    "application_name": "",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "is_superuser": "off",
    "search_path": "public",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
"""The parameters of a new session."""

REPORTED: Final = frozenset(DEFAULTS) - {"search_path"}
"""Those that ParameterStatus tells about."""


WORDS: Final = {
    "rows": 4,
    "error": 2,
    "deferred": 2,
    "begin": 1,
    "commit": 1,
    "rollback": 1,
    "show": 2,
    "copyin": 2,
    "copyin-late": 2,
    "copyin-early": 2,
    "copyout": 3,
    "notice": 2,
    "sleep": 2,
    "fatal": 2,
    "discard": 2,
    "deallocate": 2,
}
"""The statements but ``set``, and how many words each has; anything else is a syntax error."""


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """Build one typed frame."""
    return kind + struct.pack("!I", len(body) + 4) + body


def report(kind: bytes, severity: str, code: str, message: str) -> bytes:
    """Build an ErrorResponse (``E``) or a NoticeResponse (``N``)."""
    fields = (("S", severity), ("V", severity), ("C", code), ("M", message))
    return frame(kind, b"".join(key.encode() + text.encode() + b"\0" for key, text in fields) + b"\0")


def error_code(one: bytes) -> str:
    """The SQLSTATE in a frame that `report` or a server has made."""
    fields = one[5:].split(b"\0")
    return next((field[1:].decode() for field in fields if field[:1] == b"C"), "")


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut bytes into whole frames; returns them and what is left."""
    frames = []
    at = 0
    while len(data) - at >= 5:
        stop = at + 1 + int.from_bytes(data[at + 1 : at + 5])
        if stop > len(data):
            break
        frames.append(data[at:stop])
        at = stop
    return frames, data[at:]


def kinds_of(received: bytes | bytearray) -> str:
    """The types of the messages that somebody has received, all of them whole."""
    frames, rest = split_frames(bytes(received))
    assert not rest
    return "".join(chr(one[0]) for one in frames)


def fill(tag: str, size: int) -> bytes:
    """A value of `size` bytes, or more: the tag in angle brackets, repeated."""
    mark = f"<{tag}>".encode()
    return mark + (mark * (size // len(mark)))[: max(size - len(mark), 0)]


def split_statements(text: str) -> list[str]:
    """Split at semicolons outside of string constants; empty statements are left out."""
    statements = [""]
    quoted = escapes = False
    at = 0
    while at < len(text):
        char = text[at]
        if quoted:
            if char == "\\" and escapes:
                char = text[at : at + 2]
            elif char == "'":
                quoted = False
        elif char == "'":
            quoted = True
            escapes = text[max(at - 2, 0) : at] == " E"
        if char == ";" and not quoted:
            statements.append("")
        else:
            statements[-1] += char
        at += len(char)
    return [sql.strip() for sql in statements if sql.strip()]


def parse_assignment(sql: str) -> tuple[str, str]:
    """Read ``set NAME = 'VALUE'``, where VALUE may be an ``E''`` constant."""
    name, _, constant = sql[4:].partition("=")
    constant = constant.strip()
    if constant.startswith("E"):
        constant = constant[1:].replace("\\\\", "\\")
    return name.strip(), constant[1:-1].replace("''", "'")


def verb_of(sql: str) -> str:
    """The first word of a statement, in lower case; "" of an empty one."""
    return sql.split(maxsplit=1)[0].lower() if sql else ""


def text_of(body: bytes) -> str:
    """The string at the beginning of a body."""
    return body.partition(b"\0")[0].decode(errors="replace")


def texts_of(body: bytes, count: int) -> list[str]:
    """The strings at the beginning of a body."""
    return [part.decode(errors="replace") for part in body.split(b"\0")[:count]]


class Sleeps:
    """How the statements that sleep have ended, by tag; a reference shares it with the model that it is compared to."""

    def __init__(self) -> None:
        self.cancelled: dict[str, bool] = {}
