"""Metrics of several processes, put together."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from hyperpool.http.together import Together

_TEXT = """\
# HELP hyperpool_queries_total Queries, }} and spaces.
# TYPE hyperpool_queries_total counter
hyperpool_queries_total{{database="a b}} 1",user="ann"}} {queries}
# HELP hyperpool_pool_size Servers.
# TYPE hyperpool_pool_size gauge
hyperpool_pool_size{{database="app"}} 20
# HELP hyperpool_clients Clients.
# TYPE hyperpool_clients gauge
hyperpool_clients{{database="app"}} {clients}
# HELP hyperpool_query_seconds Times.
# TYPE hyperpool_query_seconds histogram
hyperpool_query_seconds_bucket{{le="0.5"}} 1
hyperpool_query_seconds_bucket{{le="+Inf"}} {queries}
hyperpool_query_seconds_sum 0.25
hyperpool_query_seconds_count {queries}
"""


def _values(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return {f"{one.name} {one.labels.get('le', '')}".strip(): one.value for one in samples}


def test_sums_and_what_is_the_same_everywhere() -> None:
    """Counters, gauges and histograms are summed up; limits are not."""
    text = Together().joined(
        [(0, 10, _TEXT.format(queries=3, clients=1)), (1, 11, _TEXT.format(queries=4, clients=2))]
    )
    assert _values(text) == {
        "hyperpool_queries_total": 7,
        "hyperpool_pool_size": 20,
        "hyperpool_clients": 3,
        "hyperpool_query_seconds_bucket 0.5": 2,
        "hyperpool_query_seconds_bucket +Inf": 7,
        "hyperpool_query_seconds_sum": 0.5,
        "hyperpool_query_seconds_count": 7,
    }
    assert 'database="a b} 1",user="ann"} 7\n' in text


def test_what_only_one_of_them_has() -> None:
    """It stands with its own."""
    other = '# HELP hyperpool_clients Clients.\n# TYPE hyperpool_clients gauge\nhyperpool_clients{database="x"} 5\n'
    text = Together().joined([(0, 10, _TEXT.format(queries=3, clients=1)), (1, 11, other), (2, 12, "")])
    lines = text.splitlines()
    at = lines.index('hyperpool_clients{database="app"} 1')
    assert lines[at + 1] == 'hyperpool_clients{database="x"} 5'


def test_counters_do_not_go_back_when_a_process_has_died() -> None:
    """What it had counted stays; what it was like does not."""
    together = Together()
    together.joined(
        [(0, 10, _TEXT.format(queries=3, clients=1)), (1, 11, _TEXT.format(queries=4, clients=2))]
    )
    for _ in range(2):
        text = together.joined(
            [(0, 10, _TEXT.format(queries=3, clients=1)), (1, 12, _TEXT.format(queries=1, clients=1))]
        )
        values = _values(text)
        assert values["hyperpool_queries_total"] == 8
        assert values["hyperpool_query_seconds_bucket +Inf"] == 8
        assert values["hyperpool_clients"] == 2


def test_counters_do_not_go_back_while_a_process_is_missing() -> None:
    """It has died, and the next one is not there yet; then that one counts from the beginning."""
    together = Together()
    own, other = (0, 10, _TEXT.format(queries=3, clients=1)), _TEXT.format(queries=4, clients=2)
    together.joined([own, (1, 11, other)])
    counted = [
        _values(together.joined(scrapes))["hyperpool_queries_total"]
        for scrapes in ([own], [own], [own, (1, 12, other)], [own, (1, 12, other)])
    ]
    assert counted == [7, 7, 11, 11]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_openmetrics_ends_with_its_mark(count: int) -> None:
    """Once."""
    text = "# HELP hyperpool_clients Clients.\n# TYPE hyperpool_clients gauge\nhyperpool_clients 1\n# EOF\n"
    joined = Together().joined([(worker, worker, text) for worker in range(count)])
    assert joined.count("# EOF") == min(count, 1)
    if count:
        (family,) = cast("Any", openmetrics).text_string_to_metric_families(joined)
        assert family.samples[0].value == count
