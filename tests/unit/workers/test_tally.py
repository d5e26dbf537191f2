"""How many clients keep their server connections, in all workers: what they count, and where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperpool.workers.messages import PoolKey
from hyperpool.workers.tally import PoolTally, Slots, Tally, tally_size

_WORKERS = 3
_START = 8
_MOST = 4096


def _pool(name: object) -> PoolKey:
    return PoolKey("app", str(name))


def _tallies() -> tuple[Tally, Tally]:
    """Two views of the same memory, as two processes have them."""
    memory = bytearray(_START + tally_size(_WORKERS))
    return Tally(memory, _START, _WORKERS), Tally(memory, _START, _WORKERS)


@given(
    st.lists(st.tuples(st.integers(0, _WORKERS - 1), st.sampled_from([0, 1, _MOST - 1]), st.integers(1, 9)))
)
def test_what_one_counts_all_see(counted: list[tuple[int, int, int]]) -> None:
    """Each slot is its own."""
    one, other = _tallies()
    for worker, slot, change in counted:
        PoolTally(one, worker, slot).add(change)
        PoolTally(one, worker, slot).add(-1)
    for slot in (0, 1, 2, _MOST - 1):
        expected = sum(change - 1 for _, own, change in counted if own == slot)
        assert PoolTally(other, 0, slot).count() == expected


def test_who_has_died_counts_no_more() -> None:
    """And nobody else's counts change."""
    one, other = _tallies()
    for worker in range(_WORKERS):
        for slot in (0, _MOST - 1):
            one.add(worker, slot, 1 + worker)
    other.clear(1)
    assert [one.count(slot) for slot in (0, 1, _MOST - 1)] == [4, 0, 4]
    assert [one.own(worker, _MOST - 1) for worker in range(_WORKERS)] == [1, 0, 3]


class TestSlots:
    """The places of pools."""

    def test_a_pool_keeps_its_place_while_anybody_has_a_permit(self) -> None:
        """Nobody else gets it until all of them have come back."""
        out = {_pool("a"): 2, _pool("b"): 1}
        slots = Slots(lambda pool: out[pool])
        assert [slots.of(_pool("a")), slots.of(_pool("b")), slots.of(_pool("a"))] == [0, 1, 0]
        out[_pool("a")] = 1
        slots.look(_pool("a"))
        out[_pool("c")] = 1
        assert [slots.of(_pool("c")), slots.of(_pool("a"))] == [2, 0]
        out[_pool("a")] = 0
        slots.look(_pool("a"))
        out[_pool("d")] = out[_pool("a")] = 1
        assert [slots.of(_pool("d")), slots.of(_pool("a"))] == [0, 3]

    def test_a_worker_has_died(self) -> None:
        """The places of all pools that nobody else has are free."""
        out = {_pool("a"): 1, _pool("b"): 1}
        slots = Slots(lambda pool: out[pool])
        for pool in out:
            slots.of(pool)
        out[_pool("a")] = 0
        slots.look_at_all()
        assert [slots.of(_pool("b")), slots.of(_pool("c"))] == [1, 0]

    def test_more_pools_than_places(self) -> None:
        """They share them, and so their limits: nobody's is exceeded."""
        slots = Slots(lambda _: 1)
        assert [slots.of(_pool(number)) for number in range(_MOST + 2)] == [*range(_MOST), 0, 1]
