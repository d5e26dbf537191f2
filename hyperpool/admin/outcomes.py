"""What comes of a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from hyperpool.errors import HyperpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.admin.tables import Column, Row


class ConsoleError(HyperpoolError):
    """A statement fails; the console goes on.

    Args:
        message: for the client.
        sqlstate: pgbouncer's for everything is 08P01.
        detail: more of it.
        hint: what to do.
    """

    def __init__(self, message: str, sqlstate: str = "08P01", detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint


@attrs.frozen
class Done:
    """A statement has been executed.

    Attributes:
        tag: the command tag; empty if nothing is to be answered, because the pooler ends.
        shape: the columns of its result; None for none.
        rows: of its result.
        notice: told beside, as a NOTICE.
        detail: of the notice.
    """

    tag: str
    shape: tuple[Column, ...] | None = None
    rows: tuple[Row, ...] = ()
    notice: str = ""
    detail: str = ""


@attrs.frozen
class Waits:
    """A statement that is done later.

    Attributes:
        tag: the command tag that it will have.
        over: tells whether it is done; asked about ten times a second.
        interrupt: called when the client cancels it.
        result: makes what comes of it, once it is over, or raises `ConsoleError`; None for the tag alone.
        soon: it takes no longer than to ask, so that nobody is shown as waiting for it.
    """

    tag: str
    over: Callable[[], bool]
    interrupt: Callable[[], None]
    result: Callable[[], Done] | None = None
    soon: bool = False

    def done(self) -> Done:
        """What has come of it.

        Raises:
            ConsoleError: it has failed.
        """
        return Done(self.tag) if self.result is None else self.result()


Outcome: TypeAlias = "Done | Waits"
