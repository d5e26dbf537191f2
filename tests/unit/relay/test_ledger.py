"""The ledger of outstanding requests, rule by rule, on golden sequences of message types.

A sequence is written as words:

- ``>Q``: a frontend message goes to the server; ``>~Q`` one of the pooler's own (SKIP), ``>+C`` one that the server
  never sees (FAKE);
- ``<Z``: the server answers, and the client shall get it; ``<~Z``: the answer shall be dropped;
- ``fake:13``: answers (type bytes) are to be made at this point, and only here;
- ``[E S]``: what is outstanding now, written as in the ledger's repr; ``[]`` nothing;
- ``clean``, ``not-clean``, ``skipping``, ``copying``, ``doubt``: true of the ledger now.
"""

from __future__ import annotations

import re

import pytest

from hyperpool.pool.statements import Change
from hyperpool.relay.ledger import FAKE, FORWARD, SKIP, Ledger

_ACTIONS = {"": FORWARD, "~": SKIP, "+": FAKE}
_WORDS = re.compile(r"\[[^\]]*\]|\S+")


def _run(script: str) -> Ledger:
    """Do what the script says, and check what it claims on the way."""
    ledger = Ledger()
    words = _WORDS.findall(script)
    for number, word in enumerate(words):
        where = " ".join(words[: number + 1])
        if word[0] == ">":
            ledger.request(ord(word[-1]), _ACTIONS[word[1:-1]])
        elif word[0] == "<":
            kind = word[-1]
            verdict = ledger.ready() if kind == "Z" else ledger.response(ord(kind))
            assert verdict == _ACTIONS[word[1:-1]], where
        elif word[0] == "[":
            assert repr(ledger).partition("]")[0] == "<Ledger " + word[:-1], where
        elif word.startswith("fake:"):
            answers = b"".join(kind.encode() + b"\0\0\0\4" for kind in word[5:])
            assert ledger.fakes() == answers, where
        else:
            assert getattr(ledger, word.removeprefix("not-")) != word.startswith("not-"), where
        if not word.startswith(("[", "fake")) and not (ledger.entries and ledger.entries[0] >= FAKE):
            assert ledger.fakes() == b"", where
    return ledger


@pytest.mark.parametrize(
    "script",
    [
        "clean [] >Q [Q] not-clean <T <D <D <C <Z clean",
        ">Q <I <Z clean",
        ">Q <T <C <C <T <D <C <Z clean",
        ">Q <C <E [Q] <Z clean",
        ">Q >Q >Q <C <Z [Q Q] <E <Z [Q] <I <Z clean",
        ">F <V <Z clean",
        ">F >Q <E <Z [Q] <C <Z clean",
    ],
)
def test_a_query_or_function_call_is_answered_up_to_ready_for_query(script: str) -> None:
    """Rule 1: whatever comes in between, one ReadyForQuery strikes out one request."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >D >E >S [P B D E S] <1 <2 <T <D <C [S] <Z clean",
        ">P >D >S <1 <t <T [S] <Z clean",
        ">P >D >S <1 <t <n <Z clean",
        ">B >E >S <2 <I <Z clean",
        ">B >E >E >E >S <2 <D <s [E E S] <D <s <C [S] <Z clean",
        ">C >C >S <3 <3 <Z clean",
        ">P >B >E >S >P >B >E >S <1 <2 <C <Z [P B E S] <1 <2 <D <C <Z clean",
        ">S >S <Z [S] <Z clean",
        ">P >B >E >Q >S <1 <2 <C [Q S] <T <D <C <Z <Z clean",
        ">B >E >S <2 <H <d <d <c [E S] <C <Z clean",
    ],
)
def test_each_extended_query_message_is_completed_by_one_answer(script: str) -> None:
    """Rule 2: pipelines of any depth, with rows, suspended portals and COPY TO STDOUT on the way."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >D >E >S <E [S] not-skipping <Z clean",
        ">P >B >E >S <1 <E <Z clean",
        ">P >B <1 <E [] skipping not-clean >E >D >C [] >S [S] not-skipping <Z clean",
        ">P >S >P >S <E <Z [P S] <1 <Z clean",
        ">P >B >E >P >B >E >S >Q <1 <2 <C <E [S Q] <Z <C <Z clean",
    ],
)
def test_an_error_skips_to_the_next_sync(script: str) -> None:
    """Rule 3: what stands before the next Sync is struck out, sent already or still to be sent."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >Q >S <E [S] <Z clean",
        ">P <E >Q [] skipping >F [] >S <Z clean",
        ">P >F >Q >S >Q <E [S Q] <Z <I <Z clean",
    ],
)
def test_a_query_before_the_sync_is_skipped_too(script: str) -> None:
    """Rule 3: the server discards a Query or FunctionCall as well, and sends no ReadyForQuery for it."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >E >S <1 <2 <C <E [S] not-skipping <Z clean",
        ">P >B >E >Q >P >S <1 <2 <C <E [Q P S] <Z <1 <Z clean",
        ">S >Q <E <Z [Q] <I <Z clean",
    ],
)
def test_an_error_of_a_sync_or_query_does_not_skip(script: str) -> None:
    """The implicit commit of a Sync may fail; then its ReadyForQuery follows, and nothing is discarded."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">Q <G copying not-clean >c [Q c] <C <Z clean",
        ">Q <G >f <E not-copying <Z clean",
        ">Q <G >c <C <G [Q] copying >c <C <C <Z clean",
        ">Q >c <G [Q c] <C <Z clean",
        ">Q >c >Q >c <G <C <Z [Q c] <G <C <Z clean",
        ">Q <G >c >Q [Q c Q] <C <Z [Q] <C <Z clean",
        ">Q >c >S >c >S <G [Q c S c S] <C <G [Q c S] <C <Z <Z clean",
        ">Q <G >c <C <G >S [Q] >f <E <Z",
        ">P >B >E <1 <2 <G [E] copying >c >S [E c S] <C not-copying [S] <Z clean",
    ],
)
def test_copy_in_takes_data_until_copy_done_or_copy_fail(script: str) -> None:
    """Rule 4: in both protocols, one after the other in one Query, and sent blindly ahead of CopyInResponse."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >E >S <1 <2 [E S] <G [E] >c >S [E c S] <C <Z clean",
        ">P >B >E >S >c >S <1 <2 <G [E c S] <C [S] <Z clean",
        ">P >B >E <1 <2 <G >S [E] >S [E] >c >S [E c S] <C <Z clean",
        ">P >B >E >S >S >c >S >P >S <1 <2 <G [E c S P S] <C <Z <1 <Z clean",
        ">Q >S <G [Q] >S [Q] >c >S [Q c S] <C <Z <Z clean",
    ],
)
def test_a_sync_during_copy_in_is_not_answered(script: str) -> None:
    """Rule 4: libpq sends a Sync behind the Execute of a COPY and one behind CopyDone; only the second counts."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >E >S <1 <2 <E [S] <Z clean >c clean >S <Z clean",
        ">P >B >E >S >c >S <1 <2 <E [S c S] <Z [S] <Z clean",
        ">Q >c <E <Z clean",
        ">Q <E >c >f <Z clean",
        ">Q <E <Z clean >c >f clean >Q <C <Z clean",
    ],
)
def test_a_copy_that_fails_before_it_begins_leaves_its_messages_moot(script: str) -> None:
    """Rule 4: without CopyInResponse every Sync is answered, and CopyDone and CopyFail are ignored."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">Q <G >c <E [Q c] <Z clean",
        ">Q <G <E not-copying [Q] >c >f <Z clean",
        ">Q <G <E <Z >c clean >Q <C <Z clean",
        ">P >B >E <1 <2 <G >c >S <E [S] <Z clean",
        ">P >B >E <1 <2 <G <E skipping >c >S [S] <Z clean",
        ">Q <C <G <E <Z clean",
    ],
)
def test_a_copy_that_fails_while_it_runs(script: str) -> None:
    """The error ends the copy: a late CopyDone or CopyFail is ignored, and a Sync is answered again."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        # Had the server read the first Sync when it failed? Then one ReadyForQuery comes, else two.
        ">P >B >E >S <1 <2 <G <E doubt <Z",
        ">P >B >E >S >c >S >Q <1 <2 <G <E doubt <Z <Z <C <Z doubt",
        ">P >B >E >S >c >S >Q <1 <2 <G <E doubt <Z <C <Z doubt",
        ">P >B >E <1 <2 <G >S <E doubt <Z",
        ">Q >S <G <E doubt <Z <Z",
    ],
)
def test_a_copy_that_fails_beside_a_sync_of_which_nobody_knows_is_a_doubt(script: str) -> None:
    """Rule 4 and 5: a Sync was sent that a copying server ignores, and the copy before or after it was read.

    PostgreSQL sends CopyInResponse before it notices, for instance, that the target is a view.
    """
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">Q <W copying <d <d >c <c [Q c] <C <Z clean",
        ">Q <W <d <E not-copying <Z clean",
    ],
)
def test_copy_both_streams_in_both_directions(script: str) -> None:
    """Streaming replication: each side ends its own direction."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">~Q [~Q] <~T <~D <~C <~Z clean",
        ">~Q >Q <~C <~Z [Q] <C <Z clean",
        ">~Q >P >B >E >S <~C <~Z <1 <2 <C <Z clean",
        ">Q >~Q >Q <C <Z <~C <~Z <C <Z clean",
        ">~P >B >E >S <~1 <2 <C <Z clean",
        ">P >~C >~P >B >S <1 <~3 <~1 <2 <Z clean",
        ">~P >~S >Q <~1 <~Z <C <Z clean",
        ">~D >S <~t <~T <Z clean",
    ],
)
def test_answers_to_the_poolers_own_requests_are_dropped(script: str) -> None:
    """SKIP at every place of a pipeline: exactly its own answers are dropped, ReadyForQuery included."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">~Q <~E <~Z clean",
        ">~P >B >E >S <~E [S] <Z clean",
        ">~P <~E skipping >B >S <Z clean",
        ">P >~B >S <E [S] <Z clean",
        ">~P >~S >Q <~E <~Z [Q] <C <Z clean",
    ],
)
def test_an_error_of_the_poolers_own_request_is_dropped(script: str) -> None:
    """SKIP: the client must not get an error that it did not cause."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">+P fake:1 [] >S [S] <Z clean",
        ">+P >+C fake:13 >S <Z clean",
        ">+P >B >E >S fake:1 [B E S] <2 <C <Z clean",
        ">B >+C >E >S [B +C E S] <2 fake:3 [E S] <C <Z clean",
        ">P >+C >+P >S <1 fake:31 <Z clean",
        ">Q >+C <C <Z fake:3 [] >S <Z clean",
        ">P >B >E >S >+C >S <1 <2 <C <Z fake:3 <Z clean",
        ">~P >+P >B >S <~1 fake:1 <2 <Z clean",
        ">E >+C >~Q >S <D <s fake:3 <~C <~Z <Z clean",
        ">S >+C >c >+P >S <Z fake:31 [S] <Z clean",
    ],
)
def test_answers_are_made_at_their_place_of_the_pipeline(script: str) -> None:
    """FAKE at every place: made when all before it has been answered, not earlier and not twice."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >+C >S <E [S] <Z clean",
        ">P <E skipping >+C [] >S >+C [S +C] <Z fake:3 >S <Z clean",
        ">P >+C >S >+P >S <E [S +P S] <Z fake:1 <Z clean",
    ],
)
def test_an_answer_that_the_server_would_have_skipped_is_not_made(script: str) -> None:
    """FAKE and rule 3: after an error, the client gets nothing up to the Sync."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        ">P >B >E <1 [B E] <2 <C [] not-clean >S <Z clean",
        ">P <1 not-clean >Q <C <Z clean",
        ">P >S >P <1 <Z [P] <1 not-clean >S <Z clean",
        ">~C <~3 not-clean >~S <~Z clean",
        ">B >E <2 <C <E not-clean",
    ],
)
def test_a_pipeline_without_its_sync_is_not_clean(script: str) -> None:
    """The server has an implicit transaction open until the Sync, although it owes no answer."""
    _run(script)


@pytest.mark.parametrize(
    "script",
    [
        "<C doubt not-clean",
        "<Z doubt not-clean",
        "<E doubt",
        "<D doubt",
        "<1 doubt",
        "<G doubt",
        ">Q <1 doubt <C <Z doubt not-clean",
        ">P >S <2 doubt",
        ">P >S <Z doubt",
        ">E >S <V doubt",
        ">F <C doubt",
        ">S <C doubt",
        ">S <D doubt",
        ">Q <C <Z <C doubt",
        ">Q <K doubt",
        ">~Q <~1 doubt",
    ],
)
def test_what_fits_no_rule_is_a_doubt_for_good(script: str) -> None:
    """Rule 5: a doubt is never taken back, and names the message and the state at which it arose."""
    ledger = _run(script)
    for kind in "QS":
        ledger.request(ord(kind))
        ledger.ready()
    assert ledger.doubt.startswith("unexpected")
    assert not ledger.clean
    first = ledger.doubt
    ledger.response(ord("3"))
    assert ledger.doubt == first


def test_requests_are_written_down_again_after_an_unexpected_ready_for_query() -> None:
    """ReadyForQuery ends the skipping, whatever has led to it: later requests are owed."""
    _run(">P <E skipping <Z doubt not-skipping >Q [Q] <C <Z []")


def test_repr_shows_requests_and_state() -> None:
    """What stands in the log when a server connection is closed in doubt."""
    ledger = _run(">~Q >P >+C")
    assert repr(ledger) == "<Ledger [~Q P +C] unsynced>"
    assert "skipping" in repr(_run(">P <E"))
    assert "unexpected 'C' message, <Ledger [] " in repr(_run("<C"))


def test_what_the_client_awaits() -> None:
    """The pooler's own requests are owed, but the client waits for its own alone."""
    ledger = Ledger()
    for kind, action in (("Q", SKIP), ("P", FORWARD), ("S", FORWARD), ("S", SKIP), ("Q", FORWARD)):
        ledger.request(ord(kind), action)
    assert (ledger.owed, ledger.asked, ledger.awaited, ledger.settled) == (4, 2, 2, 0)
    ledger.ready()
    assert (ledger.owed, ledger.awaited, ledger.settled) == (3, 2, 0)
    ledger.response(ord("1"))
    ledger.ready()
    assert (ledger.owed, ledger.awaited, ledger.settled) == (2, 1, 1)
    ledger.ready()
    ledger.ready()
    assert (ledger.owed, ledger.asked, ledger.awaited, ledger.settled) == (0, 2, 0, 2)


def test_a_query_that_is_discarded_is_settled() -> None:
    """Nobody awaits its answer any more."""
    ledger = Ledger()
    for kind in "BQSQ":
        ledger.request(ord(kind))
    assert (ledger.awaited, ledger.settled) == (3, 0)
    ledger.response(ord("E"))
    assert (ledger.awaited, ledger.settled) == (2, 1)
    ledger.ready()
    assert (ledger.awaited, ledger.settled) == (1, 2)


@pytest.mark.parametrize(
    ("sent", "midway"),
    [
        ("", False),
        ("P", True),
        ("PS", False),
        ("PQ", True),
        ("Q", False),
        ("PSQ", False),
        ("Qc", True),
        ("QcS", False),
    ],
)
def test_what_an_error_would_discard(sent: str, midway: bool) -> None:
    """All that stands behind an extended-query message, up to the Sync."""
    ledger = Ledger()
    for kind in sent:
        ledger.request(ord(kind))
    assert ledger.midway is midway


def test_nothing_would_be_discarded_when_all_is_answered() -> None:
    """A ReadyForQuery that is the newest request's ends what came before it, as in a copy without a Sync."""
    ledger = Ledger()
    for kind in "QcQ":
        ledger.request(ord(kind))
    ledger.ready()
    assert ledger.midway
    ledger.ready()
    assert not ledger.midway


def test_whether_the_unnamed_statement_is_open() -> None:
    """The newest change of it decides, once another pipeline has begun."""
    ledger = Ledger()
    unsure, other, sure = (
        Change(b"", None, None, unsure=True),
        Change(b"a", None, None),
        Change(b"", None, None),
    )
    seen = []
    for kind, change in (("P", unsure), ("S", None), ("P", other), ("P", sure), ("S", None)):
        ledger.request(ord(kind), FORWARD, change)
        seen.append(ledger.unnamed_is_open)
    assert seen == [False, True, True, False, False]
    ledger.response(ord("E"))
    assert (ledger.undone, ledger.failed, list(ledger.unnamed)) == ([unsure], unsure, [sure])
