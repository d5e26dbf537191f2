"""From a command line to a running process, and to its exit code."""

from __future__ import annotations

import gc
import os
from contextlib import closing, contextmanager
from mmap import mmap
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool.cache.board import board_size
from hyperpool.errors import StartupError
from hyperpool.service.control import control_path
from hyperpool.service.forks import Forks
from hyperpool.service.handover import follow
from hyperpool.service.limits import raise_open_file_limit
from hyperpool.service.logs import be_quiet, configure_logging, let_go
from hyperpool.service.place import Place, keeps_answers
from hyperpool.service.process import (
    Daemon,
    Manner,
    become,
    check_manner,
    check_ports,
    pid_file,
    running,
    tell_to_end,
)
from hyperpool.service.run import Pooler, tell
from hyperpool.service.supervisor import Supervisor
from hyperpool.service.systemd import Notifier, ServiceManager, activated
from hyperpool.workers.tally import tally_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.config import Settings
    from hyperpool.service.handover import Predecessor
    from hyperpool.transport.passed import PassedSockets

log = structlog.get_logger("pooler")

_FOREGROUND: Final = Manner()


def serve(settings: Settings, config_path: Path, manner: Manner = _FOREGROUND) -> int:
    """Run the pooler until a signal ends it.

    Args:
        settings: as loaded from `config_path`.
        config_path: read again on SIGHUP.
        manner: how the process runs. In the background, this returns there alone.

    Returns:
        The exit code of the process.

    Raises:
        StartupError: it cannot start; nothing is left open.
    """
    settings = manner.adjusted(settings)
    passed = activated(os.environ)
    check_manner(settings, manner)
    become(settings.pooler.user)
    predecessor = None
    if manner.take_over:
        predecessor = follow(control_path(settings.pooler, os.environ), os.environ)
    if predecessor is not None:
        passed = predecessor.passed
    elif manner.take_over:
        check_ports(settings)
    daemon = Daemon()
    if manner.daemon:
        daemon.detach()
    if manner.daemon or manner.quiet:
        be_quiet()
    try:
        return _serve(settings, config_path, manner, daemon, passed, predecessor)
    except StartupError as error:
        if manner.daemon or manner.quiet:
            log.critical("cannot start", reason=str(error))
        daemon.report(str(error))
        raise
    except Exception as error:
        if manner.daemon or manner.quiet:
            log.critical("the pooler failed", exc_info=error)
        daemon.report(f"{type(error).__name__}: {error}")
        raise


def _serve(
    settings: Settings,
    config_path: Path,
    manner: Manner,
    daemon: Daemon,
    passed: PassedSockets,
    predecessor: Predecessor | None,
) -> int:
    configure_logging(settings.pooler)
    tell(settings.notes)
    raise_open_file_limit(settings)
    # What is there by now stays. Otherwise every full collection of garbage looks at all of it, for more than 50 ms in
    # which nobody is served, and where there are workers, each gets a copy of its own.
    gc.collect()
    gc.freeze()
    with _forks(settings, passed, daemon, predecessor) as forks:
        return _run(settings, config_path, manner, daemon, passed, predecessor, forks)


@contextmanager
def _forks(
    settings: Settings, passed: PassedSockets, daemon: Daemon, predecessor: Predecessor | None
) -> Iterator[Forks | None]:
    """Where workers come from; None if there are none. It is made before there is an event loop."""
    workers = settings.pooler.workers
    if workers == 1:
        yield None
        return

    def leave() -> None:
        passed.close()
        if predecessor is not None:
            predecessor.close()
        daemon.leave()
        let_go()

    forks = Forks(leave, mmap(-1, board_size(workers) + tally_size(workers)))
    try:
        yield forks
    finally:
        forks.close()


def _run(
    settings: Settings,
    config_path: Path,
    manner: Manner,
    daemon: Daemon,
    passed: PassedSockets,
    predecessor: Predecessor | None,
    forks: Forks | None,
) -> int:
    other = running(settings.pooler.pidfile) if manner.take_over else 0

    def serving() -> None:
        daemon.report()
        if other and predecessor is None:
            log.info("the process before is told to end when its clients have left", pid=other)
            tell_to_end(other)

    notifier = Notifier(ServiceManager.found(os.environ))
    with pid_file(settings.pooler.pidfile, take_over=bool(other)), closing(notifier):
        beside = 0 if predecessor is not None else other
        pooler: Pooler | Supervisor
        if forks is None:
            pooler = Pooler(settings, config_path, manner, serving, passed, notifier, predecessor, beside)
        else:
            place = Place(notifier, predecessor, manner.command, beside, caches=keeps_answers(settings))
            pooler = Supervisor(settings, config_path, manner, serving, passed, notifier, place, forks)
        return trio.run(pooler.run)
