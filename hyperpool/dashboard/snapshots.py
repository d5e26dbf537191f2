"""What the page shows, made when somebody looks, and once a second at most for all who look."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from hyperpool.overview.collect import Collector
from hyperpool.overview.report import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.views import Register
    from hyperpool.overview.model import Value

PERIOD: Final = 1.0
"""Seconds for which a snapshot is good enough for everybody."""

_TIMES_ITS_COST: Final = 150
"""A snapshot is good for so many times as long as it took, so that looking costs less than a hundredth of the time."""


class Snapshots:
    """Makes snapshots of this process.

    Args:
        around: what there is to see.
        views: how it is seen.
        cpu: seconds of this thread's processor time.
    """

    def __init__(
        self, around: Surroundings, views: Register, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        self._around = around
        self._views = views
        self._collector = Collector(self._read)
        self._cpu = cpu
        self._good_until = float("-inf")
        self._newest = b""

    def newest(self) -> bytes:
        """A snapshot as JSON, not older than `PERIOD`, or a little older if it takes long to make one."""
        now = self._around.relay.clock()
        if now >= self._good_until:
            began = self._cpu()
            self._newest = json.dumps(as_json(self._collector.look(now)), separators=(",", ":")).encode()
            self._good_until = now + max(PERIOD, _TIMES_ITS_COST * (self._cpu() - began))
        return self._newest

    def _read(self, name: str) -> tuple[Sequence[str], Iterable[Sequence[Value]]] | None:
        view = self._views.find(name)
        if view is None:
            return None
        # The overview uses no column of bytes.
        return [column.name for column in view.shape], view.rows(self._around)  # type: ignore[return-value]
