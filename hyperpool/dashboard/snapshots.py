"""What the page shows, made when somebody looks, and once a second at most for all who look."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from hyperpool.admin.merging import PLANS
from hyperpool.admin.team import asked
from hyperpool.overview.collect import Collector
from hyperpool.overview.report import as_json
from hyperpool.workers.messages import Deed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Row
    from hyperpool.admin.team import Team
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
        team: all processes of the pooler; None if this is the only one.
    """

    def __init__(
        self,
        around: Surroundings,
        views: Register,
        cpu: Callable[[], float] = time.thread_time,
        team: Team | None = None,
    ) -> None:
        self._around = around
        self._views = views
        self._collector = Collector(self._read)
        self._cpu = cpu
        self._team = team
        self._tables: dict[str, list[Row]] = {}
        self._good_until = float("-inf")
        self._newest = b""

    async def newest(self) -> bytes:
        """A snapshot as JSON, not older than `PERIOD`, or a little older if it takes long to make one."""
        now = self._around.relay.time()
        if now >= self._good_until:
            if self._team is not None:
                await self._gather(self._team)
            began = self._cpu()
            self._newest = json.dumps(as_json(self._collector.look(now)), separators=(",", ":")).encode()
            self._good_until = now + max(PERIOD, _TIMES_ITS_COST * (self._cpu() - began))
        return self._newest

    async def _gather(self, team: Team) -> None:
        """Put the tables of all processes together."""
        plans = {name: PLANS[name] for name in self._collector.views if name in PLANS}
        parts = list(dict.fromkeys(Deed(*part) for plan in plans.values() for part in plan.parts))
        answers = await asked(team, parts)
        tables = {part: [outcomes[at].rows for outcomes in answers] for at, part in enumerate(parts)}
        self._tables = {
            name: list(plan.merge(self._around, [tables[Deed(*part)] for part in plan.parts]))
            for name, plan in plans.items()
        }

    def _read(self, name: str) -> tuple[Sequence[str], Iterable[Sequence[Value]]] | None:
        view = self._views.find(name)
        if view is None:
            return None
        gathered = self._tables.get(name)
        rows = view.rows(self._around) if gathered is None else gathered
        # The overview uses no column of bytes.
        return [column.name for column in view.shape], rows  # type: ignore[return-value]
