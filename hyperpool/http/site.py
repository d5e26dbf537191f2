"""The routes of the HTTP server, and who may use which.

A part that has something to show adds its routes to the `Site`::

    site.add("/metrics", endpoint)

An endpoint is an ``async def`` that takes a request of starlette's and returns a response; it runs in the pooler's own
thread, so that whatever it reads is consistent until its first ``await``.
"""

from __future__ import annotations

import binascii
import enum
import hmac
import re
from base64 import b64decode
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import structlog
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from contextlib import AbstractContextManager

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from hyperpool.config.http import HttpSettings
    from hyperpool.config.secret import Secret

    Endpoint = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger("http")

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every response that does not set them itself."""


_HOST: Final = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::[0-9]*)?")


class Access(enum.Enum):
    """Who may use a route."""

    OPEN = "open"
    """Everybody who can connect: nothing of interest is told."""
    READ = "read"
    """Who has shown ``token`` or ``admin_token``; without a ``token``, who asks for this machine by its own name."""
    ADMIN = "admin"
    """Who has shown ``admin_token`` as a Bearer token, which no page of another site can have a browser do."""


class Site:
    """The routes, in the order in which they were added.

    Args:
        settings: gives the section as it is now.
        attention: entered while a request is handled, so that the relay does not linger.
    """

    def __init__(
        self,
        settings: Callable[[], HttpSettings],
        attention: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._settings = settings
        self._attention = attention
        self._routes: list[Route] = []

    def add(
        self,
        path: str,
        endpoint: Endpoint,
        access: Access = Access.READ,
        methods: Collection[str] = ("GET",),
    ) -> None:
        """Add a route.

        Args:
            path: as starlette has it; parts may be parameters.
            endpoint: answers requests.
            access: who may use it.
            methods: of HTTP; HEAD comes with GET.
        """

        async def handle(request: Request) -> Response:
            with self._attention():
                try:
                    response = refusal(request, self._settings(), access) or await endpoint(request)
                except Exception as error:
                    log.error("a request failed", path=path, exc_info=error)
                    response = PlainTextResponse("internal error: see the log\n", 500)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        self._routes.append(Route(path, handle, methods=list(methods)))

    def app(self) -> ASGIApp:
        """The application, with the routes that there are now."""
        return Starlette(routes=self._routes)


def refusal(request: Request, settings: HttpSettings, access: Access) -> Response | None:
    """The answer to a request that is not allowed; None if it is.

    Args:
        request: the request.
        settings: the section.
        access: who may use the route.
    """
    if access is Access.OPEN:
        return None
    scheme, shown = _credentials(request)
    is_admin = _is(shown, settings.admin_token)
    if access is Access.ADMIN:
        if settings.admin_token is None:
            return PlainTextResponse("nobody may: there is no http.admin_token in the settings\n", 403)
        if is_admin and scheme == "bearer":
            return None
        return _challenge("expected the header Authorization: Bearer ADMIN_TOKEN")
    if is_admin or _is(shown, settings.token):
        return None
    if settings.token is not None:
        return _challenge("expected the header Authorization: Bearer TOKEN, or the token as a password")
    if not _is_own_name(request.headers.get("host", "")):
        # A page of another site may have its own name lead here (DNS rebinding).
        return PlainTextResponse(
            "without http.token, this machine has to be asked for as localhost or by its address\n", 421
        )
    return None


def _challenge(text: str) -> Response:
    response = PlainTextResponse(f"{text}\n", 401)
    # Each in a header of its own: Chromium takes no notice of a second challenge in one header.
    for scheme in ("Bearer", "Basic"):
        response.headers.append("WWW-Authenticate", f'{scheme} realm="hyperpool"')
    return response


def _credentials(request: Request) -> tuple[str, str]:
    """The scheme of the header Authorization, and the token in it: with Basic, the password."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    scheme, value = scheme.lower(), value.strip()
    if scheme == "basic":
        try:
            value = b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            value = ""
    return scheme, value if scheme in {"basic", "bearer"} else ""


def _is(shown: str, token: Secret | None) -> bool:
    return token is not None and hmac.compare_digest(
        shown.encode(errors="surrogateescape"), token.reveal().encode(errors="surrogateescape")
    )


def _is_own_name(host: str) -> bool:
    """Whether a header Host names a machine in a way that nobody else can claim."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    bracketed, name = match.groups()
    if name and (name.lower() == "localhost" or name.lower().endswith(".localhost")):
        return True
    try:
        ip_address(bracketed or name)
    except ValueError:
        return False
    return True
