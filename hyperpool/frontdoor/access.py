"""How clients prove who they are: which way the settings say for each, and what others must be asked for it."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from functools import lru_cache, partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from hyperpool.auth.penalty import Penalties
from hyperpool.auth.secrets import PlainPassword, Shown, parse_secret
from hyperpool.auth.server_side import ClientAuthentication, plain_verifier
from hyperpool.auth.stranger import PLAIN, SERVERS, Usual
from hyperpool.config import AuthType
from hyperpool.config.hba import Visitor, find_rule
from hyperpool.config.ident import is_allowed
from hyperpool.errors import AuthenticationError, ClientRefused, HyperpoolError, ProtocolError
from hyperpool.frontdoor.console import CONSOLE, peer_credentials
from hyperpool.frontdoor.external import check_ldap, check_pam, check_peer
from hyperpool.frontdoor.inquiries import CheckInquiry, SecretInquiry
from hyperpool.frontdoor.login import Login
from hyperpool.transport.endpoint import TlsSocket
from hyperpool.wire.text import decode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hyperpool.config import AuthSource, Secret, Settings
    from hyperpool.config.hba import Address
    from hyperpool.config.ldap import LdapOptions
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.wire.startup import StartupMessage

_Answers: TypeAlias = "dict[tuple[tuple[str, str, str], str], tuple[Secret | None, float]]"
"""What has been answered, and until when that counts, by source and user."""

_MOCK_KEY: Final = secrets.token_bytes(32)
"""Drawn when the program begins, before it forks: a stranger's salt must be the same in all processes of a pooler."""

_NOT_STORED: Final = frozenset({AuthType.ANY, AuthType.LDAP, AuthType.PAM})
"""Methods for users of whom nothing need be stored."""

_MOST_ANSWERS: Final = 16384
_MOST_SOURCES: Final = 4096
_REMEMBERED: Final = 1024
_MOST_DERIVED: Final = 4096
_TIDY: Final = 256
_SITE: Final = 64
"""Bits of an IPv6 address that tell one site from another: each has many addresses."""


@attrs.frozen(kw_only=True)
class Method:
    """How one client has to prove who it is.

    Attributes:
        kind: in which way.
        map: the name of a map, with `AuthType.CERT` and `AuthType.PEER`; empty for none.
        ldap: whom to ask, with `AuthType.LDAP`.
        pam_service: whom to ask, with `AuthType.PAM`.
    """

    kind: AuthType
    map: str = ""
    ldap: LdapOptions | None = None
    pam_service: str = ""


@attrs.define(eq=False, kw_only=True)
class Claim:
    """Who a client says it is, and what is known about that.

    Attributes:
        user: who it says it is.
        database: what it asks for.
        origin: where it comes from, as far as that counts for how often it may fail.
        method: how it has to prove that.
        source: who has been asked for its secret, if anybody was.
        secret: what was answered.
    """

    user: str
    database: str
    origin: str
    method: Method
    source: AuthSource | None = None
    secret: Secret | None = None


class Access:
    """Decides how clients prove who they are, and finds out what is needed for it.

    Args:
        settings: the whole settings.
        inquire: takes what others must be asked; must not block, nor answer at once.
        clock: monotonic seconds.

    Attributes:
        penalties: for those who fail.
        tell: called with where from and as whom somebody has failed, for the pooler's other processes; None for none.
    """

    def __init__(
        self,
        settings: Settings,
        inquire: Callable[[SecretInquiry | CheckInquiry], None],
        clock: Callable[[], float],
    ) -> None:
        self._inquire = inquire
        self._clock = clock
        self._usual_of_servers = Usual((), SERVERS)
        self._derived: dict[tuple[str, str, bytes, int], None] = {}
        self._numbers = count()
        self._late: list[tuple[float, int, Guest, Callable[[], None]]] = []
        self._tidy_at = _TIDY
        self.penalties = Penalties(0, 0.0)
        self.tell: Callable[[str, str], None] | None = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take over settings."""
        pooler = settings.pooler
        self._settings = settings
        self._method_of_all = Method(
            kind=pooler.auth_type, ldap=pooler.auth_ldap_options, pam_service=pooler.auth_pam_service
        )
        self._usual = Usual(settings.credentials.values(), PLAIN)
        self._sources: dict[str, AuthSource | None] = {}
        self._answers: _Answers = {}
        self.penalties.configure(pooler.auth_failure_burst, pooler.auth_failure_interval)
        self._derive()

    def admit(self, guest: Guest, message: StartupMessage) -> ClientAuthentication | None:
        """Begin to find out whether a client is who it says.

        Returns:
            The exchange with the client, or None while others are asked; `Guest.go_on` is called then.

        Raises:
            AuthenticationError: it is not let in, whoever it is.
            ClientRefused: the settings leave open as whom it is let in.
        """
        address, origin = _whereabouts(guest)
        claim = guest.claim = Claim(
            user=message.user,
            database=message.database,
            origin=origin,
            method=self._method(guest, message, address),
        )
        if claim.method.kind is AuthType.CERT:
            self._check_certificate(guest.sock, claim)
        elif claim.method.kind is AuthType.PEER:
            maps = self._settings.ident
            check = partial(check_peer, peer_credentials(guest.sock)[1], claim.user, claim.method.map, maps)
            self._inquire(CheckInquiry(guest, check, partial(self._recognized, guest, claim), "system"))
            return None
        return self._identify(guest, claim)

    def admit_like(self, guest: Guest, claim: Claim) -> ClientAuthentication:
        """Begin to find out whether a client is who it says, which says the same as another one has said.

        Args:
            guest: the client.
            claim: the other one's, for which nobody had to be asked.

        Raises:
            ClientRefused: it has gone.
        """
        _, origin = _whereabouts(guest)
        guest.claim = own = Claim(
            user=claim.user, database=claim.database, origin=origin, method=claim.method
        )
        return self._challenge(guest, own, self._settings.credentials.get(own.user))

    def hold(self, guest: Guest, login: Login) -> None:
        """A login waits for somebody else than its client: see to it that it goes on."""
        authentication, claim = login.authentication, guest.claim
        if authentication is None or claim is None:
            return
        if login.early:
            self._postpone(guest, partial(guest.go_on, Login.proceed))
        elif authentication.password is not None:
            check, whom = self._check(claim, authentication, decode(authentication.password))
            self._inquire(CheckInquiry(guest, check, partial(_judged, guest), whom))

    def may_try(self, guest: Guest) -> bool:
        """Whether a client's password may be looked at now; else it has failed too often."""
        claim = guest.claim
        return claim is None or self.penalties.ready_at(claim.origin, claim.user) <= self._clock()

    def failed(self, claim: Claim) -> None:
        """Somebody could not prove who it is."""
        self.failed_elsewhere(claim.origin, claim.user)
        if self.tell is not None:
            self.tell(claim.origin, claim.user)
        if claim.source is not None:
            self._answers.pop((claim.source.key, claim.user), None)

    def failed_elsewhere(self, origin: str, user: str) -> None:
        """Somebody could not prove who it is, to another process of the pooler's."""
        self.penalties.failed(origin, user, self._clock())

    def sweep(self) -> None:
        """Let those go on who have waited for long enough; to be called often."""
        now = self._clock()
        while self._late and self._late[0][0] <= now:
            _, _, guest, then = heappop(self._late)
            if not guest.closed:
                then()

    # -- the way ------------------------------------------------------------------------------------------------------

    def _method(self, guest: Guest, message: StartupMessage, address: Address | None) -> Method:
        pooler = self._settings.pooler
        if pooler.auth_type is not AuthType.HBA:
            return self._method_of_all
        visitor = Visitor(
            address=address,
            encrypted=guest.encrypted,
            database=message.database,
            user=message.user,
            physical=guest.replication not in {"", "database"} and not guest.wants_console,
        )
        rule = find_rule(self._settings.hba, visitor)
        if rule is None or rule.method is AuthType.REJECT:
            raise AuthenticationError(_no_entry(visitor, rejected=rule is not None), "28000")
        return Method(
            kind=rule.method,
            map=rule.map,
            ldap=rule.ldap or pooler.auth_ldap_options,
            pam_service=rule.pam_service or pooler.auth_pam_service,
        )

    def _check_certificate(self, sock: socket.socket, claim: Claim) -> None:
        name = _common_name(sock)
        if not name or not is_allowed(self._settings.ident, claim.method.map, name, claim.user):
            raise AuthenticationError(f'certificate authentication failed for user "{claim.user}"', "28000")

    def _recognized(self, guest: Guest, claim: Claim, answer: bool | HyperpoolError) -> None:
        """The operating system has told who is there."""
        if answer is True:
            try:
                authentication = self._identify(guest, claim)
            except HyperpoolError as error:
                guest.refuse(error)
                return
            if authentication is not None:
                guest.go_on(lambda login: login.begin(authentication))
        else:
            failure = AuthenticationError(f'Peer authentication failed for user "{claim.user}"', "28000")
            guest.refuse(failure if answer is False else answer)

    def _identify(self, guest: Guest, claim: Claim) -> ClientAuthentication | None:
        """Find what is stored about the user."""
        if claim.method.kind is AuthType.ANY:
            self._check_forced_user(claim)
        if claim.method.kind in _NOT_STORED:
            return self._challenge(guest, claim, None)
        secret = self._settings.credentials.get(claim.user)
        # An empty one in the auth_file locks the user out, as in pgbouncer: the server may think otherwise.
        source = None if secret or claim.user in self._settings.userlist else self._source(claim.database)
        if source is None:
            return self._challenge(guest, claim, secret)
        claim.source = source
        known = self._answers.get((source.key, claim.user))
        if known is not None and known[1] > self._clock():
            claim.secret = known[0]
            return self._challenge(guest, claim, known[0])
        if self.may_try(guest):
            self._look_up(guest, claim, source)
        else:
            self._postpone(guest, partial(self._look_up, guest, claim, source))
        return None

    def _check_forced_user(self, claim: Claim) -> None:
        settings = None if claim.database in CONSOLE else self._settings.pool_for(claim.database, "")
        if settings is not None and not settings.user:
            raise ClientRefused(
                f'database "{claim.database}" lets nobody in with auth_type any',
                "28000",
                "set user of the database: as whom all clients are let in",
            )

    def _source(self, database: str) -> AuthSource | None:
        if database not in self._sources:
            if len(self._sources) >= _MOST_SOURCES:
                self._sources.clear()
            self._sources[database] = self._settings.auth_source(database)
        return self._sources[database]

    def _look_up(self, guest: Guest, claim: Claim, source: AuthSource) -> None:
        # What was asked under settings that are gone by then is not remembered for those that follow.
        found = partial(self._found, guest, claim, source, self._answers)
        self._inquire(SecretInquiry(guest, source, claim.user, found))

    def _found(
        self,
        guest: Guest,
        claim: Claim,
        source: AuthSource,
        answers: _Answers,
        answer: Secret | HyperpoolError | None,
    ) -> None:
        if isinstance(answer, HyperpoolError):
            guest.refuse(answer)
            return
        ttl = self._settings.pooler.auth_query_ttl
        if ttl:
            if len(answers) >= _MOST_ANSWERS:
                answers.clear()
            answers[source.key, claim.user] = answer, self._clock() + ttl
        claim.secret = answer
        if answer:
            self._usual_of_servers.add(answer)
        authentication = self._challenge(guest, claim, answer)
        guest.go_on(lambda login: login.begin(authentication))

    def _challenge(self, guest: Guest, claim: Claim, secret: Secret | None) -> ClientAuthentication:
        return ClientAuthentication(
            claim.method.kind,
            claim.user,
            secret,
            _MOCK_KEY,
            self._settings.pooler.scram_iterations,
            endpoint=guest.endpoint,
            usual=(self._usual if claim.source is None else self._usual_of_servers).likeness,
        )

    def _derive(self) -> None:
        """Have computed what SCRAM takes of passwords that are stored as they are.

        A first login would take longer else: than others, and than one of a user that does not exist.
        """
        settings = self._settings
        if not settings.uses(AuthType.SCRAM_SHA_256):
            return
        stored = {
            user: parse_secret(secret.reveal()) for user, secret in settings.credentials.items() if secret
        }
        iterations = settings.pooler.scram_iterations
        wanted = {
            (secret.text, user, _MOCK_KEY, iterations): None
            for user, secret in stored.items()
            if isinstance(secret, PlainPassword)
        }
        new = [one for one in wanted if one not in self._derived]
        self._derived = wanted
        if new:
            self._inquire(CheckInquiry(_Nobody(), partial(_compute, new[:_MOST_DERIVED]), _forget))

    def _check(
        self, claim: Claim, authentication: ClientAuthentication, password: str
    ) -> tuple[Callable[[], bool], str]:
        """What finds out, in a thread, whether a password is right; and who is asked for it."""
        method = claim.method
        if method.kind is AuthType.LDAP and method.ldap is not None:
            check = partial(check_ldap, method.ldap, claim.user, password)
            return check, f"LDAP {' '.join(method.ldap.servers)}:{method.ldap.port}"
        if method.kind is AuthType.PAM:
            return partial(check_pam, method.pam_service, claim.user, password), f"PAM {method.pam_service}"
        verifier = authentication.verifier_to_check()
        if verifier is None:
            raise AssertionError("a password is checked with something")
        return partial(verifier.accepts, password), ""

    def _postpone(self, guest: Guest, then: Callable[[], None]) -> None:
        """Do something for a client when it may try a password again."""
        claim = guest.claim
        at = self.penalties.ready_at(claim.origin, claim.user) if claim is not None else 0.0
        heappush(self._late, (at, next(self._numbers), guest, then))
        if len(self._late) >= self._tidy_at:
            # Those that have left would be remembered for as long as they would have had to wait.
            self._late = [one for one in self._late if not one[2].closed]
            heapify(self._late)
            self._tidy_at = max(_TIDY, 2 * len(self._late))


class _Nobody:
    """Who wants nothing known, but done."""

    closed = False


def _compute(wanted: list[tuple[str, str, bytes, int]]) -> bool:
    for one in wanted:
        # What cannot be encoded lets nobody in.
        with contextlib.suppress(ProtocolError):
            plain_verifier(*one)
    return True


def _forget(_answer: bool | HyperpoolError) -> None:
    """It is done."""


def shown(claim: Claim, authentication: ClientAuthentication) -> Shown:
    """What a client that is let in has brought to light."""
    own = authentication.shown
    if claim.secret is None:
        return own
    return Shown(secret=own.secret or claim.secret, keys=own.keys)


def _judged(guest: Guest, answer: bool | HyperpoolError) -> None:
    if isinstance(answer, HyperpoolError):
        guest.refuse(answer)
    else:
        guest.go_on(lambda login: login.judge(matches=answer))


def _whereabouts(guest: Guest) -> tuple[Address | None, str]:
    """Where a client comes from: None for a Unix socket; and what that counts as for how often it may fail.

    Raises:
        ClientRefused: it has gone.
    """
    if guest.local:
        return None, "unix"
    try:
        return _place(guest.sock.getpeername()[0])
    except (OSError, ValueError):
        raise ClientRefused("the client's address is not known", "08006") from None


def _parsed(text: str) -> Address:
    """An address as the system tells it; IPv4 as what it is, also where a socket takes both families."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@lru_cache(_REMEMBERED)
def _place(host: str) -> tuple[Address, str]:
    address = _parsed(host)
    return address, _origin(address)


def _origin(address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), _SITE), strict=False))
    return str(address)


def _common_name(sock: socket.socket) -> str:
    """The common name in a client's certificate, which has been verified; empty if there is none."""
    certificate = sock.getpeercert() if isinstance(sock, TlsSocket) else None
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:  # type: ignore[str-unpack]  # as ssl documents it
            if name == "commonName":
                return str(value)
    return ""


def _no_entry(visitor: Visitor, *, rejected: bool) -> str:
    """PostgreSQL's words, about our file."""
    host = "[local]" if visitor.address is None else str(visitor.address)
    wanted = "replication connection" if visitor.physical else f'database "{visitor.database}"'
    encryption = "SSL encryption" if visitor.encrypted else "no encryption"
    begin = "auth_hba_file rejects connection for" if rejected else "no entry in auth_hba_file for"
    return f'{begin} host "{host}", user "{visitor.user}", {wanted}, {encryption}'
