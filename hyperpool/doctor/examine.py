"""Which ways there are to go, and going them all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from hyperpool.auth.secrets import PlainPassword, parse_secret
from hyperpool.config.kinds import AuthType, SslMode
from hyperpool.config.settings import FALLBACK
from hyperpool.config.tls import ServerTls
from hyperpool.config.transports import AgentStep
from hyperpool.doctor.findings import DatabaseFinding
from hyperpool.doctor.walk import Walk, via
from hyperpool.embedded.cluster import PORT, Cluster
from hyperpool.embedded.postmaster import find
from hyperpool.errors import KeysMissing, PasswordMissing
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.nameservers import make_resolver
from hyperpool.transport.route import Route
from hyperpool.transport.sockets import TcpOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyperpool.config import PoolSettings, Settings
    from hyperpool.errors import LoginFailed

_AT_ONCE: Final = 32
"""Ways that are gone at a time."""

_DEFAULT_TIMEOUT: Final = 15.0
"""Seconds, where the settings set no limit: the default of ``server_connect_timeout``."""

_BRINGS_NOTHING: Final = frozenset({AuthType.TRUST, AuthType.ANY, AuthType.CERT})
_BRINGS_PASSWORD: Final = frozenset({AuthType.PLAIN, AuthType.LDAP, AuthType.PAM})
"""What a client's login brings that is good for one to a server; the others bring keys."""

_EVERYWHERE: Final = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
"""Where a listener on all addresses can be reached."""


@attrs.frozen
class Wishes:
    """What the command line asks for.

    Attributes:
        database: the only one to examine; None for all.
        user: as whom to log in where the settings leave that to the client; None for the first who has a password.
        timeout: seconds for the way to one server; None for what the pooler itself would wait.
    """

    database: str | None = None
    user: str | None = None
    timeout: float | None = None


@attrs.define(eq=False)
class Plan:
    """What there is to do about a database.

    Attributes:
        finding: what is known before, and will be after.
        walks: one for each server; none if nothing can be tried.
    """

    finding: DatabaseFinding
    walks: list[Walk] = attrs.field(factory=list)


class UnknownDatabase(Exception):
    """The settings have no such database; the message is for people."""


class Examination:
    """All that is to be done.

    Args:
        settings: whose databases are examined.
        wishes: of the command line.

    Attributes:
        plans: one for each database, in the order of the settings.

    Raises:
        UnknownDatabase: the one that was named is not in the settings.
    """

    def __init__(self, settings: Settings, wishes: Wishes) -> None:
        self._settings = settings
        self._wishes = wishes
        self._context = DialContext(
            options=TcpOptions.of(settings.pooler),
            resolver=make_resolver(settings.pooler),
        )
        names = self._names()
        self.plans = [self._plan(name) for name in names]

    async def run(self) -> list[DatabaseFinding]:
        """Go all ways, many at once; the order of what is found is that of `plans`."""
        limiter = trio.CapacityLimiter(_AT_ONCE)

        async def go(walk: Walk) -> None:
            async with limiter:
                await walk.go()

        async with trio.open_nursery() as nursery:
            for plan in self.plans:
                for walk in plan.walks:
                    nursery.start_soon(go, walk)
        for plan in self.plans:
            plan.finding.servers += [walk.finding for walk in plan.walks if walk.finding is not None]
        return [plan.finding for plan in self.plans]

    def _names(self) -> Iterable[str]:
        databases, wanted = self._settings.databases, self._wishes.database
        if wanted is None:
            return databases
        if wanted == FALLBACK or (wanted not in databases and FALLBACK not in databases):
            named = [name for name in databases if name != FALLBACK]
            known = f"there are {', '.join(named)}" if named else "there are none with a name of their own"
            raise UnknownDatabase(f"no database {wanted} to examine: {known}")
        return [wanted]

    def _plan(self, name: str) -> Plan:
        entry = self._settings.databases.get(name) or self._settings.databases[FALLBACK]
        user = entry.user or self._wishes.user or self._first_user()
        finding = DatabaseFinding(name, user, entry.dbname or name)
        if name == FALLBACK:
            finding.note = (
                "stands for every name that has no entry of its own: name one, as in `doctor CONFIG NAME`"
            )
            return Plan(finding)
        if not user:
            finding.note = "no user to log in as: add one to the settings, or name one with --user"
            return Plan(finding)
        pool = self._settings.pool_for(name, user)
        assert pool is not None  # noqa: S101 - there is such an entry
        if entry.embedded:
            pool = self._embedded(pool, finding)
        elif entry.transport and isinstance(entry.transport[0], AgentStep):
            return Plan(finding, self._through_pooler(pool, entry.transport[0], finding))
        walks = [] if pool is None else self._walks(pool)
        if not entry.user and entry.password is None:
            for walk in walks:
                walk.awaited = self._awaited(name)
        return Plan(finding, walks)

    def _awaited(self, name: str) -> tuple[type[LoginFailed], ...]:
        """What may be missing at a login to a database's servers, as clients bring it."""
        kind = self._settings.pooler.auth_type
        if kind in _BRINGS_NOTHING:
            return ()
        if kind in _BRINGS_PASSWORD or self._settings.auth_source(name) is not None:
            return (KeysMissing, PasswordMissing)
        return (KeysMissing,)

    def _walks(self, pool: PoolSettings) -> list[Walk]:
        timeout, limit = self._wishes.timeout, "--timeout"
        if timeout is None:
            timeout, limit = pool.server_connect_timeout, "server_connect_timeout"
        if not timeout:
            timeout, limit = _DEFAULT_TIMEOUT, "--timeout"
        route = Route(pool, self._context)
        return [Walk(route, target, timeout, limit) for target in route.targets]

    def _first_user(self) -> str:
        """The first user whose password is known, else the first one."""
        known = self._settings.credentials
        for name, secret in known.items():
            if secret and isinstance(parse_secret(secret.reveal()), PlainPassword):
                return name
        return next(iter(known), "")

    def _embedded(self, pool: PoolSettings, finding: DatabaseFinding) -> PoolSettings | None:
        """The way to an embedded database's server, if it runs; it is not started."""
        cluster = Cluster.of(pool.database, self._settings.pooler.state_dir)
        try:
            if find(cluster) is None:
                where = f"{cluster.home} (state_dir)"
                finding.note = f"embedded; its server does not run in {where}: hyperpool serve starts it"
                return None
            directory = cluster.run.readlink() if cluster.run.is_symlink() else cluster.run
        except OSError as error:
            finding.note = (
                f"embedded; whether its server runs cannot be seen: {error.filename}: {error.strerror}"
            )
            return None
        finding.note = "embedded; its server runs"
        return attrs.evolve(pool, host=str(directory), port=PORT)

    def _through_pooler(self, pool: PoolSettings, agent: AgentStep, finding: DatabaseFinding) -> list[Walk]:
        """The way through the pooler, as a client: agents are connected to it, and to nobody else."""
        pooler = self._settings.pooler
        user = self._wishes.user or self._first_user() or pool.user
        finding.user = user
        finding.note = (
            f"its agents ({agent.name}) are connected to the pooler alone: examined through it, as a client"
        )
        address = pooler.listen_addr[0] if pooler.listen_addr else pooler.unix_socket_dir
        (server,) = Route(pool, self._context).targets
        as_client = attrs.evolve(
            pool,
            user=user,
            password=self._settings.credentials.get(user),
            dbname=pool.database,
            host=_EVERYWHERE.get(address, address),
            port=pooler.listen_port,
            transport=(),
            parameters={},
            tls=ServerTls(mode=SslMode.PREFER),
        )
        (walk,) = self._walks(as_client)
        walk.unreachable = "start the pooler (hyperpool serve): agents connect to it while it runs"
        walk.name, walk.via = server.name, f"pooler {walk.target.name} > {via(server.steps)}"
        return [walk]
