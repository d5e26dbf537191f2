"""The control socket: where commands reach a running pooler from the same machine and user."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from hyperpool.admin.console import ShutdownMode
from hyperpool.errors import StartupError
from hyperpool.frontdoor.listener import Listener, is_abandoned
from hyperpool.service.handover import MAX_MESSAGE, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hyperpool.config import PoolerSettings
    from hyperpool.service.succession import Succession

log = structlog.get_logger("control")

_LONGEST: Final = 107
"""Bytes of a Unix socket's path."""

_FULL_PAUSE: Final = 0.1


def control_path(settings: PoolerSettings, environ: Mapping[str, str]) -> str:
    """Where a pooler's control socket is: as set; else in the directory that systemd has made, or beside the pid file.

    Returns:
        An absolute path; empty for none.
    """
    if settings.control_socket:
        return settings.control_socket
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    path = f"{runtime}/control" if runtime else f"{settings.pidfile}.control" if settings.pidfile else ""
    return path if len(path.encode(errors="surrogateescape")) <= _LONGEST else ""


class Control:
    """Takes commands.

    Args:
        path: of the socket.
        succession: lets another process follow.
        shut_down: ends this one.
    """

    def __init__(self, path: str, succession: Succession, shut_down: Callable[[ShutdownMode], None]) -> None:
        self._path = Path(path)
        self._succession = succession
        self._shut_down = shut_down
        self._listener: Listener | None = None

    def open(self, *, in_place: bool = False) -> None:
        """Listen.

        Args:
            in_place: of another process, which goes on to have its socket, without the name.

        Raises:
            StartupError: that cannot be.
        """
        if not in_place and self._path.exists() and not is_abandoned(self._path, socket.SOCK_SEQPACKET):
            raise StartupError(f"another pooler takes commands at {self._path}; see control_socket")
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fresh.unlink(missing_ok=True)
            sock.bind(str(fresh))
            fresh.chmod(0o600)
            sock.listen()
            sock.setblocking(False)
            fresh.rename(self._path)
        except OSError as error:
            sock.close()
            fresh.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise StartupError(f"cannot listen on {self._path}: {reason}; see control_socket") from error
        self._listener = Listener(sock, str(self._path), self._path)

    def close(self) -> None:
        """Listen no more; the name stays, if another process has it by now."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def run(self) -> None:
        """Serve, once it is open, until cancelled."""
        if self._listener is None:
            return
        listening = trio.socket.from_stdlib_socket(self._listener.sock.dup())
        with listening:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        sock, _ = await listening.accept()
                    except OSError as error:
                        log.error("cannot accept connections", error=error.strerror)
                        await trio.sleep(_FULL_PAUSE)
                        continue
                    nursery.start_soon(self._serve, sock, nursery)

    async def _serve(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        try:
            if not _is_trusted(sock):
                log.warning("a command of another user was refused")
                sock.close()
                return
            await self._obey(sock, decode(await sock.recv(MAX_MESSAGE)), nursery)
        except OSError:
            sock.close()
        except Exception as error:
            log.error("a command failed", exc_info=error)
            sock.close()

    async def _obey(
        self, sock: trio.socket.SocketType, message: dict[str, Any], nursery: trio.Nursery
    ) -> None:
        want = message.get("want")
        if want == "sockets":
            await self._succession.talk(sock, message)
            return
        with sock:
            if want == "restart":
                problem = await self._succession.start(nursery)
                try:
                    await sock.send(encode(error=problem) if problem else encode(done=True))
                finally:
                    if not problem:
                        self._succession.leave()
            elif want == "drain":
                log.info("told to drain")
                self._shut_down(ShutdownMode.WAIT_FOR_CLIENTS)
                # The end of the process is the answer.
                await trio.sleep_forever()
            else:
                await sock.send(encode(error="unknown command"))


def _is_trusted(sock: trio.socket.SocketType) -> bool:
    """Whether the peer is of the same user, or root."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in {0, os.geteuid()}


def command(path: str, want: str, timeout: float | None) -> str:
    """Give a running pooler a command, and wait for what comes of it.

    Args:
        path: of its control socket.
        want: ``restart``, or ``drain``, which is done when the process has ended.
        timeout: seconds; None for no limit.

    Returns:
        Why it has failed, for people; empty if it has not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(path)
        except OSError as error:
            return f"no pooler at {path}: {error.strerror}; see control_socket"
        try:
            sock.send(encode(want=want))
            answer = decode(sock.recv(MAX_MESSAGE))
        except TimeoutError:
            return f"not done within {timeout:g} s"
        except OSError as error:
            return f"the pooler has ended: {error.strerror}"
    if not answer and want != "drain":
        return "the pooler has ended"
    return str(answer.get("error", ""))
