"""What supervisor and workers tell each other comes out as it went in, however it was cut."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ProtocolError
from hyperpool.workers import messages
from hyperpool.workers.messages import Deed, Fact, Outcome, PoolKey, SeatKey

_POOL = PoolKey("app", "ann")
_SEAT = SeatKey("replication", "app", "ann")
_FACT = Fact(_POOL, {"TimeZone": "UTC"}, {"search_path": "a, b"})
_OUTCOME = Outcome("SHOW", [["é\0", 1, None, 2.5]], "error", "57014", "detail", "hint")
EXAMPLES: list[messages.Message] = [
    messages.Welcome(0, 2, "c2V0", "/pooler.yaml", True, 1, [Deed("pause", "app")], [_FACT], ["[]"], True),
    messages.Granted(_POOL, 1, 2),
    messages.PartWith(_POOL, True),
    messages.Lent(_SEAT, 3),
    messages.GiveBack(_SEAT),
    messages.Do(7, [Deed("show", "pools")]),
    messages.Quit(7),
    messages.Answers(7, [[_OUTCOME], []]),
    messages.NewSettings(7, "c2V0"),
    messages.End("IMMEDIATE"),
    messages.Alone(),
    messages.Leave(),
    messages.HoldCache(True),
    messages.Ready(),
    messages.Filled(),
    messages.Failed("why"),
    messages.Wanted(_POOL, 1, urgent=True, late=False),
    messages.Returned(_POOL, 1),
    messages.PartsWith(_POOL, 0),
    messages.Sought(_SEAT, 1),
    messages.SeatsBack(_SEAT, 2),
    messages.Ask(7, [Deed("figures")], others=True),
    messages.Abandon(7),
    messages.Did(7, [_OUTCOME]),
    messages.Counted([["app", {"queries": 1}, {}, 60.0]], 5),
    messages.ConsoleClients(2),
    messages.Learned(_FACT),
    messages.Forgotten(_POOL),
    messages.LoginFailed("127.0.0.1", "ann"),
]


@given(st.lists(st.integers(1, 40), min_size=1))
def test_all_messages_in_pieces(sizes: list[int]) -> None:
    """Each comes out once, in order."""
    data = b"".join(map(messages.encode, EXAMPLES))
    decoder = messages.Decoder()
    found: list[messages.Message] = []
    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += decoder.feed(data[at : at + size])
        at += size
    assert found == EXAMPLES


def test_every_message_is_an_example() -> None:
    """So that none is forgotten above."""
    kinds = [one for one in vars(messages).values() if isinstance(one, type) and attrs.has(one)]
    parts = {PoolKey, SeatKey, Fact, Deed, Outcome}
    assert {type(one) for one in EXAMPLES} == set(kinds) - parts


_WANTED = b'{"is":"Wanted","pool":{"database":"app","user":"ann"},"urgent":true,"late":false,"count":%s}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"is":"Nothing"}',
        b'{"is":"Granted"}',
        b"\xff",
        _WANTED % b"-1",
        _WANTED % b"1e300",
        b'{"is":"ConsoleClients","count":-1}',
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    """The other side is as good as dead."""
    with pytest.raises(ProtocolError):
        messages.Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_that_is_too_long() -> None:
    """Nothing is held for it."""
    with pytest.raises(ProtocolError):
        messages.Decoder().feed(b"\xff\xff\xff\xff")
