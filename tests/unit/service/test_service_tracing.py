"""Traces: spans of what has happened, after it has."""

from __future__ import annotations

import logging
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from hyperpool.config import DatabaseSettings, PoolerSettings, Settings
from hyperpool.errors import ConnectFailed, StartupError
from hyperpool.pool.state import Pool
from hyperpool.service import tracing
from hyperpool.service.tracing import Tracing, start_tracing
from hyperpool.transport.kinds import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.relay.handover import RelayPool

_PARENT = "traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Gets the spans."""
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> Callable[[int], Tracing]:
    """Makes what makes spans of one in so many."""

    def make(every: int) -> Tracing:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Tracing(every, provider)

    return make


@pytest.fixture
def pool() -> RelayPool:
    """A pool."""
    settings = Settings(databases={"app": DatabaseSettings(host="db.example")}).pool_for("app", "ann")
    assert settings is not None
    return Pool(settings, lambda: 0.5)


def _seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_the_way_to_a_server(
    traced: Callable[[int], Tracing], exporter: InMemorySpanExporter, pool: RelayPool
) -> None:
    """Each hop is a part of the whole, at its time; one that fails makes both a failure."""
    trace = Trace()
    with trace.hop("tcp", "db.example:5432") as hop:
        hop.facts["address"] = "192.0.2.1"
    with pytest.raises(ConnectFailed), trace.hop("tls", "db.example"):
        raise ConnectFailed("not trusted")
    trace.hops[0].seconds = 0.25
    traced(1).connected(pool, trace)
    tcp, tls, whole = exporter.get_finished_spans()
    assert [span.name for span in (tcp, tls, whole)] == [
        "tcp db.example:5432",
        "tls db.example",
        "connect to server",
    ]
    assert whole.context is not None
    assert all(
        span.parent is not None and span.parent.span_id == whole.context.span_id for span in (tcp, tls)
    )
    assert _seconds(tcp) == pytest.approx(0.25, abs=1e-5)
    assert _attributes(tcp) == {"hyperpool.address": "192.0.2.1"}
    assert [span.status.is_ok for span in (tcp, tls, whole)] == [True, False, False]
    assert tls.status.description == "not trusted"
    assert _attributes(whole)["db.namespace"] == "app"
    assert tcp.start_time == whole.start_time
    assert tls.end_time == whole.end_time


def test_a_login(traced: Callable[[int], Tracing], exporter: InMemorySpanExporter, pool: RelayPool) -> None:
    """It has ended just now."""
    traced(1).logged_in(pool, "192.0.2.7:5", 0.5)
    (span,) = exporter.get_finished_spans()
    assert _seconds(span) == pytest.approx(0.5)
    assert span.end_time is not None
    assert abs(span.end_time / 1e9 - time.time()) < 5
    assert _attributes(span)["client.address"] == "192.0.2.7:5"


def test_one_in_so_many(
    traced: Callable[[int], Tracing], exporter: InMemorySpanExporter, pool: RelayPool
) -> None:
    """Of each kind."""
    some, trace = traced(3), Trace()
    with trace.hop("tcp"):
        pass
    for _ in range(7):
        some.logged_in(pool, "", 0.1)
        some.connected(pool, trace)
    names = [span.name for span in exporter.get_finished_spans()]
    assert (names.count("client login"), names.count("connect to server")) == (2, 2)


@pytest.mark.parametrize("comment", [f"/*{_PARENT}*/", ""])
def test_a_slow_query(
    traced: Callable[[int], Tracing], exporter: InMemorySpanExporter, pool: RelayPool, comment: str
) -> None:
    """It belongs to the client's own trace, if the query names one; values are not told."""
    server: Any = SimpleNamespace(pool=pool, address="192.0.2.1:5432")
    told = {"fingerprint": "f", "query": "SELECT $1"}
    traced(1000).slow(server, 2.0, f"SELECT 'secret' {comment}".encode(), told)
    (span,) = exporter.get_finished_spans()
    assert _seconds(span) == pytest.approx(2.0)
    assert _attributes(span)["db.query.text"] == "SELECT $1"
    assert "secret" not in repr(_attributes(span))
    assert span.context is not None
    if comment:
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    else:
        assert span.parent is None


async def test_the_last_spans_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever."""
    ended: list[str] = []
    quick: Any = SimpleNamespace(get_tracer=lambda _: None, shutdown=lambda: ended.append("quick"))
    await Tracing(1, quick).close()
    assert ended == ["quick"]
    monkeypatch.setattr(tracing, "_PATIENCE", 0.0)
    slow: Any = SimpleNamespace(get_tracer=lambda _: None, shutdown=lambda: time.sleep(0.2))
    with capture_logs() as logs:
        await Tracing(1, slow).close()
    assert [entry["event"] for entry in logs] == ["traces were lost: nobody took the last ones"]


def test_tracing_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting nothing is loaded; with it, what is missing is told with the remedy."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert start_tracing(PoolerSettings()) is None
    with pytest.raises(StartupError, match="its extra otel"):
        start_tracing(PoolerSettings(trace_every=1))


async def test_it_is_named_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by itself if that says nothing."""
    for given, name in ({"OTEL_SERVICE_NAME": "front"}, "front"), ({}, "hyperpool"):
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        for variable, value in given.items():
            monkeypatch.setenv(variable, value)
        made = start_tracing(PoolerSettings(trace_every=1))
        assert made is not None
        assert made._provider.resource.attributes["service.name"] == name
        with capture_logs() as logs:
            await trio.to_thread.run_sync(logging.getLogger("opentelemetry.sdk").warning, "nobody is there")
            await wait_all_tasks_blocked()
        assert [(entry["event"], entry["complaint"]) for entry in logs] == [
            ("OpenTelemetry", "nobody is there")
        ]
        await made.close()
