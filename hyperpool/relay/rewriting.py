"""Other texts in place of those that clients send: with servers' names in DEALLOCATE, and for what must not be done.

Sans-IO.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from attrs import evolve

from hyperpool.pool.statements import LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hyperpool.sql.effects import Effects

REFUSAL: Final = (
    b"DO $hyperpool$BEGIN RAISE EXCEPTION USING ERRCODE = '53400', MESSAGE = 'too many clients of this pool keep their"
    b" server connection (max_pinned)', HINT = 'this statement creates session state that lasts (temporary objects,"
    b" LISTEN, session advisory locks, WITH HOLD cursors, PREPARE, LOAD): end it in other clients, or raise max_pinned"
    b" and the pool''s size, or use session pooling'; END$hyperpool$"
)
"""What is executed instead of a statement that must not be: the server makes the error, at the right place of the
pipeline and of the transaction."""

_GAP: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/))*+\*/|--[^\n]*+(?:\n|$))*+"
_DEALLOCATE: Final = re.compile(
    # Strings, comments and quoted identifiers are passed over; what has no end goes on to the end of the text.
    rb"(?is)'(?:[^']|'')*+(?:'|\Z)|\$(\w*+)\$(?:.*?\$\1\$|.*+)|(/\*(?:.*?\*/|.*+))|--[^\n]*+"
    rb'|"(?:[^"]|"")*+(?:"|\Z)|\bdeallocate\b'
    + _GAP
    + rb"(?:prepare\b"
    + _GAP
    + rb')?+("(?:[^"]|"")*+"|[a-z_\x80-\xff][\w$\x80-\xff]*+)'
)


class Move(NamedTuple):
    """Where one name has taken the place of another, in characters of the text that is sent.

    Attributes:
        start: where the name begins.
        new: how long it is.
        old: how long the other one was.
    """

    start: int
    new: int
    old: int


def with_deallocated(effects: Effects, text: bytes) -> Effects:
    """Add the names that a text deallocates to the effects of a text that has not been parsed, if they can be told."""
    if effects.deallocates or not effects.unknown_settings:
        return effects
    if b"deallocate" not in text.lower() or b"\\'" in text:
        return effects
    names = [name for _, _, name in _found(text)]
    everything = effects.deallocates_all or None in names
    deallocates = tuple(name for name in names if name is not None)
    return evolve(effects, deallocates=deallocates, deallocates_all=everything)


def rename(
    text: bytes, names: Sequence[bytes], other: Callable[[bytes], bytes | None], *, is_utf8: bool
) -> tuple[bytes, list[Move]]:
    """Put other names into a text that deallocates.

    Args:
        text: the text.
        names: what it deallocates, in order, as the server folds them.
        other: the name that shall stand there instead; None for the same. Called in order.
        is_utf8: characters of the text may have several bytes.

    Returns:
        The text, and what has moved in it. If other names are found than `names`, it stays as it is.
    """
    found = [(start, end, name) for start, end, name in _found(text) if name is not None]
    if [name for _, _, name in found] != list(names):
        return text, []
    pieces: list[bytes] = []
    moves = []
    done = at = 0
    for start, end, name in found:
        new = other(name)
        if new is not None:
            quoted = b'"' + new.replace(b'"', b'""') + b'"'
            pieces += (text[done:start], quoted)
            at += _length(text[done:start], is_utf8=is_utf8)
            moves.append(Move(at, len(quoted), _length(text[start:end], is_utf8=is_utf8)))
            at += len(quoted)
            done = end
    return b"".join((*pieces, text[done:])), moves


def original(moves: Sequence[Move], position: int) -> int:
    """Where in the client's text it is that the server means by a position, both counted from 1."""
    shift = 0
    for move in moves:
        if position - 1 >= move.start + move.new:
            shift += move.new - move.old
        elif position - 1 > move.start:
            return move.start + 1 - shift
    return position - shift


def _found(text: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Where the names in ``DEALLOCATE name`` begin and end, and the names as the server folds them; None for ALL."""
    for found in _DEALLOCATE.finditer(text):
        if found[2] is not None and found[2].count(b"/*") > 1:
            # Comments nest; this one may not have ended where it seems to.
            return
        spelt = found[3]
        if spelt is None:
            continue
        if spelt[:1] == b'"':
            name: bytes | None = spelt[1:-1].replace(b'""', b'"')[:LONGEST_NAME]
        else:
            folded = spelt.lower()
            name = None if folded == b"all" else folded[:LONGEST_NAME]
        yield found.start(3), found.end(3), name


def _length(text: bytes, *, is_utf8: bool) -> int:
    return len(text.decode("utf-8", "replace")) if is_utf8 else len(text)
