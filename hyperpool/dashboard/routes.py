"""The page over HTTP.

What keeps others out: reading needs what the `Site` asks for (a token, or this machine's own name), orders need the
admin token in a header that no form and no other site's page can send, and both are refused to pages of other sites
even so. Texts of queries are hostile: the page's script makes text nodes of them, and its policy lets nothing run that
is not a file of this package.
"""

from __future__ import annotations

from contextlib import aclosing
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, PlainTextResponse, Response

from hyperpool.admin.console import Role
from hyperpool.dashboard.orders import Orders, UnknownOrder
from hyperpool.dashboard.snapshots import Snapshots
from hyperpool.http.site import Access

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from hyperpool.admin.connection import Consoles
    from hyperpool.admin.team import Team
    from hyperpool.http.site import Endpoint, Site

_LONGEST: Final = 4096
"""Bytes of an order."""

_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/dashboard/app.js": ("app.js", "text/javascript"),
    "/dashboard/formats.js": ("formats.js", "text/javascript"),
    "/dashboard/style.css": ("style.css", "text/css"),
    "/dashboard/icon.svg": ("icon.svg", "image/svg+xml"),
}


def add_dashboard(site: Site, consoles: Consoles, team: Team | None = None) -> None:
    """Add the page's routes.

    Args:
        site: gets them.
        consoles: what the page shows and does is what the console shows and does.
        team: all processes of the pooler; None if this is the only one.
    """
    snapshots = Snapshots(consoles.around, consoles.views, team=team)
    orders = Orders(consoles.make(Role.ADMIN))

    async def overview(request: Request) -> Response:
        return _foreign(request) or Response(await snapshots.newest(), 200, _HEADERS, "application/json")

    async def admin(request: Request) -> Response:
        """Whoever gets here has shown the token."""
        return _foreign(request) or Response(b"", 204, _HEADERS)

    async def do(request: Request) -> Response:
        refused = _foreign(request) or _not_json(request)
        if refused is not None:
            return refused
        body = await _body(request)
        if body is None:
            return PlainTextResponse("an order is not that long\n", 413)
        try:
            answer = await orders.carry_out(body, request.client.host if request.client else "")
        except UnknownOrder as error:
            return PlainTextResponse(f"{error}\n", 400)
        return JSONResponse({"text": answer.text}, 200 if answer.done else 409, _HEADERS)

    for path, (name, kind) in _FILES.items():
        site.add(path, _file(name, kind))
    site.add("/dashboard/overview", overview)
    site.add("/dashboard/admin", admin, Access.ADMIN)
    site.add("/dashboard/do", do, Access.ADMIN, ("POST",))


def _file(name: str, kind: str) -> Endpoint:
    content = files("hyperpool.dashboard").joinpath("static", name).read_bytes()

    async def endpoint(_request: Request) -> Response:
        return Response(content, 200, _HEADERS, f"{kind}; charset=utf-8")

    return endpoint


def _foreign(request: Request) -> Response | None:
    """A refusal of what a page of another site asks for."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    is_own = origin is None or origin.partition("://")[2] == host
    if is_own and site in {"same-origin", "none"}:
        return None
    return PlainTextResponse("pages of other sites may not\n", 403)


def _not_json(request: Request) -> Response | None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return None if kind == "application/json" else PlainTextResponse("expected application/json\n", 415)


async def _body(request: Request) -> bytes | None:
    """The body; None if it is too long."""
    body = b""
    async with aclosing(request.stream()) as stream:
        async for part in stream:
            body += part
            if len(body) > _LONGEST:
                return None
    return body
