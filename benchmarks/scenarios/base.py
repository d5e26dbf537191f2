"""What all scenarios have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from attrs import field, frozen

from benchmarks.stage import Variant

if TYPE_CHECKING:
    from benchmarks.results import Result
    from benchmarks.stage import Server, Stage


@frozen(kw_only=True)
class Scenario(ABC):
    """One thing to measure.

    Attributes:
        name: how tables and ``--only`` call it.
        group: which table it belongs to, see `benchmarks.groups`.
        targets: the names of those that can be measured with it, see `benchmarks.targets`.
        variant: how they are set up.
        fresh: whether each measurement needs a target that has served nobody before.
        quick: whether it is part of the short run.
        most_rounds: how often it is measured at most; None for as often as the others.
    """

    name: str
    group: str
    targets: tuple[str, ...]
    variant: Variant = field(factory=Variant)
    fresh: bool = False
    quick: bool = False
    most_rounds: int | None = None

    def prepare(self, stage: Stage) -> None:  # noqa: B027 - most need nothing
        """Bring the database into the state that each measurement starts from.

        Raises:
            BenchError: that fails.
            OSError: PostgreSQL is gone.
        """

    @abstractmethod
    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:
        """Measure one target once.

        Args:
            stage: the tools.
            server: the target.
            seconds: how long to measure, where the time is free to choose.

        Raises:
            BenchError: anything went wrong; the figures would be worth nothing.
            OSError: the same, from a socket.
        """
