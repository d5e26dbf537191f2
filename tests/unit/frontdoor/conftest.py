"""What tests of the front door share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fronthouse import open_houses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fronthouse import House


@pytest.fixture
def make_house() -> Iterator[Callable[..., House]]:
    """Makes houses."""
    with open_houses() as make:
        yield make


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """A house with room for three clients, that lets everybody in it knows."""
    return make_house(max_client_conn=3)
