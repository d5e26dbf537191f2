"""Where a tunnel may lead to: the list that the settings have, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
import structlog
import trio

from hyperpool.errors import ConnectFailed
from hyperpool.transport.kinds import DialContext, Trace, open_steps
from hyperpool.tunnel.forward import Traffic, forward

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hyperpool.config.tunnel import TargetSettings

log = structlog.get_logger("tunnel")

Allowed: TypeAlias = "Callable[[], tuple[str, ...] | None]"
"""Tells the names of the targets that a stream may lead to, as the settings are now; empty for all, None for none."""


class Targets:
    """The targets, and the streams that lead to them now.

    Args:
        settings: by name.
        context: for connecting.
    """

    def __init__(self, settings: Mapping[str, TargetSettings], context: DialContext) -> None:
        self._settings = dict(settings)
        self._context = context
        self._open: dict[trio.CancelScope, tuple[TargetSettings, Allowed]] = {}
        self._idle = trio.Event()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._open)

    async def wait_idle(self) -> None:
        """Wait until no stream is open."""
        while self._open:
            self._idle = trio.Event()
            await self._idle.wait()

    def configure(self, settings: Mapping[str, TargetSettings]) -> None:
        """Take other targets over; streams to what is not a target any more, or not for them, are ended."""
        self._settings = dict(settings)
        for scope, (target, allowed) in self._open.items():
            if not self._stands(target, allowed):
                scope.cancel()

    def _stands(self, target: TargetSettings, allowed: Allowed) -> bool:
        """Whether a stream may lead to a target now."""
        names = allowed()
        may = names is not None and (not names or target.name in names)
        return may and self._settings.get(target.name) == target

    def find(self, wanted: str, allowed: tuple[str, ...]) -> TargetSettings | None:
        """The target that somebody means.

        Args:
            wanted: its name or its address, ``host:port``; empty for the only one that there is.
            allowed: the names that may be meant; empty for all.
        """
        choice = [one for name, one in self._settings.items() if not allowed or name in allowed]
        if not wanted:
            return choice[0] if len(choice) == 1 else None
        return next((one for one in choice if wanted in {one.name, one.address}), None)

    async def connect(self, target: TargetSettings) -> trio.abc.Stream:
        """Connect to a target.

        Raises:
            ConnectFailed: it does not answer.
        """
        context = attrs.evolve(self._context, trace=Trace())
        try:
            with trio.fail_after(target.connect_timeout):
                return await open_steps((target.step,), context)
        except trio.TooSlowError:
            raise ConnectFailed(
                f"cannot connect to {target.address}: no answer within {target.connect_timeout:g} s"
            ) from None

    async def serve(
        self,
        tunnel: Callable[[], Awaitable[trio.abc.Stream]],
        server: trio.abc.Stream,
        target: TargetSettings,
        allowed: Allowed = tuple,
        **facts: object,
    ) -> None:
        """Move bytes between a tunnel's stream and a target until one of them ends, and close both.

        Args:
            tunnel: makes the stream of the tunnel.
            server: the stream of the target.
            target: what it leads to.
            allowed: see there.
            facts: for the log.
        """
        began = trio.current_time()
        traffic = Traffic()
        stream: trio.abc.Stream | None = None
        scope = trio.CancelScope()
        self._open[scope] = target, allowed
        if not self._stands(target, allowed):
            # It was taken away while it was being connected to.
            scope.cancel()
        try:
            with scope:
                stream = await tunnel()
                log.info("stream opened", target=target.name, **facts)
                await forward(stream, server, traffic)
        finally:
            del self._open[scope]
            if stream is not None:
                reloaded = "reload: the target was changed or taken away"
                ended_by = reloaded if scope.cancelled_caught else traffic.ended_by
                log.info(
                    "stream closed",
                    target=target.name,
                    **facts,
                    seconds=round(trio.current_time() - began, 3),
                    received=traffic.inward,
                    sent=traffic.outward,
                    ended_by=ended_by or "shutdown",
                    **({"reason": traffic.reason} if traffic.reason else {}),
                )
            try:
                await _close(server, stream)
            finally:
                if not self._open:
                    self._idle.set()


async def _close(server: trio.abc.Stream, tunnel: trio.abc.Stream | None) -> None:
    """Close both, the tunnel in good order; cancelled, too: each of them may raise `trio.Cancelled` then."""
    try:
        await trio.aclose_forcefully(server)
    finally:
        if tunnel is not None:
            await tunnel.aclose()
