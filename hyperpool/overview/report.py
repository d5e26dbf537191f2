"""An overview for programs: what the dashboard's page gets, and what `hyperpool top --json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.overview.model import Shown


def as_json(shown: Iterable[Shown]) -> list[dict[str, Any]]:
    """Panels with their fields, and rows whose cells are in the order of the fields.

    Times are in microseconds, shares between 0 and 1, and null is what is not known.
    """
    return [
        {
            "key": one.panel.key,
            "title": one.panel.title,
            "empty": one.panel.empty,
            "more": one.more,
            "fields": [
                {"name": field.name, "title": field.title, "kind": field.kind.value, "alarm": field.alarm}
                for field in one.panel.fields
            ],
            "rows": one.rows,
        }
        for one in shown
    ]
