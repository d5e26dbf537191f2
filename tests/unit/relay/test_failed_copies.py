"""COPY that fails behind CopyInResponse, with Syncs that it may or may not have read, and requests behind it.

Each client must have what a server of its own would have answered, or be ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.relay.ledger import LOST, Ledger
from tests.support import pgpipelines as pp
from tests.support.pglanguage import split_frames
from tests.support.relaypeers import ALL
from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from tests.support.pgpipelines import Unit

_EARLY = ("P:copyin-early $", "B", "E", "S")
_LATE = ("P:copyin-late $", "B", "E", "S")
_NAMED = ("Pn1:rows 2 10 same", "S")
_MORE = ("Pn2:rows 3 10 same", "Bn2", "E", "S")


def _received(pipeline: list[Unit], chunk: int, served: int) -> tuple[str, str]:
    """The kinds of messages that a client receives, and why it was ended."""
    world = World(attrs.evolve(POOL, pool_size=1, max_prepared_statements=2))
    try:
        client = world.connect()
        client.pending += pp.render([_NAMED], client.tag)
        world.flow(rounds=4)
        client.pending += pp.render(pipeline, client.tag)
        world.flow(chunk, 400 if min(chunk, served) < ALL else 10, served=served)
        kinds = "".join(chr(one[0]) for one in split_frames(bytes(client.received))[0])
        world.finish()
        return kinds.removeprefix("Z1Z"), world.relay.reasons.get(client.address, "") if client.eof else ""
    finally:
        world.close()


@pytest.mark.parametrize(("chunk", "served"), [(ALL, ALL), (ALL, 7), (7, ALL)])
@pytest.mark.parametrize(
    ("pipeline", "kinds"),
    [
        # Syncs that were not read are answered, in front of what stands behind CopyDone.
        ([(*_EARLY, "c", "S"), _MORE], "12GEZZ12DDDCZ"),
        ([(*_EARLY, "d5", "c", "S"), ("Qrows 1 5 $",), _MORE], "12GEZZTDCZ12DDDCZ"),
        ([(*_EARLY, "d5", "c", "S"), ("Pn1:rows 1 5 $", "S"), ("CSn1", "S")], "12GEZZEZ3Z"),
        ([(*_EARLY, "S", "c", "S"), ("CSn1", "S"), ("Bn1", "E", "S")], "12GEZZZ3ZEZ"),
        ([("Qcopyin-early $", "S", "c"), ("CSn1", "S"), ("Qrows 1 5 $",)], "GEZZ3ZTDCZ"),
        # Those that were read are not.
        ([(*_LATE, "d5", "c", "S"), _MORE], "12GEZ12DDDCZ"),
        ([(*_LATE, "S", "d5", "c", "S"), ("CSn1", "S"), ("Qrows 1 5 $",)], "12GEZ3ZTDCZ"),
        ([("Qcopyin-late $", "S", "d5", "c"), ("CSn1", "S"), ("Qrows 1 5 $",)], "GEZ3ZTDCZ"),
        ([("P:copyin $", "B", "E", "S", "d5", "c", "S"), ("CSn1", "S"), _MORE], "12GCZ3Z12DDDCZ"),
    ],
)
def test_what_stands_behind_a_copy_is_answered_as_by_postgresql(
    pipeline: list[Unit], kinds: str, chunk: int, served: int
) -> None:
    """However it is cut into pieces, what the pooler makes and what it drops stand at their place."""
    assert _received(pipeline, chunk, served) == (kinds, "")


@pytest.mark.parametrize(
    "pipeline",
    [
        # Is the Parse behind CopyDone discarded? Nobody knows whether the copy has read the Sync.
        [(*_EARLY, "c"), _MORE],
        [(*_EARLY, "d5", "c", "CSn1", "S"), ("Qrows 1 5 $",)],
        [(*_LATE, "d5", "c"), _MORE],
        # These would have ended the session, had it been a copy that does not fail.
        [(*_EARLY, "CSn1", "S"), _MORE],
        [("P:copyin $", "B", "E", "S", "CSn1", "S")],
    ],
)
def test_where_nobody_can_tell_what_is_discarded_the_client_is_ended(pipeline: list[Unit]) -> None:
    """Neither an answer too many nor one too few: the error of the copy, and then the reason."""
    kinds, reason = _received(pipeline, ALL, ALL)
    assert reason == LOST
    assert kinds in ("12GEE", "12GE")


def test_a_message_behind_a_failed_copy_is_lost_when_it_comes_later() -> None:
    """The error is known, and whether the Sync before it is still to be answered is not."""
    ledger = Ledger()
    for kind in b"PBES":
        ledger.request(kind)
    for kind in b"12GE":
        ledger.response(kind)
    ledger.request(ord("c"))
    assert ledger.surplus == 1
    assert not ledger.lost
    ledger.request(ord("P"))
    assert ledger.lost


def test_a_copy_with_very_many_syncs_goes_on() -> None:
    """All of them are ignored; they cost no memory, and hold nobody up."""
    syncs = ["S"] * 20_000
    kinds, why = _received([("P:copyin $", "B", "E", *syncs, "d5", "c", "S"), _MORE], ALL - 1, ALL)
    assert (kinds, why) == ("12GCZ12DDDCZ", "")


def test_a_copy_with_very_many_syncs_that_fails() -> None:
    """How many of them are answered is not kept in mind: the client is ended."""
    kinds, why = _received([("P:copyin-late $", "B", "E", *["S"] * 1000, "d5", "c", "S"), _MORE], ALL, ALL)
    assert kinds.startswith("12GE")
    assert why == LOST
