"""Paths that break, stall and come back: clients are told, the log says why, and service resumes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support import scenes
from tests.support.network import tcp_sockets
from tests.support.paths import KINDS, TUNNELS
from tests.support.waiting import Stopwatch, eventually

if TYPE_CHECKING:
    from tests.support.scenes import SceneFactory

pytestmark = [pytest.mark.hyperpool_only]

private_pg, make_scene = scenes.private_pg, scenes.make_scene

_CUT = {
    "tcp": "server",
    "gateway": "the connection to the WebSocket gateway localhost",
    "ingress": "the connection to the WebSocket gateway localhost",
    "agent": "the connection to agent site (127.0.0.1",
}
"""Whose end it is that is told: the tunnel's own, where there is one."""

_SOON = 10.0  # seconds; everything here takes well below a second on a quiet machine


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_is_cut_in_a_query(make_scene: SceneFactory, kind: str) -> None:
    """The client is told that the server is lost; the next one is served, and nothing stays open."""
    scene = make_scene(kind, default_pool_size=1)
    before = scene.wait_served()
    rest = scene.at_rest()
    with scene.asking() as asking:
        scene.path.proxy.cut_all()
    assert asking.fields["C"] == "08006"
    assert asking.fields["S"] == "FATAL"
    assert _CUT[kind] in asking.fields["M"]
    scene.logged(_CUT[kind])
    assert scene.wait_served() != before
    scene.wait_rest(rest)


@pytest.mark.parametrize("kind", KINDS)
def test_a_far_end_that_restarts(make_scene: SceneFactory, kind: str) -> None:
    """While it is away, new clients are told so at once, with the tunnel's own reason; then they are served."""
    scene = make_scene(kind, default_pool_size=1)
    scene.wait_served()
    rest = scene.at_rest()
    mark = scene.pooler.log_size()
    with scene.pooler.connect() as connection:
        connection.execute("BEGIN")
        scene.path.put_far_end_down()
        assert scene.broken(connection).sqlstate == "08006"
    fields = scene.wait_refused()
    assert fields["C"] == "08001"
    assert fields["S"] == "FATAL"
    expected = {
        "tcp": "during login",
        "gateway": "TLS to localhost",
        "ingress": "TLS to localhost",
        "agent": "agent site",
    }
    assert expected[kind] in fields["M"]
    scene.logged("cannot connect to the server", mark)
    scene.path.put_far_end_up()
    scene.wait_served()
    scene.wait_rest(rest)


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_half_open_path(make_scene: SceneFactory, kind: str) -> None:
    """When a path swallows everything without a word, pings find out, and the client is told why."""
    scene = make_scene(kind, keepalive=1, default_pool_size=1)
    scene.wait_served()
    rest = scene.at_rest()
    proxy = scene.path.proxy
    with scene.asking() as asking:
        proxy.stall(proxy.to_target, proxy.from_target)
    assert asking.fields["C"] == "08006"
    scene.logged("did not answer a ping within 1 s")
    proxy.resume(proxy.to_target, proxy.from_target)
    scene.wait_served()
    scene.wait_rest(rest)


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_client_that_does_not_read(make_scene: SceneFactory, kind: str) -> None:
    """It is waited for, takes no memory, and holds up nobody else; what it leaves is cleaned up.

    Through a far end of hyperpool's, the server itself has to wait. websockify may take in all that a server sends:
    then it is only the pooler that does not take it.
    """
    scene = make_scene(kind, default_pool_size=2)
    scene.wait_served()
    statement = "SELECT repeat('x', 1000000) FROM generate_series(1, 300)"
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND query = %s"

    def held_back() -> bool:
        if kind == "gateway":
            return any(one.unread for one in tcp_sockets(remote_port=scene.path.proxy.port))
        return bool(scene.pg.sql(waits, statement))

    with scene.pooler.raw() as client:
        memory = scene.pooler.memory()
        client.send(raw.query(statement))
        eventually(held_back, what="what is sent waits")
        elapsed = Stopwatch()
        assert len({scene.ask() for _ in range(20)}) == 1
        assert elapsed.seconds < _SOON
        assert scene.pooler.memory() - memory < 32e6
        eventually(held_back, what="what is sent still waits")
        client.abort()
    eventually(lambda: not held_back(), what="nothing waits any more")
    running = "SELECT 1 FROM pg_stat_activity WHERE query = %s"
    eventually(lambda: not scene.pg.sql(running, statement), what="the server is free of it")
    scene.wait_served()


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_path_that_is_slow_and_breaks_everything_up(make_scene: SceneFactory, kind: str) -> None:
    """Bytes that come one by one, in the middle of TLS records and frames, arrive as they were sent."""
    scene = make_scene(kind)
    scene.wait_served()
    scene.path.proxy.to_target.fragment = scene.path.proxy.from_target.fragment = 1
    with scene.pooler.connect() as connection:
        for size in (1, 1000, 30_000):
            text = "ab" * size
            assert connection.execute("SELECT %s::text", (text,)).fetchone() == (text,)


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_path_that_is_cut_in_every_phase(make_scene: SceneFactory, kind: str) -> None:
    """Wherever it breaks while a connection is made, the next one works, and nothing stays open."""
    scene = make_scene(kind, default_pool_size=1)
    scene.wait_served()
    rest = scene.at_rest()
    proxy = scene.path.proxy
    refused = 0
    for bytes_passed in (0, 1, 100, 700, 1500, 2500, 3500):
        proxy.from_target.cut_after = proxy.from_target.passed + bytes_passed
        proxy.cut_all()
        try:
            scene.ask()
        except psycopg.OperationalError as error:
            scene.heard.append(str(error))
            refused += 1
        proxy.from_target.cut_after = None
        scene.wait_served()
    assert refused
    scene.wait_rest(rest)
