"""Going the way to one server, as the pooler does, and noting what happens."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import attrs
import trio

from hyperpool.config.transports import ProxyStep, WebSocketStep
from hyperpool.doctor import advice
from hyperpool.doctor.findings import HopFinding, ServerFinding, Status
from hyperpool.errors import (
    ConnectFailed,
    HyperpoolError,
    KeysMissing,
    LoginFailed,
    ProtocolError,
    UpstreamError,
)
from hyperpool.pool.login import connect_to
from hyperpool.transport.ending import ended
from hyperpool.transport.kinds import Trace
from hyperpool.wire import constants as c
from hyperpool.wire import messages
from hyperpool.wire.frames import FrameReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config.transports import Steps
    from hyperpool.transport.kinds import Hop
    from hyperpool.transport.route import Route, Target

_MAX_FRAME: Final = 1 << 20
"""Bytes of an answer to an empty query, at most; notices may come before it."""


class WatchedTrace(Trace):
    """A trace that can be looked at while it grows, and that knows why each hop ended.

    Attributes:
        errors: why hops failed, by their place.
        unfinished: the hop that is under way, or that was when all was cancelled; None before, after and in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, BaseException] = {}
        self.unfinished: Hop | None = None

    @contextmanager
    def hop(self, kind: str, target: str = "") -> Iterator[Hop]:
        """As in the base class."""
        place = len(self.hops)
        with super().hop(kind, target) as hop:
            self.unfinished = hop
            try:
                yield hop
            except UpstreamError as error:
                hop.error = str(error)
                self.errors[place] = error
                self.unfinished = None
                raise
            self.unfinished = None


@attrs.define(eq=False)
class Walk:
    """One way to be gone.

    Attributes:
        route: of the pool.
        target: the server.
        timeout: seconds for all of it.
        limit: what the time limit is called.
        unreachable: the remedy if nothing listens there; empty for the usual one.
        awaited: errors of a login that are none of the pooler's: what is missing comes with a client's own login.
        name: what the server is called; by default, as in the settings.
        via: what leads there; by default, the target's steps.
        trace: what happens.
        began: when, in the seconds of `time.perf_counter`; 0 before.
        finding: what came out; None before the end.
    """

    route: Route
    target: Target
    timeout: float
    limit: str
    unreachable: str = ""
    awaited: tuple[type[LoginFailed], ...] = ()
    name: str = attrs.Factory(lambda walk: walk.target.name, takes_self=True)
    via: str = attrs.Factory(lambda walk: via(walk.target.steps), takes_self=True)
    trace: WatchedTrace = attrs.field(factory=WatchedTrace)
    began: float = 0.0
    finding: ServerFinding | None = None

    async def go(self) -> ServerFinding:
        """Go, whatever happens on the way."""
        self.began = time.perf_counter()
        error: HyperpoolError | None = None
        with trio.move_on_after(self.timeout) as scope:
            try:
                await _visit(self.route, self.target, self.trace)
            except HyperpoolError as caught:
                error = caught
        seconds = time.perf_counter() - self.began
        hops = self._hops()
        if scope.cancelled_caught:
            self._hang(hops)
        elif error is None:
            for hop in hops:
                hop.overcome = True
        else:
            _fail(hops, error)
            if isinstance(error, self.awaited):
                hops[-1].error = hops[-1].remedy = ""
                hops[-1].warnings.append(advice.about_awaited(error))
        self._warn(hops)
        self.finding = ServerFinding(self.name, self.via, hops, seconds)
        if self.finding.status is not Status.FAILED:
            self.finding.warnings += self._slow(seconds)
        return self.finding

    @property
    def _behind(self) -> bool:
        """Whether what is reached leads on to the server, which may be down when the way is not."""
        return any(isinstance(step, ProxyStep | WebSocketStep) for step in self.target.steps)

    def _hops(self) -> list[HopFinding]:
        findings = []
        for place, hop in enumerate(self.trace.hops):
            error = self.trace.errors.get(place)
            remedy = advice.about_error(hop.kind, error, behind=self._behind) if error else ""
            if remedy and self.unreachable and hop.kind in {"tcp", "unix"}:
                remedy = self.unreachable
            elif self.unreachable and isinstance(error, KeysMissing):
                remedy = advice.ANOTHER_USER
            findings.append(HopFinding(hop.kind, hop.target, hop.seconds, hop.facts, [], hop.error, remedy))
        return findings

    def _hang(self, hops: list[HopFinding]) -> None:
        """Say where the time ran out. Failures before it were followed by another attempt."""
        *earlier, last = hops or [HopFinding("resolve", self.name, self.timeout, {})]
        for hop in earlier:
            hop.overcome = True
        last.error = f"no answer within {self.timeout:g} s ({self.limit})"
        last.remedy = advice.about_hang(last.kind, behind=self._behind)

    @staticmethod
    def _warn(hops: list[HopFinding]) -> None:
        exposed = False
        for hop in hops:
            if hop.kind == "tcp" and "address" in hop.facts:
                exposed = not _is_here(hop.facts["address"])
            elif hop.kind == "proxy":
                # What is said to a proxy on this machine, or with TLS, goes on from there.
                exposed = not _is_here(hop.target.rpartition(":")[0].strip("[]"))
            elif "cipher" in hop.facts:
                exposed = False
            hop.warnings += advice.about_hop(hop, advice.now(), exposed=exposed)

    def _slow(self, seconds: float) -> list[str]:
        """With several hosts, the pooler gives each of them less time."""
        limit = self.route.settings.host_connect_timeout
        if len(self.route.targets) > 1 and limit and seconds > limit:
            return [
                f"it took {seconds:.1f} s: the pooler goes to the next host after {limit:g} s (host_connect_timeout)"
            ]
        return []


def _is_here(host: str) -> bool:
    """Whether nobody else sees what is sent there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def via(steps: Steps) -> str:
    """What a way is made of, if it is more than a socket."""
    kinds = [step.KIND for step in steps]
    return " > ".join(kinds) if kinds not in (["tcp"], ["unix"]) else ""


def _fail(hops: list[HopFinding], error: HyperpoolError) -> None:
    """Say where it failed: at the last hop. What failed before it was followed by another attempt."""
    *earlier, last = hops
    for hop in earlier:
        hop.overcome = True
    last.error = last.error or str(error)


async def _visit(route: Route, target: Target, trace: Trace) -> None:
    """Log in, ask nothing, and leave.

    Raises:
        UpstreamError: it failed.
    """
    try:
        connection = await connect_to(route, target, trace=trace)
        try:
            with trace.hop("query"):
                await _ask_nothing(connection.stream)
            with suppress(trio.BrokenResourceError):
                await connection.stream.send_all(messages.TERMINATE)
        finally:
            await trio.aclose_forcefully(connection.stream)
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"connection broke: {error}") from error


async def _ask_nothing(stream: trio.abc.Stream) -> None:
    """Send an empty query, and wait for the answer."""
    reader = FrameReader(_MAX_FRAME)
    try:
        await stream.send_all(messages.query(""))
        while True:
            while (frame := reader.next_frame()) is None:
                data = await stream.receive_some()
                if not data:
                    raise ConnectFailed(
                        ended("server closed the connection instead of answering an empty query", stream)
                    )
                reader.feed(data)
            kind, body = frame
            if kind == c.ERROR_RESPONSE:
                fields = messages.error_fields(body)
                message, sqlstate = fields.get("M", "server refused an empty query"), fields.get("C", "")
                raise LoginFailed(message, sqlstate, messages.frame(kind, body))
            if kind == c.READY_FOR_QUERY:
                return
    except trio.BrokenResourceError as error:
        raise ConnectFailed(f"connection broke during an empty query: {error}") from error
    except ProtocolError as error:
        raise ConnectFailed(f"server broke the protocol: {error}") from error
