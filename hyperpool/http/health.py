"""``/healthz`` and ``/readyz``: for whoever restarts processes, and for whoever sends them clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from hyperpool.http.site import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from hyperpool.http.site import Site


def add_health(site: Site, unready: Callable[[], str]) -> None:
    """Add the routes; they tell nothing but one word, so that they need no token.

    Args:
        site: gets them.
        unready: tells why no client should be sent here; empty if they are welcome.
    """

    async def healthz(_request: Request) -> PlainTextResponse:
        """Whoever can answer is alive: the relay runs in the same thread."""
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> PlainTextResponse:
        """Whether clients are let in."""
        reason = unready()
        return PlainTextResponse(f"{reason}\n", 503) if reason else PlainTextResponse("ok\n")

    site.add("/healthz", healthz, Access.OPEN)
    site.add("/readyz", readyz, Access.OPEN)
