"""Answers on their way, and who waits for them."""

from __future__ import annotations

from hyperpool.cache.flights import Flight


def test_who_has_joined_is_told_once() -> None:
    """In the order in which they came; who has left is not."""
    flight: Flight[str, int] = Flight(b"key", 7)
    for number, name in enumerate(("a", "b", "c")):
        flight.join(name, number, 10.0)
    flight.leave("b")
    flight.leave("never there")
    assert flight.land() == {"a": (0, 10.0), "c": (2, 10.0)}
    assert flight.land() == {}


def test_nobody_waits_for_longer_than_is_meant() -> None:
    """Those whose time has come leave."""
    flight: Flight[str, int] = Flight(b"key", 7)
    flight.join("a", 0, 10.0)
    flight.join("b", 0, 20.0)
    assert list(flight.overdue(9.9)) == []
    assert list(flight.overdue(10.0)) == ["a"]
    assert list(flight.overdue(30.0)) == ["b"]
