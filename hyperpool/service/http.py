"""What the pooler shows over HTTP. The libraries for it are loaded only where the settings have a section ``http``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from hyperpool.admin.operations import Mode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from hyperpool.admin.connection import Consoles
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.config import Settings
    from hyperpool.config.http import HttpSettings
    from hyperpool.transport.passed import PassedSockets

log = structlog.get_logger("http")


def listen(settings: Settings, passed: PassedSockets) -> list[socket.socket]:
    """Open the listening sockets; there are none without the section.

    Args:
        settings: the whole settings.
        passed: sockets that are open already; those that are of use here are taken.

    Raises:
        StartupError: an address cannot be had.
    """
    if settings.http is None:
        return []
    from hyperpool.http.server import open_sockets  # noqa: PLC0415 - see above

    sockets = open_sockets(settings.http, passed, reuse_port=settings.pooler.so_reuseport)
    names = ", ".join(f"{address}:{settings.http.listen_port}" for address in settings.http.listen_addr)
    log.info("listening for HTTP", addresses=names, token=settings.http.token is not None)
    return sockets


async def serve(consoles: Consoles, sockets: Sequence[socket.socket], ready: Callable[[], bool]) -> None:
    """Serve until cancelled; without the section, there is nothing to do.

    Args:
        consoles: what is shown and done is what the console shows and does.
        sockets: of `listen`.
        ready: tells whether the start is over: pools are filled, or it is known why they are not.
    """
    around = consoles.around
    at_start = around.settings().http
    if at_start is None:
        return
    from hyperpool.http.health import add_health  # noqa: PLC0415 - see above
    from hyperpool.http.metrics import add_metrics  # noqa: PLC0415
    from hyperpool.http.server import run  # noqa: PLC0415
    from hyperpool.http.site import Site  # noqa: PLC0415

    def settings() -> HttpSettings:
        return around.settings().http or at_start

    site = Site(settings, around.relay.attention)
    add_health(site, lambda: unready(around, ready=ready()))
    add_metrics(site, around, settings)
    if at_start.dashboard:
        from hyperpool.dashboard.routes import add_dashboard  # noqa: PLC0415

        add_dashboard(site, consoles)
    await run(site, sockets)


def unready(around: Surroundings, *, ready: bool) -> str:
    """Why no client should be sent here; empty if they are welcome. Who is paused lets them wait, as clients want."""
    if around.operations.shutting_down:
        return "shutting down"
    if around.operations.mode is Mode.SUSPENDED:
        return "suspended"
    return "" if ready else "starting"
