"""What failed logins cost: time, and never more memory than there is for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth import penalty
from hyperpool.auth.penalty import Penalties

NOW = 1000.0


def fail(penalties: Penalties, times: int, user: str = "ann", address: str = "a", now: float = NOW) -> None:
    """Fail so many times."""
    for _ in range(times):
        penalties.failed(address, user, now)


def test_a_few_failures_cost_nothing() -> None:
    """Then each costs the interval; and time pays for them."""
    penalties = Penalties(3, 2.0)
    assert penalties.ready_at("a", "ann") == 0.0
    fail(penalties, 2)
    assert penalties.ready_at("a", "ann") <= NOW
    fail(penalties, 1)
    assert penalties.ready_at("a", "ann") == NOW + 2
    fail(penalties, 1, now=NOW + 2)
    assert penalties.ready_at("a", "ann") == NOW + 4
    fail(penalties, 1, now=NOW + 100)
    assert penalties.ready_at("a", "ann") <= NOW + 100


def test_others_are_not_to_blame() -> None:
    """Neither other users of the address, nor the user at another address."""
    penalties = Penalties(3, 2.0)
    fail(penalties, 4)
    assert penalties.ready_at("a", "ann") > NOW
    assert penalties.ready_at("a", "bob") <= NOW
    assert penalties.ready_at("b", "ann") <= NOW


def test_an_address_may_not_try_many_users() -> None:
    """All of its users together may fail ten times as often as one."""
    penalties = Penalties(3, 2.0)
    for number in range(29):
        fail(penalties, 1, user=str(number))
    assert penalties.ready_at("a", "new") == pytest.approx(NOW)
    fail(penalties, 1, user="29")
    assert penalties.ready_at("a", "new") == pytest.approx(NOW + 0.2)
    assert penalties.ready_at("b", "new") <= NOW


@pytest.mark.parametrize(("burst", "interval"), [(0, 1.0), (3, 0.0)])
def test_no_limit(burst: int, interval: float) -> None:
    """Either setting turns it off, and nothing is remembered."""
    penalties = Penalties(burst, interval)
    fail(penalties, 1000)
    assert penalties.ready_at("a", "ann") == 0.0
    assert len(penalties) == 0


def test_settings_change() -> None:
    """What is owed stays owed."""
    penalties = Penalties(3, 2.0)
    fail(penalties, 3)
    penalties.configure(1, 2.0)
    assert penalties.ready_at("a", "ann") == NOW + 6
    penalties.configure(0, 2.0)
    assert penalties.ready_at("a", "ann") == 0.0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has as many addresses as it likes takes no more than there is; what is paid is forgotten."""
    monkeypatch.setattr(penalty, "_MOST", 100)
    penalties = Penalties(1, 60.0)
    for number in range(1000):
        fail(penalties, 1, address=str(number))
    assert len(penalties) <= 101
    assert penalties.ready_at("999", "ann") > NOW
    fail(penalties, 1, address="later", now=NOW + 3600)
    assert len(penalties) == 2


@given(
    st.integers(1, 5),
    st.floats(0.1, 10),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 5)), max_size=60),
)
def test_guesses_are_bounded(burst: int, interval: float, attempts: list[tuple[str, str, float]]) -> None:
    """Whatever the order: who waits when told to fails no more often than burst and interval allow."""
    penalties = Penalties(burst, interval)
    now = NOW
    failures: dict[tuple[str, str], int] = {}
    for address, user, pause in attempts:
        now += pause
        if penalties.ready_at(address, user) <= now:
            penalties.failed(address, user, now)
            failures[address, user] = failures.get((address, user), 0) + 1
    for count in failures.values():
        assert count <= burst + (now - NOW) / interval + 1e-6
