"""Seats for clients: never more than the limit, and nobody is turned away while one is free."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hyperpool.workers import messages
from hyperpool.workers.holdings import Places
from hyperpool.workers.messages import SeatKey
from hyperpool.workers.seats import Lend, Recall, Seats

ALL = SeatKey("all")
APP = SeatKey("database", "app")


def test_seats_of_all_are_lent_some_at_a_time() -> None:
    """So that not every login costs a question."""
    seats = Seats(lambda _: 160, workers=2)
    assert seats.seek(0, ALL, 1) == [Lend(0, ALL, 10)]


def test_seats_of_a_database_are_lent_one_by_one() -> None:
    """There may be few."""
    seats = Seats(lambda _: 160, workers=2)
    assert seats.seek(0, APP, 1) == [Lend(0, APP, 1)]


def test_what_others_do_not_use_is_called_back_before_anybody_is_turned_away() -> None:
    """It goes to the one that needs it."""
    seats = Seats(lambda _: 2, workers=2)
    assert seats.seek(0, ALL, 2) == [Lend(0, ALL, 2)]
    assert seats.seek(1, ALL, 1) == [Recall(0, ALL)]
    assert seats.give_back(0, ALL, 1) == [Lend(1, ALL, 1)]
    assert seats.seek(1, ALL, 1) == [Recall(0, ALL)]
    assert seats.give_back(0, ALL, 0) == [Lend(1, ALL, 0)]


def test_what_somebody_needs_goes_before_what_others_may_need() -> None:
    """Two wait for seats, and there is one for each: none of them gets more, and the other one nothing."""
    seats = Seats(lambda _: 96, workers=3)
    assert seats.seek(2, ALL, 94) == [Lend(2, ALL, 94)]
    assert seats.seek(0, ALL, 1) == [Lend(0, ALL, 2)]
    assert seats.seek(0, ALL, 1) == [Recall(2, ALL)]
    assert seats.seek(1, ALL, 1) == []
    assert seats.give_back(2, ALL, 3) == [Lend(0, ALL, 2), Lend(1, ALL, 1)]


def test_a_seat_that_is_free_is_not_withheld() -> None:
    """Whoever has been asked to give seats back may be silent for long."""
    seats = Seats(lambda _: 96, workers=3)
    seats.seek(2, ALL, 90)
    assert seats.seek(0, ALL, 1) == [Lend(0, ALL, 4)]
    assert seats.seek(1, ALL, 3) == [Recall(0, ALL), Recall(2, ALL), Lend(1, ALL, 2)]
    assert seats.seek(1, ALL, 1) == []
    assert seats.give_back(0, ALL, 3) == [Lend(1, ALL, 1)]
    assert seats.seek(0, ALL, 1) == [Lend(0, ALL, 1)]
    assert seats.seek(0, ALL, 2) == [Lend(0, ALL, 1)]
    assert seats.seek(0, ALL, 1) == []
    assert seats.gone(2) == [Lend(0, ALL, 4)]


def test_a_worker_that_dies_is_not_waited_for() -> None:
    """What it had is free."""
    seats = Seats(lambda _: 2, workers=2)
    seats.seek(0, ALL, 2)
    assert seats.seek(1, ALL, 2) == [Recall(0, ALL)]
    assert seats.gone(0) == [Lend(1, ALL, 2)]


def test_a_lower_limit_calls_back_what_is_not_used() -> None:
    """From all."""
    seats = Seats(lambda _: 8, workers=2)
    seats.seek(0, ALL, 3)
    seats.seek(1, ALL, 3)
    assert seats.recall_all() == [Recall(0, ALL), Recall(1, ALL)]
    assert seats.recall_all() == []


def test_no_limit() -> None:
    """Whoever asks gets what it asks for."""
    seats = Seats(lambda _: float("inf"), workers=2)
    assert seats.seek(0, ALL, 5) == [Lend(0, ALL, 5)]


@attrs.define(eq=False)
class _Worker:
    """Lets clients in as its `Places` say."""

    outbox: deque[Any] = attrs.field(factory=deque)
    inbox: deque[Any] = attrs.field(factory=deque)
    clients: int = 0
    refused: int = 0
    waiting: int = 0
    places: Places = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.places = Places(self.outbox.append, lambda _: self.clients)

    def arrive(self) -> None:
        if self.places.free(ALL):
            self.clients += 1
        else:
            self.waiting += 1
            self.places.seek(ALL, self._decided)

    def _decided(self, free: bool) -> None:
        self.waiting -= 1
        self.clients += free
        self.refused += not free


class Hall(RuleBasedStateMachine):
    """Clients that come and go at three workers whose messages take their time, and that die."""

    LIMIT = 5

    def __init__(self) -> None:
        super().__init__()
        self.seats = Seats(lambda _: self.LIMIT, workers=3)
        self.workers = [_Worker() for _ in range(3)]

    def _send(self, orders: list[Any]) -> None:
        for order in orders:
            self.workers[order.worker].inbox.append(order)

    @rule(worker=st.integers(0, 2))
    def arrive(self, worker: int) -> None:
        """A client comes."""
        self.workers[worker].arrive()

    @rule(worker=st.integers(0, 2))
    def leave(self, worker: int) -> None:
        """A client goes."""
        own = self.workers[worker]
        own.clients = max(own.clients - 1, 0)

    @rule(worker=st.integers(0, 2))
    def hear(self, worker: int) -> None:
        """The supervisor reads one message of a worker."""
        own = self.workers[worker]
        if own.outbox:
            message = own.outbox.popleft()
            if isinstance(message, messages.Sought):
                self._send(self.seats.seek(worker, message.seat, message.count))
            else:
                self._send(self.seats.give_back(worker, message.seat, message.count))

    @rule(worker=st.integers(0, 2))
    def obey(self, worker: int) -> None:
        """A worker reads one order."""
        own = self.workers[worker]
        if own.inbox:
            order = own.inbox.popleft()
            if isinstance(order, Lend):
                before = own.refused
                own.places.lent(order.seat, order.count)
                assert not (own.refused > before and order.count), (
                    "somebody was refused though there were seats"
                )
            else:
                own.places.give_back(order.seat)

    @rule(worker=st.integers(0, 2))
    def die(self, worker: int) -> None:
        """A worker dies."""
        self.workers[worker] = _Worker()
        self._send(self.seats.gone(worker))

    @invariant()
    def the_limit_holds(self) -> None:
        """Over all workers."""
        assert sum(own.clients for own in self.workers) <= self.LIMIT
        assert self.seats.lent(ALL) <= self.LIMIT

    def teardown(self) -> None:
        """When everything has been read, nobody waits for an answer, and free seats are to be had."""
        while any(own.inbox or own.outbox for own in self.workers):
            for worker in range(3):
                self.hear(worker)
                self.obey(worker)
        assert not any(own.waiting for own in self.workers)
        free = self.LIMIT - sum(own.clients for own in self.workers)
        before = self.workers[0].clients
        for _ in range(free):
            self.arrive(0)
            while any(own.inbox or own.outbox for own in self.workers):
                for worker in range(3):
                    self.hear(worker)
                    self.obey(worker)
        assert self.workers[0].clients == before + free


TestHall = Hall.TestCase
TestHall.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
