"""A client that is logging in: what it sends, and what comes of it, until it is a client or gone."""

from __future__ import annotations

import socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.auth.secrets import Shown
from hyperpool.errors import AuthenticationError, ClientRefused, HyperpoolError, UpstreamError
from hyperpool.frontdoor.access import shown
from hyperpool.frontdoor.console import ConsoleReady
from hyperpool.frontdoor.handshake import EncryptingConnection
from hyperpool.frontdoor.login import Login
from hyperpool.frontdoor.precedents import Admission, Precedent
from hyperpool.frontdoor.startup import requested_parameters
from hyperpool.relay.connection import HANG_UP
from hyperpool.relay.handover import ClientReady
from hyperpool.transport.endpoint import tls_name
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.scan import part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hyperpool.auth.proof import ScramProof
    from hyperpool.auth.server_side import ClientAuthentication
    from hyperpool.frontdoor.access import Claim
    from hyperpool.frontdoor.console import ConsoleDoor
    from hyperpool.frontdoor.door import FrontDoor
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.wire.startup import StartupMessage

log = structlog.get_logger("login")

_family_of: Final = vars(socket.SocketType)["family"].__get__
"""The family as a plain number: `socket.socket.family` makes an `enum.IntEnum` of it, which takes as long as a send."""

_UNIX: Final = int(socket.AF_UNIX)

_LOGIN_TIMEOUT: Final = "client_login_timeout"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

_READY: Final = messages.ready_for_query()

_ASKS_FOR_TLS: Final = b"\0\0\0\x08" + wire.SSL_REQUEST.to_bytes(4)
"""An SSLRequest, whole."""

_SPARE_LOGINS: Final = 256
"""Connections that may be logging in beyond max_client_conn: cancel requests, and clients that will be refused."""

_LOGGED: Final = 300
"""Characters of a text that the log gets from somebody who is not authenticated. PostgreSQL's names have 63 bytes."""


class Guest(EncryptingConnection):
    """A client that is logging in.

    Attributes:
        local: it comes through a Unix socket.
        key: its cancel key, once it has a place.
        requested: the session parameters that it asked for.
        replication: the startup parameter of that name, if it asked for a replication connection.
        private: its own pool, once it has been let in for that.
        wants_console: it has asked for the admin console.
        owner: it wants the console, and need not stand in admin_users: it is the pooler's own operating system user, or
            anybody with auth_type any.
        place: the database and the user for which it is counted already.
        claim: who it says it is.
    """

    __slots__ = (
        "_age",
        "_awaited",
        "_declined",
        "_door",
        "_late",
        "_login",
        "_precedent",
        "_proof",
        "_waiting",
        "claim",
        "key",
        "local",
        "owner",
        "place",
        "private",
        "replication",
        "requested",
        "wants_console",
    )

    def __init__(self, door: FrontDoor, sock: socket.socket, address: str, deadline: float) -> None:
        local = _family_of(sock) == _UNIX
        # As in pgbouncer, a Unix socket has no TLS.
        self._arrive(door.relay, sock, address, deadline, None if local else door.tls)
        self._door = door
        self.local = local
        self._login: Login | None = None
        self._declined = False
        self._age = 0
        self._precedent: Precedent | None = None
        self._proof: ScramProof | None = None
        self._late = _LOGIN_TIMEOUT
        self._waiting = False
        self._awaited: RelayPool | None = None
        self.key: tuple[int, bytes] | None = None
        self.requested = _NOTHING
        self.replication = ""
        self.private: RelayPool | None = None
        self.wants_console = False
        self.owner = False
        self.place: tuple[str, str] | None = None
        self.claim: Claim | None = None

    def __repr__(self) -> str:
        return f"<guest {self.address}>"

    def readable(self, mask: int) -> None:
        """Go on with the login."""
        if mask & HANG_UP:
            self.hung_up = True
        if self._waiting:
            self.unread = True
            if self.hung_up:
                self.lost("client closed connection during login")
            return
        if self.shaking is not None:
            self.shake_hands()
            return
        if self.fresh and self.begins_with_tls():
            return
        relay = self.relay
        try:
            end = self.receive(relay.small_view)
        except OSError as error:
            self.lost(f"client connection broke during login: {error.strerror}")
            return
        if end == 0:
            self.lost("client closed connection during login")
        elif end > 0:
            self._take(part(relay.buffer, 0, end))

    def _take(self, data: bytes) -> None:
        """The client has sent something."""
        try:
            if self._proof is not None:
                self._prove(self._proof, data)
                return
            login = self._login
            if login is None and self.offer is None and data == _ASKS_FOR_TLS and not self._declined:
                # Nearly all begin like this, also where there is no TLS to be had.
                self._declined = True
                self.transmit(b"N")
                return
            if login is None or (login.blank and not self.encrypted):
                precedents = self._door.precedents
                precedent = precedents.find(self, data)
                if precedent is not None:
                    self._enter_like(precedent)
                    return
                login = login or self._begin()
                answer = login.receive(data)
                self._remember(login)
            else:
                answer = login.receive(data)
            self._follow(login, answer)
        except HyperpoolError as error:
            self.refuse(error)

    def _enter_like(self, precedent: Precedent) -> None:
        """It begins like one before it, and is asked for the same."""
        relay = self.relay
        self.key = relay.reserve_key(precedent.secret_length)
        self._precedent = precedent
        self._proof = precedent.proof()
        if self._proof is None:
            self._admitted_as(precedent, b"")
        else:
            self.transmit(precedent.offer)

    def _prove(self, proof: ScramProof, data: bytes) -> None:
        """It goes on to prove who it is."""
        precedent = self._precedent
        if precedent is None:
            raise AssertionError("who has nobody before it goes the long way")
        door = self._door
        precedents = door.precedents
        if not proof.begun:
            answer = proof.challenge(data)
            if answer:
                self.transmit(answer)
                return
        elif not door.access.penalties and precedents.holds(self, precedent):
            answer = proof.conclude(data)
            if answer:
                self._admitted_as(precedent, answer)
                return
        self._proof = None
        login = self._login or self._begin()
        authentication = door.access.admit_like(self, precedent.claim)
        self._age = precedent.age
        login.resume(precedent.packet, precedent.message, authentication)  # what that returns has been sent
        if proof.begun:
            authentication.challenged(proof.exchange())
        self._follow(login, login.receive(data))

    def _begin(self) -> Login:
        """Begin to talk with it."""
        self._login = login = Login(self._admit, tls=self.offer is not None, may_try=self._may_try)
        if self._declined:
            login.declined()
        return login

    def go_on(self, step: Callable[[Login], bytes]) -> None:
        """What the login has waited for is there.

        Args:
            step: has the login take it in; returns what the client is to be sent.
        """
        login = self._login
        if self.closed or login is None:
            return
        try:
            self._waiting = False
            self._follow(login, step(login))
        except HyperpoolError as error:
            self.refuse(error)
        if self.unread and not self._waiting:
            self.relay.resume(self)

    @property
    def shown(self) -> Shown:
        """What its login has brought to light."""
        authentication = None if self._login is None else self._login.authentication
        if self.claim is None or authentication is None:
            return Shown()
        return shown(self.claim, authentication)

    @property
    def _message(self) -> StartupMessage | None:
        """What it asks for, once it has said it."""
        if self._login is not None and self._login.message is not None:
            return self._login.message
        return None if self._precedent is None else self._precedent.message

    def _admit(self, message: StartupMessage) -> ClientAuthentication | None:
        self._age = self._door.precedents.age
        return self._door.admit(self, message)

    def _may_try(self) -> bool:
        return self._door.access.may_try(self)

    def _follow(self, login: Login, answer: bytes) -> None:
        """Send what the login answers, and do what it has come to."""
        if answer:
            self.transmit(answer)
        if login.starts_tls:
            self.start_tls()
        elif login.cancel is not None:
            self._waiting = True
            self._door.cancel(self, login.cancel)
        elif login.done and login.message is not None:
            self._waiting = True
            if self._precedent is not None:
                self.requested = requested_parameters(login.message, self._door.ignored)
            self._door.enter(self, login.message)
        elif login.held:
            self._waiting = True
            self._door.access.hold(self, login)

    def secured(self) -> None:
        """It has TLS now."""
        (self._login or self._begin()).encrypted()

    def failed_to_encrypt(self, reason: str | None) -> None:
        """The TLS handshake has failed."""
        if self._door.log_errors:
            log.warning("TLS handshake failed", client=self.address, reason=reason)
        self.lost(f"TLS handshake failed: {reason}")

    def wait_for_server(self, pool: RelayPool) -> None:
        """Its login goes on when its pool has a server: not later than a query's would (``query_wait_timeout``)."""
        timeout = pool.settings.query_wait_timeout
        until = self.relay.now + timeout
        if timeout and until < self.deadline and self._late == _LOGIN_TIMEOUT:
            self.deadline, self._late = until, "query_wait_timeout"
        self._awaited = pool
        self.relay.await_parameters(pool, self.continued)

    def continued(self, error: UpstreamError | None) -> None:
        """The pool's parameters have arrived, or cannot be had."""
        self._awaited = None
        message = self._message
        if self.closed or message is None:
            return
        try:
            if error is not None:
                raise error
            self._door.enter(self, message)
        except HyperpoolError as refusal:
            self.refuse(refusal)

    def admitted_to(self, console: ConsoleDoor) -> None:
        """Become a client of the console: hand the socket over."""
        login, message, (pid, secret) = self._let_in()
        self._give_up_place()
        self.end()
        self.relay.transients.pop(self)
        welcome = bytes(self.outbox) + login.pending + messages.authentication_ok()
        name = message.parameters.get("application_name", "")
        received = login.leftover()
        ready = ConsoleReady(
            self.sock, message.user, self.owner, name, pid, secret, welcome, received, self.address
        )
        console.adopt(ready, unread=self.unread, hung_up=self.hung_up)

    def admitted(
        self, pool: RelayPool, tracked: ParameterSet, statuses: bytes | Callable[[ParameterSet], bytes]
    ) -> None:
        """Become a client: hand the socket over to the relay, which greets it.

        Args:
            pool: where its servers come from.
            tracked: the session parameters that it expects.
            statuses: the ParameterStatus messages that it is greeted with; or what makes them when a server has taken
                the parameters.
        """
        login, message, key = self._let_in()
        before = messages.authentication_ok()
        if self._door.notice:
            before += messages.notice_response(self._door.notice, "00000", severity="NOTICE")
        behind = messages.backend_key_data(*key) + messages.ready_for_query()
        received, pending = login.leftover(), login.pending
        greet = None
        if isinstance(statuses, bytes):
            self._remember(login, Admission(pool, self.shown, tracked, before + statuses))
            welcome = pending + before + statuses + behind
        else:
            make, welcome = statuses, b""

            def greet(made: ParameterSet) -> bytes:
                return pending + before + make(made) + behind

        self._become(pool, tracked, key, welcome, received, greet, message.user)

    def _remember(self, login: Login, admission: Admission | None = None) -> None:
        """Ask those that begin like it for the same proof, if it is asked for one; or let them in as it is let in.

        Args:
            login: as far as it has come.
            admission: what it has come to.
        """
        message, claim, authentication = login.message, self.claim, login.authentication
        precedents = self._door.precedents
        if message is None or claim is None or authentication is None:
            return
        if (admission or authentication.verifier) and precedents.suits(self, self._age):
            precedents.add(Precedent(login.packet, message, claim, authentication.verifier, admission))

    def _admitted_as(self, precedent: Precedent, pending: bytes) -> None:
        """Become a client like one before it."""
        pool, key = precedent.pool, self.key
        if key is None or pool is None:
            raise AssertionError("a client that is let in has a place")
        relay, place = self.relay, precedent.place
        if precedent.teaches:
            # Who has proved to know the same password with SCRAM has shown the same keys.
            pool.learn(place[1], precedent.shown)
        self.place = place
        relay.census.enter(place[0], place[1])
        welcome = b"".join((pending, precedent.greeting, key[0].to_bytes(4, "big"), key[1], _READY))
        self._become(pool, precedent.tracked, key, welcome, b"", None, place[1])

    def _let_in(self) -> tuple[Login, StartupMessage, tuple[int, bytes]]:
        """How it has logged in, what it asks for, and its cancel key."""
        login, message, key = self._login, self._message, self.key
        if login is None or message is None or key is None:
            raise AssertionError("a client that is let in has a place")
        return login, message, key

    def _become(
        self,
        pool: RelayPool,
        tracked: ParameterSet,
        key: tuple[int, bytes],
        welcome: bytes,
        received: bytes,
        greet: Callable[[ParameterSet], bytes] | None,
        user: str,
    ) -> None:
        """Hand the socket over to the relay."""
        relay = self.relay
        self.key = None
        place = self.place
        counted = place is not None and place[0] == pool.settings.database and place[1] == user
        if counted:
            self.place = None
        self._leave_place()
        self.end()
        del relay.transients[self]
        seconds = relay.time() - self.since
        pool.stats.login_times.observe(seconds)
        if self._door.traced is not None:
            self._door.traced(pool, self.address, seconds)
        if self.outbox:
            welcome = bytes(self.outbox) + welcome
        ready = ClientReady(
            self.sock, pool, tracked, key[0], key[1], welcome, received, self.address, greet, user, counted
        )
        ready.unread = self.unread
        ready.hung_up = self.hung_up
        relay.adopt_client(ready)

    def refuse(self, error: HyperpoolError) -> None:
        """Tell the client why it is not let in, and close."""
        if isinstance(error, AuthenticationError) and self.claim is not None:
            self._door.access.failed(self.claim)
        if self._door.log_errors:
            log.warning(
                "login refused",
                **self._identity(),
                reason=_shortened(str(error)),
                sqlstate=error.sqlstate,
                age=self.relay.age(self),
                tls=tls_name(self.sock),
                replication=self.replication,
            )
        response = error.response if isinstance(error, UpstreamError) else b""
        if not response:
            hint = error.hint if isinstance(error, ClientRefused) else ""
            response = messages.error_response(str(error), error.sqlstate, hint=hint)
        self.end()
        self.relay.forget(self)
        self.relay.see_off(self, response if self._login is None else self._login.pending + response)
        self._give_up_place()

    def _identity(self) -> dict[str, str | int]:
        message = self._message
        return {
            "id": self.number,
            "client": self.address,
            "database": _shortened(message.database) if message is not None else "",
            "user": _shortened(message.user) if message is not None else "",
        }

    def timed_out(self) -> None:
        """It has taken too long (``client_login_timeout``)."""
        if self.shaking is not None:
            self.lost("client_login_timeout during the TLS handshake")
            return
        self.refuse(ClientRefused(self._late, "08P01"))

    def gone(self, reason: str) -> None:
        """The login has ended without a client."""
        if self._door.settings.pooler.log_disconnections:
            log.info(
                "closing client before login", **self._identity(), reason=reason, age=self.relay.age(self)
            )
        self._give_up_place()

    def _give_up_place(self) -> None:
        if self._awaited is not None:
            self.relay.await_no_longer(self._awaited, self.continued)
            self._awaited = None
        if self.key is not None:
            self.relay.release_key(self.key[0])
            self.key = None
        self._leave_place()

    def _leave_place(self) -> None:
        if self._login is not None:
            self._login.end()
        if self.place is not None:
            self.relay.census.leave(*self.place)
            self.place = None


def start_login(door: FrontDoor, sock: socket.socket, address: str) -> None:
    """Start to log a client in; turn it away when too many are at it already.

    Args:
        door: where it comes to.
        sock: its accepted socket, which does not block.
        address: where it comes from, for logs.
    """
    relay = door.relay
    if len(relay.transients) >= door.most + _SPARE_LOGINS:
        log.warning("too many connections are logging in", client=address)
        sock.close()
        return
    relay.welcome(Guest(door, sock, address, relay.now + door.timeout))


def _shortened(text: str) -> str:
    return text if len(text) <= _LOGGED else f"{text[:_LOGGED]}..."
