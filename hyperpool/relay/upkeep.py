"""The life of a server connection between and beside its clients: adjusting, asking, cleaning, cancelling, closing.

The pooler's own queries are *errands*, SKIP requests of the ledger. While a server serves a client, its errands run in
front of or behind the client's requests; without a client, it is *conditioning*, with a deadline.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.config import SessionState
from hyperpool.errors import LoginFailed
from hyperpool.pool.statements import ServerStatements
from hyperpool.relay import catalog
from hyperpool.relay.connection import Connection
from hyperpool.relay.errand import Errand
from hyperpool.relay.ledger import SKIP, Ledger
from hyperpool.relay.parameters import IDENTITY, adjustment, assignments, is_safe_change
from hyperpool.relay.session import ASKABLE, LASTING, Pinned, Suspicion, Truth, names_of
from hyperpool.relay.tables import IDLE
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.pool.handover import ServerReady
    from hyperpool.pool.statements import Statement
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.replay import Replay
    from hyperpool.sql.effects import Effects

log = structlog.get_logger("relay")

_MSG_MORE: Final = 0x8000
_DISCARD_ALL: Final = "DISCARD ALL"
_RESET_ALL: Final = "RESET ALL"
_IDLE_TIMEOUT: Final = "idle_session_timeout"
_MAX_DEFAULTS: Final = 1000


class Upkeep(Connection):
    """What a server connection has, and what is done to it beside passing bytes on.

    Attributes:
        pool: the pool that it belongs to.
        client: the client that it serves; None while idle or conditioning.
        ledger: what it still owes.
        status: the transaction status of its newest ReadyForQuery (``I``, ``T``, ``E`` as a byte).
        settled: ReadyForQuery said idle and nothing is outstanding.
        held: it must not be given back without a closer look.
        errand: the pooler's own query that it is answering.
        purpose: what it is conditioned for, or "".
        refusal: why it refused ``connect_query``.
        cancels: cancel requests under way for its client.
        retiring: why it is closed as soon as it is free, or "".
        failing: it has sent a FATAL error.
        tracked: the session parameters that it has.
        statements: what is prepared on it.
        worked: clients may have had it.
        expected: which messages answer what it has been asked, if that is one request of a known shape, and all that is
            outstanding; see `relay.shortcut`.
        unnamed: the unnamed statement that its client has prepared on it; None if nobody knows.
        replay: what could be sent once more, if a prepared statement turns out to be out of date.
        asking: the suspicion that the server is being asked about.
        suspicion: what its client may have done to the session; None for nothing.
        pinned: why its client keeps it, or may have to.
        pid: its process id at PostgreSQL.
        secret: its cancel secret.
        linked: when its client got it, monotonic seconds.
        asked: when its client's newest request came after everything had been answered; 0 for when it was linked.
        began: when its client's newest request came outside of a transaction block; see `asked`.
        answered: when its newest ReadyForQuery came, unless the client was parted from it then.
        idle_since: when it was given back, monotonic seconds.
        expires: when its lifetime ends, monotonic seconds; 0 for never.
        dialed: host and port that it was opened with; the pool's may have changed.
    """

    __slots__ = (
        "_parameters",
        "_rejection",
        "_resets",
        "_tainted",
        "answered",
        "asked",
        "asking",
        "began",
        "cancels",
        "client",
        "dialed",
        "errand",
        "expected",
        "expires",
        "failing",
        "held",
        "idle_since",
        "ledger",
        "linked",
        "pid",
        "pinned",
        "pool",
        "purpose",
        "refusal",
        "replay",
        "retiring",
        "secret",
        "settled",
        "statements",
        "status",
        "suspicion",
        "tracked",
        "unnamed",
        "worked",
    )

    def __init__(self, relay: Relay, ready: ServerReady) -> None:
        super().__init__(relay, ready.sock)
        self.pool = ready.pool
        self.client: ClientConnection | None = None
        self.ledger = Ledger()
        self.status = IDLE
        self.settled = False
        self.held = self._always_held()
        self.errand: Errand | None = None
        self._rejection: dict[str, str] = {}
        self._resets: list[str] = []
        self._tainted = False
        self._parameters: dict[str, str] = {}
        self.purpose = ""
        self.refusal: LoginFailed | None = None
        self.cancels = 0
        self.retiring = ""
        self.failing = False
        self.tracked: ParameterSet = relay.tracker.intern(ready.parameters)
        self.statements = ServerStatements()
        self.unnamed: Statement | None = None
        self.worked = False
        self.replay: Replay | None = None
        self.expected: bytes | None = None
        self.suspicion: Suspicion | None = None
        self.asking: Suspicion | None = None
        self.pinned = Pinned(0)
        self.pid = ready.pid
        self.secret = ready.secret
        self.linked = self.since
        self.asked = 0.0
        self.began = 0.0
        self.answered = 0.0
        self.idle_since = self.since
        self.expires = ready.expires
        self.dialed = (ready.pool.settings.host, ready.pool.settings.port)

    def __repr__(self) -> str:
        return f"<server {self.pool.name} pid={self.pid}>"

    # -- the end of an answer --------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing is outstanding and no transaction is open: finish, unless a message is still on its way."""
        client = self.client
        if not self.skip and not self.rest and (client is None or not client.skip):
            self.finish()

    def finish(self) -> None:
        """The answer is complete: find out what it has done to the session, give the server back, or both."""
        self.settled = False
        client = self.client
        if client is None:
            if self.purpose:
                self._conditioned()
            else:
                self._check_idle()
        elif client.parked is not None:
            client.adjusted(self._rejection)
        elif self.pool.session:
            return
        elif self.suspicion is not None:
            self._inquire(self.suspicion)
        elif self.pool.watched and not (self.pool.catalog_due or self.retiring):
            # The schema has changed: whoever calls a new function next must be known to.
            self.ask_catalog()
        elif self.pinned:
            self._stay(client)
        else:
            self.release()

    def release(self, *, reset: bool = False) -> None:
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
        self.unnamed = None
        if reset or self.held or self.ledger.doubt:
            self._recondition(reset=reset or self.pool.settings.server_reset_query_always)
        else:
            self._offer()

    def abandoned(self, *, mid_message: bool) -> None:
        """Its client has gone. Only a server that is clean beyond doubt, or will be when its errand is done, is kept.

        Args:
            mid_message: the client has sent the beginning of a message, and will not send the rest.
        """
        pending = mid_message or self.skip or self.rest or self.outbox or self.unread
        ready = self.status == IDLE and not pending
        if ready and self.ledger.clean:
            self.release(reset=self.pool.session or self.suspicion is not None)
        elif ready and self.errand is not None and len(self.ledger.entries) == 1 and self.suspicion is None:
            self._condition(self.errand.purpose)
        elif self.cancels:
            self.retire("client disconnected while the server was not ready")
            self._condition("cancel", self.relay.cancel_wait_timeout)
        else:
            self.close("client disconnected while the server was not ready")

    def _recondition(self, *, reset: bool) -> None:
        """What must be done before the next client: close it, wait for a cancel request to be spent, reset it."""
        settings = self.pool.settings
        reason = self.retiring or self.ledger.doubt
        if not settings.server_lifetime:
            reason = reason or "server lifetime is 0: used once"
        if self.pinned & LASTING:
            reason = reason or f"its client has used {names_of(self.pinned & LASTING)}"
        if reason:
            self.close(reason)
            return
        resets = [_DISCARD_ALL] if self.pinned or (self.suspicion is not None and reset) else []
        if self._tainted and not resets:
            resets.append(_RESET_ALL)
        if reset and settings.server_reset_query and settings.server_reset_query not in resets:
            watched = self.suspicion is not None or self.pinned
            if self.pool.session or settings.server_reset_query_always or not watched:
                if not resets and any(name.lower() not in self.pool.reported for name in self.tracked.values):
                    # It may reset parameters, or not: so they are, first.
                    resets.append(_RESET_ALL)
                resets.append(settings.server_reset_query)
        self._resets = resets
        if self.cancels:
            self._condition("cancel", self.relay.cancel_wait_timeout)
        else:
            self._reset()

    def _reset(self) -> None:
        if self._resets:
            sql = self._resets.pop(0)
            everything = sql.strip(" ;").upper() == _DISCARD_ALL
            done = self._parameters_reset if sql is _RESET_ALL else self._own_query_done
            self.converse("reset", sql, self._discarded if everything else done)
        else:
            self._offer()

    def _parameters_reset(self, errand: Errand) -> None:
        """RESET ALL leaves alone who the session is (guc_tables.c, GUC_NO_RESET_ALL)."""
        if errand.error:
            self._errand_failed("the pooler's own query failed (reset)", errand)
        identity = {name: self.tracked.values[name] for name in IDENTITY if name in self.tracked.values}
        reported = self.relay.tracker.reported_alone(self.tracked, self.pool.reported)
        self.tracked = self.relay.tracker.with_settings(reported, identity)
        self._tainted = False
        self.reconfigured()

    def _discarded(self, errand: Errand) -> None:
        self._own_query_done(errand)
        self.discarded()
        self._tainted = False
        self._pin(Pinned(0))
        self.suspicion = None
        self.reconfigured()

    def discarded(self) -> None:
        """The session has been reset (DISCARD ALL): what was prepared is gone, and so is what was set."""
        self.statements.clear()
        self.unnamed = None
        self.tracked = self.relay.tracker.reported_alone(self.tracked, self.pool.reported)

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

    # -- what the client may have done to the session -----------------------------------------------------------------

    def suspect(self, effects: Effects, text: bytes) -> None:
        """The client sends a text that may change the session."""
        pool = self.pool
        if self.suspicion is None:
            self.suspicion = Suspicion()
            self.held = True
        self.suspicion.add(effects, text, self.pinned, pool.reported)
        if self.client is not None and (effects.resets or effects.resets_all or self.suspicion.restores):
            self.suspicion.resets(effects, self.client.begun())
        if not effects.unknown_settings:
            self._pin(self.pinned | Pinned(effects.pins.value))

    def expect_deallocation(self) -> None:
        """The client sends a text that deallocates statements, and nobody watches what else it does."""
        if self.suspicion is None:
            self.suspicion = Suspicion()
            self.held = True

    def keep(self, reason: Pinned) -> None:
        """The client has something on this server that the pooler cannot have anywhere else."""
        self._pin(self.pinned | reason)
        self.held = True

    def _pin(self, pinned: Pinned) -> None:
        self.pool.pinned += bool(pinned) - bool(self.pinned)
        self.pinned = pinned

    def _inquire(self, suspicion: Suspicion) -> None:
        """The transaction has ended: ask what is true of what it may have done."""
        self.suspicion = None
        self.asking = suspicion
        pool = self.pool
        if suspicion.schema:
            pool.statements.version += 1
        if suspicion.routines:
            pool.catalog_due = 0.0
        if suspicion.recodes:
            suspicion.settings.update(
                name
                for name, value in self.tracked.values.items()
                if not value.isascii() and name not in pool.reported
            )
        if pool.settings.session_state is SessionState.RESET:
            if suspicion.asks or self.pinned:
                self.suspicion = suspicion
                self.release(reset=True)
                return
        elif suspicion.asks:
            held = [name for name in self.tracked.values if name.lower() not in pool.reported]
            encoding = self.tracked.values.get("client_encoding")
            sql = suspicion.question(held, pool.defaults, pool.custom, encoding)
            self.converse("probe", sql, lambda errand: self._learn(suspicion, errand))
            return
        self.asking = None
        self.reconfigured()
        self.finish()

    def _learn(self, suspicion: Suspicion, errand: Errand) -> None:
        """The server has told."""
        self.asking = None
        if errand.error:
            # A cancel request for the client's query may have come late.
            canceled = errand.error.get("C") == "57014" and suspicion.asked_again()
            if self.client is not None and (canceled or suspicion.distrust()):
                suspicion.merge(self.suspicion)
                self.suspicion = suspicion
            else:
                self._errand_failed("the session's state cannot be told", errand)
            return
        pool, tracker = self.pool, self.relay.tracker
        truth = Truth(errand.rows, pool.defaults)
        for name in suspicion.strange:
            pool.defaults.setdefault(name)
        if len(pool.defaults) > _MAX_DEFAULTS:
            pool.defaults = {name: pool.defaults[name] for name in IDENTITY}
        before = self.tracked
        if suspicion.everything:
            before = tracker.reported_alone(before, pool.reported)
        self.tracked = tracker.with_settings(
            before, {name: value for name, value in truth.settings.items() if name not in pool.reported}
        )
        client = self.client
        if client is not None:
            client.tracked = self.tracked
        if suspicion.taints or _IDLE_TIMEOUT in self.tracked.values:
            # An idle timeout would end the server while nobody uses it. And parameters with a dot in their names are
            # not listed: what no text has named is nobody's.
            self._tainted = True
        if suspicion.pins & ASKABLE:
            self._pin(truth.pins | (self.pinned & ~ASKABLE))
        self.reconfigured()

    def _stay(self, client: ClientConnection) -> None:
        """The client keeps this server."""
        client.pin(self.pinned)
        if client.closed:
            return
        if client.tracked is not self.tracked and self._rejection:
            message = self._rejection.get("M", "session parameters were refused")
            client.refuse(message, self._rejection.get("C", "58000"))
        elif client.tracked is not self.tracked:
            self.adjust(client)
        elif client.unread:
            self.relay.resume(client)

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

    def _conditioned(self) -> None:
        reason = self.retiring or self.ledger.doubt
        if reason:
            self.close(reason)
            return
        purpose, self.purpose = self.purpose, ""
        del self.pool.conditioning[self]
        if purpose in {"cancel", "reset"}:
            self._reset()
        elif purpose in {"probe", "adjust"}:
            self.release()
        elif purpose == "connect_query" and self.pool.watched:
            self._ask_base()
        elif purpose in {"connect_query", "base"}:
            self._prepare_to_work()
        elif purpose == "catalog" and not self.worked:
            self._work()
        else:
            self._offer()

    def _errand_failed(self, what: str, errand: Errand) -> None:
        """Nobody knows the state of the session: part from it."""
        message = errand.error.get("M", "unknown error")
        self.retire(f"{what}: {message}")
        if self.client is not None:
            self.client.refuse(f"{what}: {message}", errand.error.get("C", "58000"))

    def reuse(self) -> None:
        """Serve the client that has waited longest; check first, if it has been idle for long."""
        if self.relay.now - self.idle_since < self.pool.check_after:
            self._offer()
        else:
            self.check()

    def check(self) -> None:
        """Run ``server_check_query`` before reuse."""
        query = self.pool.settings.server_check_query
        self.converse("check", "" if query == "<empty>" else query, self._own_query_done)

    def _own_query_done(self, errand: Errand) -> None:
        # Whatever it was, it may have deallocated statements.
        self.statements.doubt_all()
        if errand.error:
            self._errand_failed(f"the pooler's own query failed ({errand.purpose})", errand)

    def adjust(self, client: ClientConnection) -> bool:
        """Set session parameters as the client expects them.

        Returns:
            Whether requests may follow at once. Not if the server may refuse: then a request would be executed in
            a session that is not the client's. `finish` calls the client when that is settled.
        """
        wanted = client.tracked
        sql = adjustment(wanted, self.tracked)
        if client.proven and is_safe_change(wanted, self.tracked):
            if sql:
                self.ledger.request(wire.QUERY, SKIP)
                self.transmit(messages.query(sql), _MSG_MORE)
                self.tracked = self.relay.tracker.with_others(self.tracked, wanted, self.pool.reported)
            return True
        self._rejection = {}
        before = self._lift_timeout()
        self.converse("adjust", sql, lambda errand: self._adjusted(client, wanted, errand))
        if self.errand is not None:
            self.errand.behind = before
        return False

    def _lift_timeout(self) -> int:
        """Keep the timeout of the client before from ending the adjusting. Returns how many queries that took."""
        if "statement_timeout" not in self.tracked.values:
            return 0
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(messages.query("RESET statement_timeout"), _MSG_MORE)
        return 1

    def restore(self, suspicion: Suspicion) -> bytes:
        """The client has reset parameters to what the server's session began with: set what its own began with.

        At once, and in the same transaction: whatever undoes the reset undoes this, too.

        Returns:
            What tells the client: ParameterStatus messages.
        """
        restores, suspicion.restores = suspicion.restores, {}
        suspicion.has_reset = False
        self.settled = False
        self.unnamed = None
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(messages.query(assignments(restores, self.tracked.values.get("client_encoding"))))
        canonical = self.relay.tracker.canonical
        return b"".join(
            messages.parameter_status(canonical(name) or name, value)
            for name, value in restores.items()
            if name in self.pool.reported
        )

    def _adjusted(self, client: ClientConnection, wanted: ParameterSet, errand: Errand) -> None:
        # An error leaves everything as it was: the statements of one Query are one transaction.
        self._rejection = errand.error
        if not errand.error:
            self.tracked = self.relay.tracker.with_others(self.tracked, wanted, self.pool.reported)
            if _IDLE_TIMEOUT in self.tracked.values:
                self._tainted = self.held = True
            if self.client is client:
                client.tracked = self.tracked

    def start(self, parameters: dict[str, str]) -> None:
        """Begin to serve: run ``connect_query``, if there is one, then be offered to clients.

        Args:
            parameters: what the server reported at login, for the clients to come.
        """
        query = self.pool.settings.connect_query
        self._parameters = parameters
        canonical = self.relay.tracker.canonical
        self.pool.reported = frozenset(name.lower() for name in parameters if canonical(name))
        if query:
            self.converse("connect_query", query, self._connected)
        else:
            self._prepare_to_work()

    def _prepare_to_work(self) -> None:
        """The first server of a pool that watches session state tells which functions change it."""
        if self.pool.watched and not self.pool.catalog_due:
            self.ask_catalog()
        else:
            self._work()

    def ask_catalog(self) -> None:
        """Ask for the functions that may change session state."""
        self.pool.catalog_due = self.relay.now + catalog.INTERVAL
        self.converse("catalog", catalog.CATALOG_QUERY, self._catalog_told)

    def _catalog_told(self, errand: Errand) -> None:
        pool = self.pool
        if errand.error:
            pool.catalog_due = self.relay.now + catalog.RETRY
            log.warning(
                "the database cannot tell which functions change session state",
                pool=pool.name,
                error=errand.error.get("M"),
            )
        elif pool.reader is not None:
            pool.custom = catalog.parameters(errand.rows)
            stateful = frozenset(catalog.names(errand.rows))
            if stateful != pool.stateful:
                pool.stateful = stateful
                pool.reader.learn(stateful)
                pool.statements.relearn(pool.reader)

    def _connected(self, errand: Errand) -> None:
        if errand.error:
            message = errand.error.get("M", "unknown error")
            self.refusal = LoginFailed(f"connect_query failed: {message}", errand.error.get("C", "58000"))
            self.retire(str(self.refusal))

    def _ask_base(self) -> None:
        """What ``connect_query`` has set belongs to every session."""
        suspicion = Suspicion()
        suspicion.everything = True
        self.converse("base", suspicion.question((), self.pool.defaults, ()), self._base_told)

    def _base_told(self, errand: Errand) -> None:
        if errand.error:
            self._errand_failed("connect_query has been run, but what it has set cannot be told", errand)
            return
        pool = self.pool
        settings = Truth(errand.rows, pool.defaults).settings
        pool.base = {name: value for name, value in settings.items() if value and name not in pool.reported}
        self.tracked = self.relay.tracker.with_settings(self.tracked, {**pool.base})

    def _work(self) -> None:
        self.worked = True
        self.relay.server_works(self.pool, self._parameters)
        self._parameters = {}
        self._offer()

    def _check_idle(self) -> None:
        """An unlinked server has said something: it may only tell about parameters."""
        if self.failing or self.ledger.doubt:
            self.lost(self.ledger.doubt)

    # -- cancel and the end ----------------------------------------------------------------------------------------

    @property
    def occupied(self) -> bool:
        """Whether it answers a query of the pooler's own, which a cancel request must not hit."""
        entries = self.ledger.entries
        return bool(entries) and entries[0] == wire.QUERY | SKIP

    def begin_cancel(self) -> None:
        """A cancel request is on its way to this server; it must not hit another client's query."""
        self.cancels += 1
        self.held = True

    def interrupt(self) -> None:
        """Its client is about to be sent away in the midst of a query: PostgreSQL would finish that for nobody.

        A backend whose connection is closed goes on until it has something to send.
        """
        self.begin_cancel()
        self.relay.cancel(self)

    def end_cancel(self) -> None:
        """The server has taken the cancel request."""
        self.cancels -= 1
        if not self.cancels:
            self.reconfigured()
            if self.purpose == "cancel" and not self.closed:
                self._conditioned()

    def reconfigured(self) -> None:
        """What holds this server, or the pool's settings, may have changed."""
        self.held = (
            bool(self.retiring or self.cancels or self.pinned or self._tainted)
            or self.suspicion is not None
            or self._always_held()
        )

    def _always_held(self) -> bool:
        settings = self.pool.settings
        return settings.server_reset_query_always or not settings.server_lifetime

    def retire(self, reason: str) -> None:
        """Close it now if it is idle, else as soon as it is given back."""
        self.retiring = reason
        self.held = True
        if self in self.pool.idle:
            self.close(reason)

    @abstractmethod
    def close(self, reason: str) -> None:
        """Close the connection; a client that it serves is told, and closed, too."""
