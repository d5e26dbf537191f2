"""A server connection in the relay: passes answers on, and knows when it may serve somebody else."""

from __future__ import annotations

from contextlib import suppress
from select import EPOLLIN
from typing import TYPE_CHECKING, Final

from hyperpool.config import PoolMode
from hyperpool.errors import LoginFailed
from hyperpool.relay.connection import HANG_UP, HEADER, Connection
from hyperpool.relay.ledger import FAKE, SKIP, Ledger
from hyperpool.relay.parameters import adjustment
from hyperpool.relay.tables import ASYNCHRONOUS, EXTENDED, IDLE, MAX_MESSAGE, NOTHING, READY, SIMPLE, WHOLE
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.frames import hop

if TYPE_CHECKING:
    from hyperpool.pool.handover import ServerReady
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet

_MSG_MORE: Final = 0x8000


class ServerConnection(Connection):
    """One server connection that is logged in.

    Attributes:
        pool: the pool that it belongs to.
        client: the client that it serves; None while idle or conditioning.
        ledger: what it still owes.
        status: the transaction status of its newest ReadyForQuery (``I``, ``T``, ``E`` as a byte).
        settled: ReadyForQuery said idle and nothing is outstanding.
        held: something must be done before it may serve the next client.
        purpose: what the pooler's own query is for, while conditioning.
        refusal: why it refused ``connect_query``.
        cancels: cancel requests under way for its client.
        retiring: why it is closed as soon as it is free, or "".
        failing: it has sent a FATAL error.
        tracked: the session parameters that it reports.
        pid: its process id at PostgreSQL.
        secret: its cancel secret.
        idle_since: when it was given back, monotonic seconds.
        expires: when its lifetime ends, monotonic seconds; 0 for never.
        dialed: host and port that it was opened with; the pool's may have changed.
    """

    __slots__ = (
        "_needs_reset",
        "_parameters",
        "cancels",
        "client",
        "dialed",
        "expires",
        "failing",
        "held",
        "idle_since",
        "ledger",
        "pid",
        "pool",
        "purpose",
        "refusal",
        "retiring",
        "secret",
        "settled",
        "status",
        "tracked",
    )

    def __init__(self, relay: Relay, ready: ServerReady) -> None:
        super().__init__(relay, ready.sock)
        self.pool = ready.pool
        self.client: ClientConnection | None = None
        self.ledger = Ledger()
        self.status = IDLE
        self.settled = False
        self.held = self._always_held()
        self._needs_reset = False
        self._parameters: dict[str, str] = {}
        self.purpose = ""
        self.refusal: LoginFailed | None = None
        self.cancels = 0
        self.retiring = ""
        self.failing = False
        self.tracked: ParameterSet = relay.tracker.intern(ready.parameters)
        self.pid = ready.pid
        self.secret = ready.secret
        self.idle_since = self.since
        self.expires = ready.expires
        self.dialed = (ready.pool.settings.host, ready.pool.settings.port)

    def __repr__(self) -> str:
        return f"<server {self.pool.name} pid={self.pid}>"

    # -- reading ---------------------------------------------------------------------------------------------------

    def readable(self, mask: int) -> None:
        """Read once, and pass on what came."""
        client = self.client
        if mask != EPOLLIN or client is None or client.outbox or self.rest or self.skip:
            self._read(mask)
            return
        relay = self.relay
        try:
            end = self.sock.recv_into(relay.view)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(f"server connection broke: {error.strerror}")
            return
        if not end:
            self.lost("server closed the connection")
            return
        if end == len(relay.view):
            self.unread = True
            relay.resume(self)
        # The common case, in as few steps as Python takes: the whole answer to one Query, and nothing else.
        ledger = self.ledger
        entries = ledger.entries
        if (
            len(entries) == 1
            and entries[0] == wire.QUERY
            and not (self.held or client.skip or ledger.copying or ledger.unsynced or ledger.doubt)
        ):
            pool = self.pool
            at = hop(relay.buffer, 0, end, SIMPLE)
            if at + 6 == end and relay.buffer.startswith(READY, at) and not pool.session:
                entries.clear()
                stats = pool.stats
                stats.queries += 1
                stats.transactions += 1
                stats.sent += end
                self.status = IDLE
                self.client = client.server = None
                client.transmit(relay.view[:end])
                if client.unread:
                    relay.resume(client)
                self._offer()
                return
        self._scan(end)

    def _read(self, mask: int) -> None:
        """Read once, in any state."""
        if mask & HANG_UP:
            self.hung_up = True
        client = self.client
        if client is not None and client.outbox:
            self.unread = True
            return
        try:
            end = self.receive(self.relay.view)
        except OSError as error:
            self.lost(f"server connection broke: {error.strerror}")
            return
        if end > 0:
            self._scan(end)
        elif end == 0:
            self.lost("server closed the connection")

    def _scan(self, end: int) -> None:
        """Go through the first `end` bytes of the buffer, frame by frame, and send the client what is its own."""
        relay = self.relay
        buffer = relay.buffer
        ledger = self.ledger
        entries = ledger.entries
        at = self.skip
        start = at if self.dropping else 0
        pieces: list[bytes | memoryview] = []
        while True:
            if entries and entries[0] >= FAKE and at <= end:
                pieces += (relay.view[start:at], ledger.fakes())
                start = at
            head = entries[0] if entries else 0
            at = hop(
                buffer,
                at,
                end,
                SIMPLE if head == wire.QUERY else EXTENDED if head == wire.EXECUTE else NOTHING,
            )
            if end - at < 5:
                break
            kind, length = HEADER(buffer, at)
            stop = at + 1 + length
            if not 4 <= length <= MAX_MESSAGE or (kind == wire.READY_FOR_QUERY and length != 5):
                self.lost(f"server broke the protocol: message {chr(kind)!r} of length {length}")
                return
            if stop > end and length < relay.max_partial and kind in WHOLE:
                break
            verdict = self._take(kind, head, at, stop, whole=stop <= end)
            if self.closed:
                return
            if kind == wire.READY_FOR_QUERY and self.status != IDLE and self._refuse_block(pieces, start, at):
                return
            if verdict:
                pieces.append(relay.view[start:at])
                start = stop
            at = stop
        if at - end > MAX_MESSAGE:
            self.lost("server broke the protocol: message too long")
            return
        self._pass_on(pieces, start, at, end)
        if self.settled:
            self.settle()
        elif self.client is None:
            self._check_idle()

    def _take(self, kind: int, head: int, at: int, stop: int, *, whole: bool) -> int:
        """A message that the scan does not pass over. Returns what to do with it: 0 to forward, SKIP to drop."""
        if kind == wire.READY_FOR_QUERY:
            return self._ready(self.relay.buffer[at + 5])
        if not whole and kind in WHOLE:
            # Longer than what is collected: it passes uninspected, and nothing is known of the server's state.
            self._retire(f"server sent a {chr(kind)!r} message that is too long to look into")
            return self.ledger.response(kind) if kind == wire.ERROR_RESPONSE else head & SKIP
        if kind in ASYNCHRONOUS:
            return self._asynchronous(kind, head, at, stop)
        self.settled = False
        verdict = self.ledger.response(kind)
        if kind == wire.ERROR_RESPONSE:
            return self._error(verdict, at, stop)
        return verdict

    def _pass_on(self, pieces: list[bytes | memoryview], start: int, at: int, end: int) -> None:
        """Send `pieces`, and the buffer from `start` to the last frame boundary (or to its end, within a frame)."""
        relay = self.relay
        if at >= end:
            self.skip = at - end
            self.dropping = start > end
        else:
            self.skip = 0
            self.dropping = False
            self.rest = bytes(relay.buffer[at:end])
            end = at
        client = self.client
        if client is None:
            # The next client must not get the end of a message whose beginning nobody got.
            self.dropping = self.skip > 0
            return
        data: bytes | memoryview = relay.view[start:end]
        if pieces:
            data = b"".join((*pieces, data))
        if data:
            self.pool.stats.sent += len(data)
            client.transmit(data)
        if client.unread and not self.outbox and not client.outbox:
            relay.resume(client)

    def _ready(self, status: int) -> int:
        """ReadyForQuery. Returns what to do with it: 0 to forward, SKIP to drop."""
        self.status = status
        ledger = self.ledger
        verdict = ledger.ready()
        # In doubt, nobody can tell which answer is the last one: the server stays with its client for good.
        self.settled = status == IDLE and not ledger.entries and not ledger.doubt
        pool = self.pool
        if verdict:
            if self.client is not None:
                self.client.tracked = self.tracked
            return verdict
        stats = pool.stats
        stats.queries += 1
        stats.transactions += status == IDLE
        return 0

    def _refuse_block(self, pieces: list[bytes | memoryview], start: int, at: int) -> bool:
        """In statement mode, close a client that has begun a transaction block; what it sent behind is not answered."""
        client = self.client
        if client is None or self.pool.settings.pool_mode is not PoolMode.STATEMENT:
            return False
        self._pass_on(pieces, start, at, at)
        client.refuse("transaction blocks not allowed in statement pooling mode", "08P01")
        return True

    def _asynchronous(self, kind: int, head: int, at: int, stop: int) -> int:
        """A message that answers nothing. Returns what to do with it: 0 to forward, SKIP to drop."""
        if kind == wire.PARAMETER_STATUS:
            name, value = messages.parameter_status_fields(bytes(self.relay.buffer[at + 5 : stop]))
            self.tracked = self.relay.tracker.changed(self.tracked, name, value)
            if self.client is not None and not head & SKIP:
                self.client.tracked = self.tracked
        elif kind == wire.NOTIFICATION_RESPONSE and not self.pool.session:
            # Who listened on this server may be another client: a notification is for nobody that we know.
            return SKIP
        return head & SKIP

    def _error(self, verdict: int, at: int, stop: int) -> int:
        """ErrorResponse. Returns what to do with it: 0 to forward, SKIP to drop."""
        frame = bytes(self.relay.buffer[at:stop])
        if b"\0VFATAL\0" in frame or b"\0VPANIC\0" in frame:
            self.failing = True
            self._retire(f"server ended the session: {messages.error_fields(frame[5:]).get('M')}")
            return 0
        if verdict:
            fields = messages.error_fields(frame[5:])
            self._retire(f"the pooler's own query failed: {fields.get('M')}")
            if self.purpose == "connect_query":
                self.refusal = LoginFailed(
                    f"connect_query failed: {fields.get('M')}", fields.get("C", "58000")
                )
            if self.client is not None:
                self.client.refuse(
                    fields.get("M", "session parameters were refused"), fields.get("C", "58000")
                )
        return verdict

    # -- the end of an answer --------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing is outstanding and no transaction is open: finish, unless a message is still on its way."""
        client = self.client
        if not self.skip and not self.rest and (client is None or not client.skip):
            self.finish()

    def finish(self) -> None:
        """The answer is complete: give the server back, if the pool mode says so."""
        self.settled = False
        if self.client is None:
            if self.purpose:
                self._conditioned()
            else:
                self._check_idle()
        elif not self.pool.session:
            self.release(reset=False)

    def release(self, *, reset: bool) -> None:
        """Part from the client, and serve the next one or become idle. Never waits for anything.

        Args:
            reset: run ``server_reset_query`` first.
        """
        client = self.client
        if client is not None:
            client.server = None
            self.client = None
            if client.unread:
                # It was not read while this server had its outbox full, and nothing else will wake it.
                self.relay.resume(client)
        if reset or self.held or self.ledger.doubt:
            self._recondition(reset=reset or self.pool.settings.server_reset_query_always)
        else:
            self._offer()

    def abandoned(self, *, mid_message: bool) -> None:
        """Its client has gone. Only a server that is clean beyond doubt is kept.

        Args:
            mid_message: the client has sent the beginning of a message, and will not send the rest.
        """
        untouched = self.status == IDLE and self.ledger.clean
        if untouched and not (mid_message or self.skip or self.rest or self.outbox or self.unread):
            self.release(reset=self.pool.session)
        else:
            self.close("client disconnected while the server was not ready")

    def _recondition(self, *, reset: bool) -> None:
        """What must be done before the next client: close it, wait for a cancel request to be spent, reset it."""
        self._needs_reset = reset
        reason = self.retiring or self.ledger.doubt
        if not self.pool.settings.server_lifetime:
            reason = reason or "server lifetime is 0: used once"
        if reason:
            self.close(reason)
        elif self.cancels:
            self._condition("cancel", self.relay.cancel_wait_timeout)
        elif reset and self.pool.settings.server_reset_query:
            self.converse("reset", self.pool.settings.server_reset_query)
        else:
            self._offer()

    def _offer(self) -> None:
        """Serve the client that has waited longest, or become idle."""
        pool = self.pool
        now = self.relay.now
        if pool.waiting and not pool.paused:
            following, since = pool.waiting.popitem(last=False)
            pool.stats.waited += now - since
            following.serve(self)
        else:
            self.idle_since = now
            pool.idle.append(self)

    # -- the pooler's own queries ----------------------------------------------------------------------------------

    def reuse(self) -> None:
        """Serve the client that has waited longest; check first, if it has been idle for long."""
        if self.relay.now - self.idle_since < self.pool.check_after:
            self._offer()
        else:
            self.check()

    def check(self) -> None:
        """Run ``server_check_query`` before reuse."""
        query = self.pool.settings.server_check_query
        self.converse("check", "" if query == "<empty>" else query)

    def converse(self, purpose: str, sql: str) -> None:
        """Run a query of the pooler's own; when it is answered, the server is offered to clients.

        It is closed when the query fails, or takes longer than ``server_connect_timeout``.
        """
        self._condition(purpose, self.pool.settings.server_connect_timeout)
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(messages.query(sql))

    def adjust(self, wanted: ParameterSet) -> None:
        """Set session parameters as the client expects them, in front of its first message."""
        sql = adjustment(wanted, self.tracked)
        if sql:
            self.ledger.request(wire.QUERY, SKIP)
            self.transmit(messages.query(sql), _MSG_MORE)

    def start(self, parameters: dict[str, str]) -> None:
        """Begin to serve: run ``connect_query``, if there is one, then be offered to clients.

        Args:
            parameters: what the server reported at login, for the clients to come.
        """
        query = self.pool.settings.connect_query
        self._parameters = parameters
        if query:
            self.converse("connect_query", query)
        else:
            self._work()

    def _work(self) -> None:
        self.relay.server_works(self.pool, self._parameters)
        self._parameters = {}
        self._offer()

    def _condition(self, purpose: str, timeout: float) -> None:
        self.purpose = purpose
        self.pool.conditioning[self] = self.relay.now + timeout if timeout else float("inf")

    def _conditioned(self) -> None:
        reason = self.retiring or self.ledger.doubt
        if reason:
            self.close(reason)
            return
        purpose, self.purpose = self.purpose, ""
        del self.pool.conditioning[self]
        if purpose == "cancel":
            self._recondition(reset=self._needs_reset)
        elif purpose == "connect_query":
            self._work()
        else:
            self._offer()

    def _check_idle(self) -> None:
        """An unlinked server has said something: it may only tell about parameters."""
        if self.failing or self.ledger.doubt:
            self.lost(self.ledger.doubt)

    # -- cancel and the end ----------------------------------------------------------------------------------------

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

    def reconfigured(self) -> None:
        """The pool's settings, or what holds this server, may have changed."""
        self.held = bool(self.retiring or self.cancels) or self._always_held()

    def _always_held(self) -> bool:
        settings = self.pool.settings
        return settings.server_reset_query_always or not settings.server_lifetime

    def retire(self, reason: str) -> None:
        """Close it now if it is idle, else as soon as it is given back."""
        self._retire(reason)
        if self in self.pool.idle:
            self.close(reason)

    def _retire(self, reason: str) -> None:
        self.retiring = reason
        self.held = True

    def flushed(self) -> None:
        """The server has taken all: its client may be read again."""
        client = self.client
        if client is not None and client.unread:
            client.readable(0)

    def lost(self, reason: str) -> None:
        """The connection broke, or the server misbehaves."""
        reason = self.retiring if self.failing else reason
        if self.client is None and self.idle_since <= self.since and not self.closed:
            # It has never served anybody: opening the next one at once would be a storm of logins.
            self.pool.backoff.lost(self.relay.now)
        self.close(reason)

    def close(self, reason: str) -> None:
        """Close the connection; a client that it serves is told, and closed, too."""
        if self.closed:
            return
        self.closed = True
        self.pool.forget(self)
        if self.ledger.clean and not self.outbox and self.status == IDLE:
            with suppress(OSError):
                self.sock.send(messages.TERMINATE)
        self.sock.close()
        self.relay.forget_server(self, reason)
        client, self.client = self.client, None
        if client is not None:
            client.server = None
            told = self.failing or self.skip
            client.close(reason, b"" if told else messages.error_response(reason, "08006"))
