"""A client connection: what it has, and how it is turned away."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from hyperpool.pool.statements import ClientStatements
from hyperpool.relay.connection import Connection
from hyperpool.relay.session import UNPINNED
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.cache.flights import Flight
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.filling import Fill
    from hyperpool.relay.handover import ClientReady
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.requests import Request
    from hyperpool.relay.server import ServerConnection


class Frontend(Connection):
    """What a client connection has, and how it is turned away.

    Attributes:
        pool: where its servers come from.
        server: the server connection that serves it now.
        parked: bytes read before a server was there; None unless waiting.
        tracked: the session parameters that this client expects.
        initial: those that its session began with.
        proven: servers have taken these parameters before.
        greet: makes the end of the login, from what a server made of the parameters; None once the client has it.
        statements: what it has prepared, if anything.
        unnamed: its unnamed statement, if that may be needed on another server.
        pinned: the reasons for which it has kept a server, so far.
        stalled: what it has sent next waits in `rest` until all that it sent before has been answered.
        paused: it waits only until others have had their turn.
        gathered: the beginning of a message that is collected; `skip` says how much is still to come.
        active: when it got a server or an answer, monotonic seconds: the newest time.
        notified: it has been told that it waits (``query_wait_notify``).
        caching: it wants answers from the result cache (``SET hyperpool.cache``).
        fill: the answer to what it has asked, which may be kept; None for one that may not.
        flight: the answer that another client has asked for, and that it waits for; it is parked then.
        patience: until when it does, monotonic seconds; 0 while it has not begun.
        pid: the process id of its cancel key.
        secret: the secret of its cancel key.
        address: where it comes from, for logs.
        user: as whom it has logged in.
    """

    __slots__ = (
        "active",
        "address",
        "caching",
        "fill",
        "flight",
        "gathered",
        "greet",
        "initial",
        "notified",
        "parked",
        "patience",
        "paused",
        "pid",
        "pinned",
        "pool",
        "proven",
        "secret",
        "server",
        "stalled",
        "statements",
        "tracked",
        "unnamed",
        "user",
    )

    def __init__(self, relay: Relay, ready: ClientReady) -> None:
        self._set_up(relay, ready.sock)
        self.pool = ready.pool
        self.tracked: ParameterSet = ready.tracked
        self.initial = ready.tracked
        self.greet = ready.greet
        self.proven = ready.greet is None
        self.pid = ready.pid
        self.secret = ready.secret
        self.address = ready.address
        self.user = ready.user
        self.server: ServerConnection | None = None
        self.parked: bytes | None = None
        self.statements: ClientStatements | None = None
        self.unnamed: Statement | None = None
        self.pinned = UNPINNED
        self.stalled = False
        self.paused = False
        self.gathered: bytearray | None = None
        self.active = self.since
        self.notified = False
        self.caching = True
        self.fill: Fill | None = None
        self.flight: Flight[ClientConnection, Request] | None = None
        self.patience = 0.0

    def __repr__(self) -> str:
        return f"<client {self.pool.name}@{self.address}>"

    def identity(self) -> dict[str, str | int]:
        """Who it is, for logs."""
        return {
            "id": self.number,
            "client": self.address,
            "database": self.pool.settings.database,
            "user": self.user,
        }

    @property
    def mid_message(self) -> bool:
        """Whether a server has got the beginning of a message, and not its end: nothing may be sent amid that."""
        return self.skip > 0 and self.gathered is None

    def remembered(self) -> ClientStatements:
        """What it has prepared."""
        if self.statements is None:
            self.statements = ClientStatements(self.relay.budget)
        return self.statements

    def violate(self, what: str) -> None:
        """The client broke the protocol: tell it, as PostgreSQL does, and close."""
        self.close(f"protocol violation: {what}", messages.error_response(what, "08P01"))

    def refuse_simple(self) -> None:
        """The client has used the simple query protocol, and must not (``disable_pqexec``)."""
        self.refuse(
            "PQexec disallowed", "08P01", "use the extended query protocol; see the setting disable_pqexec"
        )

    def refuse(self, message: str, sqlstate: str, hint: str = "") -> None:
        """Close with a FATAL error of our own."""
        self.close(message, messages.error_response(message, sqlstate, hint=hint))

    @abstractmethod
    def close(self, reason: str, farewell: bytes | None = None) -> None:
        """Close the connection, and part it from its server."""
