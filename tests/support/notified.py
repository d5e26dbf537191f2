"""A service manager of few words: it reads what processes tell it on a real notify socket."""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING, Self

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

_MOST: int = 4096


class NotifySocket:
    """A socket as systemd makes it for `Type=notify`.

    Args:
        directory: where its file is.

    Attributes:
        address: for ``NOTIFY_SOCKET``.
        told: each message so far, as a list of assignments.
        fds: descriptors that came along; closed in the end.
    """

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "notify")
        self.told: list[list[str]] = []
        self.fds: list[int] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        for fd in self.fds:
            os.close(fd)

    def read(self) -> list[list[str]]:
        """Take what has come, and return all that has been told so far."""
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(_MOST, socket.CMSG_SPACE(64))
            except BlockingIOError:
                return self.told
            fds = array.array("i")
            for _, _, rights in ancillary:
                fds.frombytes(rights)
            message = data.decode().split("\n")
            self.told.append(message)
            if "BARRIER=1" in message:
                # Whoever waits for it sees its end of the pipe close.
                for fd in fds:
                    os.close(fd)
            else:
                self.fds.extend(fds)

    def has(self, *assignments: str) -> bool:
        """Whether one message so far holds all of these, each given by its beginning."""
        return any(
            all(any(line.startswith(one) for line in message) for one in assignments)
            for message in self.read()
        )

    def wait_for(self, *assignments: str, within: float = 40.0) -> None:
        """Wait until `has`."""
        eventually(lambda: self.has(*assignments), within=within, what=f"{assignments} is told")
