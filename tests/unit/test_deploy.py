"""The container's files: nothing is built here, but what they name is there, and a linter is content."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpool.config import load

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_the_dockerfile_is_sound() -> None:
    """As far as hadolint can tell."""
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint on this machine")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_needs_is_sent_to_the_builder() -> None:
    """And nothing else: what pyproject.toml names, and the package."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert lines[0] == "*"
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert kept >= {"hyperpool", "pyproject.toml", "README.md", "LICENSE"}
    assert "setup.py" in kept or not (ROOT / "setup.py").exists()


def test_the_image_runs_as_nobody_in_particular() -> None:
    """What comes last is a user of its own, and the entry point is the program without a shell."""
    last = DOCKERFILE.split("\nFROM ")[-1]
    (uid,) = re.findall(r"^USER (\d+)$", last, re.MULTILINE)
    assert f"useradd --uid {uid} " in last
    assert int(uid) >= 1000
    assert 'ENTRYPOINT ["/opt/hyperpool/bin/hyperpool"]' in last


def test_compose_names_what_is_there() -> None:
    """Services, secrets, volumes and files; ports are open to this machine alone."""
    services = COMPOSE["services"]
    for name, service in services.items():
        assert ("image" in service) != ("build" in service), name
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / "deploy" / source).exists(), volume
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert (ROOT / "deploy" / services["pooler"]["build"] / "Dockerfile").exists()


def test_the_pooler_s_settings_are_sound(tmp_path: Path) -> None:
    """With the secrets that the service gets; it listens where ports lead to, and its server is a service."""
    text = (ROOT / "deploy" / "pooler.yaml").read_text("utf-8")
    service = COMPOSE["services"]["pooler"]
    for number, name in enumerate(service["secrets"]):
        (tmp_path / name).write_text(f"{number}" * 32)
    file = tmp_path / "pooler.yaml"
    file.write_text(text.replace("/run/secrets", str(tmp_path)), "utf-8")
    settings = load(file, {})
    assert settings.http is not None
    assert settings.http.token != settings.http.admin_token
    listening = {settings.pooler.listen_port, settings.http.listen_port}
    assert {int(port.split(":")[-1]) for port in service["ports"]} == listening
    assert {database.host for database in settings.databases.values()} <= set(COMPOSE["services"])
    assert {
        int(port) for port in re.findall(r"^EXPOSE (\d+) (\d+)$", DOCKERFILE, re.MULTILINE)[0]
    } == listening
