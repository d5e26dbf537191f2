"""Service tokens: who is let in, and that neither time nor log tells more than that."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from hyperpool.auth import tokens
from hyperpool.auth.tokens import Token, TokenTable, secret_digest


def _token(name: str, token_id: str, secret: str) -> Token:
    return Token(name, token_id, secret_digest(secret.encode()))


OLD, NEW, BOB = _token("ann", "ann", "old"), _token("ann", "ann", "new"), _token("bob", "bob", "sesame")
TABLE = TokenTable([OLD, NEW, BOB])


@pytest.mark.parametrize(
    ("token_id", "secret", "found"),
    [
        (b"ann", b"old", OLD),
        (b"ann", b"new", NEW),
        (b"bob", b"sesame", BOB),
        (b"bob", b"old", None),
        (b"ann", b"sesame", None),
        (b"ann", b"", None),
        (b"", b"", None),
        (b"", b"sesame", None),
        (b"bob ", b"sesame", None),
        (b"\xff", b"\xff" * 10000, None),
    ],
)
def test_verify(token_id: bytes, secret: bytes, found: Token | None) -> None:
    """A token is an id and a secret that belong together; an id may have two secrets while one is replaced."""
    assert TABLE.verify(token_id, secret) is found


def test_same_work_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown ids, wrong secrets and each of the tokens cost the same comparisons, of digests of the same length."""
    compared: list[tuple[int, int]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((len(a), len(b)))
        return hmac.compare_digest(a, b)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(tokens, "hmac", Watched)
    work = []
    for token_id, secret in [
        (b"ann", b"old"),
        (b"bob", b"sesame"),
        (b"bob", b"x"),
        (b"nobody", b"sesame"),
        (b"", b""),
    ]:
        compared.clear()
        TABLE.verify(token_id, secret)
        work.append(tuple(compared))
    assert set(work) == {((32, 32),) * 6}


def test_what_a_log_may_say() -> None:
    """A known id is shown. Another one may be a secret in the wrong place."""
    assert TABLE.describe(b"ann") == "ann"
    assert TABLE.describe(b"") == "none"
    shown = TABLE.describe(b"sesame")
    assert shown.startswith("unknown (sha256 ")
    assert "sesame" not in shown
    assert TABLE.describe(b"sesamf") != shown


def test_digests_are_not_shown() -> None:
    """Not even what is kept of a secret gets into a message."""
    assert BOB.digest.hex() not in repr(BOB)
    assert repr(BOB.digest) not in repr(BOB)


def test_revoked() -> None:
    """A token that has another secret, or another name, is not the same any more."""
    later = TokenTable([NEW, _token("robert", "bob", "sesame")])
    assert later.holds(NEW)
    assert not later.holds(OLD)
    assert not later.holds(BOB)
