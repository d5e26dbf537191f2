"""LISTEN in transaction mode: who listens hears everything, and nobody else hears anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sharing import Sharing, config_for, leave, pid_of

if TYPE_CHECKING:
    from tests.conftest import PoolerFactory
    from tests.support import rawclient as raw
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only


def _heard(frames: list[raw.Frame]) -> list[tuple[bytes, bytes]]:
    """Channel and payload of the notifications among some frames."""
    return [
        (channel, payload)
        for channel, payload, _ in (got.body[4:].split(b"\0") for got in frames if got.kind == b"A")
    ]


def test_delivery_to_an_idle_client(sharing: Sharing) -> None:
    """A notification arrives at once, while the client asks nothing; all of them do, in order."""
    listener, sender = sharing.client(), sharing.client()
    listener.ask("LISTEN news")
    for n in range(50):
        sender.ask(f"NOTIFY news, 'number {n}'")
        assert _heard(listener.receive_until(b"A")) == [(b"news", b"number %d" % n)]
    sender.ask("BEGIN")
    for n in range(50):
        sender.ask(f"SELECT pg_notify('news', 'together {n}')")
    sender.ask("COMMIT")
    got = [_heard(listener.receive_until(b"A"))[0][1] for _ in range(50)]
    assert got == [b"together %d" % n for n in range(50)]


def test_delivery_behind_a_transaction(sharing: Sharing) -> None:
    """What is sent while the listener is in a transaction arrives at its end, as from PostgreSQL alone."""
    listener, sender = sharing.client(), sharing.client()
    listener.ask("LISTEN news")
    listener.ask("BEGIN")
    sender.ask("NOTIFY news, 'x'")
    assert _heard(listener.ask("SELECT 1")) == []
    frames = listener.ask("COMMIT")
    if not _heard(frames):  # PostgreSQL sends it with COMMIT's ReadyForQuery, or right behind
        frames = listener.receive_until(b"A")
    assert _heard(frames) == [(b"news", b"x")]


def test_delivery_to_oneself(sharing: Sharing) -> None:
    """A client hears itself, also in the transaction that begins to listen."""
    client = sharing.client()
    frames = client.ask("BEGIN; LISTEN news; NOTIFY news, 'x'; COMMIT")
    if not _heard(frames):
        frames = client.receive_until(b"A")
    assert _heard(frames) == [(b"news", b"x")]


@pytest.mark.parametrize("end", ["UNLISTEN news", "UNLISTEN *", "DISCARD ALL", "goodbye", "abruptly"])
def test_nobody_hears_what_is_not_meant_for_him(sharing: Sharing, end: str) -> None:
    """On a server where somebody has listened, those who come after him hear nothing, and nor does he."""
    listener, other, sender = sharing.client(), sharing.client(), sharing.client()
    listener.ask("LISTEN news")
    pid = sharing.stays(listener)
    if end in {"goodbye", "abruptly"}:
        leave(listener, abruptly=end == "abruptly")
    else:
        listener.ask(end)
    sharing.settle()
    met = set()
    for _ in range(10):
        assert _heard(sender.ask("NOTIFY news, 'x'")) == []
        frames = other.ask("SELECT pg_backend_pid()")
        assert _heard(frames) == []
        met.add(pid_of(other))
        with sharing.crowded():
            assert _heard(other.ask("SELECT 1")) == []
            met.add(pid_of(other))
    assert pid in met
    for client in (sender, other, listener):
        if client.sock.fileno() >= 0:
            client.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.receive()


def test_many_listeners(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """Clients that listen to channels of their own each hear theirs, while others work."""
    pooler = make_pooler(config_for(pg, "app", default_pool_size=6, max_pinned=5))
    clients = [pooler.raw() for _ in range(7)]
    try:
        listeners, workers = clients[:5], clients[5:]
        for n, listener in enumerate(listeners):
            listener.ask(f"LISTEN channel_{n}")
        for turn in range(10):
            for n in range(len(listeners)):
                assert _heard(workers[turn % 2].ask(f"NOTIFY channel_{n}, '{turn}'")) == []
        for n, listener in enumerate(listeners):
            got = [_heard(listener.receive_until(b"A")) for _ in range(10)]
            assert got == [[(b"channel_%d" % n, b"%d" % turn)] for turn in range(10)]
            assert _heard(listener.ask("SELECT 1")) == []
    finally:
        for client in clients:
            client.close()
