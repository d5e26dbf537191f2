"""docs/cache.md: each hazard has a test, and each reason is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hyperpool.sql.reasons import Reason, Stage

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "cache.md").read_text("utf-8")
_STAGES: Final = {
    Stage.TEXT: "Because of its text",
    Stage.CATALOG: "Because of what the database's catalog says",
    Stage.MOMENT: "At the moment when it is asked",
}


def _hazards() -> list[tuple[str, list[str]]]:
    _, _, part = PAGE.partition("## Hazards")
    found = re.findall(r"^\| (?!hazard|\*\*|---)(.*?) \| (.*) \|$", part, re.MULTILINE)
    return [(hazard, re.findall(r"`(test_\w+)`", tests)) for hazard, tests in found]


def test_each_hazard_has_tests_that_exist() -> None:
    """A test that is renamed or removed is noticed."""
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^ *(?:async )?def (test_\w+)\(", sources, re.MULTILINE))
    hazards = _hazards()
    assert len(hazards) > 40
    for hazard, tests in hazards:
        assert tests, hazard
        assert not set(tests) - there, hazard


def test_each_reason_is_explained() -> None:
    """As SHOW CACHE_REASONS does."""
    lines = ["<!-- reasons -->"]
    for stage, title in _STAGES.items():
        lines += [f"| {title} | what it means | what to do |", "|---|---|---|"]
        lines += [
            f"| `{one.value}` | {one.sentence} | {one.remedy} |" for one in Reason if one.stage is stage
        ]
        lines.append("")
    expected = "\n".join((*lines, "<!-- end -->"))
    found = re.search(r"^<!-- reasons -->$.*?^<!-- end -->$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[0] == expected, f"docs/cache.md should have:\n{expected}"
