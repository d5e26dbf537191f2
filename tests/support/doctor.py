"""`hyperpool doctor` as a command, and what it finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import yaml

from tests.support import farend, launch
from tests.support.gateways import OTHER_TOKEN, TOKEN
from tests.support.poolers import config_for
from tests.support.postgres import ROLES

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

WRONG: Final = "not-the-password-4711"
_SECRETS: Final = (
    TOKEN.secret,
    OTHER_TOKEN.secret,
    farend.SECRET,
    WRONG,
    *(role.password for role in ROLES if role.password),
)


class Doctor:
    """Runs the command; no secret may be in what it prints.

    Args:
        directory: for the settings files.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "doctor.yaml"

    def write(self, config: Config) -> str:
        """Write the settings file, and return its name."""
        self._path.write_text(yaml.safe_dump(config, sort_keys=False))
        return str(self._path)

    def run(self, config: Config, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to the end."""
        done = launch.run(
            "doctor", self.write(config), *arguments, environment={"PYTHONUTF8": "1", **environment}
        )
        for text in (done.stdout, done.stderr):
            assert "Traceback" not in text, text
            assert not [secret for secret in _SECRETS if secret in text], text
        return done

    def json(self, config: Config, *arguments: str) -> dict[str, Any]:
        """Run it, and read its JSON."""
        done = self.run(config, "--json", *arguments)
        assert done.stderr == ""
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["ok"] is (done.returncode == 0)
        return found

    def server(self, config: Config, *arguments: str) -> dict[str, Any]:
        """The only server of the only database that is examined."""
        (database,) = self.json(config, *arguments)["databases"]
        (server,) = database["servers"]
        found: dict[str, Any] = server
        return found


def settings(pg: PostgresCluster, **database: Any) -> Config:
    """Settings with one database."""
    config = config_for(pg)
    config["databases"]["app"].update(database)
    return config


def kinds(server: dict[str, Any]) -> list[str]:
    """What hops were made."""
    return [hop["kind"] for hop in server["hops"]]


def hop(server: dict[str, Any], kind: str) -> dict[str, Any]:
    """The only hop of a kind."""
    (found,) = (one for one in server["hops"] if one["kind"] == kind)
    assert isinstance(found, dict)
    return found
