"""What tunnels cost where nothing else does: bulk and small queries, on one machine without a round trip added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import frozen

from benchmarks.client import Client
from benchmarks.measure import cpu_seconds
from benchmarks.results import Result
from benchmarks.scenarios.base import Scenario

if TYPE_CHECKING:
    from benchmarks.stage import Server, Stage

Kind: TypeAlias = Literal["out", "in", "rows"]

_MEGABYTE: Final = 1e6
_ROW: Final = b"%07d\t" + b"x" * 991 + b"\n"
_ROWS: Final = 100_000
_PIECE_ROWS: Final = 16
_LARGE_ROWS: Final = "select repeat('x', 100000) from generate_series(1, 1000)"


@frozen(kw_only=True)
class TunnelBulk(Scenario):
    """A hundred megabytes through a way.

    Attributes:
        kind: COPY out, COPY in, or a query with rows of 100 kB.
    """

    kind: Kind

    def prepare(self, stage: Stage) -> None:
        """Make the tables, and empty the one that is filled."""
        stage.make_tables("carried")
        if self.kind == "in":
            with Client(stage.postgres.endpoint) as client:
                client.execute("truncate carried_in")

    def measure(self, stage: Stage, server: Server, seconds: float) -> Result:  # noqa: ARG002 - see Scenario
        """Send or receive."""
        with server.client() as client:
            client.execute("select 1")
            before = cpu_seconds(server.child.pid)
            size, taken = self._carry(client)
            used = cpu_seconds(server.child.pid) - before
        megabytes = size / _MEGABYTE
        figures = {"rate": megabytes / taken}
        if server.is_pooler:
            figures["cpu_us"] = used / megabytes * 1e6
        return Result(figures)

    def _carry(self, client: Client) -> tuple[int, float]:
        if self.kind == "out":
            return client.drain("copy carried_out to stdout", b"COPY ")
        if self.kind == "rows":
            return client.drain(_LARGE_ROWS, b"SELECT ")
        piece = b"".join(_ROW % number for number in range(_PIECE_ROWS))
        return client.copy_in("copy carried_in from stdin", piece, _ROWS // _PIECE_ROWS)
