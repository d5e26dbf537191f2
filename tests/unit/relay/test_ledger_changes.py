"""What requests change, and which of it must be undone: golden sequences.

Written as in `test_ledger`; ``>Pa`` is a Parse with a change called a, ``>P`` one without. ``undone:ab`` says which
changes have come back, oldest first, since the last look, and ``[a - b]`` what is still to come (``-`` for nothing).
"""

from __future__ import annotations

import re

import pytest

from hyperpool.pool.statements import Change
from hyperpool.relay.ledger import FAKE, FORWARD, SKIP, Ledger

_ACTIONS = {"": FORWARD, "~": SKIP, "+": FAKE}
_WORDS = re.compile(r"\[[^\]]*\]|\S+")
_REQUEST = re.compile(r">([~+]?)([A-Zcf])([a-z]?)")


def _label(change: Change | None) -> str:
    return change.name.decode() if change is not None and change.name is not None else "-"


def _run(script: str) -> Ledger:
    """Do what the script says, and check what it claims on the way."""
    ledger = Ledger()
    words = _WORDS.findall(script)
    for number, word in enumerate(words):
        where = " ".join(words[: number + 1])
        found = _REQUEST.fullmatch(word)
        if found:
            change = Change(found[3].encode(), None, None) if found[3] else None
            if change is not None:
                ledger.request(ord(found[2]), _ACTIONS[found[1]], change)
            else:
                ledger.request(ord(found[2]), _ACTIONS[found[1]])
        elif word == "<Z":
            ledger.ready()
        elif word[0] == "<":
            ledger.response(ord(word[1]))
        elif word == "fakes":
            ledger.fakes()
        elif word.startswith("undone:"):
            assert "".join(map(_label, ledger.undone)) == word[7:], where
            ledger.undone.clear()
        else:
            assert word == "[" + " ".join(map(_label, ledger.changes)) + "]", where
    kinds = [entry & 0xFF for entry in ledger.entries]
    assert len(ledger.changes) == sum(map(kinds.count, b"PC"))
    return ledger


@pytest.mark.parametrize(
    "script",
    [
        ">Pa [a] <1 [] undone:",
        ">Ca [a] <3 [] undone:",
        ">P [-] >Pb [- b] <1 [b] <1 []",
        ">Pa >B >E >Cb >S [a b] <1 [b] <2 <C [b] <3 [] <Z undone:",
        ">~Pa >B >~Cb [a b] <1 <2 [b] <3 []",
        ">+Pa >+Cb >S [a b] fakes [] <Z undone:",
        ">Pa >+Cb >Pc <1 [b c] fakes [c] <1 []",
        ">Pa >S >Pb >S <1 [b] <Z <1 [] <Z",
        ">Q >Pa >S <C [a] <Z [a] <1 [] <Z",
    ],
)
def test_a_change_is_struck_out_with_its_request(script: str) -> None:
    """Whoever has sent the request, and however it is answered."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">Pa <E [] undone:a",
        ">Pa >Pb >Cc >S <E [] undone:abc <Z",
        ">Pa >Pb >Cc >S <1 <E [] undone:bc <Z",
        ">Pa >B >E >Pb >S >Pc >S <1 <E [c] undone:b <Z <1 [] <Z undone:",
        ">B >Pa >+Cb >~Cc >~Pd >E >S <E [] undone:abcd <Z",
        ">P >Pa >C >Cb >S <E [] undone:ab <Z",
        ">Pa >Q >Cb >S <E [] undone:ab <Z",
        ">Pa >S >Pb >S <E [b] undone:a <Z <E [] undone:b <Z",
        ">Pa >B <1 <E undone: >S <Z",
    ],
)
def test_the_changes_of_what_failed_or_was_discarded_come_back(script: str) -> None:
    """Those behind the failure up to the next Sync, oldest first; not those before it, nor those of later pipelines."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">Pa <E undone:a >E >S <Z >Pb [b] <1 undone:",
        ">B <E >E >S >Pa [a] <Z <1 []",
        ">Q >Pa >S <E [a] undone: <Z <1 <Z",
        ">S >Pa >S <E [a] undone: <Z <1 [] <Z",
        ">Pa >c >S <1 [] <Z",
    ],
)
def test_what_has_not_failed_does_not_come_back(script: str) -> None:
    """An error of a Query or of a commit discards nothing; what was sent while the server skips is not written down."""
    _run(script)


def test_without_a_request_for_it_nothing_is_changed_while_the_server_skips() -> None:
    """A Parse that the server will discard stands neither among the requests nor among the changes."""
    ledger = _run(">Pa <E undone:a")
    assert ledger.skipping
    ledger.request(ord("P"))
    ledger.request(ord("C"), SKIP)
    assert (list(ledger.entries), list(ledger.changes)) == ([], [])
