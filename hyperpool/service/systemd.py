"""What systemd gives to a process that it starts: listening sockets. See sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from hyperpool.transport.passed import AGENTS, CLIENTS, PassedSocket, PassedSockets

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FIRST: Final = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""

_ROLES: Final = frozenset({AGENTS})
"""What ``FileDescriptorName=`` may say; all other sockets, whatever their unit is called, are for clients."""


def activated(environ: MutableMapping[str, str]) -> PassedSockets:
    """The sockets that systemd has passed (socket activation).

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
        role = CLIENTS if named.get(number) not in _ROLES else named[number]
        sockets.append(PassedSocket(socket.socket(fileno=_FIRST + number), role, fixed=True))
    return PassedSockets(sockets)
