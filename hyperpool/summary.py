"""What settings mean, as tables for people: what `hyperpool check` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from hyperpool.config import AuthType
from hyperpool.config.settings import FALLBACK
from hyperpool.config.transports import AgentStep, ProxyStep, TcpStep, UnixStep, WebSocketStep, host_and_port
from hyperpool.config.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from hyperpool.config import DatabaseSettings, Settings
    from hyperpool.config.transports import Step

_WIDEST: Final = 10_000
"""Columns of a terminal on which every table fits."""


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(console: Console, table: Table) -> None:
    """Print a table; where it is too wide for that, each of its rows as a table of its own, so that no word breaks."""
    needed = console.measure(table, options=console.options.update_width(_WIDEST)).maximum
    if len(table.columns) == 2 or needed <= console.width:
        console.print(table)
        return
    titles, *rows = zip(*([column.header, *column.cells] for column in table.columns), strict=True)
    for number, row in enumerate(rows):
        upright = Table(title=None if number else table.title, title_justify="left", title_style="bold")
        for header in (titles[0], row[0]):
            upright.add_column(header, overflow="fold")
        for pair in zip(titles[1:], row[1:], strict=True):
            upright.add_row(*pair)
        console.print(upright)


def _add_row(table: Table, cells: Iterable[object]) -> None:
    table.add_row(*(plain(str(cell)) for cell in cells))


def plain(text: str) -> Text:
    """Text as it is: no markup, and what cannot be printed is escaped."""
    return Text(
        "".join(
            one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text
        )
    )


def pooler_table(settings: Settings) -> Table:
    """What the pooler does."""
    pooler = settings.pooler
    addresses = [f"[{one}]" if ":" in one else one for one in pooler.listen_addr]
    listeners = [f"{one}:{pooler.listen_port}" for one in addresses]
    if pooler.unix_socket_dir:
        listeners.append(f"{pooler.unix_socket_dir}/.s.PGSQL.{pooler.listen_port}")
    table = _table("Pooler", "setting", "value")
    rows = {
        "listens on": "\n".join(listeners),
        **_agents_row(settings),
        **_http_row(settings),
        "clients": f"up to {pooler.max_client_conn}",
        "auth_type": pooler.auth_type.value,
        "users": _count_users(settings),
        "pool_mode": pooler.pool_mode.value,
        "query_wait_timeout": _duration(pooler.query_wait_timeout),
        "server_lifetime": _duration(pooler.server_lifetime),
        "server_idle_timeout": _duration(pooler.server_idle_timeout),
    }
    if any(database.embedded for database in settings.databases.values()):
        rows["state_dir"] = str(pooler.state_dir)
    for row in rows.items():
        _add_row(table, row)
    return table


def _agents_row(settings: Settings) -> dict[str, str]:
    if settings.agents is None:
        return {}
    names = sorted({token.agent_name for token in settings.agents.tokens.values()})
    return {"takes agents": f"port {settings.agents.listen_port}: {', '.join(names)}"}


def _http_row(settings: Settings) -> dict[str, str]:
    http = settings.http
    if http is None:
        return {}
    return {"speaks HTTP on": "\n".join(f"{address}:{http.listen_port}" for address in http.listen_addr)}


def _count_users(settings: Settings) -> str:
    known = len(settings.credentials)
    if settings.pooler.auth_type is AuthType.TRUST:
        return f"{known}, not asked for a password"
    without = sum(not secret for secret in settings.credentials.values())
    return f"{known}, of whom {without} cannot log in: no password" if without else str(known)


def databases_table(settings: Settings) -> Table:
    """The databases, where they are, and for how long answers are kept if any has a cache."""
    cached = any(entry.cache is not None for entry in settings.databases.values())
    columns = ("name", "server", "database", "user", "pool_mode", "pool size", *(["cache"] if cached else []))
    table = _table("Databases", *columns)
    warm = {pool.database for pool in settings.warm_pools()}
    pools = [
        (entry, pool)
        for name, entry in settings.databases.items()
        if (pool := settings.pool_for(name, entry.user or "")) is not None
    ]
    for entry, pool in pools:
        name = pool.database
        size = _size(pool.min_pool_size, pool.pool_size, pool.reserve_pool_size, warm=name in warm)
        dbname = entry.dbname or ("the client's" if name == FALLBACK else name)
        user = entry.user or "the client's"
        row = (name, _server(entry), dbname, user, pool.pool_mode.value, size)
        _add_row(table, (*row, _age(entry)) if cached else row)
    return table


def _age(entry: DatabaseSettings) -> str:
    return "none" if entry.cache is None else f"up to {format_duration(entry.cache.max_age)}"


def _server(entry: DatabaseSettings) -> str:
    if entry.embedded:
        return "embedded"
    if entry.transport:
        return " > ".join(_step(step) for step in entry.transport)
    if entry.host.startswith(("/", "@")):
        return f"{entry.host}/.s.PGSQL.{entry.port}"
    return _address(entry.host, entry.port)


def _step(step: Step) -> str:
    """A step of a transport: its kind, and what tells it from others, without a query, which may be secret."""
    match step:
        case TcpStep():
            where = _address(step.host, step.port)
        case ProxyStep():
            where = _address(*host_and_port(step.url))
        case AgentStep():
            where = f"{step.name} {step.target}".rstrip()
        case UnixStep() | WebSocketStep():
            where = step.path.partition("?")[0]
        case _:
            where = ""
    return f"{step.KIND} {where}".rstrip()


def _address(host: str, port: object) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _size(minimum: int, limit: int, reserve: int, *, warm: bool) -> str:
    size = f"{minimum} to {limit or 'any number'}" if minimum else f"up to {limit or 'any number'}"
    more = f", {reserve} in reserve" if reserve else ""
    return size + more + (", warm at start" if warm else "")


_LIMITS: Final = (
    "query_wait_timeout",
    "query_timeout",
    "transaction_timeout",
    "idle_transaction_timeout",
    "client_idle_timeout",
)


def users_table(settings: Settings) -> list[Table]:
    """The users with settings of their own, if there are any."""
    table = _table("Users with their own settings", "name", "pool_mode", "pool_size", "time limits")
    for name, user in settings.users.items():
        limits = {limit: getattr(user, limit) for limit in _LIMITS}
        words = ", ".join(f"{limit} {_duration(s)}" for limit, s in limits.items() if s is not None)
        mode = None if user.pool_mode is None else user.pool_mode.value
        cells = (mode, user.pool_size, words or None)
        if any(cell is not None for cell in cells):
            _add_row(table, (name, *("" if cell is None else cell for cell in cells)))
    return [table] if table.row_count else []


def _duration(seconds: float) -> str:
    return format_duration(seconds) if seconds else "no limit"
