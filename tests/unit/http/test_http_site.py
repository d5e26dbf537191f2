"""Routes of the HTTP server: who may use which."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse
from structlog.testing import capture_logs

from hyperpool.config import Secret
from hyperpool.config.http import HttpSettings
from hyperpool.http.health import add_health
from hyperpool.http.site import Access, Site
from tests.support.asgi import Answer, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

TOKEN, ADMIN = "t" * 32, "a" * 32
BOTH = HttpSettings(token=Secret(TOKEN), admin_token=Secret(ADMIN))


class _House:
    """A site with one route for each kind of access."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self.levels: list[int] = []
        self.level = 0
        self.site = Site(lambda: self.settings, self._attention)
        for access in Access:
            self.site.add(f"/{access.value}", self._endpoint, access, ["GET", "POST"])

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        self.level += 1
        yield
        self.level -= 1

    async def _endpoint(self, request: Request) -> PlainTextResponse:
        self.levels.append(self.level)
        return PlainTextResponse("served")

    async def ask(self, path: str, authorization: str = "", host: str = "localhost:6480") -> Answer:
        headers = {"host": host, **({"authorization": authorization} if authorization else {})}
        return await ask(self.site.app(), path, headers)

    async def statuses(self, authorization: str = "", host: str = "localhost:6480") -> list[int]:
        return [(await self.ask(f"/{one.value}", authorization, host)).status for one in Access]


def _basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("authorization", "statuses"),
    [
        ("", [200, 401, 401]),
        (f"Bearer {TOKEN}", [200, 200, 401]),
        (f"bearer  {TOKEN}", [200, 200, 401]),
        (f"Bearer {ADMIN}", [200, 200, 200]),
        (_basic(f"anybody:{TOKEN}"), [200, 200, 401]),
        # A browser would send it by itself, whichever page has made it.
        (_basic(f"anybody:{ADMIN}"), [200, 200, 401]),
        (_basic(TOKEN), [200, 401, 401]),
        ("Basic :::", [200, 401, 401]),
        ("Basic /w==", [200, 401, 401]),
        (f"Digest {TOKEN}", [200, 401, 401]),
        (f"Bearer {TOKEN}x", [200, 401, 401]),
        (f"Bearer {TOKEN[1:]}", [200, 401, 401]),
        ("Bearer", [200, 401, 401]),
        ("Bearer \xff", [200, 401, 401]),
    ],
)  # fmt: skip
async def test_tokens(authorization: str, statuses: list[int]) -> None:
    """One for reading, which the other one is good for, too."""
    house = _House(BOTH)
    assert await house.statuses(authorization) == statuses
    # Who has a token may use any name.
    assert await house.statuses(authorization, "pooler.example") == statuses


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:6480", 200),
        ("a.localhost:80", 200),
        ("127.0.0.1:6480", 200),
        ("[::1]:6480", 200),
        ("evil.example:6480", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("::1", 421),
        ("[", 421),
        ("", 421),
    ],
)
async def test_without_a_token_the_name_counts(host: str, status: int) -> None:
    """A page under another name that leads here is not served; nor may anybody change anything."""
    assert await _House(HttpSettings()).statuses(host=host) == [200, status, 403]


async def test_an_admin_token_alone() -> None:
    """Reading is free then, under the right name; and everywhere with the token."""
    house = _House(HttpSettings(admin_token=Secret(ADMIN)))
    assert await house.statuses() == [200, 200, 401]
    assert await house.statuses(f"Bearer {ADMIN}", "pooler.example") == [200, 200, 200]


async def test_settings_may_change() -> None:
    """The next request is judged by those of now."""
    house = _House(BOTH)
    assert (await house.ask("/read")).status == 401
    house.settings = HttpSettings()
    assert (await house.ask("/read")).status == 200


async def test_who_is_refused_is_told_what_is_expected() -> None:
    """And nothing else."""
    answer = await _House(BOTH).ask("/read", "Bearer wrong")
    assert "Bearer" in answer.headers["www-authenticate"]
    assert "Basic" in answer.headers["www-authenticate"]
    assert "wrong" not in answer.text
    assert TOKEN not in answer.text


async def test_headers() -> None:
    """Nobody keeps, frames or guesses at what comes from here; an endpoint's own headers stay."""
    house = _House(HttpSettings())

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("", headers={"Content-Security-Policy": "default-src 'self'"})

    house.site.add("/page", page)
    plain, own = await house.ask("/read"), await house.ask("/page")
    assert plain.headers["cache-control"] == "no-store"
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert "'none'" in plain.headers["content-security-policy"]
    assert own.headers["content-security-policy"] == "default-src 'self'"


async def test_attention_is_paid_while_a_request_is_handled() -> None:
    """So that the relay does not linger meanwhile."""
    house = _House(HttpSettings())
    await house.ask("/read")
    assert (house.levels, house.level) == ([1], 0)


async def test_a_bug_is_told_to_the_log_alone() -> None:
    """The next request is served."""
    house = _House(HttpSettings())

    async def broken(request: Request) -> PlainTextResponse:
        raise ZeroDivisionError("secret")

    house.site.add("/broken", broken)
    with capture_logs() as logs:
        answer = await house.ask("/broken")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert [(line["event"], line["path"]) for line in logs] == [("a request failed", "/broken")]
    assert house.level == 0


async def test_what_is_not_there() -> None:
    """Paths and methods."""
    house = _House(HttpSettings())
    assert (await house.ask("/nothing")).status == 404
    assert (await ask(house.site.app(), "/read", method="DELETE")).status == 405


async def test_health() -> None:
    """Alive and ready are two things."""
    reason = ""
    site = Site(lambda: BOTH, contextlib.nullcontext)
    add_health(site, lambda: reason)
    app = site.app()
    assert [(await ask(app, path)).status for path in ("/healthz", "/readyz")] == [200, 200]
    reason = "shutting down"
    answers = [await ask(app, path) for path in ("/healthz", "/readyz")]
    assert [(answer.status, answer.text) for answer in answers] == [(200, "ok\n"), (503, "shutting down\n")]
