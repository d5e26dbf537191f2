"""A server connection and the pooler's own queries on it, its *errands*.

Errands are SKIP requests of the ledger. While a server serves a client, they run in front of or behind the client's
requests; without a client, the server is *conditioning*, with a deadline.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from hyperpool.cache.database import anything
from hyperpool.pool.statements import ServerStatements
from hyperpool.relay.connection import Connection
from hyperpool.relay.errand import Errand
from hyperpool.relay.ledger import SKIP, Ledger
from hyperpool.relay.prepared import PreparedTexts
from hyperpool.relay.session import UNPINNED
from hyperpool.relay.tables import IDLE
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.cache.database import Writing
    from hyperpool.errors import LoginFailed
    from hyperpool.pool.handover import ServerReady
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.replay import Replay
    from hyperpool.relay.session import Pinned, Suspicion


class Backend(Connection):
    """What a server connection has, and how the pooler asks it something.

    Attributes:
        pool: the pool that it belongs to.
        address: of the server, for logs.
        client: the client that it serves; None while idle or conditioning.
        ledger: what it still owes.
        status: the transaction status of its newest ReadyForQuery (``I``, ``T``, ``E`` as a byte).
        settled: ReadyForQuery said idle and nothing is outstanding.
        held: it must not be given back without a closer look.
        errand: the pooler's own query that it is answering.
        purpose: what it is conditioned for, or "".
        refusal: why it refused ``connect_query``.
        cancels: cancel requests under way for its client.
        restoring: the query that sets again what its client has reset, until it is answered.
        tries: how often that has been sent once more.
        begun: in session mode, what its client's session began with, by name, if a reset has to lead back to it.
        has_reset: in session mode, its client has reset parameters, and those have not been set again.
        said: the text of its client's newest query, if the pool keeps texts; empty if it is not known.
        retiring: why it is closed as soon as it is free, or "".
        outdated: it is, because what it connects to has changed.
        failing: it has sent a FATAL error.
        tracked: the session parameters that it has.
        statements: what is prepared on it.
        worked: clients may have had it.
        expected: which messages answer what it has been asked, if that is one request of a known shape, and all that is
            outstanding; see `relay.shortcut`.
        unnamed: the unnamed statement that its client has prepared on it; None if nobody knows.
        replay: what could be sent once more, if a prepared statement turns out to be out of date.
        described: a ParameterDescription that is for the client, unless that is so; b"" for none.
        asking: the suspicion that the server is being asked about.
        suspicion: what its client may have done to the session; None for nothing.
        pinned: why its client keeps it, or may have to.
        granted: whether its client may keep it: it was one of `max_pinned` when it began to count as kept, however
            late it tells what is left there, or when it told.
        pid: its process id at PostgreSQL.
        secret: its cancel secret.
        linked: when its client got it, monotonic seconds.
        asked: when its client's newest request came after everything had been answered; 0 for when it was linked.
        began: when its client's newest request came outside of a transaction block; see `asked`.
        answered: when its newest ReadyForQuery came, unless the client was parted from it then.
        idle_since: when it was given back, monotonic seconds.
        expires: when its lifetime ends, monotonic seconds; 0 for never.
        writes: what its client may have written since it was last dropped from the result cache; None for nothing.
        prepared: what names of statements stand for, where they are its client's alone.
    """

    __slots__ = (
        "_defaults",
        "_defaults_since",
        "_parameters",
        "_rejection",
        "_resets",
        "_tainted",
        "address",
        "answered",
        "asked",
        "asking",
        "began",
        "begun",
        "cancels",
        "client",
        "described",
        "errand",
        "expected",
        "expires",
        "failing",
        "granted",
        "has_reset",
        "held",
        "idle_since",
        "ledger",
        "linked",
        "outdated",
        "pid",
        "pinned",
        "pool",
        "prepared",
        "purpose",
        "refusal",
        "replay",
        "restoring",
        "retiring",
        "said",
        "secret",
        "settled",
        "statements",
        "status",
        "suspicion",
        "tracked",
        "tries",
        "unnamed",
        "worked",
        "writes",
    )

    def __init__(self, relay: Relay, ready: ServerReady) -> None:
        super().__init__(relay, ready.sock)
        self.pool = ready.pool
        self.address = ready.address
        self.client: ClientConnection | None = None
        self.ledger = Ledger()
        self.status = IDLE
        self.said = b""
        self.settled = False
        self.held = self._always_held()
        self.errand: Errand | None = None
        self._rejection: dict[str, str] = {}
        self._resets: list[str] = []
        self._tainted = False
        self._parameters: dict[str, str] = {}
        self._defaults: dict[str, str | None] = {}
        self._defaults_since = float("-inf")
        self.restoring = b""
        self.tries = 0
        self.begun: dict[str, str] = {}
        self.has_reset = False
        self.purpose = ""
        self.refusal: LoginFailed | None = None
        self.cancels = 0
        self.retiring = ""
        self.outdated = False
        self.failing = False
        self.tracked: ParameterSet = relay.tracker.intern(ready.parameters)
        self.statements = ServerStatements()
        self.unnamed: Statement | None = None
        self.worked = False
        self.replay: Replay | None = None
        self.described = b""
        self.expected: bytes | None = None
        self.suspicion: Suspicion | None = None
        self.asking: Suspicion | None = None
        self.pinned = UNPINNED
        self.granted = False
        self.pid = ready.pid
        self.secret = ready.secret
        self.linked = self.since
        self.asked = 0.0
        self.began = 0.0
        self.answered = 0.0
        self.idle_since = self.since
        self.expires = ready.expires
        self.writes: Writing | None = None
        self.prepared = PreparedTexts(complete=True)

    def __repr__(self) -> str:
        return f"<server {self.pool.name} pid={self.pid}>"

    def becomes_cached(self) -> None:
        """The result cache knows this database from now on: nobody has taken down what was written so far."""
        self.prepared.lose_track()
        if self._between():
            return
        self.writes = anything()
        if self.expected is not None:
            # The end of what is on its way must not be passed over.
            self.expected = None
            self.ledger.recount()

    # -- errands -------------------------------------------------------------------------------------------------------

    def converse(self, purpose: str, sql: str, then: Callable[[Errand], None]) -> None:
        """Run a query of the pooler's own.

        Without a client, the server is closed when that takes longer than ``server_connect_timeout``.

        Args:
            purpose: one word, for logs.
            sql: the query.
            then: called with the answer; must not give the server away, `finish` does that.
        """
        self.errand = Errand(purpose, then)
        self.unnamed = None  # A Query destroys it.
        if self.client is None:
            self._condition(purpose)
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(messages.query(sql))

    def _condition(self, purpose: str, timeout: float | None = None) -> None:
        if timeout is None:
            timeout = self.pool.settings.server_connect_timeout
        self.purpose = purpose
        self.pool.conditioning[self] = self.relay.now + timeout if timeout else float("inf")

    def _errand_failed(self, what: str, errand: Errand) -> None:
        """Nobody knows the state of the session: part from it."""
        message = errand.error.get("M", "unknown error")
        self.retire(f"{what}: {message}")
        if self.client is not None:
            self.client.refuse(f"{what}: {message}", errand.error.get("C", "58000"))

    def _own_query_done(self, errand: Errand) -> None:
        # Whatever it was, it may have deallocated statements.
        self.statements.doubt_all()
        if errand.error:
            self._errand_failed(f"the pooler's own query failed ({errand.purpose})", errand)

    # -- what holds it -------------------------------------------------------------------------------------------------

    def keep(self, reason: Pinned) -> None:
        """The client has something on this server that the pooler cannot have anywhere else."""
        self._pin(self.pinned | reason)
        self.held = True

    def _pin(self, pinned: Pinned) -> None:
        pool = self.pool
        if bool(pinned) is not bool(self.pinned):
            pool.count_pinned(1 if pinned else -1)
            self.granted = bool(pinned) and pool.pinned_everywhere <= pool.max_pinned
        self.pinned = pinned

    def reconfigured(self) -> None:
        """What holds this server, or the pool's settings, may have changed."""
        self.held = (
            bool(self.retiring or self.cancels or self.pinned or self._tainted)
            or self.suspicion is not None
            or self._always_held()
            or (self.pool.watched and not self.pool.catalog_due)  # `finish` has it ask.
        )

    def _always_held(self) -> bool:
        settings = self.pool.settings
        return settings.server_reset_query_always or not settings.server_lifetime

    def retire(self, reason: str, *, outdated: bool = False) -> None:
        """Close it now if it is idle, or waits for its turn, else as soon as it is given back.

        Args:
            reason: for the log, and for a client that goes with it.
            outdated: what it connects to has changed. With ``server_fast_close``, it is not waited for the end of a
                session, but only of a transaction.
        """
        self.retiring = reason
        self.outdated = self.outdated or outdated
        self.held = True
        if (
            self in self.pool.idle
            or (self in self.pool.queued and not self.failing)
            or (self.outdated and self.pool.fast_close and self.client is not None and self._between())
        ):
            self.close(reason)

    def _between(self) -> bool:
        """Whether nothing is under way between it and its client, and no transaction is open."""
        owes = self.expected is not None or not self.ledger.clean or self.skip or self.rest or self.outbox
        client = self.client
        asks = client is not None and (client.skip or client.rest or client.parked is not None)
        return self.status == IDLE and not owes and not asks

    # -- cancel requests -----------------------------------------------------------------------------------------------

    @property
    def occupied(self) -> bool:
        """Whether it answers a query of the pooler's own, which a cancel request must not hit."""
        entries = self.ledger.entries
        return bool(entries) and entries[0] == wire.QUERY | SKIP

    def begin_cancel(self) -> None:
        """A cancel request is on its way to this server; it must not hit another client's query."""
        self.cancels += 1
        self.held = True

    def end_cancel(self) -> None:
        """The server has taken the cancel request."""
        self.cancels -= 1
        if not self.cancels:
            self.reconfigured()
            if self.purpose == "cancel" and not self.closed:
                self._conditioned()

    @abstractmethod
    def take(self, client: ClientConnection, buffer: bytes | bytearray, end: int) -> bool:
        """Link a client and pass its request on, if that is of a known shape; see `relay.shortcut`."""

    @abstractmethod
    def goes_on(self, client: ClientConnection) -> bool:
        """Whether `take` may have another request of its client's; see `relay.shortcut`."""

    @abstractmethod
    def finish(self) -> None:
        """An answer is complete."""

    @abstractmethod
    def _conditioned(self) -> None:
        """What it was conditioned for is done."""

    @abstractmethod
    def close(self, reason: str) -> None:
        """Close the connection; a client that it serves is told, and closed, too."""
