"""How to start a pooler: hyperpool, or pgbouncer with the same settings.

The names of the settings are pgbouncer's, so one test runs against both. `HYPERPOOL_TEST_TARGET=pgbouncer`
proves that a test asks for pgbouncer's behaviour; tests of what only hyperpool does, or what old versions of
pgbouncer do differently, are marked `hyperpool_only`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import yaml

TARGET: Final = os.environ.get("HYPERPOOL_TEST_TARGET", "hyperpool")
WORKERS: Final = int(os.environ.get("HYPERPOOL_TEST_WORKERS", "1"))
Config = dict[str, dict[str, Any]]


def write_config(directory: Path, config: Config) -> Path:
    """Write the settings in the target's own format and return the file to start it with.

    `HYPERPOOL_TEST_WORKERS` says how many processes hyperpool is, where a test does not.
    """
    if TARGET == "hyperpool" and WORKERS > 1 and "agents" not in config:
        config = {**config, "pooler": {"workers": WORKERS, **config["pooler"]}}
    if TARGET == "pgbouncer":
        return _write_ini(directory, config)
    path = directory / "pooler.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def command(config_path: Path) -> list[str]:
    """Return the command line that serves a configuration."""
    if TARGET == "pgbouncer":
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        return [program, *(["-u", "postgres"] if os.geteuid() == 0 else []), str(config_path)]
    return hyperpool_command("serve", str(config_path))


def hyperpool_command(*arguments: str) -> list[str]:
    """Return a command line of hyperpool's CLI; warnings are errors and a fatal signal prints all stacks."""
    return [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "hyperpool", *arguments]


def environment() -> dict[str, str]:
    """Return the environment of the pooler's process; it runs the package beside these tests."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def _write_ini(directory: Path, config: Config) -> Path:
    directory.chmod(0o755)
    users = directory / "userlist.txt"
    lines = [
        '"{}" "{}"'.format(name, str(user.get("password", "")).replace('"', '""'))
        for name, user in config.get("users", {}).items()
    ]
    users.write_text("\n".join(lines) + "\n")
    pooler = {"unix_socket_dir": "", "auth_file": users, **config["pooler"]}
    parts = ["[databases]"]
    parts += [f"{name} = {_pairs(database)}" for name, database in config.get("databases", {}).items()]
    parts += ["[users]"]
    overrides = {
        name: {key: value for key, value in user.items() if key != "password"}
        for name, user in config.get("users", {}).items()
    }
    parts += [f"{name} = {_pairs(user)}" for name, user in overrides.items() if user]
    parts += ["[pgbouncer]"]
    parts += [f"{key} = {_plain(value)}" for key, value in pooler.items()]
    path = directory / "pgbouncer.ini"
    path.write_text("\n".join(parts) + "\n")
    return path


def _pairs(values: dict[str, Any]) -> str:
    return " ".join("{}='{}'".format(key, _plain(value).replace("'", "''")) for key, value in values.items())


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
