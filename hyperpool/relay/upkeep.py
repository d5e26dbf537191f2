"""The life of a server connection between its clients: given back, cleaned, checked, and given to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.errors import LoginFailed
from hyperpool.relay.following import Following
from hyperpool.relay.parameters import IDENTITY
from hyperpool.relay.prepared import PreparedTexts
from hyperpool.relay.session import LASTING, UNPINNED, names_of
from hyperpool.relay.tables import IDLE

if TYPE_CHECKING:
    from hyperpool.relay.errand import Errand
    from hyperpool.relay.handover import RelayLane
    from hyperpool.relay.session import Pinned

_DISCARD_ALL: Final = "DISCARD ALL"
_RESET_ALL: Final = "RESET ALL"


class Upkeep(Following):
    """What is done to a server connection beside passing bytes on."""

    __slots__ = ()

    # -- the beginning -------------------------------------------------------------------------------------------------

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

    def _connected(self, errand: Errand) -> None:
        if errand.error:
            message = errand.error.get("M", "unknown error")
            self.refusal = LoginFailed(f"connect_query failed: {message}", errand.error.get("C", "58000"))
            self.retire(str(self.refusal))

    def _prepare_to_work(self) -> None:
        """Nobody is served in a pool that watches session state before a server has told which functions change it."""
        pool = self.pool
        if not pool.watched or (pool.catalog_due and pool.told):
            self._work()
        elif pool.catalog_due:
            # Another one is being asked, and what it tells holds for all.
            pool.queued[self] = None
            self._condition("turn", 0.0)
        else:
            self.ask_catalog()

    def take_turn(self) -> None:
        """Another server has told what it was asked, or cannot."""
        self.pool.queued.pop(self)
        self.finish()

    def _work(self) -> None:
        self.worked = True
        self.relay.server_works(self.pool, self._parameters)
        self._parameters = {}
        if self.pool.tells is not None:
            self.ask_beginning()
        else:
            self._begin()

    def _begin(self) -> None:
        """What the first one of a pool has to tell besides, it tells now."""
        lane = self.pool.cache
        if lane is not None and lane.asks(self.relay.now):
            self.ask_tables()
        else:
            self._offer()

    # -- the end of an answer ------------------------------------------------------------------------------------------

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
            if self.outdated and self.pool.fast_close:
                self.close(self.retiring)
        elif self.suspicion is not None:
            self._inquire(self.suspicion)
        elif self.pool.watched and not (self.pool.catalog_due or self.retiring):
            # The schema has changed: whoever calls a new function next must be known to.
            self.ask_catalog()
        elif self.pool.untold and not self.retiring:
            self.ask_beginning()
        elif self.pool.cache is not None and self._is_to_tell(self.pool.cache):
            self.ask_tables()
        elif self.pinned:
            self._stay(client)
        else:
            self.release()

    def _is_to_tell(self, lane: RelayLane) -> bool:
        """Whether this server is to tell what the result cache must know."""
        self.reconfigured()  # It may be held for that alone.
        return not self.retiring and lane.asks(self.relay.now)

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
        self.begun = {}
        self.has_reset = False
        if reset or self.held or self.ledger.doubt:
            # Nobody keeps it any more, however long the cleaning takes.
            pinned = self.pinned
            self._pin(UNPINNED)
            self._recondition(pinned, reset=reset or self.pool.settings.server_reset_query_always)
        else:
            self._offer()

    def _offer(self) -> None:
        """Serve the client that has waited longest, or become idle."""
        pool = self.pool
        now = self.relay.now
        if pool.waiting and not pool.paused:
            following, since = pool.waiting.popitem(last=False)
            pool.stats.add_wait(now - since)
            following.serve(self)
        else:
            self.idle_since = now
            pool.rest(self)

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
            # Whatever it is asked, it is given back behind that, and what its client has kept it for must go.
            self._condition("probe")
        elif self.cancels:
            self.retire("client disconnected while the server was not ready")
            self._condition("cancel", self.relay.cancel_wait_timeout)
        else:
            self.close("client disconnected while the server was not ready")

    # -- cleaning ------------------------------------------------------------------------------------------------------

    def _recondition(self, pinned: Pinned, *, reset: bool) -> None:
        """What must be done before the next client: close it, wait for a cancel request to be spent, reset it.

        Args:
            pinned: why its client has kept it.
            reset: run ``server_reset_query``.
        """
        settings = self.pool.settings
        reason = self.retiring or self.ledger.doubt
        if not settings.server_lifetime:
            reason = reason or "server lifetime is 0: used once"
        if pinned & LASTING:
            reason = reason or f"its client has used {names_of(pinned & LASTING)}"
        if reason:
            self.close(reason)
            return
        resets = [_DISCARD_ALL] if pinned or (self.suspicion is not None and reset) else []
        if self._tainted and not resets:
            resets.append(_RESET_ALL)
        if reset and settings.server_reset_query and settings.server_reset_query not in resets:
            watched = self.suspicion is not None or pinned
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
            self.reconfigured()  # It may have been held to be asked something.
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
        self.suspicion = None
        self.reconfigured()

    def discarded(self) -> None:
        """The session has been reset (DISCARD ALL): what was prepared is gone, and so is what was set."""
        self.statements.clear()
        self.prepared = PreparedTexts(complete=True)
        self.unnamed = None
        self.tracked = self.relay.tracker.reported_alone(self.tracked, self.pool.reported)

    # -- checking ------------------------------------------------------------------------------------------------------

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

    def _conditioned(self) -> None:
        reason = self.retiring or self.ledger.doubt
        if reason:
            self.close(reason)
            return
        purpose, self.purpose = self.purpose, ""
        del self.pool.conditioning[self]
        if purpose in {"cancel", "reset"}:
            self._reset()
        elif purpose == "probe":
            self.release()
        elif purpose == "connect_query" and self.pool.watched:
            self._ask_base()
        elif purpose in {"connect_query", "base", "turn"}:
            self._prepare_to_work()
        elif purpose == "catalog" and not self.worked:
            self._work()
            self.relay.let_work(self.pool)
        elif purpose == "beginning":
            self._begin()
        else:
            self._offer()

    def _check_idle(self) -> None:
        """An unlinked server has said something: it may only tell about parameters."""
        if self.failing or self.ledger.doubt:
            self.lost(self.ledger.doubt)
