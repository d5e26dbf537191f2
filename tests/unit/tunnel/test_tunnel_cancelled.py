"""Whatever is cancelled in the middle of something, at whichever of its checkpoints, leaves nothing open behind."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hyperpool.config.kinds import SslMode
from hyperpool.config.tls import ClientTls, TlsMaterial
from hyperpool.config.tls_contexts import client_context
from hyperpool.config.transports import WebSocketStep
from hyperpool.config.tunnel import LinkSettings, TargetSettings
from hyperpool.transport.agents import GREETING, OK, AgentRegistry, receive_line, send_line
from hyperpool.transport.bridge import BridgeEnd
from hyperpool.transport.frames import WebSocketStream
from hyperpool.transport.plain import PlainStream
from hyperpool.tunnel import agent as agent_module
from hyperpool.tunnel.agent import Agent
from hyperpool.tunnel.gate import Gate, GateOptions, listen
from hyperpool.tunnel.targets import Targets
from tests.support.certificates import client_side, issue
from tests.support.checkpoints import cancel_everywhere, no_descriptor_left
from tests.support.network import free_port
from tests.support.tunnels import dial_context, echo, head_of, log_book, request, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.logbook import LogBook


@pytest.fixture(autouse=True)
def book() -> Iterator[LogBook]:
    """The log, which gets no error; and no descriptor is left."""
    with log_book() as book, no_descriptor_left():
        yield book
    assert [entry for entry in book.entries if entry["level"] == "error"] == []


def pair() -> tuple[PlainStream, PlainStream]:
    """Both ends of a connection."""
    left, right = socket.socketpair()
    return PlainStream(left), PlainStream(right)


# -- Agents ------------------------------------------------------------------------------------------------------------


async def _agent(end: PlainStream) -> None:
    """An agent that echoes, once it is asked."""
    async with end:
        try:
            await receive_line(end)
            await receive_line(end)
            await send_line(end, OK)
            while data := await end.receive_some():
                await end.send_all(data)
        except trio.BrokenResourceError:
            return


async def test_streams_through_agents() -> None:
    """Whoever wants one gives up: the agent's connection is closed, or waits for the next one."""
    registry = AgentRegistry(wait_timeout=5, open_timeout=5)

    async def keep(stream: PlainStream) -> None:
        try:
            await registry.keep("site", "one", "192.0.2.1:5", stream)
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:

        async def open_and_close() -> None:
            ours, theirs = pair()
            nursery.start_soon(_agent, theirs)
            nursery.start_soon(keep, ours)
            stream = await registry.open("site", "db")
            try:
                await stream.send_all(b"question")
                assert await stream.receive_some() == b"question"
            finally:
                await trio.aclose_forcefully(stream)

        assert await cancel_everywhere(open_and_close) >= 4
        await wait_all_tasks_blocked()
        agents, waiting, connections = registry.counts()["site"]
        assert waiting == connections  # and none is left that is neither used nor closed
        assert agents == (waiting > 0)
        nursery.cancel_scope.cancel()
    assert registry.counts()["site"] == (0, 0, 0)


async def test_the_far_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent is cancelled: neither its connections to the pooler stay open, nor those to targets."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        target = TargetSettings(name="db", port=listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, _echo_all, [listener])

        async def pooler(end: PlainStream, done: trio.Event) -> None:
            async with end:
                try:
                    await send_line(end, GREETING)
                    await send_line(end, "open db")
                    assert (await receive_line(end))[0] == OK
                    await end.send_all(b"question")
                    await end.receive_some()
                except trio.BrokenResourceError:
                    return
                done.set()

        done = trio.Event()

        async def open_steps(steps: object, context: object) -> PlainStream:
            await trio.lowlevel.checkpoint()
            ours, theirs = pair()
            nursery.start_soon(pooler, theirs, done)
            return ours

        monkeypatch.setattr(agent_module, "open_steps", open_steps)
        link = LinkSettings(name="main", transport=(WebSocketStep(path="/"),), ready=1)

        async def run() -> None:
            nonlocal done
            done = trio.Event()
            targets = Targets({"db": target}, dial_context())
            agent = Agent(link, targets, dial_context(), lambda: 1.0)
            async with trio.open_nursery() as running:
                running.start_soon(agent.run)
                await done.wait()
                agent.close()
            assert targets.streams == 0

        assert await cancel_everywhere(run) >= 15
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def _echo_all(stream: trio.SocketStream) -> None:
    try:
        while data := await stream.receive_some():
            await stream.send_all(data)
    except trio.BrokenResourceError:
        return


# -- The gate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
async def test_the_gate(tmp_path: Path, *, tls: bool) -> None:
    """It is cancelled while somebody comes in, with TLS or without, talks and leaves."""
    context = None
    if tls:
        files = issue(tmp_path, "localhost")
        material = TlsMaterial(cert_file=str(files.cert), key_file=str(files.key))
        context = client_context(ClientTls(mode=SslMode.REQUIRE, material=material))
    options = GateOptions(tokens=table(), context=context)
    async with trio.open_nursery() as nursery:

        async def visit(port: int, left: trio.Event) -> None:
            try:
                stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
                if tls:
                    stream = trio.SSLStream(
                        stream, client_side(), server_hostname="localhost", https_compatible=True
                    )
                try:
                    await stream.send_all(request())
                    status, _, rest = await head_of(stream)
                    if status == 101:
                        socket_of = WebSocketStream(stream, client=True, received=rest)
                        await socket_of.send_all(b"question")
                        await socket_of.receive_some()
                finally:
                    await trio.aclose_forcefully(stream)
            except (trio.BrokenResourceError, OSError):
                pass
            finally:
                left.set()

        async def serve() -> None:
            gate, left = Gate("gate", options, echo), trio.Event()
            try:
                async with trio.open_nursery() as running:
                    running.start_soon(gate.run, await listen(["127.0.0.1"], port, "port"))
                    nursery.start_soon(visit, port, left)
                    await left.wait()
                    gate.close()
            finally:
                assert gate.inside == 0

        port = free_port()
        assert await cancel_everywhere(serve) >= 10
        await wait_all_tasks_blocked()


# -- Targets -----------------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_cut_is_not_waited_for(book: LogBook) -> None:
    """The end of the last stream is told however it ends, or a far end that is told to end would wait for it."""
    targets = Targets({"db": (target := TargetSettings(name="db", port=1))}, dial_context())
    ends = [pair() for _ in range(2)]
    (tunnel, peer), (server, database) = ends

    async def accept() -> PlainStream:
        await trio.lowlevel.checkpoint()
        return tunnel

    async with trio.open_nursery() as nursery, peer, database:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cut, scope)
            nursery.start_soon(_wait_idle, targets)
            await targets.serve(accept, server, target)
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught
    assert [entry["event"] for entry in book.entries] == ["stream opened", "stream closed"]


async def test_a_target_that_is_taken_away_meanwhile() -> None:
    """While it is being connected to, or while the tunnel's end is told: nothing goes through."""
    targets = Targets({"db": (target := TargetSettings(name="db", port=1))}, dial_context())
    for allowed in (lambda: None, lambda: ("other",)):
        (tunnel, peer), (server, database) = pair(), pair()

        async def accept(tunnel: PlainStream = tunnel) -> PlainStream:
            await trio.lowlevel.checkpoint()
            return tunnel

        async with peer, database, tunnel:
            await peer.send_all(b"question")
            await targets.serve(accept, server, target, allowed)
            assert await database.receive_some() == b""
    targets.configure({})
    (tunnel, peer), (server, database) = pair(), pair()
    async with peer, database, tunnel:
        await targets.serve(accept, server, target)
        assert await database.receive_some() == b""
    assert targets.streams == 0


async def _wait_idle(targets: Targets) -> None:
    await trio.lowlevel.checkpoint()
    await targets.wait_idle()


async def _cut(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


# -- The bridge --------------------------------------------------------------------------------------------------------


async def test_the_bridge() -> None:
    """It is taken down while bytes go both ways: its stream is closed, and the relay's end tells of it."""

    async def carry() -> None:
        near, far = pair()
        end = BridgeEnd(lambda: None)
        async with trio.open_nursery() as nursery:
            try:
                nursery.start_soon(end.pump, near)
                end.send(b"question")
                assert await far.receive_some() == b"question"
                await far.send_all(b"answer")
                await wait_all_tasks_blocked()
                assert end.recv(100) == b"answer"
            finally:
                end.close()
                await trio.aclose_forcefully(far)

    assert await cancel_everywhere(carry) >= 5
