"""Traces for OpenTelemetry: how servers were reached, how clients logged in, and slow queries.

Where they go and as what is said by the environment variables that OpenTelemetry's SDK reads
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ...). Spans are made when what they tell of is over, and sent
by a thread of the SDK's own: no query waits for any of it.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from hyperpool.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config import PoolerSettings
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.pool.handover import AnyPool
    from hyperpool.pool.warmer import Warmer
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.server import ServerConnection
    from hyperpool.relay.slow import SlowLog
    from hyperpool.transport.kinds import Trace

log = structlog.get_logger("tracing")

_PARENT: Final = re.compile(rb"traceparent='00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})'")
"""What libraries that follow sqlcommenter put into a comment of a query (W3C Trace Context, section 3.2)."""
_PATIENCE: Final = 3.0
"""Seconds that the last spans have to be sent at the end."""


class Tracing:
    """Makes spans.

    Args:
        every: of so many logins and server connections, one is traced.
        provider: OpenTelemetry's `TracerProvider`.
    """

    def __init__(self, every: int, provider: Any) -> None:  # noqa: ANN401 - of an optional library
        self._every = every
        self._provider = provider
        self._tracer = provider.get_tracer("hyperpool")
        self._api = import_module("opentelemetry.trace")
        self._counts = {"login": 0, "connect": 0}

    def attach(self, door: FrontDoor, warmer: Warmer, slow: SlowLog) -> None:
        """Be told of what there is to trace."""
        door.traced, warmer.traced, slow.traced = self.logged_in, self.connected, self.slow

    def logged_in(self, pool: RelayPool, client: str, seconds: float) -> None:
        """A client has been let in.

        Args:
            pool: where its servers come from.
            client: its address.
            seconds: that it took.
        """
        if self._chooses("login"):
            attributes = {**_of(pool), "client.address": client}
            end = time.time_ns()
            self._span("client login", end - int(seconds * 1e9), attributes).end(end)

    def connected(self, pool: AnyPool, trace: Trace) -> None:
        """A server connection has been opened, or could not be.

        Args:
            pool: that it is for.
            trace: what was done.
        """
        if not trace.hops or not self._chooses("connect"):
            return
        now, clock = time.time_ns(), time.perf_counter()

        def wall(moment: float) -> int:
            return now - int((clock - moment) * 1e9)

        last = trace.hops[-1]
        whole = self._span("connect to server", wall(trace.hops[0].began), _of(pool))
        context = self._api.set_span_in_context(whole)
        for hop in trace.hops:
            facts = {f"hyperpool.{name}": fact for name, fact in hop.facts.items()}
            span = self._span(hop.name, wall(hop.began), facts, context)
            if not hop.done:
                span.set_status(self._api.StatusCode.ERROR, hop.error or "given up")
            span.end(wall(hop.began + hop.seconds))
        if not last.done:
            whole.set_status(self._api.StatusCode.ERROR, last.error or "given up")
        whole.end(wall(last.began + last.seconds))

    def slow(self, server: ServerConnection, seconds: float, text: bytes, told: Mapping[str, str]) -> None:
        """A slow query has been logged; its parent is the span that a comment in it names.

        Args:
            server: has answered it.
            seconds: that it took.
            text: the query.
            told: ``fingerprint`` and ``query`` as they are logged.
        """
        attributes = {
            **_of(server.pool),
            "server.address": server.address,
            "db.query.text": told.get("query", ""),
            "hyperpool.fingerprint": told.get("fingerprint", ""),
        }
        found = _PARENT.search(text)
        context = None
        if found is not None:
            trace_id, span_id, flags = (int(part, 16) for part in found.groups())
            parent = self._api.SpanContext(
                trace_id, span_id, is_remote=True, trace_flags=self._api.TraceFlags(flags)
            )
            context = self._api.set_span_in_context(self._api.NonRecordingSpan(parent))
        end = time.time_ns()
        self._span("query", end - int(seconds * 1e9), attributes, context).end(end)

    async def close(self) -> None:
        """Send what is left, for a while."""
        with trio.move_on_after(_PATIENCE, shield=True) as scope:
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("traces were lost: nobody took the last ones", seconds=_PATIENCE)

    def _chooses(self, what: str) -> bool:
        self._counts[what] += 1
        return self._counts[what] % self._every == 0

    def _span(
        self,
        name: str,
        start: int,
        attributes: Mapping[str, str],
        context: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - of an optional library
        return self._tracer.start_span(
            name, context, self._api.SpanKind.CLIENT, attributes=dict(attributes), start_time=start
        )


class _Complaints(logging.Handler):
    """Takes what the SDK's thread complains of into the pooler's log, in the pooler's thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._token = trio.lowlevel.current_trio_token()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(partial(log.warning, "OpenTelemetry", complaint=record.getMessage()))


def _of(pool: AnyPool) -> dict[str, str]:
    settings = pool.settings
    return {
        "db.system.name": "postgresql",
        "db.namespace": settings.database,
        "hyperpool.user": settings.user,
    }


def start_tracing(settings: PoolerSettings) -> Tracing | None:
    """Begin to trace, if the settings ask for it.

    Raises:
        StartupError: the libraries are not there.
    """
    if not settings.trace_every:
        return None
    try:
        sdk = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        resources = import_module("opentelemetry.sdk.resources")
    except ImportError as error:
        raise StartupError(
            "pooler.trace_every needs OpenTelemetry: install hyperpool with its extra otel, or set it to 0"
        ) from error
    complaints = logging.getLogger("opentelemetry")
    complaints.handlers, complaints.propagate = [_Complaints()], False
    resource = resources.Resource.create({"service.name": "hyperpool"}).merge(
        resources.OTELResourceDetector().detect()
    )
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    log.info("tracing", every=settings.trace_every)
    return Tracing(settings.trace_every, provider)
