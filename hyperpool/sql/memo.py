"""Remembering what texts mean, within a bound."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Memo"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """A mapping that forgets what has not been used for long.

    There are two generations. What is used moves to the young one; when that is full, it becomes the old one, and
    what was in the old one is forgotten. So nothing has to be kept in order.

    Args:
        capacity: the sum of the sizes of what is in it.
    """

    __slots__ = ("_capacity", "_old", "_room", "_young")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity // 2
        self._room = self._capacity
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: K) -> V | None:
        """What is remembered for a key; None if nothing is."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Remember something. What is larger than half of the capacity is not remembered for long."""
        self._room -= size
        if self._room < 0:
            self._room = self._capacity - size
            self._old = self._young
            self._young = {}
        self._young[key] = (value, size)
