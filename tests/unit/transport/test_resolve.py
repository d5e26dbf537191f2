"""Looking names up: once at a time, ahead of time, and not again too soon."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hyperpool.transport.resolve import Resolver


class Names(trio.abc.HostnameResolver):
    """Answers as a test says.

    Attributes:
        answer: addresses, or what goes wrong.
        asked: how often it was asked.
        slow: no answer comes before this is set.
    """

    def __init__(self) -> None:
        self.answer: list[str] | Exception = ["192.0.2.1"]
        self.asked = 0
        self.slow: trio.Event | None = None

    async def getaddrinfo(self, host: Any, port: Any, *_more: Any, **_options: Any) -> Any:
        """Look a name up."""
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.slow is not None:
            await self.slow.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in self.answer]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        """Not used."""
        raise AssertionError("nobody asks for names of addresses")


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
LATER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
async def names() -> Names:
    """The names that there are, for this Trio run."""
    found = Names()
    trio.socket.set_custom_hostname_resolver(found)
    return found


@pytest.fixture
def clock() -> SimpleNamespace:
    """Monotonic time, as its `now` says."""
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def resolver(clock: SimpleNamespace) -> Resolver:
    """With 20 s for addresses and 10 s for names that do not exist."""
    return Resolver(20.0, 10.0, lambda: clock.now)


async def addresses(resolver: Resolver, host: str = "db.example") -> list[str]:
    """The addresses of a name."""
    found = await resolver.resolve(host, 5432)
    assert all(family is socket.AF_INET and address[1] == 5432 for family, address in found)
    return [address[0] for _, address in found]


async def test_an_answer_is_used_for_its_time(
    names: Names, resolver: Resolver, clock: SimpleNamespace
) -> None:
    """``dns_max_ttl``; each name has its own."""
    assert [await addresses(resolver) for _ in range(3)] == [["192.0.2.1"]] * 3
    assert names.asked == 1
    await addresses(resolver, "other.example")
    assert names.asked == 2
    names.answer = ["192.0.2.2"]
    clock.now += 20.0
    assert await addresses(resolver) == ["192.0.2.2"]
    assert names.asked == 3


async def test_a_name_in_use_is_looked_up_ahead_of_time(
    names: Names, resolver: Resolver, clock: SimpleNamespace
) -> None:
    """From half of the time on: those who ask go on at once, with what is known."""
    await addresses(resolver)
    names.answer, names.slow = ["192.0.2.2"], trio.Event()
    clock.now += 10.0
    assert [await addresses(resolver) for _ in range(3)] == [["192.0.2.1"]] * 3
    await wait_all_tasks_blocked()
    assert names.asked == 2
    names.slow.set()
    await wait_all_tasks_blocked()
    assert await addresses(resolver) == ["192.0.2.2"]
    assert names.asked == 2


async def test_many_ask_once(names: Names, resolver: Resolver) -> None:
    """Those who ask for a name that is being looked up wait for the same answer; one that gives up changes nothing."""
    names.slow = trio.Event()
    found: list[list[str]] = []

    async def ask() -> None:
        found.append(await addresses(resolver))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as impatient:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            impatient.cancel()
            await addresses(resolver)
        assert impatient.cancelled_caught
        names.slow.set()
    assert (found, names.asked) == ([["192.0.2.1"]] * 2, 1)


async def test_a_name_that_does_not_exist(names: Names, resolver: Resolver, clock: SimpleNamespace) -> None:
    """It is not asked for again within ``dns_nxdomain_ttl``."""
    names.answer = UNKNOWN
    for _ in range(3):
        with pytest.raises(socket.gaierror, match="not known"):
            await addresses(resolver)
    assert names.asked == 1
    names.answer = ["192.0.2.1"]
    clock.now += 10.0
    assert await addresses(resolver) == ["192.0.2.1"]


@pytest.mark.parametrize("trouble", [LATER, UnicodeError("no name")])
async def test_other_trouble_is_not_remembered(names: Names, resolver: Resolver, trouble: Exception) -> None:
    """A resolver that cannot answer now may be able to in a moment."""
    names.answer = trouble
    with pytest.raises(type(trouble)):
        await addresses(resolver)
    names.answer = ["192.0.2.1"]
    assert await addresses(resolver) == ["192.0.2.1"]


async def test_trouble_ahead_of_time(names: Names, resolver: Resolver, clock: SimpleNamespace) -> None:
    """Addresses that are still good are used on, unless the name is gone."""
    await addresses(resolver)
    names.answer = LATER
    clock.now += 15.0
    assert await addresses(resolver) == ["192.0.2.1"]
    await wait_all_tasks_blocked()
    assert await addresses(resolver) == ["192.0.2.1"]
    await wait_all_tasks_blocked()
    names.answer = UNKNOWN
    assert await addresses(resolver) == ["192.0.2.1"]
    await wait_all_tasks_blocked()
    with pytest.raises(socket.gaierror, match="not known"):
        await addresses(resolver)


async def test_no_time_at_all(names: Names, clock: SimpleNamespace) -> None:
    """0 looks up each time."""
    resolver = Resolver(0.0, 0.0, lambda: clock.now)
    for _ in range(2):
        await addresses(resolver)
    assert names.asked == 2


async def test_memory_is_bounded(names: Names, resolver: Resolver) -> None:
    """The names that were asked for first are forgotten first."""
    for number in range(1100):
        await addresses(resolver, f"db{number}.example")
    asked = names.asked
    await addresses(resolver, "db1099.example")
    assert names.asked == asked
    await addresses(resolver, "db0.example")
    assert names.asked == asked + 1
