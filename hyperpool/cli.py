"""The command line: arguments in, exit codes out, and nothing else.

Exit codes: 0 is success, 1 means that the pooler could not start or the doctor found something that failed, 2 that the
settings or the arguments are wrong.
"""

from __future__ import annotations

import getpass
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click
from rich.console import Console

from hyperpool import FORM, __version__
from hyperpool.config import Secret, Settings, load
from hyperpool.config.convert import convert as convert_settings
from hyperpool.config.inifile import is_ini
from hyperpool.config.kinds import SslMode
from hyperpool.config.tunnel import load_tunnel
from hyperpool.errors import ConfigError, LoginFailed, StartupError
from hyperpool.summary import databases_table, plain, pooler_table, show, users_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


S = TypeVar("S")

LOOKED_UP: Final = (Path("pooler.yaml"), Path("/etc/hyperpool/pooler.yaml"))
"""Where the settings are when no file is named; the first that exists is used."""

_CONTROL: Final = Path("/run/hyperpool/control")
"""Where the control socket is when systemd runs the pooler as `install-service` sets it up."""

_EXIT_STARTUP: Final = 1
_EXIT_CONFIG: Final = 2

_HELP: Final = """\
hyperpool is a connection pooler for PostgreSQL. Clients connect to it as they would to PostgreSQL, and share a few
warm server connections. It can stand in for pgbouncer: its settings have the same names.

\b
Examples:
  hyperpool serve                  serve with ./pooler.yaml, else /etc/hyperpool/pooler.yaml
  hyperpool serve my.yaml          serve with the settings in my.yaml, until Ctrl-C
  hyperpool check my.yaml          say what is wrong with them, or what they mean
  hyperpool serve pgbouncer.ini    the same with pgbouncer's own file
  hyperpool convert pgbouncer.ini  write it as YAML
  hyperpool restart my.yaml        replace the process that serves with my.yaml; no client notices
  hyperpool drain my.yaml          have it end when its clients have left
  hyperpool install-service        make it a service of systemd's
  hyperpool doctor my.yaml         go the way to every server, and say where it fails and why
  hyperpool top -U ann             watch a running pooler
  hyperpool tunnel tunnel.yaml     run inside a private network, for a pooler outside

\b
Connect, with the settings as shipped:
  psql postgres://demo:demo@127.0.0.1:6432/demo

\b
A settings file of the smallest kind:
  pooler:
    listen_addr: 127.0.0.1
    auth_type: scram-sha-256
  databases:
    app: {host: db.example.com}
  users:
    alice: {password: "${ALICE_PASSWORD}"}

\b
Signals, as in pgbouncer:
  SIGHUP    read the settings again
  SIGUSR1   hand out no more servers, and close them (PAUSE); SIGUSR2 goes on (RESUME)
  SIGINT    wait until servers are given back, then end
  SIGTERM   wait until clients have left, then end
  SIGQUIT, and a second SIGINT or SIGTERM, end at once
"""


@click.group(
    invoke_without_command=True,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(
    __version__, "-V", "--version", prog_name="hyperpool", message=f"%(prog)s %(version)s ({FORM})"
)
@click.pass_context
def main(context: click.Context) -> None:
    """Run the command that is named; without one, show the help."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--take-over",
    is_flag=True,
    help="Take over from a running process: it hands over its listening sockets once this one is ready, and ends when "
    "its clients have left.",
)
def serve(config: Path | None, *, take_over: bool) -> NoReturn:
    """Serve clients until a signal says otherwise.

    CONFIG is the settings file; by default ./pooler.yaml, else /etc/hyperpool/pooler.yaml.

    Exit codes: 0 after SIGINT or SIGTERM, 1 when the pooler cannot start, 2 when the settings are wrong, 70 when
    several workers have lost the process that starts them.
    """
    path = _find(config)
    settings = _load(path)
    from hyperpool.service import Manner  # noqa: PLC0415 - `check` and `--help` do without the data plane
    from hyperpool.service import serve as run  # noqa: PLC0415
    from hyperpool.service.signals import ignore  # noqa: PLC0415

    successor = (sys.executable, "-m", "hyperpool", "serve", "--take-over", str(path.absolute()))
    try:
        code = run(settings, path, Manner(take_over=take_over, command=successor))
    except StartupError as error:
        _fail(_EXIT_STARTUP, f"cannot start: {error}")
    ignore()
    raise SystemExit(code)


_SOCKET_OPTION: Final = click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    help="The pooler's control socket; by default what CONFIG says, and without CONFIG /run/hyperpool/control.",
)


class _Seconds(click.FloatRange):
    """A number of seconds; NaN, which is in every range, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as there
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return found


_TIMEOUT_OPTION: Final = click.option(
    "--timeout",
    type=_Seconds(min=0, min_open=True),
    metavar="SECONDS",
    help="Give up waiting after so long; what has begun goes on.",
)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@_SOCKET_OPTION
@_TIMEOUT_OPTION
def restart(config: Path | None, path: Path | None, timeout: float | None) -> NoReturn:
    """Have a running pooler replaced by a new process, without a client noticing.

    The new process runs what is installed now, with the settings as they are now. It takes the listening sockets over,
    fills its pools, and serves whoever connects from then on. The old one serves the clients that it has until they
    leave; drain_timeout and drain_rate hurry them. If the new process cannot start, the old one goes on.

    Exit codes: 0 when the new process serves, 1 when it does not.
    """
    _command(config, path, "restart", timeout)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@_SOCKET_OPTION
@_TIMEOUT_OPTION
def drain(config: Path | None, path: Path | None, timeout: float | None) -> NoReturn:
    """Have a running pooler end when its clients have left, and wait for that.

    As SHUTDOWN WAIT_FOR_CLIENTS in the console and SIGTERM do, which wait for nobody; so it fits where an orchestrator
    wants a command before it stops the process. drain_timeout and drain_rate hurry clients.

    Exit codes: 0 when the pooler has ended, 1 when there is none, or not in time.
    """
    _command(config, path, "drain", timeout)


def _command(config: Path | None, path: Path | None, want: str, timeout: float | None) -> NoReturn:
    from hyperpool.service.control import command, control_path  # noqa: PLC0415 - as in `serve`

    if path is None and config is not None:
        found = control_path(_load(config).pooler, os.environ)
        if not found:
            _fail(
                _EXIT_STARTUP,
                f"cannot {want}: the pooler of {config} takes no commands, without control_socket and pidfile; set "
                f"one, or leave {config} out for the service of systemd's",
            )
        path = Path(found)
    problem = command(str(path or _CONTROL), want, timeout)
    if problem:
        _fail(_EXIT_STARTUP, f"cannot {want}: {problem}")
    raise SystemExit(0)


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
def check(config: Path | None) -> None:
    """Check the settings without opening anything.

    CONFIG is the settings file; by default ./pooler.yaml, else /etc/hyperpool/pooler.yaml.

    Prints every problem and exits with 2, or prints what the settings mean and exits with 0. Secrets are not shown.
    """
    path = _find(config)
    settings = _load(path)
    console = Console()
    console.print(plain(f"{path} is fine.\n"))
    for note in settings.notes:
        console.print(plain(f"{note}\n"))
    for table in (pooler_table(settings), databases_table(settings), *users_table(settings)):
        show(console, table)


@main.command("install-service")
@click.option("--print", "only_print", is_flag=True, help="Print the files, and change nothing.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=LOOKED_UP[-1],
    show_default=True,
    help="The settings file of the service; one that is there stays as it is.",
)
@click.option("--user", default="hyperpool", show_default=True, help="Who runs it; made if it is not there.")
@click.option("--overwrite-config", is_flag=True, help="Replace settings that are there.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="Install into the system below this directory.",
)
def install_service(config: Path, user: str, root: Path, *, only_print: bool, overwrite_config: bool) -> None:
    """Make hyperpool a service of systemd's.

    Writes a unit that lets the process do next to nothing besides talking to others, a user for it, and commented
    settings to begin with. Done twice, it changes nothing; settings that are there are never touched, unless with
    --overwrite-config.

    Exit codes: 0 when all is in place, 1 when something could not be written, or the service could not run like this.
    """
    from hyperpool.service.install import Installation, command  # noqa: PLC0415 - as in `serve`

    installation = Installation(config=config.absolute(), user=user, root=root, overwrite=overwrite_config)
    if only_print:
        for path, text, _ in installation.files():
            click.echo(f"# {path}\n{text}")
        _warn(installation.warnings())
        return
    try:
        for line in installation.install():
            click.echo(line)
    except StartupError as error:
        _fail(_EXIT_STARTUP, f"cannot install the service: {error}")
    if _warn(installation.warnings()):
        raise SystemExit(_EXIT_STARTUP)
    click.echo(f"Next: edit {config}, then: {command()} check {config} && systemctl enable --now hyperpool")


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
def convert(config: Path) -> None:
    """Write a pgbouncer.ini as YAML.

    CONFIG is a file in pgbouncer's format; what it includes becomes part of the output. Both files give the same
    settings. Passwords that stand in it are written, too.

    Exit codes: 0 when it is written to standard output, 2 when the settings are wrong.
    """
    if not is_ini(config):
        _fail(
            _EXIT_CONFIG,
            f"{config} is not a file of pgbouncer's: it does not begin with a section in brackets",
        )
    click.echo(_loaded(lambda path: convert_settings(path, os.environ), config), nl=False)


_DOCTOR_HELP: Final = """\
Go the way to every server, hop by hop, and say what was negotiated, how long it took, and where it fails.

CONFIG is the settings file; by default ./pooler.yaml, else /etc/hyperpool/pooler.yaml. DATABASE is the only one to
examine; for a name that the entry * stands for, it must be given.

The hops: finding addresses, TCP or a Unix socket, a proxy, TLS, the WebSocket's upgrade with its token, PostgreSQL's
own TLS, the login, and one empty query. They are made as the pooler makes them, and all hosts of a list are visited.
Nothing is listened on and nothing is started, so this can be done while the pooler runs.

\b
Examples:
  hyperpool doctor my.yaml                 all databases
  hyperpool doctor my.yaml app             one of them
  hyperpool doctor my.yaml --timeout 3     give each server 3 seconds
  hyperpool doctor my.yaml app --user ann  log in as ann
  hyperpool doctor my.yaml --json | jq '.databases[].servers[].failure'

\b
Exit codes:
  0  all is well, warnings at most
  1  something failed, or nothing could be examined
  2  the settings or the arguments are wrong
"""


@main.command(help=_DOCTOR_HELP)
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.argument("database", required=False)
@click.option(
    "--user",
    metavar="NAME",
    help="Log in as this user where the settings leave that to the client; by default the first whose password they "
    "hold.",
)
@click.option(
    "--timeout",
    type=_Seconds(min=0, min_open=True),
    metavar="SECONDS",
    help="Time for the way to one server; by default the setting server_connect_timeout.",
)
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON; docs/doctor.md describes it.")
def doctor(
    config: Path | None, database: str | None, user: str | None, timeout: float | None, *, json_wanted: bool
) -> NoReturn:
    """Go the way to every server, and tell."""
    settings = _load(_find(config))
    from hyperpool.doctor import command, examine  # noqa: PLC0415 - as in `serve`

    try:
        code = command.doctor(settings, examine.Wishes(database, user, timeout), json_wanted=json_wanted)
    except examine.UnknownDatabase as error:
        _fail(_EXIT_CONFIG, str(error))
    raise SystemExit(code)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Check the settings, and run nothing.")
def tunnel(config: Path, *, only_check: bool) -> NoReturn:
    """Run the far end of tunnels, inside a private network.

    CONFIG is its settings file. With the section `ingress`, poolers connect to it; with the section `poolers`, it
    connects to poolers. It forwards to the databases in the section `targets`, and nowhere else.

    Exit codes: 0 after SIGINT or SIGTERM, 1 when it cannot start, 2 when the settings are wrong.
    """
    settings = _loaded(load_tunnel, config)
    if only_check:
        click.echo(f"{config} is fine.")
        raise SystemExit(0)
    from hyperpool.service.signals import ignore  # noqa: PLC0415 - as in `serve`
    from hyperpool.service.tunnel import tunnel as run  # noqa: PLC0415

    try:
        code = run(settings, config)
    except StartupError as error:
        _fail(_EXIT_STARTUP, f"cannot start: {error}")
    ignore()
    raise SystemExit(code)


@main.command()
@click.option(
    "-h", "--host", envvar="PGHOST", default="127.0.0.1", show_default=True, help="Or a socket's directory."
)
@click.option("-p", "--port", envvar="PGPORT", default=6432, show_default=True, type=click.IntRange(1, 65535))
@click.option("-U", "--user", envvar="PGUSER", metavar="NAME", help="One of admin_users or stats_users.")
@click.option("--password", envvar="PGPASSWORD", help="Better in the environment variable PGPASSWORD.")
@click.option("-W", "--ask-password", is_flag=True, help="Ask for the password.")
@click.option(
    "--sslmode",
    envvar="PGSSLMODE",
    type=click.Choice([mode.value for mode in SslMode]),
    default=SslMode.PREFER.value,
    show_default=True,
    help="As in libpq.",
)
@click.option("--sslrootcert", envvar="PGSSLROOTCERT", default="", metavar="FILE", help="As in libpq.")
@click.option(
    "-n",
    "--interval",
    type=_Seconds(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Print everything once, with the rates of one interval, and end.")
@click.option("--json", "json_wanted", is_flag=True, help="The same as JSON.")
def top(  # noqa: PLR0913, PLR0917 - each of them is an option
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    ask_password: bool,
    sslmode: str,
    sslrootcert: str,
    interval: float,
    once: bool,
    json_wanted: bool,
) -> NoReturn:
    """Watch a pooler in the terminal: pools, clients, servers, waits, load, cache, tunnels, errors.

    It asks the pooler's console, so the pooler may be anywhere. Any user in stats_users or admin_users may look.

    Exit codes: 0 when you have seen enough, 1 when the pooler cannot be reached or does not let you in, 2 when the
    arguments are wrong, or when there is no terminal.
    """
    if not (once or json_wanted or sys.stdout.isatty()):
        _fail(
            _EXIT_CONFIG,
            "standard output is no terminal: --once prints everything once, --json the same as JSON",
        )
    if ask_password:
        password = click.prompt("Password", hide_input=True, err=True)
    from hyperpool.overview.collect import ColumnMissing  # noqa: PLC0415 - as in `serve`
    from hyperpool.top import command  # noqa: PLC0415
    from hyperpool.top.session import Target  # noqa: PLC0415

    target = Target(
        host=host,
        port=port,
        user=user or getpass.getuser(),
        password=None if password is None else Secret(password),
        sslmode=SslMode(sslmode),
        sslrootcert=sslrootcert,
    )
    try:
        code = command.top(target, command.Wishes(interval=interval, once=once, json=json_wanted))
    except (LoginFailed, ColumnMissing) as error:
        _fail(_EXIT_STARTUP, str(error))
    raise SystemExit(code)


def _find(config: Path | None) -> Path:
    """The settings file: the one that is named, else the first that is there."""
    found = config or next((path for path in LOOKED_UP if path.exists()), None)
    if found is None:
        places = " and ".join(str(path) if path.is_absolute() else f"./{path}" for path in LOOKED_UP)
        _fail(_EXIT_CONFIG, f"no settings file: looked for {places}; name one as an argument")
    return found


def _load(path: Path) -> Settings:
    return _loaded(load, path)


def _loaded(how: Callable[[Path], S], path: Path) -> S:
    """Settings, or the end of the process with all that is wrong with them."""
    try:
        return how(path)
    except ConfigError as error:
        count = len(error.problems)
        lines = "".join(f"\n  {problem}" for problem in error.problems)
        _fail(_EXIT_CONFIG, f"{path} has {count} problem{'s' * (count != 1)}:{lines}")


def _warn(lines: Iterable[str]) -> bool:
    """Say what will not do. Returns whether there was anything."""
    said = False
    for line in lines:
        said = True
        click.echo(f"hyperpool: {line}", err=True)
    return said


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"hyperpool: {message}", err=True)
    raise SystemExit(code)
