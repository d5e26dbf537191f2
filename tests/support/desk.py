"""The console in a relay without Trio, and what it is asked."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hyperpool.admin.connection import Consoles
from hyperpool.admin.faults import RecentFaults
from hyperpool.admin.operations import Operations
from hyperpool.admin.outcomes import ConsoleError
from hyperpool.admin.surroundings import Surroundings
from hyperpool.cache.results import ResultCache
from hyperpool.frontdoor.peers import Peers
from hyperpool.stats import PoolStats, StatsBook
from hyperpool.transport.resolve import Resolver
from hyperpool.wire import messages
from tests.support.fronthouse import received, startup

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.admin.console import ShutdownMode
    from tests.support.fronthouse import House

ANSWER = b"T\0\0\0\6\0\0" + b"C\0\0\0\x0dSELECT 0\0" + messages.ready_for_query()


class Process:
    """Writes down what the console wants of the process."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.done: list[object] = []

    def reload(self) -> list[str]:
        """Say what is wrong."""
        return self.problems

    def set(self, key: str, value: str) -> None:
        """Refuse one key."""
        if key == "bad":
            raise ConsoleError("SET failed")
        self.done.append((key, value))

    def shut_down(self, mode: ShutdownMode) -> None:
        """Go on."""
        self.done.append(mode)


class Desk:
    """A house with a console."""

    def __init__(self, house: House, path: Path) -> None:
        self.house = house
        self.operations = Operations(house.relay, house.pools, lambda: house.settings)
        self.process = Process()
        self.faults = RecentFaults()
        around = Surroundings(
            relay=house.relay,
            pools=house.pools,
            cache=ResultCache(1 << 20, lambda: 0.5),
            settings=lambda: house.settings,
            operations=self.operations,
            book=StatsBook(0.0),
            own=PoolStats(),
            resolver=Resolver(15.0, 15.0),
            peers=Peers(lambda: house.settings),
            listeners=(),
            way_of=lambda _: None,
            config_path=path,
            faults=self.faults,
            entries=self.faults.levels,
        )
        self.consoles = Consoles(around, self.process)
        house.door.console = self.consoles

    def open(self, user: str = "ann") -> socket.socket:
        """Log in to the console."""
        client = self.house.connect(startup(user, database="pgbouncer", application_name="psql"))
        assert received(client).endswith(messages.ready_for_query())
        return client

    def ask(self, client: socket.socket, text: str) -> str:
        """Ask something, and spell the answer."""
        self.house.send(client, messages.query(text))
        return spell(received(client))

    def rows(self, view: str) -> list[dict[str, str]]:
        """What a view shows."""
        client = self.open()
        self.house.send(client, messages.query(f"SHOW {view}"))
        rows = rows_of(received(client))
        client.close()
        self.house.relay.turn()
        return rows


def _frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    while len(data) > 5:
        kind, length = struct.unpack_from("!cI", data)
        yield kind.decode(), data[5 : length + 1]
        data = data[length + 1 :]


def spell(data: bytes) -> str:
    """Command tags and errors of an answer, in order; END if the connection was closed."""
    words = []
    for kind, body in _frames(data.removesuffix(b"END")):
        if kind in "EN":
            words.append(f"{kind}{messages.error_fields(body)['M']}")
        elif kind == "C":
            words.append(body.rstrip(b"\0").decode())
    return "; ".join([*words, *(["END"] if data.endswith(b"END") else [])])


def rows_of(data: bytes) -> list[dict[str, str]]:
    """The rows of an answer."""
    names: list[str] = []
    rows = []
    for kind, body in _frames(data):
        if kind == "T":
            at = 2
            while at < len(body):
                end = body.index(0, at)
                names.append(body[at:end].decode())
                at = end + 19
        elif kind == "D":
            values, at = [], 2
            for _ in names:
                (size,) = struct.unpack_from("!i", body, at)
                values.append("NULL" if size < 0 else body[at + 4 : at + 4 + size].decode())
                at += 4 + max(size, 0)
            rows.append(dict(zip(names, values, strict=True)))
    return rows
