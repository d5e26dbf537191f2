"""Metrics: what is told, in which form, and who shows it."""

from __future__ import annotations

import itertools
import json
import re
import runpy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from hyperpool.cache.database import DatabaseCache
from hyperpool.config import PoolMode, SessionState
from hyperpool.config.http import HttpSettings
from hyperpool.http.metrics import METRICS, Exporter, add_metrics
from hyperpool.http.site import Site
from hyperpool.sql.reasons import Reason
from tests.support.asgi import ask
from tests.support.desk import Desk
from tests.support.fronthouse import begin_query, open_houses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.relay.handover import RelayPool

DOCS = Path(__file__).parents[3] / "docs"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A pooler of which there is everything to tell."""
    with open_houses() as make:
        desk = Desk(
            make(pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP), tmp_path / "pooler.yaml"
        )
        begin_query(desk.house)
        stats = desk.house.pool().stats
        stats.pins["LISTEN"] = 2
        stats.hop("tcp", 0.003)
        stats.hop("login", 0.1, failed=True)
        stats.login_times.observe(0.01)
        cache = DatabaseCache(lambda _: None)
        cache.stats.hits, cache.stats.saved = 3, 0.5
        cache.stats.refused[Reason.OWN_WRITE] = 4
        cache.stats.invalidations["write"] = 5
        cast("Any", desk.consoles.around.cache)._databases[(), (), "app"] = cache
        desk.faults.levels["warning"] = 6
        yield desk


def _around(desk: Desk) -> Surroundings:
    agents: Any = SimpleNamespace(counts=lambda: {"site": (1, 4, 7)})
    return attrs.evolve(desk.consoles.around, agents=agents)


async def _scraped(around: Surroundings, exporter: Exporter | None = None, limit: int = 10) -> Samples:
    text = (await (exporter or Exporter(around)).scrape(limit)).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} stands there twice"
            found[key] = sample.value
    return found


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_everything_has_its_value(desk: Desk) -> None:
    """Of the pool, of the database, of the cache and of the process."""
    pool = desk.house.pool()
    pool.stats.received, pool.stats.waited, pool.stats.query_time = 11, 1.5, 2.5
    pool.stats.query_buckets[12] += 2
    pool.stats.wait_buckets[40] += 1
    pool.pinned = 1
    samples = await _scraped(_around(desk))
    of = {"database": "app", "user": "ann"}
    assert _value(samples, "hyperpool_received_bytes_total", **of) == 11
    assert _value(samples, "hyperpool_pinned_servers", **of) == 1
    assert _value(samples, "hyperpool_pool_paused", **of) == 0
    assert _value(samples, "hyperpool_pool_size", **of) == pool.settings.pool_size
    assert _value(samples, "hyperpool_clients", **of, state="active") == 1
    assert _value(samples, "hyperpool_clients", **of, state="idle") == 0
    assert _value(samples, "hyperpool_servers", **of, state="active") == 1
    assert _value(samples, "hyperpool_query_seconds_sum", **of) == 2.5
    assert _value(samples, "hyperpool_query_seconds_bucket", **of, le="0.002048") == 0
    assert _value(samples, "hyperpool_query_seconds_bucket", **of, le="0.004096") == 2
    assert _value(samples, "hyperpool_query_seconds_bucket", **of, le="+Inf") == 2
    assert _value(samples, "hyperpool_wait_seconds_bucket", **of, le="67.1089") == 0
    assert _value(samples, "hyperpool_wait_seconds_count", **of) == 1
    assert _value(samples, "hyperpool_pins_total", **of, reason="LISTEN") == 2
    assert _value(samples, "hyperpool_server_connect_seconds_count", database="app", hop="tcp") == 1
    assert _value(samples, "hyperpool_server_connect_failures_total", database="app", hop="login") == 1
    assert _value(samples, "hyperpool_cache_requests_total", database="app", result="hit") == 3
    refused = {"what": "query", "reason": Reason.OWN_WRITE.value}
    assert _value(samples, "hyperpool_cache_refusals_total", database="app", **refused) == 4
    assert _value(samples, "hyperpool_cache_invalidations_total", database="app", source="write") == 5
    assert _value(samples, "hyperpool_agents", agent="site") == 1
    assert _value(samples, "hyperpool_agent_connections", agent="site", state="waiting") == 4
    assert _value(samples, "hyperpool_log_entries_total", level="warning") == 6
    assert _value(samples, "hyperpool_connections") == 1
    assert _value(samples, "process_open_fds") > 3


async def test_the_oldest_wait(desk: Desk) -> None:
    """It is that of the first one in the queue."""
    pool = desk.house.pool()
    now = desk.house.relay.time()
    for client, since in ((object(), now - 3), (object(), now - 1)):
        pool.waiting[cast("Any", client)] = since
    samples = await _scraped(_around(desk))
    pool.waiting.clear()
    assert 3 <= _value(samples, "hyperpool_oldest_wait_seconds", database="app", user="ann") < 4
    assert _value(samples, "hyperpool_clients", database="app", user="ann", state="waiting") == 2


async def test_a_histogram_is_told_anew_when_it_has_changed(desk: Desk) -> None:
    """And is the same until then."""
    around, stats = _around(desk), desk.house.pool().stats
    exporter, key = Exporter(around), {"database": "app", "user": "ann"}
    counts = []
    for _ in range(3):
        stats.transaction_buckets[3] += 1
        stats.transaction_time += 5e-6
        samples = [await _scraped(around, exporter) for _ in range(2)]
        assert samples[0]["hyperpool_transaction_seconds_count", frozenset(key.items())] == (
            _value(samples[1], "hyperpool_transaction_seconds_count", **key)
        )
        counts.append(_value(samples[0], "hyperpool_transaction_seconds_count", **key))
    assert counts == [counts[0], counts[0] + 1, counts[0] + 2]


def _pools(desk: Desk, *users: str) -> list[RelayPool]:
    pools = [desk.house.pools.find("app", user) for user in users]
    for number, pool in enumerate(pools, 1):
        assert pool is not None
        pool.stats.received += number
    return cast("list[RelayPool]", pools)


def _received(samples: Samples) -> dict[str, float]:
    return {
        dict(labels)["user"]: value
        for (name, labels), value in samples.items()
        if name == "hyperpool_received_bytes_total"
    }


async def test_there_is_a_bound_to_the_number_of_series(desk: Desk) -> None:
    """Whoever comes too late is counted with the others, and stays there."""
    around = _around(desk)
    exporter = Exporter(around)
    _pools(desk, "bob", "cleo", "dave")
    first = _received(await _scraped(around, exporter, 2))
    assert set(first) == {"ann", "bob", "other"}
    assert first["other"] == 2 + 3
    _pools(desk, "bob", "cleo", "dave", "eve")
    assert _received(await _scraped(around, exporter, 2))["other"] == 2 * (2 + 3) + 4
    many = [f"user{number}" for number in range(50)]
    _pools(desk, *many)
    samples = await _scraped(around, exporter, 2)
    assert set(_received(samples)) == {"ann", "bob", "other"}
    assert _value(samples, "hyperpool_pools") == 5 + 50


async def test_many_pools_are_one_family(desk: Desk) -> None:
    """Its lines stand together, behind one header, and the relay has had its turn between them."""
    _pools(desk, *(f"user{number}" for number in range(120)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        clock = itertools.count(step=0.001)
        text = (await Exporter(_around(desk), lambda: next(clock)).scrape(200)).decode()
        nursery.cancel_scope.cancel()
    assert text.count("# TYPE hyperpool_query_seconds histogram") == 1
    assert text.count("hyperpool_query_seconds_count{") == 121
    assert turns > len(METRICS)
    lines = [line.startswith("hyperpool_query_seconds") for line in text.splitlines() if line[0] != "#"]
    assert sum(one != two for one, two in itertools.pairwise(lines)) == 2


async def test_counters_never_go_back(desk: Desk) -> None:
    """What pools that are gone have counted stays among the others; a name that is free is given away."""
    around = _around(desk)
    exporter = Exporter(around)
    bob, cleo, *_ = _pools(desk, "bob", "cleo", "dave")
    before = _received(await _scraped(around, exporter, 2))
    for pool in (bob, cleo):
        pool.stats.received += 100
        desk.house.pools._forget([pool])
    after = _received(await _scraped(around, exporter, 2))
    assert after["other"] == before["other"] + 100
    assert set(after) == {"ann", "other"}
    _pools(desk, "fay")
    final = _received(await _scraped(around, exporter, 2))
    assert (set(final), final["other"]) == ({"ann", "fay", "other"}, after["other"])


async def test_who_is_called_other_is_one_of_the_others(desk: Desk) -> None:
    """No series stands there twice."""
    around = _around(desk)
    pool = desk.house.pools._new(attrs.evolve(desk.house.pool().settings, database="other", user="other"))
    pool.stats.received = 5
    desk.house.pools._private[pool] = {}
    samples = await _scraped(around)
    assert _value(samples, "hyperpool_received_bytes_total", database="other", user="other") == 5


async def test_pools_of_the_same_name_are_one(desk: Desk) -> None:
    """Clients that replicate have pools of their own; when these are gone, their counts are not."""
    around = _around(desk)
    exporter = Exporter(around)
    own = desk.house.pools.private("app", "ann", "database", {})
    assert own is not None
    own.stats.received = 7
    before = _received(await _scraped(around, exporter))["ann"]
    assert before == desk.house.pool().stats.received + 7
    desk.house.pools.prune(desk.house.relay.time())
    assert own not in set(desk.house.pools)
    assert _received(await _scraped(around, exporter))["ann"] == before


async def test_names_are_hostile(desk: Desk) -> None:
    """Quotes, newlines, percent signs and what is no text at all make no lines of their own."""
    names = ['"', "a\nb", "%s%(x)d%", "\\", "\udcff", "}"]
    for name in names:
        desk.house.pools._private[
            desk.house.pools._new(attrs.evolve(desk.house.pool().settings, database=name))
        ] = {}
    samples = await _scraped(_around(desk))
    found = {dict(labels)["database"] for name, labels in samples if name == "hyperpool_pool_size"}
    assert found == {*names[:4], "\\udcff", "}", "app"}


async def test_both_formats_tell_the_same(desk: Desk) -> None:
    """Prometheus asks for OpenMetrics, which is stricter, and ends with a mark."""
    settings = HttpSettings()
    site = Site(lambda: settings, nullcontext)
    add_metrics(site, Exporter(_around(desk)).scrape, lambda: settings)
    app = site.app()
    plain = await ask(app, "/metrics")
    strict = await ask(
        app, "/metrics", {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    )
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert strict.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert strict.text.endswith("# EOF\n")
    names = {
        sample.name
        for family in openmetrics.text_string_to_metric_families(strict.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    samples = {
        sample.name for family in text_string_to_metric_families(plain.text) for sample in family.samples
    }
    assert names == samples


def test_metrics_are_called_as_prometheus_advises() -> None:
    """By their unit, in lower case, with a line for people; no two have the same name."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"hyperpool(_[a-z]+)*", metric.name)
        assert not metric.name.endswith("_total")
        assert metric.about.endswith(".")


# -- who shows them --------------------------------------------------------------------------------------------------

_NAME = re.compile(r"\b(?:hyperpool|process)_\w+")
_BY = re.compile(r"by \(([^)]*)\)")
_CHOSEN = re.compile(r"(\w+)=~?\"")
_LEGEND = re.compile(r"{{(\w+)}}")


def _queries() -> Iterator[tuple[str, str, str]]:
    """Panel, expression and legend of each query of the dashboard for Grafana."""
    for panel in json.loads((DOCS / "grafana.json").read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def test_the_dashboard_is_what_is_generated() -> None:
    """Whoever changes a panel writes the file anew."""
    generator = runpy.run_path(str(DOCS / "generate_grafana.py"))
    assert (DOCS / "grafana.json").read_text("utf-8") == generator["render"](), (
        "run python docs/generate_grafana.py"
    )


async def test_panels_of_grafana_show_what_there_is(desk: Desk) -> None:
    """Every metric and every label that a panel uses is there."""
    labels: dict[str, set[str]] = {}
    for name, pairs in await _scraped(_around(desk)):
        labels.setdefault(name, {"instance"}).update(label for label, _ in pairs)
    for title, expression, legend in _queries():
        names = set(_NAME.findall(expression))
        assert names, f"the panel {title!r} of Grafana shows nothing"
        for name in names:
            assert name in labels, f"the panel {title!r} of Grafana shows {name}, which is not there"
            used = {*_CHOSEN.findall(expression), *_LEGEND.findall(legend)}
            used |= {one.strip() for by in _BY.findall(expression) for one in by.split(",")}
            missing = used - labels[name]
            assert not missing, f"the panel {title!r} of Grafana uses labels that {name} has not: {missing}"


def test_every_metric_is_shown_by_a_panel_and_explained() -> None:
    """So that a new name of any of them is missed there."""
    shown = {name for _, expression, _ in _queries() for name in _NAME.findall(expression)}
    page = (DOCS / "metrics.md").read_text("utf-8")
    for metric in METRICS:
        samples = {metric.sample, *(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))}
        assert samples & shown, f"no panel of Grafana shows {metric.name}"
        assert f"| `{metric.sample}` |" in page, f"docs/metrics.md does not explain {metric.sample}"
