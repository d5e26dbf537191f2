"""Traces of a running pooler, as a collector gets them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory

pytestmark = pytest.mark.hyperpool_only


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a collector gets, which the environment tells the pooler of."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take spans."""
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield bodies
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector(make_pooler: PoolerFactory, collected: list[bytes]) -> None:
    """The way to the server, the login, and a slow query, without the values in it."""
    pooler = make_pooler(trace_every=1, log_slow_queries="50ms")
    with pooler.connect() as connection:
        connection.execute("SELECT 'hidden', pg_sleep(0.1)")

    def told() -> bool:
        text = b"".join(collected)
        return all(
            part in text
            for part in (b"connect to server", b"tcp 127.0.0.1", b"client login", b"SELECT $1, pg_sleep")
        )

    eventually(told, what="the spans have come")
    assert b"hidden" not in b"".join(collected)
    eventually(lambda: "slow query" in pooler.log_text(), what="the log has it, too")
    assert "hidden" not in pooler.log_text()
