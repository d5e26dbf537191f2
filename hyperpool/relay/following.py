"""Session state follows its client: what a server is told in front of a client's requests, and asked behind them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.config import SessionState
from hyperpool.relay import catalog
from hyperpool.relay.backend import Backend
from hyperpool.relay.ledger import SKIP
from hyperpool.relay.parameters import adjustment, assignments, is_safe_change, reassignment
from hyperpool.relay.pinning import pin
from hyperpool.relay.session import ASKABLE, Pinned, Suspicion, Truth
from hyperpool.wire import constants as wire
from hyperpool.wire import messages

if TYPE_CHECKING:
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.errand import Errand
    from hyperpool.relay.handover import RelayLane
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.sql.effects import Effects

log = structlog.get_logger("relay")

_PATH_QUERY: Final = (
    "SELECT reset_val FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'search_path'"
)
_BEGINNING_QUERY: Final = """SET LOCAL search_path = pg_catalog, pg_temp;
SELECT s.path, md5(concat_ws(' ', s.defaults, (
    SELECT string_agg(concat(g.setdatabase, ' ', g.setrole, ' ', g.setconfig), ' ' ORDER BY g.setdatabase, g.setrole)
    FROM pg_db_role_setting g WHERE g.setdatabase IN (0, d.oid) AND g.setrole IN (0, r.oid)))),
  concat(md5(timestamptz_send(pg_postmaster_start_time())), ' ', d.oid)
FROM pg_database d, pg_roles r, (
    SELECT max(reset_val) FILTER (WHERE name = 'search_path') AS path,
      string_agg(concat(name, '=', reset_val), ' ' ORDER BY name COLLATE "C") AS defaults
    FROM pg_settings WHERE context = 'user' AND name !~ '[.]|^transaction_|^application_name$') s
WHERE d.datname = current_database() AND r.rolname = session_user"""
"""The search_path that sessions begin with; a digest of all that they begin with and a client may set, also of settings
with a dot in their names, which the server does not list; and what tells this database from all others: when its server
has been started, which everybody may ask, and its oid."""
_MSG_MORE: Final = 0x8000
_TIMEOUT: Final = "statement_timeout"
_IDLE_TIMEOUT: Final = "idle_session_timeout"
_MAX_DEFAULTS: Final = 1000
_UNANSWERED: Final = 2
"""How many servers of a new pool may go instead of telling the catalog before clients are served without it."""

_KNOWN_TIME: Final = 60.0
"""Seconds for which the default of a setting is taken to be what the server has told: ALTER SYSTEM may change it."""

MAX_SETTINGS: Final = 1 << 18
"""Bytes of names and values that a client may set in a session that follows it."""

_TOO_MUCH: Final = {"C": "53400", "M": f"its parameters have more than {MAX_SETTINGS} bytes"}


class Following(Backend):
    """What keeps a server's session and its client's in step."""

    __slots__ = ()

    # -- suspicion -----------------------------------------------------------------------------------------------------

    def suspect(self, effects: Effects, text: bytes) -> None:
        """The client sends a text that may change the session."""
        pool = self.pool
        if self.suspicion is None:
            self.suspicion = Suspicion()
            self.held = True
        self.suspicion.add(effects, text, self.pinned, pool.reported)
        if self.client is not None and (effects.resets or effects.resets_all or self.suspicion.restores):
            self.suspicion.resets(effects, _begun(self.client), self.ledger.asked + 1)
        if effects.resets_all and self.client is not None:
            self.client.caching = True
        if effects.local:
            # It holds until the transaction ends: nothing may be set over it.
            self.suspicion.not_reset()
        if not effects.unknown_settings:
            self._pin(self.pinned | Pinned(effects.pins.value))

    def expect_deallocation(self) -> None:
        """The client sends a text that deallocates statements, and nobody watches what else it does."""
        if self.suspicion is None:
            self.suspicion = Suspicion()
            self.held = True

    def may_listen(self) -> bool:
        """Whether the client listens, or has sent a text that may do so, of which the server has not told yet."""
        suspected = [one.pins for one in (self.suspicion, self.asking) if one is not None]
        return any(pins & Pinned.LISTEN for pins in (self.pinned, *suspected))

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
                self.suspicion, self.asking = suspicion, None
                self.release(reset=True)
                return
        elif suspicion.asks:
            held = [name for name in self.tracked.values if name.lower() not in pool.reported]
            encoding = self.tracked.values.get("client_encoding")
            sql = suspicion.question(held, self._known(), pool.custom, encoding)
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
        truth = Truth(errand.rows, self._defaults)
        for name in suspicion.strange:
            self._defaults.setdefault(name)
        if (
            sum(len(name) + len(value or "") for name, value in truth.settings.items())
            > self.relay.max_settings
        ):
            self._errand_failed("the session's state cannot be followed", errand.fail(_TOO_MUCH))
            return
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

    def _known(self) -> dict[str, str | None]:
        """What the session began with, by name, as far as it has been asked; not for long, it may be changed."""
        now = self.relay.now
        if now - self._defaults_since > _KNOWN_TIME or len(self._defaults) > _MAX_DEFAULTS:
            self._defaults = {"role": "none", "session_authorization": self.pool.settings.user}
            self._defaults_since = now
        return self._defaults

    def _stay(self, client: ClientConnection) -> None:
        """The client keeps this server."""
        pin(client, self)
        if client.closed:
            return
        if client.tracked is not self.tracked and self._rejection:
            message = self._rejection.get("M", "session parameters were refused")
            client.refuse(message, self._rejection.get("C", "58000"))
        elif client.tracked is not self.tracked:
            self.adjust(client)
        elif client.unread:
            self.relay.resume(client)

    # -- adjusting -----------------------------------------------------------------------------------------------------

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
        self.converse("adjust", sql, lambda errand: self._adjusted(client, wanted, errand, lifted=before > 0))
        if self.errand is not None:
            self.errand.behind = before
        return False

    def _lift_timeout(self) -> int:
        """Keep the timeout of the client before from ending the adjusting. Returns how many queries that took."""
        if _TIMEOUT not in self.tracked.values:
            return 0
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(messages.query(f"RESET {_TIMEOUT}"), _MSG_MORE)
        return 1

    def _adjusted(
        self, client: ClientConnection, wanted: ParameterSet, errand: Errand, *, lifted: bool
    ) -> None:
        # An error leaves everything else as it was: the statements of one Query are one transaction.
        self._rejection = errand.error
        if lifted:
            self.tracked = self.relay.tracker.with_settings(self.tracked, {_TIMEOUT: None})
        if not errand.error:
            self.tracked = self.relay.tracker.with_others(self.tracked, wanted, self.pool.reported)
            if _IDLE_TIMEOUT in self.tracked.values:
                self._tainted = self.held = True
            if self.client is client:
                client.tracked = self.tracked

    def restore(self, client: ClientConnection, suspicion: Suspicion) -> bytes:
        """The client has reset parameters to what the server's session began with: set what its own began with.

        At once, and in the same transaction: whatever undoes the reset undoes this, too.

        Returns:
            What tells the client: ParameterStatus messages.
        """
        restores = dict(suspicion.restores)
        suspicion.not_reset()
        suspicion.settings.update(name for name in restores if name not in self.pool.reported)
        self.settled = False
        self.unnamed = None
        self.restoring = messages.query(assignments(restores, client.initial.values.get("client_encoding")))
        self.tries = 0
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(self.restoring)
        canonical = self.relay.tracker.canonical
        return b"".join(
            messages.parameter_status(canonical(name) or name, value)
            for name, value in restores.items()
            if name in self.pool.reported
        )

    def begin(self, client: ClientConnection) -> None:
        """A session begins: if its client has asked for what servers do not report, a reset has to lead back to it."""
        begun = _begun(client)
        self.begun = {} if begun.keys() <= self.pool.reported else begun
        self.has_reset = False

    def begin_again(self) -> None:
        """The client of a session has reset parameters: set those again that it began with.

        At once, and in the same transaction, as `restore` does. No text was looked into, so the server is asked which
        they are.
        """
        self.has_reset = False
        self.settled = False
        encoding = self.begun.get("client_encoding")
        self.restoring = messages.query(reassignment(self.begun, self.pool.settings.user, encoding))
        self.tries = 0
        self.ledger.request(wire.QUERY, SKIP)
        self.transmit(self.restoring)

    # -- what the database tells ---------------------------------------------------------------------------------------

    def ask_catalog(self, tries: int = 3) -> None:
        """Ask for the functions that may change session state.

        Args:
            tries: how often, if the question is canceled.
        """
        self.pool.catalog_due = self.relay.now + catalog.INTERVAL
        self.converse("catalog", catalog.CATALOG_QUERY, lambda errand: self._catalog_told(errand, tries - 1))

    def _catalog_untold(self, error: str) -> None:
        """It could not be told: clients are served nevertheless."""
        pool = self.pool
        pool.told = True
        pool.catalog_due = self.relay.now + catalog.RETRY
        log.warning(
            "the database cannot tell which functions change session state", pool=pool.name, error=error
        )

    def _catalog_unanswered(self) -> None:
        """It has gone without an answer: the next one is asked, unless that has become of many while somebody waits."""
        pool = self.pool
        if pool.paused:
            pool.catalog_due = 0.0
        elif not pool.told and pool.unanswered < _UNANSWERED:
            pool.unanswered += 1
            pool.catalog_due = 0.0
        else:
            self._catalog_untold("the server connection was lost")

    def _catalog_told(self, errand: Errand, tries: int) -> None:
        pool = self.pool
        if self.outdated:
            # It tells of a database to which the pool leads no more.
            return
        if errand.error.get("C") == "57014" and self.client is not None and tries:
            # A cancel request for the client's query may have come late.
            if self.settled and not self.client.skip:
                self.settled = False
                self.ask_catalog(tries)
            else:
                # What the client has sent since may be half a message, or begin a transaction: `finish` has it ask.
                pool.catalog_due = 0.0
                self.held = True
            return
        pool.told = True
        pool.unanswered = 0
        if errand.error:
            self._catalog_untold(errand.error.get("M", ""))
        elif pool.reader is not None:
            pool.custom = catalog.parameters(errand.rows)
            stateful = frozenset(catalog.names(errand.rows))
            if stateful != pool.stateful:
                pool.stateful = stateful
                pool.reader.learn(stateful)
                pool.statements.relearn(pool.reader)

    def ask_beginning(self) -> None:
        """Ask for what sessions begin with, and which database this is."""
        self.pool.untold = False
        self.converse("beginning", _BEGINNING_QUERY, self._beginning_told)

    def _beginning_told(self, errand: Errand) -> None:
        pool, rows = self.pool, errand.rows
        if len(rows) != 1 or len(rows[0]) != 3:
            log.warning(
                "a server cannot tell which database it is", pool=pool.name, error=errand.error.get("M")
            )
            return
        path, beginning, identity = rows[0]
        settings = pool.settings
        in_turn = len(settings.servers) > 1 and settings.load_balance_hosts != "disable"
        if pool.tells is not None and not in_turn:
            pool.tells(identity or "")
        lane = pool.cache
        if lane is not None and lane.settings is not None and lane.begins_with(path or "", beginning or ""):
            for server in list(pool.servers):
                if server is not self:
                    # Names and values mean something else there.
                    server.retire("sessions begin with other settings by now")

    def ask_tables(self) -> None:
        """Ask for what the result cache must know of the database."""
        lane = self.pool.cache
        if lane is None:
            raise AssertionError("only what is cached needs to be known")
        now = self.relay.now
        due = lane.database.due(now)
        version, question = lane.database.asks(now) if due else (0, "")
        sql = f"{_PATH_QUERY};{question}" if due else _PATH_QUERY
        self.converse("tables", sql, lambda errand: self._tables_told(lane, version, errand, due=due))

    def _tables_told(self, lane: RelayLane, version: int, errand: Errand, *, due: bool) -> None:
        now = self.relay.now
        problem = errand.error.get("M", "")
        if not errand.error:
            lane.begins_with(errand.rows.pop(0)[0] or "", lane.beginning)
            try:
                if due:
                    lane.database.told(version, errand.rows, now, lane.catalog_age)
            except ValueError as error:
                problem = str(error)
        if problem:
            lane.untold(now)
            log.warning(
                "the database cannot tell what the result cache must know",
                pool=self.pool.name,
                error=problem,
            )

    def _ask_base(self) -> None:
        """What ``connect_query`` has set belongs to every session."""
        suspicion = Suspicion()
        suspicion.everything = True
        self.converse("base", suspicion.question((), self._known(), ()), self._base_told)

    def _base_told(self, errand: Errand) -> None:
        if errand.error:
            self._errand_failed("connect_query has been run, but what it has set cannot be told", errand)
            return
        pool = self.pool
        settings = Truth(errand.rows, self._defaults).settings
        pool.base = {name: value for name, value in settings.items() if value and name not in pool.reported}
        self.tracked = self.relay.tracker.with_settings(self.tracked, {**pool.base})

    @abstractmethod
    def release(self, *, reset: bool = False) -> None:
        """Part from the client."""


def _begun(client: ClientConnection) -> dict[str, str]:
    """The parameters that its session began with and servers' sessions do not, by name in lower case."""
    theirs = {**client.pool.base, **(client.pool.parameters or {})}
    return {name.lower(): value for name, value in client.initial.values.items() if theirs.get(name) != value}
