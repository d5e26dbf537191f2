"""What systemd gives to a process that it starts, and what it wants to be told: sd_listen_fds(3), sd_notify(3).

Nothing here needs a library of systemd's, and without systemd all of it does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from array import array
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from hyperpool.transport.passed import AGENTS, CLIENTS, HTTP, PassedSocket, PassedSockets

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FIRST: Final = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""

_ROLES: Final = frozenset({CLIENTS, AGENTS, HTTP})
"""What ``FileDescriptorName=`` may say; all other sockets, whatever their unit is called, are for clients."""

_STORED: Final = "stored-"
"""Begins the names of sockets that this pooler has put into systemd's store, in front of their role."""

_MOST_UNSENT: Final = 64

_PAUSE: Final = 0.01
"""Seconds between two attempts to tell what must be known before anything else happens."""

_PATIENCE: Final = 5.0
"""Seconds that the service manager has to take note."""


def activated(environ: MutableMapping[str, str]) -> PassedSockets:
    """The sockets that systemd has passed: of a socket unit, or those that were put into its store.

    Args:
        environ: the environment variables; those that tell of sockets are removed, so that no child believes them.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return PassedSockets()
    named = dict(enumerate(names.split(":")))
    sockets = []
    for number in range(int(count)):
        os.set_inheritable(_FIRST + number, False)
        name = named.get(number, "")
        role = name.removeprefix(_STORED)
        sock = socket.socket(fileno=_FIRST + number)
        sockets.append(
            PassedSocket(sock, role if role in _ROLES else CLIENTS, fixed=not name.startswith(_STORED))
        )
    return PassedSockets(sockets)


class Descriptor(Protocol):
    """What has a file descriptor; a negative one when it is closed."""

    def fileno(self) -> int:
        """The descriptor."""


@attrs.frozen
class ServiceManager:
    """How to reach whoever has started this process and wants to be told about it.

    Attributes:
        address: of its socket; empty if nobody wants to be told.
        watchdog: seconds within which it wants a sign of life each time; 0 for none.
        stores: how many sockets it keeps while the process is restarted.
    """

    address: str = ""
    watchdog: float = 0.0
    stores: int = 0

    @classmethod
    def found(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """What the environment variables say; they are removed, so that no child believes them."""
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
        address, usec, pid, stores = (environ.pop(name, "") for name in names)
        if not address.startswith(("/", "@")):
            return cls()
        watched = usec.isdecimal() and pid in {"", str(os.getpid())}
        return cls(address, int(usec) / 1e6 if watched else 0.0, int(stores) if stores.isdecimal() else 0)

    def environment(self) -> dict[str, str]:
        """The variables that let another process take this one's place."""
        if not self.address:
            return {}
        numbers = {"WATCHDOG_USEC": round(self.watchdog * 1e6), "FDSTORE": self.stores}
        return {"NOTIFY_SOCKET": self.address, **{name: str(one) for name, one in numbers.items() if one}}


class Notifier:
    """Tells the service manager how the process is; never waits for it, and never fails.

    What it does not take at once is told again with the next message, but for what has become stale by then.

    Args:
        manager: whom to tell.

    Attributes:
        held: nothing is told yet, since another process is the service still.
    """

    def __init__(self, manager: ServiceManager) -> None:
        self.manager = manager
        self.held = False
        self._sock: socket.socket | None = None
        self._unsent: list[tuple[bytes, list[Descriptor]]] = []
        self._status = ""
        if manager.address:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sock.setblocking(False)

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def status(self, text: str) -> None:
        """Show one line beside the unit, if it has changed."""
        if text != self._status and self._put(f"STATUS={text}".encode()):
            self._status = text

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self.tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float = 0.0) -> None:
        """The end begins.

        Args:
            seconds: how long it may take; 0 leaves that to the unit.
        """
        more = [f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"] if seconds else []
        self.tell("STOPPING=1", *more)

    def alive(self) -> None:
        """A sign of life."""
        self._put(b"WATCHDOG=1")

    def store(self, sockets: list[tuple[str, Descriptor]]) -> None:
        """Have listening sockets kept over restarts of the service, if the unit has a store for them.

        Args:
            sockets: with the role of each; they replace those that are kept.
        """
        if not self.manager.stores:
            return
        for role in sorted(_ROLES):
            self.tell("FDSTOREREMOVE=1", f"FDNAME={_STORED}{role}")
        for role, sock in sockets:
            self.tell("FDSTORE=1", f"FDNAME={_STORED}{role}", sockets=[sock])

    async def replaced(self, pid: int) -> None:
        """Another process is the service from now on; returns when that is known, or after a while.

        Args:
            pid: of that process.
        """
        if self._sock is not None:
            near, far = socket.socketpair()
            with near, trio.move_on_after(_PATIENCE):
                with far:
                    self.tell(f"MAINPID={pid}")
                    self.tell("BARRIER=1", sockets=[far])
                    while not self._send_all():  # noqa: ASYNC110 - nothing tells of it
                        await trio.sleep(_PAUSE)
                # Our end of the pair is the only one left when it has taken note.
                await trio.lowlevel.wait_readable(near)
        self.close()

    def tell(self, *assignments: str, sockets: list[Descriptor] | None = None) -> None:
        """Send a message that must arrive, with sockets if there are any."""
        self._unsent.append(("\n".join(assignments).encode(), sockets or []))
        del self._unsent[:-_MOST_UNSENT]
        self._send_all()

    def _put(self, message: bytes) -> bool:
        """Send a message that is of no use later, behind those that are.

        Returns:
            Whether it has been sent.
        """
        return self._send_all() and self._send(message, [])

    def _send_all(self) -> bool:
        while self._unsent:
            if not self._send(*self._unsent[0]):
                return False
            del self._unsent[0]
        return True

    def _send(self, message: bytes, sockets: list[Descriptor]) -> bool:
        if self._sock is None:
            return True
        if self.held:
            return False
        address = self.manager.address
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        fds = array("i", [one.fileno() for one in sockets if one.fileno() >= 0])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        try:
            self._sock.sendmsg([message], rights, 0, address)
        except OSError:
            return False
        return True
