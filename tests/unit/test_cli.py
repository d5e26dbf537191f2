"""The command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from hyperpool import FORM, __version__, cli
from hyperpool.cli import main
from hyperpool.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from hyperpool.config import Settings
    from hyperpool.service import Manner

_SHIPPED = Path(__file__).parents[2] / "pooler.yaml"
_FINE = """\
pooler: {listen_addr: localhost, auth_type: trust}
databases: {app: }
users: {ann: }
"""
_BAD = "pooler: {listen_prot: 1}\n"


def _run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "120", **environ})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty directory, on a machine without settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "LOOKED_UP", (Path("pooler.yaml"), tmp_path / "etc" / "pooler.yaml"))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Path, Manner]]:
    """Note what would be served instead of serving it."""
    calls: list[tuple[Settings, Path, Manner]] = []

    def serve(settings: Settings, path: Path, manner: Manner) -> int:
        calls.append((settings, path, manner))
        return 0

    _replace_service(monkeypatch, serve)
    return calls


def _replace_service(monkeypatch: pytest.MonkeyPatch, serve: Callable[[Settings, Path, Manner], int]) -> None:
    monkeypatch.setattr("hyperpool.service.serve", serve)


def test_without_arguments_the_help_is_shown() -> None:
    """Nobody starts a pooler by accident."""
    bare = _run()
    assert (bare.exit_code, bare.stderr) == (0, "")
    assert bare.stdout == _run("--help").stdout == _run("-h").stdout


def test_the_help_teaches() -> None:
    """It shows how to start, where settings are looked up, and how to connect."""
    text = _run("--help").stdout
    for lesson in (
        "hyperpool serve",
        "hyperpool check",
        "/etc/hyperpool/pooler.yaml",
        "psql postgres://",
        "SIGHUP",
    ):
        assert lesson in text
    for command in ("serve", "check"):
        assert "/etc/hyperpool/pooler.yaml" in _run(command, "--help").stdout


def test_the_example_in_the_help_is_fine(tmp_path: Path) -> None:
    """What the help shows can be used as it stands."""
    _, _, below = _run("--help").stdout.partition("smallest kind:\n")
    example, _, _ = below.partition("\n\n")
    Path("my.yaml").write_text(example)
    assert _run("check", "my.yaml", ALICE_PASSWORD="hunter2").exit_code == 0


def test_the_version_is_shown() -> None:
    """In the form that pgbouncer and PostgreSQL use: name and number."""
    result = _run("--version")
    assert (result.exit_code, result.stdout) == (0, f"hyperpool {__version__} ({FORM})\n")


def test_python_can_run_it_as_a_module() -> None:
    """`python -m hyperpool` is the same program."""
    command = [sys.executable, "-m", "hyperpool", "--version"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=_SHIPPED.parent, check=True
    )
    assert done.stdout == f"hyperpool {__version__} ({FORM})\n"


def test_the_shipped_settings_are_fine() -> None:
    """`pooler.yaml` serves an embedded database `demo` on 127.0.0.1:6432, with two connections warm."""
    result = _run("check", str(_SHIPPED))
    assert (result.exit_code, result.stderr) == (0, "")
    for fact in (
        "127.0.0.1:6432",
        "scram-sha-256",
        "demo",
        "embedded",
        "transaction",
        "2 to 20, warm at start",
    ):
        assert fact in result.stdout


def test_check_prints_every_problem() -> None:
    """One line each on standard error, and exit code 2."""
    Path("bad.yaml").write_text(_BAD)
    result = _run("check", "bad.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "hyperpool: bad.yaml has 4 problems:",
        "  pooler.listen_prot: found an unknown setting; did you mean listen_port?",
        (
            "  pooler.listen_addr: found nothing to listen on, expected an address such as 127.0.0.1 here, or a "
            "directory as pooler.unix_socket_dir"
        ),
        (
            "  pooler.auth_type: found nothing, which means md5, but no user has a password, so nobody can log in; "
            "add entries to users or an auth_file"
        ),
        "  databases: found none, expected one or more; add an entry, '*' stands for every name",
    ]


def test_one_problem_is_not_called_problems() -> None:
    """A small matter of grammar."""
    result = _run("check", "none.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("hyperpool: none.yaml has 1 problem:\n  cannot read 'none.yaml'")


def _check(text: str, **environ: str) -> str:
    Path("my.yaml").write_text(text)
    result = _run("check", "my.yaml", **environ)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize(
    ("pooler", "facts"),
    [
        ("listen_addr: ['::1', '*']", ["[::1]:6432", "*:6432"]),
        ("unix_socket_dir: /run/x, listen_port: 7", ["/run/x/.s.PGSQL.7"]),
        ("listen_addr: localhost, max_client_conn: 77", ["up to 77"]),
        ("listen_addr: localhost, query_wait_timeout: 0, server_lifetime: 90", ["no limit", "90s"]),
        ("listen_addr: localhost", ["1, not asked for a password"]),
    ],
)
def test_check_shows_what_the_pooler_will_do(pooler: str, facts: list[str]) -> None:
    """Listeners as addresses, limits with their units."""
    shown = _check(f"pooler: {{auth_type: trust, {pooler}}}\ndatabases: {{app: }}\nusers: {{ann: }}\n")
    for fact in facts:
        assert fact in shown


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        ("app: {host: db, port: 1, dbname: main}", ["db:1", "main", "the client's", "up to 20"]),
        ("app: {host: 'fd00::1', user: bob, pool_size: 0}", ["[fd00::1]:5432", "bob", "up to any number"]),
        (
            "app: {host: /run, min_pool_size: 2, reserve_pool_size: 3}",
            ["/run/.s.PGSQL.5432", "2 to 20, 3 in reserve"],
        ),
        ("'*': {pool_mode: statement}", ["*", "the client's", "statement"]),
        ("'[bold]x': ", ["[bold]x"]),
    ],
)
def test_check_shows_what_each_database_is(entry: str, facts: list[str]) -> None:
    """Its server, and the pool that its clients get. Names are not taken for markup."""
    shown = _check(_FINE.replace("app: ", entry))
    for fact in facts:
        assert fact in shown


def test_check_shows_which_databases_have_a_cache() -> None:
    """And up to which age their answers are served; without any, there is nothing to show."""
    assert "cache" not in _check(_FINE)
    shown = _check(_FINE.replace("app: ", "app: {pool_mode: transaction, cache: {max_age: 90}}, other: "))
    assert "cache" in shown
    assert "up to 90s" in shown
    assert "none" in shown


def test_check_shows_users_with_settings_of_their_own() -> None:
    """Others are only counted."""
    shown = _check(
        _FINE.replace("{ann: }", "{ann: {pool_mode: session, query_wait_timeout: 0}, bob: {pool_size: 3}}")
    )
    assert "Users with their own settings" in shown
    assert "no limit" in shown
    assert "Users with their own settings" not in _check(_FINE)


def test_check_tells_how_many_users_cannot_log_in() -> None:
    """A user without a password is known, and that is all."""
    text = _FINE.replace("trust", "md5").replace("{ann: }", "{ann: , bob: {password: x}}")
    assert "2, of whom 1 cannot log in: no password" in _check(text)


def test_check_shows_no_secrets() -> None:
    """Neither passwords of the file nor those of the environment."""
    text = _FINE.replace("{app: }", "{app: {user: ann, password: hunter2}}").replace(
        "{ann: }", "{ann: {password: '${PASSWORD}'}}"
    )
    assert "hunter" not in _check(text, PASSWORD="hunter3")


def test_check_escapes_what_cannot_be_printed() -> None:
    """Texts with control characters or odd bytes do not reach the terminal as they are."""
    assert "a\\x1bb" in _check(_FINE.replace("{app: }", '{app: {dbname: "a\\eb"}}'))


def test_serve_hands_over_the_settings(served: list[tuple[Settings, Path, Manner]]) -> None:
    """With the path, from which a reload reads them again; the exit code is the service's."""
    Path("my.yaml").write_text(_FINE)
    result = _run("serve", "my.yaml")
    assert result.exit_code == 0
    ((settings, path, manner),) = served
    assert list(settings.databases) == ["app"]
    assert path == Path("my.yaml")
    assert not manner.take_over
    successor = [sys.executable, "-m", "hyperpool", "serve", "--take-over", str(path.absolute())]
    assert list(manner.command) == successor
    assert _run("serve", "--take-over", "my.yaml").exit_code == 0
    assert served[-1][2].take_over


@pytest.mark.parametrize("command", ["restart", "drain"])
def test_commands_to_a_pooler_that_is_not_there(command: str, tmp_path: Path) -> None:
    """Where it was looked for is told: as named, or as the settings say."""
    Path("my.yaml").write_text(_FINE.replace("pooler: {", f"pooler: {{control_socket: {tmp_path}/c, "))
    for arguments in (["--socket", f"{tmp_path}/c"], ["my.yaml"]):
        result = _run(command, *arguments)
        assert result.exit_code == 1
        assert result.stderr == (
            f"hyperpool: cannot {command}: no pooler at {tmp_path}/c: No such file or directory; see control_socket\n"
        )


@pytest.mark.parametrize("command", ["restart", "drain"])
def test_commands_to_a_pooler_that_takes_none(command: str) -> None:
    """Its settings give it no control socket."""
    Path("my.yaml").write_text(_FINE)
    result = _run(command, "my.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        f"hyperpool: cannot {command}: the pooler of my.yaml takes no commands, without control_socket and pidfile; "
        "set one, or leave my.yaml out for the service of systemd's\n"
    )


@pytest.mark.parametrize("command", ["serve", "check"])
def test_settings_are_looked_up(
    served: list[tuple[Settings, Path, Manner]], tmp_path: Path, command: str
) -> None:
    """The current directory goes before /etc; without either, the places are told."""
    result = _run(command)
    assert result.exit_code == 2
    assert result.stderr == (
        f"hyperpool: no settings file: looked for ./pooler.yaml and {tmp_path}/etc/pooler.yaml; "
        "name one as an argument\n"
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pooler.yaml").write_text(_FINE)
    assert _run(command).exit_code == 0
    Path("pooler.yaml").write_text(_BAD)
    assert "pooler.yaml has 4 problems" in _run(command).stderr


def test_the_places_of_the_settings_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory, then /etc/hyperpool."""
    monkeypatch.undo()
    assert (Path("pooler.yaml"), Path("/etc/hyperpool/pooler.yaml")) == cli.LOOKED_UP


def test_serve_opens_nothing_when_the_settings_are_wrong(served: list[tuple[Settings, Path, Manner]]) -> None:
    """Every problem is printed, and the service is not started."""
    Path("bad.yaml").write_text(_BAD)
    result = _run("serve", "bad.yaml")
    assert result.exit_code == 2
    assert "did you mean listen_port?" in result.stderr
    assert served == []


def test_a_failed_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 1, and without a traceback."""

    def serve(settings: Settings, path: Path, manner: Manner) -> int:
        raise StartupError("port 6432 is taken")

    _replace_service(monkeypatch, serve)
    Path("my.yaml").write_text(_FINE)
    result = _run("serve", "my.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "hyperpool: cannot start: port 6432 is taken\n"


def test_the_exit_code_of_the_service_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the service says."""

    def serve(*arguments: Any) -> int:
        return 3

    _replace_service(monkeypatch, serve)
    Path("my.yaml").write_text(_FINE)
    assert _run("serve", "my.yaml").exit_code == 3


def test_wrong_arguments_are_told_with_the_usage() -> None:
    """Exit code 2, as for wrong settings."""
    result = _run("sevre")
    assert result.exit_code == 2
    assert "No such command 'sevre'" in result.stderr


_TUNNELED = """\
pooler: {listen_addr: localhost, auth_type: trust}
agents: {listen_port: 7432, tokens: {site: {id: a, secret: 0123456789abcdef}}}
databases:
  near: {transport: [{agent: {name: site}}]}
  proxied: {transport: [{proxy: {url: "http://corner:3128"}}, {websocket: {url: "wss://gw/db"}}]}
  far: {transport: [{websocket: {url: "ws://gw/db?key=0123456789abcdef", token_id: a, token_secret: fedcba98}}]}
users: {ann: }
"""
_TUNNEL = """\
targets: {db: {}}
ingress: {listen_port: 1, tokens: {a: {id: a, secret: 0123456789abcdef}}}
"""


def test_check_shows_ways_through_tunnels(tmp_path: Path) -> None:
    """The steps of transports and the names of agents, and no secret."""
    (tmp_path / "tunneled.yaml").write_text(_TUNNELED)
    result = _run("check", "tunneled.yaml")
    assert result.exit_code == 0
    for fact in (
        "port 7432: site",
        "agent site",
        "tcp gw:80 > websocket /db",
        "proxy corner:3128 > tls > websocket /db",
    ):
        assert fact in result.stdout
    for secret in ("0123456789abcdef", "fedcba98"):
        assert secret not in result.stdout


def test_check_breaks_no_words(tmp_path: Path) -> None:
    """On a narrow terminal, what is too wide for a table stands one below the other."""
    (tmp_path / "tunneled.yaml").write_text(_TUNNELED)
    shown = _run("check", "tunneled.yaml", COLUMNS="60").stdout
    for fact in ("tcp gw:80 > websocket /db", "proxy corner:3128 > tls > websocket /db", "the client's"):
        assert fact in shown
    assert max(map(len, shown.splitlines())) <= 60


def test_the_tunnels_settings_can_be_checked(tmp_path: Path) -> None:
    """Nothing is opened; problems are all told, with exit code 2."""
    (tmp_path / "fine.yaml").write_text(_TUNNEL)
    assert _run("tunnel", "--check", "fine.yaml").stdout == "fine.yaml is fine.\n"
    (tmp_path / "bad.yaml").write_text(
        _TUNNEL.replace("listen_port: 1", "listen_port: x").replace("db: {}", "db: 5")
    )
    result = _run("tunnel", "--check", "bad.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("hyperpool: bad.yaml has 2 problems:\n  ")


def test_a_tunnel_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says why, with exit code 1."""

    def run(settings: object, path: Path) -> int:
        raise StartupError("the address is taken")

    monkeypatch.setattr("hyperpool.service.tunnel.tunnel", run)
    (tmp_path / "fine.yaml").write_text(_TUNNEL)
    result = _run("tunnel", "fine.yaml")
    assert (result.exit_code, result.stderr) == (1, "hyperpool: cannot start: the address is taken\n")


def test_convert(tmp_path: Path) -> None:
    """A pgbouncer.ini becomes YAML that says the same; problems are told as for any settings file."""
    ini = tmp_path / "pgbouncer.ini"
    ini.write_text("[databases]\n; the shop\nshop = host=db.example\n[pgbouncer]\nlisten_addr = *\n")
    result = _run("convert", str(ini))
    assert result.exit_code == 0
    assert "  # the shop\n  shop:\n    host: db.example\n" in result.output
    (tmp_path / "pooler.yaml").write_text(result.output + "users: {ann: {password: x}}\n")
    assert _run("check", str(tmp_path / "pooler.yaml")).exit_code == 0
    ini.write_text("[pgbouncer]\nlog_stats = yes\n")
    result = _run("convert", str(ini))
    assert result.exit_code == 2
    assert "pgbouncer.ini:2: log_stats: found the text 'yes', expected 0 or 1" in result.stderr


def test_what_is_yaml_already_is_not_converted(tmp_path: Path) -> None:
    """That is told."""
    file = tmp_path / "pooler.yaml"
    file.write_text("pooler: {}\n")
    result = _run("convert", str(file))
    assert result.exit_code == 2
    assert "is not a file of pgbouncer's" in result.stderr


def test_check_tells_what_has_no_effect(tmp_path: Path) -> None:
    """With its line; the file is fine all the same."""
    ini = tmp_path / "pgbouncer.ini"
    ini.write_text("[pgbouncer]\nlisten_addr = *\npkt_buf = 4096\n[databases]\n* =\n")
    result = _run("check", str(ini))
    assert result.exit_code == 0
    assert "pgbouncer.ini:3: pkt_buf: has no effect" in "".join(result.output.split("\n"))
