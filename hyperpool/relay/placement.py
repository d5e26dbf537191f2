"""What lies between a client's requests and its server: what is prepared there, what is still open, and what is noted.

`Placement` has the steps of which `relay.translate` makes up its answer to each message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.config import SessionState
from hyperpool.pool.statements import LONGEST_NAME, MARK, PREFIX, Change, Statement
from hyperpool.relay.ledger import FORWARD, SKIP
from hyperpool.relay.rewriting import REFUSAL, rename
from hyperpool.relay.session import Pinned
from hyperpool.wire import constants as wire
from hyperpool.wire import extended, messages

if TYPE_CHECKING:
    from hyperpool.pool.statements import Flavor
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.server import ServerConnection
    from hyperpool.sql.effects import Effects


_MOST_DEALLOCATING: Final = 2000
"""Texts that deallocate statements on their way to one server: each is looked at for each name that is used behind."""


class Placement:
    """The state of one call of `Translator.forward`, and what it does to a server.

    What is sent is made of pieces of the client's bytes, and of messages in front of and in place of others.
    """

    __slots__ = ("_buffer", "_client", "_end", "_first", "_pieces", "_server", "_start", "_uses", "_view")

    _client: ClientConnection
    _server: ServerConnection
    _buffer: bytes | bytearray
    _view: memoryview

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._uses: list[Statement] | None = None
        self._first = False
        self._start = 0
        self._end = 0

    def _insert(self, at: int, message: bytes) -> None:
        """Send a message of the pooler's own in front of the one at `at`."""
        self._pieces += (self._view[self._start : at], message)
        self._start = at

    def _replace(self, at: int, stop: int, message: bytes) -> None:
        """Send another message, or nothing, for the one at `at`."""
        self._pieces += (self._view[self._start : at], message)
        self._start = stop

    def _name(self, spelt: bytes) -> bytes:
        """What counts of a name that the client has sent."""
        return spelt if len(spelt) <= LONGEST_NAME else self._client.remembered().shortened(spelt)

    # -- statements on the server --------------------------------------------------------------------------------

    def _find(self, name: bytes, at: int) -> Statement | None:
        """The statement that a client means, prepared on the server; None if the server shall look for it itself."""
        if not name:
            unnamed = self._client.unnamed
            if unnamed is None or self._server.unnamed is not unnamed:
                self._restore_unnamed(unnamed, at)
            return None
        own, suspicion = self._client.statements, self._server.suspicion
        gone = suspicion is not None and self._may_vanish(name)
        statement = own.names.get(name) if own is not None and not gone else None
        if own is not None and statement is not None:
            if not self._is_certain(statement) and statement.flavor != self._flavor():
                # It would be parsed in a session with other settings than when the client prepared it.
                statement = self._client.pool.statements.intern(statement.body, self._flavor(), own.holders)
                own.put(name, statement)
            self._ensure(statement, at)
            if self._uses is not None:
                self._uses.append(statement)
        elif name.startswith(PREFIX):
            # It might be another client's.
            return Statement(b"", name + MARK, None)
        return statement

    # -- statements on the server --------------------------------------------------------------------------------

    def _is_certain(self, statement: Statement) -> bool:
        kept = self._server.statements
        version = self._client.pool.statements.version
        if kept.version != version:
            kept.doubt_all()
            kept.version = version
        return statement in kept.certain

    def _ensure(self, statement: Statement, at: int) -> None:
        """Have a statement prepared on the server."""
        if self._is_certain(statement) and not self._server.ledger.is_open(statement):
            self._server.statements.use(statement, self._server.relay.now)
            return
        self._uses = None
        self._make_room(statement, at)
        self._client.pool.stats.server_parses += 1
        self._insert(at, extended.parse(statement.name, statement.body))
        self._server.ledger.request(wire.PARSE, SKIP, Change(None, None, statement))

    def _ensure_alone(self, statement: Statement, at: int) -> None:
        """Have a statement prepared on the server, in front of a Query: an error must not make the server skip that."""
        ledger = self._server.ledger
        before = len(ledger.entries)
        own_pipeline = not ledger.midway
        self._ensure(statement, at)
        if len(ledger.entries) > before and own_pipeline and self._buffer[at] == wire.QUERY:
            self._insert(at, messages.SYNC)
            ledger.request(wire.SYNC, SKIP)

    def _make_room(self, statement: Statement, at: int) -> None:
        """Close what must go before a statement is prepared on the server; from here on, it counts as prepared."""
        server = self._server
        kept = server.statements
        limit = max(server.pool.settings.max_prepared_statements, 1)
        there = statement in kept or server.ledger.is_open(statement)
        for gone in (statement,) if there else kept.evict(limit, server.linked):
            self._insert(at, extended.close_statement(gone.name))
            server.ledger.request(wire.CLOSE, SKIP, Change(None, None, gone))
        kept.use(statement, server.relay.now)
        kept.certain.add(statement)
        suspicion = server.suspicion
        if suspicion is not None and suspicion.pins & Pinned.TEMPORARY and not suspicion.everything:
            kept.passing.add(statement)

    def _restore_unnamed(self, unnamed: Statement | None, at: int) -> None:
        """The unnamed statement on the server is not the one that the client has prepared: put that there."""
        server = self._server
        self._uses = None
        if unnamed is None or not unnamed.body:
            self._insert(at, extended.close_statement(b""))
            server.ledger.request(wire.CLOSE, SKIP)
            server.unnamed = None
        else:
            self._insert(at, extended.parse(b"", unnamed.body))
            server.ledger.request(wire.PARSE, SKIP, Change(b"", unnamed, None, unsure=True))
            server.unnamed = unnamed

    def _give_unnamed(self, statement: Statement) -> None:
        """The client has prepared its unnamed statement on the server."""
        client, server = self._client, self._server
        ledger, before = server.ledger, client.unnamed
        newest = ledger.unnamed[-1] if ledger.unnamed else None
        same = (
            before is not None
            and server.unnamed is before
            and not (newest and newest.unsure)
            # What a Bind behind it executes must be known, if it may do anything to the session.
            and client.pool.statements.effects(before) is None
        )
        client.unnamed = server.unnamed = statement
        # If an error makes the server discard it, both keep what they have.
        ledger.request(wire.PARSE, FORWARD, Change(b"", before, None, unsure=ledger.midway and not same))

    def _flavor(self) -> Flavor:
        """The settings that a text is parsed under now; unlike any other's if they may be about to change."""
        for suspicion in (self._server.suspicion, self._server.asking):
            if suspicion is not None and suspicion.touches_settings:
                break
        else:
            return self._client.tracked.flavor
        return (("", str(self._client.relay.unique())),)

    # -- requests whose meaning depends on answers that have not come -----------------------------------------

    def _is_open(self, name: bytes) -> bool:
        """Whether it depends on the answer to an earlier pipeline what a name means, if anything."""
        server = self._server
        ledger = server.ledger
        if not ledger.awaited:
            return False
        if not name:
            # To put it there is expensive: not more often than the server answers.
            return server.unnamed is not self._client.unnamed or ledger.unnamed_is_open
        return self._may_vanish(name) or ledger.is_open(name)

    def _may_vanish(self, name: bytes) -> bool:
        """Whether a text on its way deallocates this name of the client's."""
        suspicion = self._server.suspicion
        return suspicion is not None and suspicion.deallocations.concern(name, self._server.ledger.executes)

    def _stall(self) -> bool:
        """Go on with this message when all pipelines before this one have been answered."""
        self._client.stalled = True
        return False

    def _has_to_wait(self, effects: Effects) -> bool:
        """Whether a text has to wait because of what it deallocates; or its client is ended, if that cannot help."""
        if any(map(self._is_open, effects.deallocates)):
            return not self._stall()
        suspicion = self._server.suspicion
        if not (effects.deallocates or effects.deallocates_all) or suspicion is None:
            return False
        if len(suspicion.deallocations) < _MOST_DEALLOCATING:
            return False
        if self._server.ledger.owed:
            return not self._stall()
        self._client.refuse("too many statements are deallocated in one pipeline", "54000", "send a Sync")
        return True

    # -- messages that are not all there -------------------------------------------------------------------------

    def _will_come(self, at: int, stop: int) -> bool:
        """Whether to wait until the message has come as a whole: it fits into what is read at once."""
        return stop > self._end and stop - at <= self._client.relay.max_whole

    def _incomplete(self, at: int, stop: int) -> bool:
        """What has to be looked at is not there: wait for it, or leave a broken message to the server."""
        if stop <= self._end:
            self._server.ledger.request(self._buffer[at])
            return True
        if self._end - at >= self._client.relay.max_partial:
            self._client.violate("a name in a message is too long")
        return False

    # -- session state -------------------------------------------------------------------------------------------

    def _may_pin(self) -> bool:
        pool = self._client.pool
        return bool(self._server.pinned) or pool.pinned_everywhere < pool.max_pinned

    def _note(self, effects: Effects, text: bytes, at: int, *, replaceable: bool = True) -> bytes | None:
        """A text with effects is about to be sent.

        Args:
            effects: what it may do.
            text: itself.
            at: where the message begins.
            replaceable: another text can be sent in its place. Otherwise one that must not be executed is found out
                about when it has been, and its client is ended.

        Returns:
            The text to be sent instead; None for the same.
        """
        server = self._server
        follows = server.pool.settings.session_state is SessionState.FOLLOW
        refusable = replaceable and follows and not effects.unknown_settings
        if effects.pins and refusable and not self._may_pin():
            return REFUSAL
        deallocates = effects.deallocates or effects.deallocates_all
        if server.pool.watched:
            server.suspect(effects, text)
        elif deallocates:
            server.expect_deallocation()
        return self._deallocate(effects, text, at) if deallocates else None

    def _deallocate(self, effects: Effects, text: bytes, at: int) -> bytes | None:
        """Put servers' names into a text that deallocates what the client has prepared, and expect its answer.

        Returns:
            The text to be sent instead; None for the same.
        """
        server, own = self._server, self._client.remembered()
        if server.suspicion is None:
            raise AssertionError("a text that deallocates is suspicious")
        deallocations = server.suspicion.deallocations
        self._uses = None
        gone = deallocations.names()
        ready: set[Statement] = set()

        def other(name: bytes) -> bytes | None:
            statement = own.names.get(name)
            if statement is None:
                return name + MARK if name.startswith(PREFIX) else None
            if statement not in ready:
                ready.add(statement)
                if name not in gone:
                    # Otherwise an earlier text in this pipeline has seen to it, and may have deallocated it already.
                    self._ensure_alone(statement, at)
                server.statements.doubt(statement)
            return statement.name

        is_utf8 = self._client.tracked.values.get("client_encoding") == "UTF8"
        instead, moves = rename(text, effects.deallocates, other, is_utf8=is_utf8)
        ledger = server.ledger
        deallocations.sent(
            effects.deallocates,
            ledger.asked + 1,
            -1 if self._buffer[at] == wire.QUERY else ledger.executes,
            moves,
            everything=effects.deallocates_all,
        )
        return instead if moves else None
