"""The doctor's ways to servers that answer as they are told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import yaml

from hyperpool.config import load
from hyperpool.doctor.examine import Examination, Wishes
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hyperpool.doctor.findings import ServerFinding

WELCOME = messages.authentication_ok() + messages.ready_for_query()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[int]:
    """A server that answers everybody alike, one answer for each thing that it is told; its port."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            for answer in answers:
                await stream.receive_some()
                await stream.send_all(answer)
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, talk, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def examine(tmp_path: Path, **database: Any) -> ServerFinding:
    """What is found on the way to the only server of a database."""
    document = {
        "pooler": {"listen_addr": "127.0.0.1", "auth_type": "trust"},
        "databases": {"app": {"sslmode": "disable", **database}},
        "users": {"ann": {"password": "hunter2"}},
    }
    path = tmp_path / "pooler.yaml"
    path.write_text(yaml.safe_dump(document))
    (finding,) = await Examination(load(path, {}), Wishes(timeout=5.0)).run()
    (server,) = finding.servers
    return server


async def test_a_session_that_cannot_be_asked_for(tmp_path: Path) -> None:
    """It is not the server that speaks another protocol."""
    async with answering(WELCOME) as port:
        server = await examine(tmp_path, port=port, application_name="x" * 10_000)

    assert server.failure is not None
    assert "startup parameters take" in server.failure.error
    assert server.failure.remedy == ""


@pytest.mark.parametrize(
    ("host", "warned"), [("db.example.com", True), ("192.0.2.7", True), ("127.0.0.1", False), ("::1", False)]
)
async def test_a_password_behind_a_proxy_on_this_machine(tmp_path: Path, host: str, warned: bool) -> None:
    """The proxy sends it on, over a network that has not been seen here."""
    login = messages.authentication_cleartext_password(), WELCOME, messages.ready_for_query()
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", *login) as port:
        step = {"proxy": {"url": f"http://127.0.0.1:{port}", "host": host, "port": 5432}}
        server = await examine(tmp_path, transport=[step])

    assert [hop.kind for hop in server.hops] == ["resolve", "tcp", "proxy", "login", "query"]
    assert server.failure is None
    warnings = [warning for hop in server.hops for warning in hop.warnings]
    assert ["the password goes over the network" in warning for warning in warnings] == [True] * warned
