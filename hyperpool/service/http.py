"""What the pooler shows over HTTP. The libraries for it are loaded only where the settings have a section ``http``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from hyperpool.admin.operations import Mode
from hyperpool.admin.team import asked
from hyperpool.workers.messages import Deed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from hyperpool.admin.connection import Consoles
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.team import Team
    from hyperpool.config import Settings
    from hyperpool.config.http import HttpSettings
    from hyperpool.http.metrics import Scrape
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


async def serve(
    consoles: Consoles, sockets: Sequence[socket.socket], ready: Callable[[], bool], team: Team | None
) -> None:
    """Serve until cancelled; without the section, there is nothing to do.

    Args:
        consoles: what is shown and done is what the console shows and does.
        sockets: of `listen`; without them, another process of the pooler serves.
        ready: tells whether the start is over: pools are filled, or it is known why they are not.
        team: all processes of the pooler; None if this is the only one.
    """
    around = consoles.around
    at_start = around.settings().http
    if at_start is None or not sockets:
        return
    from hyperpool.http.health import add_health  # noqa: PLC0415 - see above
    from hyperpool.http.metrics import Exporter, add_metrics  # noqa: PLC0415
    from hyperpool.http.server import run  # noqa: PLC0415
    from hyperpool.http.site import Site  # noqa: PLC0415

    def settings() -> HttpSettings:
        return around.settings().http or at_start

    site = Site(settings, around.relay.attention)
    add_health(site, lambda: unready(around, ready=ready()))
    add_metrics(site, Exporter(around).scrape if team is None else _of_all(team), settings)
    if at_start.dashboard:
        from hyperpool.dashboard.routes import add_dashboard  # noqa: PLC0415

        add_dashboard(site, consoles, team)
    await run(site, sockets)


def _of_all(team: Team) -> Scrape:
    """Gives the metrics of all processes."""
    from hyperpool.http.together import Together  # noqa: PLC0415 - see above

    together = Together()

    async def scrape(max_pools: int, *, openmetrics: bool = False) -> bytes:
        answers = await asked(team, [Deed("metrics", f"{max_pools} {int(openmetrics)}")])
        return together.joined(tuple(row) for (one,) in answers for row in one.rows).encode()

    return scrape


def unready(around: Surroundings, *, ready: bool) -> str:
    """Why no client should be sent here; empty if they are welcome. Who is paused lets them wait, as clients want."""
    if around.operations.shutting_down:
        return "shutting down"
    if around.operations.mode is Mode.SUSPENDED:
        return "suspended"
    return "" if ready else "starting"
