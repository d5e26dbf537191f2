"""A request that goes the short way has no other effect than on the long way, whatever came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.config import PoolMode, SessionState
from tests.support.lockstep import PLAIN, TEXTS, UNITS, Lockstep

if TYPE_CHECKING:
    from tests.support.lockstep import Step

_INDEX = st.integers(0, 5)
_LUCK = st.integers(0, 1 << 16)
_CUT = st.one_of(st.just(-1), st.just(-1), st.integers(0, 80))
_TEXT = st.integers(0, len(TEXTS) - 1)
_ANY = st.tuples(st.integers(0, len(UNITS) - 1), _TEXT, _TEXT)
_SHAPES = ("Q{0}", "P:{0}|B|E|S", "P:{0}|B|DP|E|S", "Ba|E|S", "Ba|DP|E|S", "Bb|E|S", "Ba|E|S|Bb|E|S", "B|E|S")
_HARMLESS = st.sampled_from([TEXTS.index(text) for text in PLAIN])
_KNOWN = st.tuples(st.sampled_from([UNITS.index(unit) for unit in _SHAPES]), _HARMLESS, _HARMLESS)
"""What goes the short way, or behind it."""
_PREPARES = st.tuples(
    st.sampled_from([UNITS.index("Pa:{0}|S"), UNITS.index("Pb:{0}|S")]), _HARMLESS, _HARMLESS
)
_UNIT = st.one_of(_KNOWN, _KNOWN, _ANY)
_ASK = st.tuples(st.just("ask"), _INDEX, st.lists(_UNIT, min_size=1, max_size=3), _CUT)
_SERVE_ALL = st.tuples(st.just("serve_all"), _LUCK)
_OTHERS = st.one_of(
    st.tuples(st.just("serve"), _INDEX, st.integers(1, 5), _LUCK, _CUT),
    st.tuples(st.just("rest"), _INDEX, _CUT),
    st.tuples(st.just("leave"), _INDEX, st.integers(0, 1)),
    st.tuples(st.just("come"), st.integers(0, 9)),
    st.tuples(st.just("cancel"), _INDEX),
    st.tuples(st.just("deliver"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from((0.1, 1.0, 2.0, 40.0, 301.0))),
    st.tuples(st.just("retire"), _INDEX),
    st.tuples(st.just("die"), _INDEX),
    st.tuples(st.just("deafen"), _INDEX),
    st.tuples(st.just("pause")),
    st.tuples(st.just("tell"), _INDEX, st.integers(0, 3)),
)
_TURN = st.one_of(
    st.tuples(_ASK, _SERVE_ALL), st.tuples(_ASK, _SERVE_ALL), st.tuples(_ASK), st.tuples(_OTHERS)
)
_PREPARE = st.tuples(
    *(
        st.tuples(st.just("ask"), st.just(index), st.lists(_PREPARES, min_size=2, max_size=2), st.just(-1))
        for index in range(2)
    ),
    _SERVE_ALL,
)
_SCRIPTS = st.tuples(st.one_of(st.just(()), _PREPARE), st.lists(_TURN, min_size=5, max_size=30)).map(
    lambda parts: [*parts[0], *(step for turn in parts[1] for step in turn)]
)
_POOLS = st.fixed_dictionaries(
    {
        "session_state": st.sampled_from((SessionState.FOLLOW, *SessionState)),
        "max_pinned": st.integers(0, 2),
        "pool_size": st.integers(1, 3),
        "max_prepared_statements": st.integers(0, 3),
    },
    optional={
        "pool_mode": st.sampled_from((PoolMode.TRANSACTION, *PoolMode)),
        "log_slow_queries": st.just(0.5),
        "server_check_delay": st.just(0.5),
        "server_reset_query_always": st.just(True),
        "query_timeout": st.just(1.0),
        "transaction_timeout": st.just(1.5),
        "idle_transaction_timeout": st.just(1.0),
        "client_idle_timeout": st.just(2.0),
    },
)


@settings(max_examples=2 * settings().max_examples)
@given(pool=_POOLS, script=_SCRIPTS, buffer=st.sampled_from((512, 4096)))
def test_the_short_way_is_as_the_long_one(pool: dict[str, Any], script: list[Step], buffer: int) -> None:
    """Every byte that both sides get is the same, and so is all that the relay knows then."""
    lockstep = Lockstep(buffer, **pool)
    try:
        lockstep.play(script)
    finally:
        lockstep.close()
