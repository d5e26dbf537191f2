"""Another process steps into the place of this one: what this one does for it. See `service.handover`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import trio

from hyperpool.service.handover import MAX_MESSAGE, PREDECESSOR, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.service.systemd import Descriptor

log = structlog.get_logger("pooler")

_DETACH: Final = "import os, sys; os._exit(0) if os.fork() else os.execv(sys.argv[1], sys.argv[1:])"
"""Starts a program as nobody's child, so that whoever looks after orphans, such as systemd, looks after it at once."""


class Replaceable(Protocol):
    """A process that another one may step into the place of."""

    def obstacle(self) -> str:
        """Why that cannot be now, for people; empty if it can."""

    def expect(self, *, somebody: bool) -> None:
        """Another process may serve clients from now on, beside this one; or will not after all."""

    def listening(self) -> list[tuple[str, bool, Descriptor]]:
        """The listening sockets: the role of each, and whether it is in the place of what the settings say."""

    async def announce(self, pid: int) -> str:
        """Tell the service manager which process serves from now on.

        Args:
            pid: of that process.

        Returns:
            Why it cannot be that one, for people; empty if it can.
        """

    def leave(self) -> None:
        """Accept nobody any more, and end when all clients have left; that may be at once."""

    def cancel(self, pid: int, secret: bytes, done: Callable[[], None]) -> None:
        """Cancel what a client does.

        Args:
            pid: the process id in its key.
            secret: the secret in its key.
            done: called when the request cannot hit a later query any more.
        """


class Succession:
    """Lets another process step into the place of this one, once.

    Args:
        process: this one.
        command: how to start another one of the kind.
        environment: what it gets besides the variables of this one.
    """

    def __init__(
        self, process: Replaceable, command: tuple[str, ...], environment: Callable[[], dict[str, str]]
    ) -> None:
        self._process = process
        self._command = command
        self._environment = environment
        self._under_way = False

    async def start(self, nursery: trio.Nursery) -> str:
        """Start another process, and wait until it has stepped into the place of this one, which has to `leave` then.

        Args:
            nursery: where the conversation with it goes on.

        Returns:
            Why that has failed, for people; empty if it has not.
        """
        obstacle = self._obstacle()
        if obstacle:
            return obstacle
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            environment = {**os.environ, **self._environment(), PREDECESSOR: str(number)}
            log.info("starting the process that is to follow")
            try:
                await trio.run_process(
                    [sys.executable, "-ISc", _DETACH, *self._command],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[number],
                    env=environment,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                ours.close()
                return f"cannot start another process: {error}"
        outcome: str = await nursery.start(self._follow_up, trio.socket.from_stdlib_socket(ours))
        return outcome

    def leave(self) -> None:
        """Leave the place to the process that has been started."""
        self._process.leave()

    async def talk(self, sock: trio.socket.SocketType, first: dict[str, Any]) -> None:
        """Talk to a process that wants to follow, and leave if it does.

        Args:
            sock: leads there; handed over.
            first: what it has said already.
        """
        with sock:
            if not await self._settle(sock, first):
                self._process.leave()
                await self._pass_cancels(sock)

    async def _follow_up(self, sock: trio.socket.SocketType, task_status: trio.TaskStatus[str]) -> None:
        with sock:
            problem = await self._settle(sock, None)
            task_status.started(problem)
            if not problem:
                await self._pass_cancels(sock)

    async def _settle(self, sock: trio.socket.SocketType, first: dict[str, Any] | None) -> str:
        try:
            problem = await self._hand_over(sock, first)
        except OSError as error:
            problem = f"the process that was to follow is gone: {error.strerror}"
        if problem:
            log.warning("nobody follows", reason=problem)
        return problem

    async def _hand_over(self, sock: trio.socket.SocketType, first: dict[str, Any] | None) -> str:
        """Do all up to "go".

        Returns:
            Why nothing has come of it; empty if this process may leave.
        """
        message = first or decode(await sock.recv(MAX_MESSAGE))
        if message.get("want") != "sockets":
            return "the process that was to follow has ended at its start; its log says why"
        obstacle = self._obstacle()
        if obstacle:
            await sock.send(encode(error=obstacle))
            return obstacle
        self._under_way = True
        # It takes its first clients as soon as it has the sockets.
        self._process.expect(somebody=True)
        problem = "nothing has come of it"
        try:
            problem = await self._await_successor(sock)
        finally:
            self._under_way = False
            if problem:
                self._process.expect(somebody=False)
        return problem

    def _obstacle(self) -> str:
        return "another process is about to follow" if self._under_way else self._process.obstacle()

    async def _await_successor(self, sock: trio.socket.SocketType) -> str:
        sockets = self._process.listening()
        fds = array("i", [one.fileno() for _, _, one in sockets])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
        await sock.sendmsg([encode(sockets=[[role, fixed] for role, fixed, _ in sockets])], rights)
        pid = decode(await sock.recv(MAX_MESSAGE)).get("ready")
        if not isinstance(pid, int):
            return "the process that was to follow has ended before it was ready; its log says why"
        obstacle = self._process.obstacle() or await self._process.announce(pid)
        if obstacle:
            await sock.send(encode(error=obstacle))
            return obstacle
        log.info("another process serves from now on", pid=pid)
        await sock.send(encode(go=True))
        return ""

    async def _pass_cancels(self, sock: trio.socket.SocketType) -> None:
        send, done = trio.open_memory_channel[int](float("inf"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._confirm, sock, done)
            while message := await _received(sock):
                if "cancel" in message:
                    number, pid, secret = message["cancel"]
                    self._process.cancel(pid, bytes.fromhex(secret), partial(send.send_nowait, number))
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _confirm(sock: trio.socket.SocketType, done: trio.MemoryReceiveChannel[int]) -> None:
        async for number in done:
            await sock.send(encode(done=number))


async def _received(sock: trio.socket.SocketType) -> dict[str, Any]:
    try:
        return decode(await sock.recv(MAX_MESSAGE))
    except OSError:
        return {}
