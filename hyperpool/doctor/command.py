"""The command: settings in, report and exit code out."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog
import trio
from rich.console import Console
from rich.live import Live

from hyperpool.doctor.examine import Examination, Wishes
from hyperpool.doctor.findings import as_json, is_well
from hyperpool.doctor.report import Progress, show

if TYPE_CHECKING:
    from hyperpool.config import Settings
    from hyperpool.doctor.findings import DatabaseFinding

__all__ = ["Wishes", "doctor"]

_FRAME: Final = 0.1
"""Seconds between two pictures of what is under way."""


def doctor(settings: Settings, wishes: Wishes, *, json_wanted: bool) -> int:
    """Examine databases, and print what was found to standard output.

    Args:
        settings: whose databases are examined.
        wishes: which, and how.
        json_wanted: print JSON instead of tables.

    Returns:
        The exit code: 0 when all is well, 1 when something failed or nothing could be examined.

    Raises:
        UnknownDatabase: the one that was named is not in the settings.
    """
    # What the dialing code logs is in the report already.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    examination = Examination(settings, wishes)
    try:
        # Anywhere else, Ctrl-C may come where Python drops exceptions, as in a finalizer, and be lost.
        findings = trio.run(
            _run, examination, Console(stderr=True), restrict_keyboard_interrupt_to_checkpoints=True
        )
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None
    if json_wanted:
        print(json.dumps(as_json(findings), indent=2))  # noqa: T201 - this is the command's output
    else:
        show(findings, Console())
    return 0 if is_well(findings) else 1


async def _run(examination: Examination, console: Console) -> list[DatabaseFinding]:
    """Examine, and on a terminal show how it goes."""
    if not console.is_terminal:
        return await examination.run()
    async with trio.open_nursery() as nursery:
        with Live(Progress(examination), console=console, auto_refresh=False, transient=True) as live:
            nursery.start_soon(_refresh, live)
            findings = await examination.run()
            nursery.cancel_scope.cancel()
    return findings


async def _refresh(live: Live) -> None:
    while True:
        live.refresh()
        await trio.sleep(_FRAME)
