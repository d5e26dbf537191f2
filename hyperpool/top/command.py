"""The command: a target in, a screen and an exit code out."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING

import attrs
import structlog
import trio
from rich.console import Console
from rich.live import Live

from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.overview.collect import Collector, ColumnMissing
from hyperpool.overview.report import as_json
from hyperpool.top.keys import Keys, at_once
from hyperpool.top.screen import draw
from hyperpool.top.session import ConsoleSession, may_be_repeated

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hyperpool.overview.model import Shown
    from hyperpool.top.session import Target, View


@attrs.frozen(kw_only=True)
class Wishes:
    """What the command line asks for.

    Attributes:
        interval: seconds between two looks.
        once: print one overview and end.
        json: print it as JSON.
    """

    interval: float = 1.0
    once: bool = False
    json: bool = False


class Watch:
    """Looks at a pooler again and again, whatever becomes of the connection.

    Args:
        target: the pooler.

    Attributes:
        shown: the newest overview.
        note: why there is no newer one; empty if nothing is wrong.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: ConsoleSession | None = None
        self._views: dict[str, View | None] = {}
        self._collector = Collector(lambda name: self._views[name])
        self.shown: list[Shown] = []
        self.note = ""

    async def look(self) -> None:
        """Look once.

        Raises:
            LoginFailed: the pooler does not let us in, and would not later.
        """
        try:
            if self._session is None:
                self._session = await ConsoleSession.open(self._target)
            self._views = await self._session.show()
        except (ConnectFailed, LoginFailed) as error:
            await self.close()
            if isinstance(error, LoginFailed) and not may_be_repeated(error):
                raise
            told, name = str(error), self._target.name
            self.note = told if name in told else f"{name}: {told}"
        else:
            self.shown = self._collector.look(time.monotonic())
            self.note = ""

    async def close(self) -> None:
        """Leave."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def top(target: Target, wishes: Wishes) -> int:
    """Show the overview of a pooler on standard output, until the user has seen enough.

    Args:
        target: the pooler.
        wishes: how.

    Returns:
        The exit code: 0, or 1 if an overview that is wanted once cannot be had.

    Raises:
        LoginFailed: the pooler does not let us in.
        ColumnMissing: it is too old or too new: a view lacks a column.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    run = _once if wishes.once or wishes.json else _live
    code = 0
    try:
        code = trio.run(run, Watch(target), wishes, restrict_keyboard_interrupt_to_checkpoints=True)
    except* KeyboardInterrupt:
        pass
    except* (LoginFailed, ColumnMissing) as group:
        raise group.exceptions[0] from None
    return code


async def _once(watch: Watch, wishes: Wishes) -> int:
    """Look twice, so that there are rates."""
    try:
        await watch.look()
        if not watch.note:
            await trio.sleep(wishes.interval)
            await watch.look()
    finally:
        await watch.close()
    if watch.note:
        print(f"hyperpool: {watch.note}", file=sys.stderr)  # noqa: T201 - this is the command's output
        return 1
    if wishes.json:
        print(json.dumps(as_json(watch.shown), indent=2))  # noqa: T201
    else:
        console = Console()
        console.print(draw(watch.shown, console))
    return 0


async def _live(watch: Watch, wishes: Wishes) -> int:
    console = Console()
    keys = Keys()
    with at_once() as fileno, Live(console=console, screen=True, auto_refresh=False) as live:
        async with trio.open_nursery() as nursery:
            if fileno is not None:
                nursery.start_soon(keys.run, fileno)
            try:
                while not keys.quit:
                    await watch.look()
                    with trio.move_on_after(wishes.interval):
                        while not keys.quit:
                            live.update(_picture(watch, keys, console), refresh=True)
                            await keys.wait()
            finally:
                await watch.close()
            nursery.cancel_scope.cancel()
    return 0


def _picture(watch: Watch, keys: Keys, console: Console) -> RenderableType:
    tables = [one.panel.key for one in watch.shown[1:]]
    only = tables[keys.chosen - 1] if 0 < keys.chosen <= len(tables) else ""
    return draw(watch.shown, console, height=console.height, only=only, note=watch.note)
