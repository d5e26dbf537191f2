"""The front door: from an accepted socket to a logged-in client.

A client's login costs no round trip to a server: its password is checked here, and what the server would report at
login is known from the pool's first server connection. It runs in the relay's loop, and costs no task either; what
has to wait for something else (a pool's first server, a cancel request on its way) calls back.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import structlog

from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType
from hyperpool.config.tls import TlsFault, client_tls
from hyperpool.errors import ClientRefused, HyperpoolError, StartupError
from hyperpool.frontdoor.access import Access
from hyperpool.frontdoor.console import CONSOLE, is_owner
from hyperpool.frontdoor.doorstep import ALL, Doorstep
from hyperpool.frontdoor.orders import CancelOrder, PeerOrder
from hyperpool.frontdoor.precedents import Precedents
from hyperpool.frontdoor.startup import (
    own_parameters,
    requested_parameters,
    sort_parameters,
    wanted_replication,
)
from hyperpool.frontdoor.tls import make_offer
from hyperpool.pool.replication import crowded
from hyperpool.wire import cancelkeys, messages
from hyperpool.workers.messages import SeatKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hyperpool.config import Settings
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.frontdoor.inquiries import CheckInquiry, SecretInquiry
    from hyperpool.frontdoor.tls import TlsOffer
    from hyperpool.pool.pools import Pools
    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.loop import Relay
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.server import ServerConnection
    from hyperpool.wire.startup import CancelRequest, StartupMessage

log = structlog.get_logger("login")

_MAX_GREETINGS: Final = 1024
_MAX_ACCEPTED: Final = 1024


@attrs.frozen(eq=False)
class _Greeting:
    """What clients that ask for the same parameters of the same pool are told.

    Attributes:
        reported: the pool's parameters that it was made of.
        base: what all sessions of the pool begin with, which it was made of, too.
        statuses: the ParameterStatus messages.
        tracked: the session parameters that such a client expects.
    """

    reported: dict[str, str]
    base: dict[str, str]
    statuses: bytes
    tracked: ParameterSet


class FrontDoor(Doorstep):
    """Lets clients in.

    Args:
        settings: the whole settings.
        relay: the data plane; limits count its clients.
        pools: where clients get their servers from.
        cancel: takes a cancel request that has to be sent to a server or to another pooler; must not block.
        inquire: takes what others must be asked about a client; must not block, nor answer at once.

    Attributes:
        access: how clients prove who they are.
        precedents: the clients that were let in before.
        ignored: the startup parameters that are ignored, in lower case.
        tls: what clients are offered; None for nothing.
        elsewhere: takes a cancel request that is for nobody here, and calls back when it cannot hit a later query any
            more; must not block. None for nobody.
        notice: what clients are told when they have logged in; empty for nothing.
        known: called with a pool that no server has told about; learns of it what another process knows.

    Raises:
        StartupError: certificate or key cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        relay: Relay,
        pools: Pools[ServerConnection, ClientConnection],
        cancel: Callable[[CancelOrder | PeerOrder], None],
        inquire: Callable[[SecretInquiry | CheckInquiry], None],
    ) -> None:
        super().__init__(relay, pools)
        self._cancel = cancel
        self.access = Access(settings, inquire, relay.time)
        self.elsewhere: Callable[[int, bytes, Callable[[], None]], None] | None = None
        self.known: Callable[[RelayPool], None] = _nothing
        self.precedents = Precedents(self)
        self._greetings: dict[tuple[RelayPool, StartupMessage], _Greeting] = {}
        self.configure(settings, self.prepare(settings))

    @staticmethod
    def prepare(settings: Settings) -> TlsOffer | None:
        """Read what the settings name: certificate and key.

        Returns:
            What clients are to be offered; None for nothing.

        Raises:
            StartupError: certificate or key cannot be used.
        """
        try:
            return make_offer(client_tls(settings.pooler, asks=settings.uses(AuthType.CERT)))
        except (TlsFault, OSError, ValueError) as error:
            raise StartupError(f"cannot offer TLS: {error}; see client_tls_cert_file") from error

    def configure(self, settings: Settings, tls: TlsOffer | None) -> None:
        """Take over settings, and what has been read with them.

        Logins under way go on under those that they began with, as far as they have come.

        Args:
            settings: the whole settings.
            tls: from `prepare`.
        """
        self.tls = tls
        self.settings = settings
        self.access.configure(settings)
        self.most = settings.pooler.max_client_conn
        self.timeout = settings.pooler.client_login_timeout or float("inf")
        self.log_errors = settings.pooler.log_pooler_errors
        self.notice = settings.pooler.login_notify_message
        self._greetings.clear()
        self.precedents.clear()
        self.ignored = frozenset(name.lower() for name in settings.pooler.ignore_startup_parameters)

    def close(self, since: float = float("-inf")) -> None:
        """Let nobody in any more, but to the console: the pooler is shutting down.

        Args:
            since: who has connected before, monotonic seconds, may still log in.
        """
        self.closed_at = since

    def admit(self, guest: Guest, message: StartupMessage) -> ClientAuthentication | None:
        """Decide whether a client may try to log in, and reserve its place.

        Returns:
            How it must prove who it is; None while that is being found out.

        Raises:
            ClientRefused: there are too many clients, or what it asks for cannot be understood.
            AuthenticationError: nobody is let in like this.
        """
        settings = self.settings
        if self.tls is not None and self.tls.required and not guest.encrypted and not guest.local:
            raise ClientRefused(
                "connections without TLS are not allowed (client_tls_sslmode)",
                "28000",
                "connect with sslmode=require",
            )
        guest.wants_console = self.console is not None and message.database in CONSOLE
        if not self.lets_in(guest) and not guest.wants_console:
            raise ClientRefused("pooler is shutting down", "57P03")
        if not (guest.wants_console or self._has_room(guest, message)):
            return None
        guest.key = self.relay.reserve_key(message.secret_length)
        guest.replication = wanted_replication(message)
        if not guest.replication:
            guest.requested = requested_parameters(message, self.ignored)
            if settings.pooler.application_name_add_host:
                name = message.parameters.get("application_name") or "app"
                guest.requested = {**guest.requested, "application_name": f"{name} - {guest.address}"}
        anybody = settings.pooler.auth_type is AuthType.ANY
        if guest.wants_console and (anybody or is_owner(guest.sock, message)):
            guest.owner = True
            return ClientAuthentication(AuthType.ANY, message.user, None, b"")
        return self.access.admit(guest, message)

    def _has_room(self, guest: Guest, message: StartupMessage) -> bool:
        """Whether there may be one more client; `admit` is called again if that is not known yet.

        Raises:
            ClientRefused: there may not.
        """
        if self.has_seat():
            return True
        if self.places is None:
            raise _too_many()
        self.places.seek(ALL, partial(self._seated, guest, message))
        return False

    def _seated(self, guest: Guest, message: StartupMessage, free: bool) -> None:
        """It is known whether there may be one more client."""
        if guest.closed:
            return
        try:
            if not free:
                raise _too_many()
            authentication = self.admit(guest, message)
        except HyperpoolError as error:
            guest.refuse(error)
            return
        if authentication is not None:
            guest.go_on(lambda login: login.begin(authentication))

    def enter(self, guest: Guest, message: StartupMessage) -> None:
        """An authenticated client becomes the relay's, as soon as its pool knows what to tell it.

        Raises:
            ClientRefused: there is no such database, too many clients replicate from it, or it asks for a parameter
                that cannot be honoured. A replication client may ask for anything: its server decides.
        """
        if guest.wants_console and self.console is not None:
            self.console.check(message.user, owner=guest.owner)
            guest.admitted_to(self.console)
            return
        if guest.replication and guest.private is None and not self._may_replicate(guest, message):
            return
        pool = guest.private or self._find_pool(guest, message)
        if guest.place is None and not self._give_place(guest, message.database, message.user):
            return
        pool.learn(message.user, guest.shown)
        if pool.parameters is None:
            self.known(pool)
        if pool.parameters is None:
            guest.wait_for_server(pool)
            return
        greeting = self._greetings.get((pool, message))
        if greeting is None or greeting.reported is not pool.parameters or greeting.base is not pool.base:
            self._greet(guest, message, pool, pool.parameters)
        else:
            guest.admitted(pool, greeting.tracked, greeting.statuses)

    def _greet(
        self, guest: Guest, message: StartupMessage, pool: RelayPool, parameters: dict[str, str]
    ) -> None:
        """Let a client in that asks for what no other one has asked for, or not in the same words."""
        requested = guest.requested
        wanted = sort_parameters(requested, pool, self.relay.tracker)
        reported = {**parameters, **wanted.reported}
        tracked = self.relay.tracker.intern(reported, {**pool.base, **wanted.others})
        if wanted.unproven:
            guest.admitted(pool, tracked, lambda made: self._proven(pool, requested, made))
            return
        statuses = _statuses(reported)
        if not (pool.settings.replication or self.settings.pooler.application_name_add_host):
            if len(self._greetings) >= _MAX_GREETINGS:
                self._greetings.clear()
            self._greetings[pool, message] = _Greeting(parameters, pool.base, statuses, tracked)
        guest.admitted(pool, tracked, statuses)

    def _give_place(self, guest: Guest, database: str, user: str) -> bool:
        """Count a client before it waits for anything, so that those that come together do not pass a limit.

        Returns:
            False if it has to be found out whether there is a place for it; `enter` is called again then.

        Raises:
            ClientRefused: the database or the user has as many clients as it may have.
        """
        census = self.relay.census
        of_database, of_user = self.settings.client_limits(database, user)
        if of_database:
            seat = SeatKey("database", database)
            refusal = "max_db_client_connections"
            if not self._finds_place(guest, seat, of_database, census.databases.get(database, 0), refusal):
                return False
        if of_user:
            seat = SeatKey("user", user)
            if not self._finds_place(
                guest, seat, of_user, census.users.get(user, 0), "max_user_client_connections"
            ):
                return False
        guest.place = database, user
        census.enter(database, user)
        return True

    def _finds_place(self, guest: Guest, seat: SeatKey, limit: int, count: int, setting: str) -> bool:
        """Whether one limit leaves a place; as `_give_place`."""
        if self.places is None:
            if count >= limit:
                raise _exceeded(setting)
        elif not self.places.free(seat):
            self.places.seek(seat, partial(self._placed, guest, _exceeded(setting)))
            return False
        return True

    @staticmethod
    def _placed(guest: Guest, refusal: ClientRefused, free: bool) -> None:
        """It is known whether there is a place for a client."""
        if free:
            guest.continued(None)
        elif not guest.closed:
            guest.refuse(refusal)

    def _may_replicate(self, guest: Guest, message: StartupMessage) -> bool:
        """Whether one more client may replicate, as far as other processes know; `enter` is called again otherwise."""
        settings = self.settings.pool_for(message.database, message.user)
        if self.places is None or settings is None or not settings.pool_size:
            return True
        seat = SeatKey("replication", settings.database, settings.user)
        if self.places.free(seat):
            return True
        self.places.seek(seat, partial(self._placed, guest, crowded(settings, settings.pool_size)))
        return False

    def _proven(self, pool: RelayPool, requested: Mapping[str, str], made: ParameterSet) -> bytes:
        """A server has taken a client's parameters: the next client that asks for the same need not wait for one.

        Args:
            pool: the pool.
            requested: what the client asked for.
            made: what the server made of that.

        Returns:
            The ParameterStatus messages for the client.
        """
        if len(pool.accepted) >= _MAX_ACCEPTED:
            pool.accepted.clear()
        reported = {name: value for name, value in made.values.items() if name.lower() in pool.reported}
        for name, value in requested.items():
            canonical = self.relay.tracker.canonical(name) or name.lower()
            pool.accepted[name.lower(), value] = reported.get(canonical, value)
        return _statuses({**(pool.parameters or {}), **reported})

    def _find_pool(self, guest: Guest, message: StartupMessage) -> RelayPool:
        database, user = message.database, message.user
        if guest.replication:
            pool = self.pools.private(database, user, guest.replication, own_parameters(message))
            guest.private = pool
        else:
            pool = self.pools.find(database, user)
        if pool is None:
            raise ClientRefused(f'database "{database}" does not exist', "3D000")
        if database in self.pools.disabled:
            raise ClientRefused(
                f'database "{database}" is disabled', "08P01", "the console's ENABLE lets clients in"
            )
        return pool

    def cancel(self, guest: Guest, request: CancelRequest) -> None:
        """Pass a cancel request on, if its key is right.

        The guest's connection stays open until the server has taken the request: its end tells the client that what
        it sends next will not be hit (protocol chapter "Canceling Requests in Progress").
        """
        pid, secret = request.pid, request.secret
        if self.relay.peer_id:
            peer_id = cancelkeys.peer_of(pid)
            if peer_id != self.relay.peer_id:
                self._cancel(PeerOrder(guest, peer_id, pid, secret))
                return
            secret = cancelkeys.complete(secret)
        server = self.relay.cancel_target(pid, secret)
        if server is None:
            if self.console is not None:
                self.console.cancel(pid, secret)
            if self.elsewhere is not None and pid not in self.relay.clients:
                self.elsewhere(pid, secret, lambda: guest.lost("cancel request done"))
            else:
                guest.lost("cancel request done")
        else:
            self._cancel(CancelOrder(server, guest))


def _nothing(pool: RelayPool) -> None:
    """What a process knows that is alone."""


def _too_many() -> ClientRefused:
    return ClientRefused(
        "no more connections allowed (max_client_conn)",
        "08P01",
        "raise max_client_conn, or let clients close connections that they do not use",
    )


def _exceeded(setting: str) -> ClientRefused:
    return ClientRefused(
        f"client connections exceeded ({setting})",
        "08P01",
        f"raise {setting}, or let clients close connections that they do not use",
    )


def _statuses(parameters: dict[str, str]) -> bytes:
    return b"".join(messages.parameter_status(name, value) for name, value in parameters.items())
