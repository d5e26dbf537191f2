"""A metric that gets another name is missed by panels of Grafana and by a page: here it is said by which."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.http.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hyperpool.http.exposition import Metric

DOCS = Path(__file__).parents[3] / "docs"

_NAME = re.compile(r"\bhyperpool_\w+")


def _shown() -> Iterator[tuple[str, str]]:
    """Panels of Grafana, and names of samples that they show."""
    for panel in json.loads((DOCS / "grafana.json").read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            for name in _NAME.findall(target["expr"]):
                yield panel["title"], name


def _samples(metric: Metric) -> list[str]:
    if metric.kind == "histogram":
        return [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
    return [metric.sample]


def _broken(metrics: Iterable[Metric]) -> list[str]:
    there = {name for metric in metrics for name in _samples(metric)}
    told = [
        f"the panel {title!r} of Grafana shows {name}, which is not there"
        for title, name in dict.fromkeys(_shown())
        if name not in there
    ]
    explained = re.findall(
        r"^\| `(hyperpool_\w+)` \|", (DOCS / "metrics.md").read_text("utf-8"), re.MULTILINE
    )
    known = {metric.sample for metric in metrics}
    told += [
        f"docs/metrics.md explains {name}, which is not there" for name in explained if name not in known
    ]
    return told


def test_what_is_shown_and_explained_is_there() -> None:
    """Each panel's metrics, and each of the page."""
    broken = _broken(METRICS)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_new_name_of_any_metric_is_noticed(metric: Metric) -> None:
    """The message names each panel that would have broken, and the page."""
    renamed = attrs.evolve(metric, name=f"{metric.name}_new")
    broken = _broken([renamed if one is metric else one for one in METRICS])
    panels = {title for title, name in _shown() if name in _samples(metric)}
    assert panels, f"no panel of Grafana shows {metric.name}"
    for title in panels:
        assert any(one.startswith(f"the panel {title!r} of Grafana shows {metric.name}") for one in broken)
    assert f"docs/metrics.md explains {metric.sample}, which is not there" in broken
