"""How the pooler ends, step by step."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from hyperpool.admin.console import ShutdownMode
from hyperpool.admin.operations import Operations
from hyperpool.frontdoor.acceptor import Acceptor
from hyperpool.frontdoor.listener import open_listeners
from hyperpool.service.shutdown import Shutdown
from tests.support.fronthouse import open_houses, startup

if TYPE_CHECKING:
    from pathlib import Path


def test_another_process_follows_one_that_has_been_told_to_end_meanwhile(directory: Path) -> None:
    """Nobody comes in any more through a Unix socket that both have: who did would be refused."""
    with open_houses() as make:
        house = make(unix_socket_dir=str(directory))
        house.warm()
        house.connect(startup())
        (listener,) = open_listeners(house.settings.pooler)
        listener.shared = True
        refused: list[socket.socket] = []
        acceptor = Acceptor(house.relay, listener, lambda sock, _: refused.append(sock))
        acceptor.start()
        operations = Operations(house.relay, house.pools, lambda: house.settings)
        shutdown = Shutdown(house.relay, house.pools, house.door, operations, [acceptor])
        shared = socket.socket(fileno=os.dup(listener.sock.fileno()))
        with shared as elsewhere, socket.socket(socket.AF_UNIX) as late:
            shutdown.begin(ShutdownMode.WAIT_FOR_CLIENTS, house.settings.pooler)
            shutdown.begin(ShutdownMode.WAIT_FOR_CLIENTS, house.settings.pooler, succeeded=True)
            late.connect(elsewhere.getsockname())
            house.relay.turn()
            assert refused == []
            elsewhere.accept()[0].close()
        assert not shutdown.over.is_set()
