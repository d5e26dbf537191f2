"""The doctor's ways to servers, hop by hop; the servers answer as they are told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from hyperpool.config.transports import TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.doctor.examine import Examination, Wishes
from hyperpool.doctor.walk import WatchedTrace, via
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.examined import plans, settings

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
    loaded = settings(tmp_path, databases={"app": {"sslmode": "disable", **database}})
    (finding,) = await Examination(loaded, Wishes(timeout=5.0)).run()
    (server,) = finding.servers
    return server


def test_what_a_way_is_made_of() -> None:
    """It is told for tunnels; that a socket is a socket can be seen."""
    tcp = TcpStep(host="gw", port=443)
    assert via((tcp, TlsStep(server_name="gw"), WebSocketStep(host="gw"))) == "tcp > tls > websocket"
    assert via((tcp,)) == via((UnixStep(path="/run/x"),)) == ""


def test_a_trace_knows_why_hops_failed() -> None:
    """Also when a login is refused, which is no failure to connect."""
    trace = WatchedTrace()
    refusal, failure = LoginFailed("no"), ConnectFailed("gone")
    with trace.hop("tcp", "a"):
        assert trace.unfinished is trace.hops[0]
    for kind, error in (("login", refusal), ("query", failure)):
        with pytest.raises(type(error)), trace.hop(kind):
            raise error

    assert [hop.error for hop in trace.hops] == ["", "no", "gone"]
    assert trace.errors == {1: refusal, 2: failure}
    assert trace.unfinished is None


async def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    """The login is where it ends."""
    async with answering() as port:
        server = await examine(tmp_path, port=port)

    assert server.failure is not None
    assert (server.failure.kind, server.failure.error) == (
        "login",
        "server closed the connection during login",
    )


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


async def test_a_slow_way_where_others_are(tmp_path: Path) -> None:
    """With several hosts the pooler is less patient, and a warning says so."""
    loaded = settings(tmp_path, databases={"app": {"host": "127.0.0.1,127.0.0.2"}})
    pool = loaded.pool_for("app", "ann")
    assert pool is not None
    context = DialContext(options=TcpOptions(), resolver=Resolver(1, 1))
    route = Route(attrs.evolve(pool, host_connect_timeout=0.5), context)
    walk = plans(loaded)["app"].walks[0]
    patient, hasty = attrs.evolve(walk), attrs.evolve(walk, route=route)
    assert patient._slow(1.0) == []
    assert hasty._slow(0.4) == []
    assert hasty._slow(1.0) == [
        "it took 1.0 s: the pooler goes to the next host after 0.5 s (host_connect_timeout)"
    ]
