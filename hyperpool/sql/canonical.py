"""Texts without what does not matter: blanks, comments, the case of keywords and plain names.

PostgreSQL's own scanner finds the tokens. Source of the rules: PostgreSQL documentation, "Lexical Structure".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from postgast import pg_query_pb2 as pb
from postgast import scan

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["Canonical", "canonical"]

_COMMENTS: Final = frozenset({pb.SQL_COMMENT, pb.C_COMMENT})
_LITERALS: Final = frozenset({pb.SCONST, pb.ICONST, pb.FCONST})

_FOLDED: Final = frozenset({pb.IDENT, pb.ICONST, pb.FCONST})

_RENAMING: Final = frozenset({pb.UIDENT, pb.USCONST, pb.FLOAT_P})
"""With these, a literal may change what names mean: ``UESCAPE '!'``, ``float(24)``."""


@attrs.frozen
class Canonical:
    """The canonical form of a text.

    Attributes:
        text: its tokens, with one blank between two.
        form: the same, to be filled in with literals by ``%``.
        literals: where in the original text those literals are, as pairs of offsets; whole strings without a prefix,
            and numbers of digits alone.
        comments: with their delimiters.
    """

    text: bytes
    form: bytes
    literals: tuple[tuple[int, int], ...]
    comments: tuple[bytes, ...]


def canonical(text: bytes, fixed: Container[int] = ()) -> Canonical:
    """Find the canonical form of a text.

    Args:
        text: one statement in UTF-8, with semicolons around it perhaps.
        fixed: offsets of literals that change what the text means.

    Raises:
        PgQueryError: the scanner does not understand it.
    """
    tokens = scan(text.decode()).tokens
    words: list[bytes] = []
    form: list[bytes] = []
    literals: list[tuple[int, int]] = []
    comments: list[bytes] = []
    renaming = any(token.token in _RENAMING for token in tokens)
    national = -1
    for token in tokens:
        start, end, kind = token.start, token.end, token.token
        raw = text[start:end]
        if kind in _COMMENTS:
            comments.append(raw)
        elif kind == pb.NCHAR and len(raw) == 1:
            national = end
        elif kind == pb.SCONST and start == national:
            _add(words, form, b"N" + raw)
        elif kind in _LITERALS and not renaming and start not in fixed and (raw[:1] == b"'" or raw.isdigit()):
            words.append(raw)
            form.append(b"%b")
            literals.append((start, end))
        elif kind in _FOLDED or token.keyword_kind != pb.NO_KEYWORD:
            _add(words, form, raw if raw[:1] == b'"' else raw.lower())
        elif kind != pb.ASCII_59:
            _add(words, form, raw)
    return Canonical(b" ".join(words), b" ".join(form), tuple(literals), tuple(comments))


def _add(words: list[bytes], form: list[bytes], word: bytes) -> None:
    words.append(word)
    form.append(word.replace(b"%", b"%%"))
