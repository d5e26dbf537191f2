"""A client of the console: its socket, driven by the relay, and its conversation."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool import COMPATIBLE
from hyperpool.admin.console import Console, Role, role_of
from hyperpool.admin.conversation import Conversation
from hyperpool.admin.operations import Mode
from hyperpool.admin.views import Register
from hyperpool.errors import ClientRefused, ProtocolError
from hyperpool.relay.connection import HANG_UP
from hyperpool.relay.transient import TransientConnection
from hyperpool.transport.endpoint import tls_name
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.admin.console import Process
    from hyperpool.admin.conversation import Executor
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.frontdoor.console import ConsoleReady

log = structlog.get_logger("console")

_PARAMETERS: Final = {
    "server_version": f"{COMPATIBLE}/bouncer",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "DateStyle": "ISO",
    "TimeZone": "GMT",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
}
_WELCOME: Final = b"".join(messages.parameter_status(name, value) for name, value in _PARAMETERS.items())
_DATABASE: Final = "pgbouncer"
"""What the log calls the console, by whichever name it was asked for."""

_MAX_CONSOLES: Final = 256


class ConsoleConnection(TransientConnection):
    """A client of the console. It has no deadline: it may stay as long as it likes.

    Attributes:
        user: as whom it has logged in.
        application_name: what it calls itself.
        address: where it comes from, for logs.
        pid: the process id of its cancel key.
        secret: the secret of its cancel key.
        active: when its newest statement came, monotonic seconds.
    """

    __slots__ = (
        "_consoles",
        "_conversation",
        "active",
        "address",
        "application_name",
        "pid",
        "secret",
        "user",
    )

    def __init__(self, consoles: Consoles, ready: ConsoleReady, role: Role) -> None:
        super().__init__(consoles.around.relay, ready.sock, float("inf"))
        self._consoles = consoles
        self._conversation = Conversation(consoles.make(role))
        self.user = ready.user
        self.application_name = ready.application_name
        self.address = ready.address
        self.pid = ready.pid
        self.secret = ready.secret
        self.active = self.since

    def __repr__(self) -> str:
        return f"<console {self.user}>"

    def identity(self) -> dict[str, str | int]:
        """Who it is, for logs."""
        return {"id": self.number, "client": self.address, "database": _DATABASE, "user": self.user}

    @property
    def waits(self) -> bool:
        """Whether its statement is not done yet."""
        return self._conversation.waits is not None

    @property
    def is_waiting(self) -> bool:
        """Whether that is something that may take long."""
        waits = self._conversation.waits
        return waits is not None and not waits.soon

    def readable(self, mask: int) -> None:
        """Read once, and answer."""
        if mask & HANG_UP:
            self.hung_up = True
        if self.outbox or self.waits:
            self.unread = True
            if self.hung_up:
                self.lost("client closed connection")
            return
        if self._conversation.behind:
            self.unread = True
            self.feed(b"")
            return
        try:
            end = self.receive(self.relay.small_view)
        except OSError as error:
            self.lost(f"client connection broke: {error.strerror}")
            return
        if end == 0:
            self.lost("client unexpected eof")
        elif end > 0:
            self.active = self.relay.now
            self.feed(bytes(self.relay.small_view[:end]))

    def feed(self, data: bytes) -> None:
        """Handle what the client has sent."""
        try:
            self._answer(self._conversation.receive(data))
        except ProtocolError as error:
            self._violated(error)

    def poll(self) -> None:
        """Look whether its statement is done."""
        try:
            self._answer(self._conversation.poll())
        except ProtocolError as error:
            self._violated(error)

    def interrupt(self) -> None:
        """It cancels its statement."""
        try:
            self._answer(self._conversation.interrupt())
        except ProtocolError as error:
            self._violated(error)

    def _answer(self, answer: bytes) -> None:
        if answer:
            self.transmit(answer)
        if self._conversation.ended:
            self.lost("client close request")
        elif not self.outbox:
            self.flushed()

    def _violated(self, error: ProtocolError) -> None:
        self.leave(str(error), error.sqlstate)

    def leave(self, message: str, sqlstate: str) -> None:
        """Close with a FATAL error."""
        self.end()
        self.relay.forget(self)
        self.relay.see_off(self, messages.error_response(message, sqlstate))
        self.gone(message)

    def flushed(self) -> None:
        """The client has taken all: it may be read again."""
        if (self.unread or self._conversation.behind) and not self.waits:
            self.relay.resume(self)

    def timed_out(self) -> None:
        """It has no deadline."""

    def gone(self, reason: str) -> None:
        """It has left."""
        self._consoles.forget(self, reason)


class Consoles:
    """All clients of the console.

    Args:
        around: what the console sees.
        process: what it can do.

    Attributes:
        views: what can be shown.
        make: makes what executes a client's statements, of what it may do.
        counted: called with how many clients there are, when that has changed; resumes what is suspended when there is
            nobody left who could do so.
    """

    def __init__(self, around: Surroundings, process: Process) -> None:
        self.around = around
        self.process = process
        self.views = Register()
        self.make: Callable[[Role], Executor] = lambda role: Console(around, self.views, process, role)
        self.counted: Callable[[int], None] = self._resume_if_nobody_is_left

    def check(self, user: str, *, owner: bool) -> Role:
        """What a user may do.

        Args:
            user: who has proved to be that.
            owner: it is the pooler's own operating system user.

        Raises:
            ClientRefused: nothing.
        """
        pooler = self.around.settings().pooler
        if owner:
            return Role.ADMIN
        role = role_of(user, pooler.admin_users, pooler.stats_users)
        if role is None:
            raise ClientRefused(
                "not allowed", "08P01", "users in admin_users and stats_users may use the console"
            )
        if len(self.around.consoles) >= _MAX_CONSOLES:
            raise ClientRefused("too many clients of the admin console", "53300")
        return role

    def adopt(self, ready: ConsoleReady, *, unread: bool, hung_up: bool) -> None:
        """Take over a client's socket, and greet it."""
        role = self.check(ready.user, owner=ready.owner)
        console = ConsoleConnection(self, ready, role)
        console.hung_up = hung_up
        self.around.consoles[console.pid] = console
        self.counted(self.count())
        self.around.own.logins += 1
        self.around.relay.welcome(console)
        if self.around.settings().pooler.log_connections:
            log.info(
                "console client logged in",
                **console.identity(),
                role=role.value,
                tls=tls_name(ready.sock),
                replication="",
            )
        behind = messages.backend_key_data(ready.pid, ready.secret) + messages.ready_for_query()
        console.transmit(ready.welcome + _WELCOME + behind)
        if ready.received:
            console.feed(ready.received)
        if (unread or hung_up) and not console.closed:
            self.around.relay.resume(console)

    def count(self) -> int:
        """How many clients of the console there are."""
        return len(self.around.consoles)

    def cancel(self, pid: int, secret: bytes) -> None:
        """Cancel what a client of the console waits for, if there is one with this key."""
        console = self.around.consoles.get(pid)
        if console is not None and hmac.compare_digest(console.secret, secret):
            console.interrupt()

    def sweep(self) -> None:
        """Look whether statements are done; for every 100 ms."""
        for console in list(self.around.consoles.values()):
            console.poll()

    def forget(self, console: ConsoleConnection, reason: str) -> None:
        """A client has left."""
        self.around.consoles.pop(console.pid, None)
        if self.around.settings().pooler.log_disconnections:
            age = self.around.relay.age(console)
            log.info("closing console client", **console.identity(), reason=reason, age=age)
        self.counted(self.count())

    def _resume_if_nobody_is_left(self, count: int) -> None:
        operations = self.around.operations
        if not count and operations.mode is Mode.SUSPENDED:
            log.info("nobody is left who could resume: resuming")
            operations.resume_if_stopped()

    def shut_down(self, message: str) -> None:
        """Close all of them."""
        for console in list(self.around.consoles.values()):
            console.leave(message, "57P01")
