"""pgbouncer's command line: ``hyperpool-pgbouncer``, and ``pgbouncer`` as a link to it.

Exit codes are those of ``hyperpool serve``: 0 is success, 1 means that the pooler could not start, 2 that the settings
or the arguments are wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from hyperpool import COMPATIBLE, FORM, __version__
from hyperpool.config import load
from hyperpool.errors import ConfigError, StartupError

_EXIT_STARTUP: Final = 1
_EXIT_CONFIG: Final = 2

_PROGRAM: Final = "from hyperpool.pgbouncer import main; main()"

_HELP: Final = """\
hyperpool, a connection pooler for PostgreSQL, in place of pgbouncer: with its files and its command line.

CONFIG_FILE is a pgbouncer.ini.

\b
Examples:
  hyperpool-pgbouncer /etc/pgbouncer/pgbouncer.ini        serve, until Ctrl-C
  hyperpool-pgbouncer -d /etc/pgbouncer/pgbouncer.ini     in the background
  hyperpool check /etc/pgbouncer/pgbouncer.ini            what the file means, and what is wrong with it
"""


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("config", metavar="CONFIG_FILE", type=click.Path(path_type=Path))
@click.option(
    "-d", "--daemon", is_flag=True, help="Run in the background; needs pidfile, and logfile or syslog."
)
@click.option("-q", "--quiet", is_flag=True, help="Do not log to standard error.")
@click.option(
    "-R",
    "--reboot",
    is_flag=True,
    help="Take over from the process in the pidfile, which ends when its clients have left.",
)
@click.option(
    "-u", "--user", default="", metavar="USERNAME", help="Become this user; goes before the setting user."
)
@click.option("-v", "--verbose", count=True, help="Log more.")
@click.version_option(
    __version__, "-V", "--version", message=f"PgBouncer {COMPATIBLE} (hyperpool %(version)s, {FORM})"
)
def main(config: Path, user: str, verbose: int, *, daemon: bool, quiet: bool, reboot: bool) -> NoReturn:
    """Serve clients until a signal says otherwise."""
    try:
        settings = load(config)
    except ConfigError as error:
        _fail(_EXIT_CONFIG, "\n".join(error.problems))
    from hyperpool.service import Manner, serve  # noqa: PLC0415 - `--help` does without the data plane
    from hyperpool.service.signals import ignore  # noqa: PLC0415

    options = ["-q"] * (quiet or daemon) + (["-u", user] if user else []) + ["-v"] * verbose
    successor = (sys.executable, "-c", _PROGRAM, "-R", *options, str(config.absolute()))
    manner = Manner(daemon, quiet, reboot, user, verbose, successor)
    try:
        code = serve(settings, config, manner)
    except StartupError as error:
        _fail(_EXIT_STARTUP, f"cannot start: {error}")
    ignore()
    raise SystemExit(code)


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"pgbouncer: {message}", err=True)
    raise SystemExit(code)
