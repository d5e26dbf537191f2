"""Texts with other names in DEALLOCATE."""

from __future__ import annotations

import pytest

from hyperpool.relay.rewriting import Move, original, rename, with_deallocated
from hyperpool.sql.effects import EVERYTHING, Effects

_NEW = {b"a": b"N1", b"b": b'N"2', b"all": b"N3", b"x" * 63: b"N4"}


def _renamed(text: str, *names: bytes) -> tuple[str, list[tuple[int, ...]]]:
    sent, moves = rename(text.encode(), names, _NEW.get, is_utf8=True)
    return sent.decode(), [tuple(move) for move in moves]


@pytest.mark.parametrize(
    ("text", "names", "sent", "moves"),
    [
        ("deallocate a", [b"a"], 'deallocate "N1"', [(11, 4, 1)]),
        ("DEALLOCATE PREPARE A;", [b"a"], 'DEALLOCATE PREPARE "N1";', [(19, 4, 1)]),
        ('deallocate"b"', [b"b"], 'deallocate"N""2"', [(10, 6, 3)]),
        ('deallocate "all"', [b"all"], 'deallocate "N3"', [(11, 4, 5)]),
        ("deallocate all", [], "deallocate all", []),
        ("deallocate /* a */ --b\n a", [b"a"], 'deallocate /* a */ --b\n "N1"', [(24, 4, 1)]),
        ("deallocate c; deallocate a", [b"c", b"a"], 'deallocate c; deallocate "N1"', [(25, 4, 1)]),
        (
            "deallocate a;deallocate a",
            [b"a", b"a"],
            'deallocate "N1";deallocate "N1"',
            [(11, 4, 1), (27, 4, 1)],
        ),
        (
            "select 'deallocate a'; deallocate a",
            [b"a"],
            "select 'deallocate a'; deallocate \"N1\"",
            [(34, 4, 1)],
        ),
        (
            "select $$deallocate a$$; deallocate a",
            [b"a"],
            'select $$deallocate a$$; deallocate "N1"',
            [(36, 4, 1)],
        ),
        ("/*deallocate a*/deallocate a", [b"a"], '/*deallocate a*/deallocate "N1"', [(27, 4, 1)]),
        ("/*ä*/ deallocate a", [b"a"], '/*ä*/ deallocate "N1"', [(17, 4, 1)]),
        ("deallocate " + "x" * 70, [b"x" * 63], 'deallocate "N4"', [(11, 4, 70)]),
    ],
)
def test_rename(text: str, names: list[bytes], sent: str, moves: list[tuple[int, ...]]) -> None:
    """Where a name stands for a statement, and nowhere else."""
    assert _renamed(text, *names) == (sent, moves)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("/* /* */ deallocate b */ deallocate a", [b"a"]),  # comments nest
        (r"select E'\'; deallocate a --'", []),
        ("deallocate a", [b"b"]),
        ("deallocate 'a", [b"a"]),
    ],
)
def test_what_is_not_understood_stays_as_it_is(text: str, names: list[bytes]) -> None:
    """Another reading of the text has found other names."""
    assert _renamed(text, *names) == (text, [])


def test_characters_of_one_byte() -> None:
    """Where a server counts bytes."""
    text = "/*ä*/ deallocate a".encode()
    assert rename(text, [b"a"], _NEW.get, is_utf8=False)[1] == [Move(18, 4, 1)]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (1, 1),
        (11, 11),
        (12, 12),
        (13, 12),
        (15, 12),
        (16, 13),
        (17, 14),
        (27, 24),
        (28, 25),
        (33, 25),
        (34, 26),
    ],
)
def test_positions(position: int, expected: int) -> None:
    """``deallocate a;deallocate b;``: within a name, its beginning."""
    assert original([Move(11, 4, 1), Move(27, 6, 1)], position) == expected


def test_a_longer_name_was_there() -> None:
    """The text has become shorter."""
    moves = [Move(11, 4, 70)]
    assert [original(moves, position) for position in (12, 13, 16)] == [12, 12, 82]


@pytest.mark.parametrize(
    ("text", "names", "everything"),
    [
        ("do $$begin end$$; deallocate a; deallocate B", (b"a", b"b"), False),
        ("do 'deallocate a'; deallocate all", (), True),
        ("do 'x'", (), False),
        (r"do E'\''; deallocate a", (), False),
    ],
)
def test_texts_that_were_not_parsed(text: str, names: tuple[bytes, ...], everything: bool) -> None:
    """What they deallocate is searched for."""
    effects = with_deallocated(EVERYTHING, text.encode())
    assert (effects.deallocates, effects.deallocates_all) == (names, everything)
    assert effects.schema


def test_what_was_parsed_is_known() -> None:
    """It is not searched."""
    effects = Effects(deallocates=(b"a",))
    assert with_deallocated(effects, b"deallocate b") is effects


def test_many_names() -> None:
    """The work grows with the text, and not with its square."""
    names = [b"a"] * 20_000
    sent, moves = rename(b";".join(b"deallocate " + name for name in names), names, _NEW.get, is_utf8=True)
    assert sent.count(b'"N1"') == len(moves) == 20_000
    assert moves[-1].start == 16 * 19_999 + 11
