"""What tests of the relay start with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
import pytest

from tests.support.relayworld import POOL, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world() -> Iterator[World]:
    """A relay in transaction mode with one server at most."""
    with contextlib.closing(World(attrs.evolve(POOL, pool_size=1))) as made:
        yield made
