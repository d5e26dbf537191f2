"""A connection of a driver, with the few calls that the common cells need, made in the driver's own usual way."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tests.drivers.site import Site

T = TypeVar("T")


class _UndoError(Exception):
    """What makes a driver undo a transaction."""


class Client(abc.ABC):
    """One connection.

    Attributes:
        error: the base of the errors that the driver raises.
        lost: what it raises when the connection is gone.
    """

    error: ClassVar[type[Exception]]
    lost: ClassVar[tuple[type[Exception], ...]]

    @classmethod
    @abc.abstractmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Self:
        """Connect.

        Args:
            site: where to.
            password: another one than the role's.
            settings: settings of the session, sent when it starts.
        """

    @abc.abstractmethod
    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; outside of `transaction` it is a transaction of its own.

        Args:
            statement: the text, with a ? for each value.
            values: the parameters.
        """

    @abc.abstractmethod
    def transaction(self) -> contextlib.AbstractContextManager[object]:
        """A transaction, rolled back by an exception; a savepoint when it is in another one."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection; nothing happens if it is closed or broken already."""

    @staticmethod
    @abc.abstractmethod
    def sqlstate(error: Any) -> str | None:
        """Return the SQLSTATE of one of the driver's errors."""

    def one(self, statement: str, *values: object) -> Any:
        """Run a statement that returns one row of one column, and return that value."""
        ((value,),) = self.rows(statement, *values)
        return value

    @contextlib.contextmanager
    def fails(self, sqlstate: str) -> Iterator[None]:
        """Expect the driver's own error with this SQLSTATE."""
        with pytest.raises(self.error) as caught:
            yield
        assert self.sqlstate(caught.value) == sqlstate, caught.value

    @contextlib.contextmanager
    def loses_connection(self) -> Iterator[None]:
        """Expect what the driver raises when the connection is gone."""
        with pytest.raises(self.lost):
            yield

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """A transaction, or a savepoint in one, that an exception undoes at its end."""
        with contextlib.suppress(_UndoError), self.transaction():
            yield
            raise _UndoError


class DbapiClient(Client):
    """A connection of a driver that follows PEP 249 and has no word of its own for transactions.

    Args:
        connection: the driver's connection; it begins a transaction with the first statement.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._depth = 0

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, and commit it if it stands alone."""
        if self._depth:
            return self._execute(statement, values)
        try:
            found = self._execute(statement, values)
        except self.error:
            with contextlib.suppress(self.error):  # the connection may be gone
                self.connection.rollback()
            raise
        self.connection.commit()
        return found

    def _execute(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        cursor = self.connection.cursor()
        try:
            cursor.execute(statement.replace("?", "%s"), *([values] if values else []))
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            cursor.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The transaction that PEP 249 begins by itself, or a savepoint in it."""
        self._depth += 1
        savepoint = f"level_{self._depth}" if self._depth > 1 else None
        if savepoint:
            self._execute(f"SAVEPOINT {savepoint}", ())
        try:
            yield
        except BaseException:
            with contextlib.suppress(self.error):  # the connection may be gone
                self._undo(savepoint)
            raise
        else:
            if savepoint:
                self._execute(f"RELEASE SAVEPOINT {savepoint}", ())
            else:
                self.connection.commit()
        finally:
            self._depth -= 1

    def _undo(self, savepoint: str | None) -> None:
        if savepoint:
            self._execute(f"ROLLBACK TO SAVEPOINT {savepoint}", ())
        else:
            self.connection.rollback()

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(self.error):
            self.connection.close()


class AsyncClient(Client):
    """A connection of an asyncio driver, with an event loop of its own that runs while a call lasts.

    Args:
        connection: the driver's connection.
        runner: the event loop that it was made in.

    Attributes:
        depth: how many transactions and savepoints are open.
    """

    def __init__(self, connection: Any, runner: asyncio.Runner) -> None:
        self.connection = connection
        self.depth = 0
        self._runner = runner

    @classmethod
    def start(cls, connect: Callable[[], Coroutine[Any, Any, Any]]) -> Self:
        """Make an event loop and a connection in it."""
        runner = asyncio.Runner()
        try:
            return cls(runner.run(connect()), runner)
        except BaseException:
            runner.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one call of the driver."""
        return self._runner.run(work)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The driver's asynchronous context manager, entered and left from synchronous code."""
        block = self.block()
        self.run(_enter(block))
        self.depth += 1
        try:
            yield
        except BaseException as error:
            self.run(_leave(block, error))
            raise
        else:
            self.run(_leave(block, None))
        finally:
            self.depth -= 1

    @abc.abstractmethod
    def block(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """What the driver has for transactions and, inside of one, for savepoints."""

    def close(self) -> None:
        """Close the connection and the event loop."""
        if self.connection is None:
            return
        try:
            self.run(self.disconnect())
        finally:
            self.connection = None
            self._runner.close()

    @abc.abstractmethod
    async def disconnect(self) -> None:
        """Close the connection; nothing happens if it is broken already."""


async def _enter(block: contextlib.AbstractAsyncContextManager[object]) -> None:
    await block.__aenter__()


async def _leave(block: contextlib.AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    await block.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
