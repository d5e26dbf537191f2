"""The drivers of other languages than Python, see `tests.drivers.matrix`."""

from __future__ import annotations

from typing import Final

from tests.drivers.checklist import Driver

OTHER: Final[tuple[Driver, ...]] = ()
