"""Requests to an ASGI application, in the test's own Trio run and without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Scope


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as a text."""
        return self.body.decode()


async def ask(
    app: ASGIApp,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
) -> Answer:
    """Ask for a path; without a header Host, for localhost."""
    path, _, query = path.partition("?")
    given = {"host": "localhost:6480", **(headers or {})}
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        "server": ("127.0.0.1", 6480),
        "client": ("127.0.0.1", 50000),
        "state": {},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    told: dict[str, str] = {}
    for name, value in start["headers"]:
        before = told.get(name.decode().lower())
        told[name.decode().lower()] = ", ".join(filter(None, (before, value.decode("latin-1"))))
    return Answer(start["status"], told, b"".join(message.get("body", b"") for message in rest))
