"""A process steps into the place of another one: what the two say to each other, as the new one sees it.

::

    new ── {"want": "sockets"} ──────────────────────▶ old
    new ◀── {"sockets": [[role, fixed], ...]} ──────── old   with the descriptors
    new ── {"ready": process id} ────────────────────▶ old   all that it was waiting for is there
    new ◀── {"go": true} ───────────────────────────── old   nobody is accepted there any more
    new ── {"cancel": [number, pid, secret]} ────────▶ old   a request for one of the clients that stay there
    new ◀── {"done": number} ───────────────────────── old

Each message is a JSON object in one packet of a Unix socket (SOCK_SEQPACKET). Up to "go", either may end, and the other
one goes on as if nothing had been.
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from hyperpool.errors import StartupError
from hyperpool.transport.passed import PassedSocket, PassedSockets

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

PREDECESSOR: Final = "HYPERPOOL_PREDECESSOR"
"""The variable that names a descriptor of a process that has started another one to step into its place."""

MAX_MESSAGE: Final = 65536
_MAX_SOCKETS: Final = 253
"""As many descriptors as Linux sends in one message (SCM_MAX_FD)."""

_PATIENCE: Final = 10.0
"""Seconds for an answer that costs the other process no work."""


class Predecessor:
    """The process that this one follows.

    Args:
        sock: leads to it; handed over.

    Attributes:
        passed: its listening sockets; handed over by whoever takes this.
        gone: it has ended.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pending: dict[int, Callable[[], None]] = {}
        self._count = 0
        self.gone = False
        self.passed = PassedSockets()

    def close(self) -> None:
        """Follow it no more; it goes on to serve, if it has not been told otherwise."""
        self.gone = True
        self._sock.close()
        self.passed.close()

    def ask(self) -> None:
        """Get its listening sockets; blocks for a moment.

        Raises:
            StartupError: it gives none.
        """
        self._sock.settimeout(_PATIENCE)
        try:
            self._sock.send(encode(want="sockets"))
            data, fds = _receive(self._sock)
        except OSError as error:
            raise StartupError(f"cannot take over: {error.strerror or error}") from error
        self._sock.setblocking(False)
        answer = decode(data)
        sockets = answer.get("sockets")
        if sockets is None:
            raise StartupError(f"cannot take over: {answer.get('error', 'the other process has ended')}")
        self.passed = PassedSockets(
            [
                PassedSocket(socket.socket(fileno=fd), role, fixed)
                for fd, (role, fixed) in zip(fds, sockets, strict=True)
            ]
        )

    async def step_in(self) -> None:
        """Tell it that this process is ready, and wait until it accepts nobody any more.

        Raises:
            StartupError: it does not make way.
        """
        sock = trio.socket.from_stdlib_socket(self._sock.dup())
        with sock:
            try:
                await sock.send(encode(ready=os.getpid()))
                answer = decode(await sock.recv(MAX_MESSAGE))
            except OSError:
                # It has ended meanwhile: there is nobody to wait for.
                answer = {}
        if "error" in answer:
            raise StartupError(f"cannot take over: {answer['error']}")
        self.gone = not answer

    async def run(self) -> None:
        """Hear of it until it ends."""
        sock = trio.socket.from_stdlib_socket(self._sock.dup())
        with sock, suppress(OSError):
            while not self.gone and (answer := decode(await sock.recv(MAX_MESSAGE))):
                done = self._pending.pop(answer.get("done", 0), None)
                if done is not None:
                    done()
        self.gone = True
        for done in self._pending.values():
            done()
        self._pending.clear()

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Have it cancel what one of its clients does, if the key is one of its; never blocks.

        Args:
            pid: the process id in the key.
            secret: the secret in the key.
            done: called once, when the request cannot hit a later query any more.
        """
        self._count += 1
        if not self.gone:
            with suppress(OSError):
                self._sock.send(encode(cancel=[self._count, pid, secret.hex()]))
                self._pending[self._count] = done
                return
        done()


def follow(path: str, environ: MutableMapping[str, str]) -> Predecessor | None:
    """Find the process that this one is to follow, and get its sockets.

    Args:
        path: its control socket; empty for none.
        environ: the environment variables; the one that names the process is removed.

    Returns:
        None if there is no such process.

    Raises:
        StartupError: there is one, and it does not make way.
    """
    number = environ.pop(PREDECESSOR, "")
    if number:
        sock = socket.socket(fileno=int(number))
        sock.set_inheritable(False)
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            return None
    predecessor = Predecessor(sock)
    try:
        predecessor.ask()
    except BaseException:
        predecessor.close()
        raise
    return predecessor


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """A message, and the descriptors that came with it; no child inherits them."""
    space = socket.CMSG_SPACE(_MAX_SOCKETS * array("i").itemsize)
    data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for _, _, rights in ancillary:
        fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def encode(**message: object) -> bytes:
    """A message as bytes."""
    return json.dumps(message).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Bytes as a message; one that is none, or the end, is empty."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
