"""The metrics of several processes that are one pooler, put together into those of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LARGEST: Final = re.compile(
    r"hyperpool(_info|_pool_size|_pool_paused|_oldest_wait_seconds|_max_connections|_pools)?"
    r"|process_(max_fds|start_time_seconds)"
)
"""Metrics that are the same in all processes, or of which the largest tells more than the sum does."""

_GROWS: Final = frozenset({"counter", "histogram"})


@attrs.define(eq=False)
class _Family:
    """Samples of one metric.

    Attributes:
        header: the lines in front of them.
        kind: as the header says.
        samples: by name and labels, as they are written.
    """

    header: list[str]
    kind: str
    samples: dict[str, float] = attrs.field(factory=dict)

    @property
    def is_largest(self) -> bool:
        """Whether samples of several processes are not summed up."""
        return _LARGEST.fullmatch(self.header[0].split(" ", 3)[2]) is not None


class Together:
    """Puts scrapes together, and remembers what processes had counted that are there no longer.

    Counters go on when a worker dies: what it had counted at the last scrape is added to all that come.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, dict[str, float]]] = {}
        self._past: dict[str, float] = {}

    def joined(self, scrapes: Iterable[tuple[int, int, str]]) -> str:
        """One scrape of all.

        Args:
            scrapes: of each worker: its number, its process id, and its metrics as text, all in the same format.
        """
        families: dict[str, _Family] = {}
        end = ""
        there: set[int] = set()
        for worker, pid, text in scrapes:
            there.add(worker)
            found = _parsed(text)
            end = "# EOF\n" if text.endswith("# EOF\n") else end
            self._remember(worker, pid, found)
            for name, family in found.items():
                known = families.get(name)
                if known is None:
                    families[name] = family
                    continue
                for sample, value in family.samples.items():
                    before = known.samples.get(sample, 0.0)
                    known.samples[sample] = max(before, value) if family.is_largest else before + value
        for worker in self._last.keys() - there:
            # It has died, and the next one of its number may take a while.
            self._bury(worker)
        lines: list[str] = []
        for family in families.values():
            lines += family.header
            for sample, value in family.samples.items():
                past = self._past.get(sample, 0.0) if family.kind in _GROWS else 0.0
                lines.append(f"{sample} {_number(value + past)}")
        return "".join(f"{line}\n" for line in lines) + end

    def _remember(self, worker: int, pid: int, families: Mapping[str, _Family]) -> None:
        if worker in self._last and self._last[worker][0] != pid:
            self._bury(worker)
        growing = (family.samples for family in families.values() if family.kind in _GROWS)
        self._last[worker] = pid, {sample: value for samples in growing for sample, value in samples.items()}

    def _bury(self, worker: int) -> None:
        _, counted = self._last.pop(worker)
        for sample, value in counted.items():
            self._past[sample] = self._past.get(sample, 0.0) + value


def _parsed(text: str) -> dict[str, _Family]:
    """The families of a scrape, by name, in its order."""
    families: dict[str, _Family] = {}
    newest = _Family([], "")
    for line in text.splitlines():
        if line == "# EOF":
            continue
        if not line.startswith("#"):
            # Labels may hold anything but a line feed, and the number is what is behind the last space.
            sample, _, value = line.rpartition(" ")
            newest.samples[sample] = float(value)
            continue
        _, word, name, rest = (*line.split(" ", 3), "")[:4]
        newest = families.setdefault(name, _Family([], ""))
        newest.header.append(line)
        if word == "TYPE":
            newest.kind = rest
    return families


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
