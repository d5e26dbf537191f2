"""A client of the soak: it comes, does steps, leaves and comes again, and tells the journal what came of it."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

import asyncpg
import psycopg
import psycopg2

from tests.soak.journal import LOST, Refused, WrongAnswer
from tests.soak.truth import Entries
from tests.support.rawclient import ConnectionEnded

if TYPE_CHECKING:
    from tests.soak.site import Site

_STAY: Final = (40, 200)
"""How many steps a client does with one connection."""

_AFTER_ERROR: Final = 0.2  # seconds


class Visitor(ABC):
    """A thread with one connection at a time.

    Args:
        site: where it goes.
        number: of the client; it also seeds its dice.
        route: the database that it asks for.

    Attributes:
        kind: how it is called in the report.
        entries: what it has written.
        is_here: it has a connection or is about to make one, also between two steps.
    """

    kind: ClassVar[str]

    def __init__(self, site: Site, number: int, route: str) -> None:
        self.site = site
        self.number = number
        self.route = route
        self.dice = random.Random(f"{site.seed} {number}")
        self.entries = Entries(number)
        self.is_here = False
        self._step_began = 0.0
        self.thread = threading.Thread(target=self._live, name=f"{self.kind} {number}", daemon=True)

    @abstractmethod
    def visit(self) -> None:
        """Connect, do steps while `stays` says so, and leave; errors of the connection are let through."""

    def stays(self) -> range:
        """How many steps to do on this visit."""
        self.site.journal.connected(self.kind, self.route)
        return range(self.dice.randrange(*_STAY))

    def pause(self) -> bool:
        """A step is done: wait for the next one.

        Returns:
            Whether there is one on this visit.
        """
        self.site.journal.step(self.kind, self.route)
        self.site.ended.wait(self.dice.uniform(0, 2 * self.site.pause))
        self._step_began = time.monotonic()
        return self.site.is_open.is_set() and not self.site.ended.is_set()

    def _live(self) -> None:
        while not self.site.ended.is_set():
            if not self.site.is_open.wait(0.2):
                continue
            # Who closes the site and then sees nobody here must be right: told first, looked at again afterwards.
            self.is_here = True
            if self.site.is_open.is_set():
                self._try_visit()
            self.is_here = False

    def _try_visit(self) -> None:
        self._step_began = time.monotonic()
        try:
            self.visit()
        except WrongAnswer as wrong:
            self.site.journal.mistake(self.kind, self.route, str(wrong))
        except Exception as error:  # noqa: BLE001 - whatever it is, the report has it
            code = code_of(error)
            self.site.journal.error(self.kind, self.route, code, _text(error), self._step_began)
            self.site.ended.wait(_AFTER_ERROR)

    def expect(self, seen: object, expected: object, what: str) -> None:
        """Check an answer.

        Raises:
            WrongAnswer: it is another one.
        """
        if seen != expected:
            raise WrongAnswer(f"{what}: {_short(seen)} in place of {_short(expected)}")


def code_of(error: Exception) -> str:
    """What an error is called in the journal: its SQLSTATE, `LOST`, or the name of its class."""
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, asyncpg.PostgresError):
        code = str(error.sqlstate)
        return LOST if code == "08003" and isinstance(error, asyncpg.ConnectionDoesNotExistError) else code
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate
    if isinstance(error, psycopg2.Error) and error.pgcode:
        return str(error.pgcode)
    if isinstance(error, TimeoutError):
        return "timeout"
    # asyncpg's internal error is how it may fail when a server ends the connection, also without a pooler in between.
    lost = (
        psycopg.OperationalError
        | psycopg2.OperationalError
        | psycopg2.InterfaceError
        | ConnectionEnded
        | OSError
    )
    # The internal error is how asyncpg may fail when a server ends its connection, also without a pooler in between.
    return (
        LOST
        if isinstance(error, lost | asyncpg.InterfaceError | asyncpg.InternalClientError)
        else type(error).__name__
    )


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or repr(error)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}... ({len(text)} characters)"
