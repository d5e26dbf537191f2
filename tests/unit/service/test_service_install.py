"""Making hyperpool a service of systemd's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hyperpool.cli import main
from hyperpool.config import load
from hyperpool.service import install, unit
from hyperpool.service.install import Installation

if TYPE_CHECKING:
    from click.testing import Result

_USER = "hyperpool:x:998:997:hyperpool:/var/lib/hyperpool:/usr/sbin/nologin\n"
_ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system that has the user already, and the program where the service can see it."""
    monkeypatch.setattr(install, "command", lambda: "/opt/hyperpool/bin/hyperpool")
    monkeypatch.setattr(install, "interpreter", lambda: "/usr/bin/python3.11")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\n{_USER}")
    (tmp_path / "etc/group").write_text(f"hyperpool:x:{os.getgid()}:\n")
    return tmp_path


def _install(root: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["install-service", "--root", str(root), *more])


def test_what_is_installed(root: Path) -> None:
    """A unit, what makes a user, and settings that others cannot read."""
    result = _install(root)
    assert result.exit_code == 0, result.output
    assert "/etc/systemd/system/hyperpool.service is written" in result.output
    assert "user hyperpool is there already" in result.output
    text = (root / "etc/systemd/system/hyperpool.service").read_text()
    assert f"ExecStart={install.command()} serve /etc/hyperpool/pooler.yaml" in text
    assert (root / "etc/sysusers.d/hyperpool.conf").read_text().startswith("u hyperpool - ")
    config = root / "etc/hyperpool/pooler.yaml"
    assert config.stat().st_mode & 0o777 == 0o640
    assert config.stat().st_gid == os.getgid()
    assert [path.name for path in root.rglob(".*")] == []
    assert f"then: {install.command()} check /etc/hyperpool/pooler.yaml && systemctl" in result.output


def test_twice_is_once(root: Path) -> None:
    """Settings that are there stay; a unit of an older version is replaced."""
    config, service = root / "etc/hyperpool/pooler.yaml", root / "etc/systemd/system/hyperpool.service"
    assert _install(root).exit_code == 0
    first = service.read_text()
    config.write_text("# mine\n")
    service.write_text("# old\n")
    result = _install(root)
    assert "/etc/hyperpool/pooler.yaml is there already" in result.output
    assert "/etc/systemd/system/hyperpool.service is replaced" in result.output
    assert config.read_text() == "# mine\n"
    assert service.read_text() == first
    assert "pooler.yaml is replaced" in _install(root, "--overwrite-config").output
    assert config.read_text() != "# mine\n"


def test_print_changes_nothing(root: Path) -> None:
    """It shows each file, with another user and another place for the settings."""
    result = _install(root, "--print", "--user", "web", "--config", "/srv/web.yaml")
    assert result.exit_code == 0
    for line in (
        "# /etc/sysusers.d/hyperpool.conf",
        "u web - ",
        "User=web",
        "# /srv/web.yaml",
        "install -m 0640 -g web",
    ):
        assert line in result.output
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["group", "passwd"]


def test_the_settings_to_begin_with_are_good(root: Path) -> None:
    """As they are, with the one password that they ask for; and with all that is commented out."""
    assert _install(root).exit_code == 0
    config = root / "etc/hyperpool/pooler.yaml"
    config.with_name("app.password").write_text("secret\n")
    settings = load(config, {})
    assert settings.notes == ()
    assert settings.pooler.drain_rate
    text = config.read_text()
    assert "hyperpool check /etc/hyperpool/pooler.yaml\n" in text
    config.write_text(text.replace("#admin_users", "admin_users").replace("#http", "http"))
    changed = load(config, {})
    assert changed.pooler.admin_users == ("admin",)
    assert changed.http is not None


@pytest.mark.skipif(_ANALYZE is None, reason="no systemd on this machine")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """It finds nothing to complain of, and thinks that the service is exposed to little."""
    path = tmp_path / "hyperpool.service"
    path.write_text(
        unit.unit("/bin/true", Path("/etc/hyperpool/pooler.yaml"), "root", install.systemd_version())
    )
    done = subprocess.run([str(_ANALYZE), "verify", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "hyperpool" in line]) == (0, [])
    rated = subprocess.run(
        [str(_ANALYZE), "security", "--offline=true", "--threshold=20", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout


_RELOAD = "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize(
    ("version", "kind", "says_store"),
    [(252, _RELOAD, True), (253, "Type=notify-reload", True), (254, "Type=notify-reload", False)],
)
def test_what_older_versions_of_systemd_need(version: int, kind: str, says_store: bool) -> None:
    """A reload of their own, and to be told of the store."""
    text = unit.unit("/h", Path("/c"), "u", version)
    assert f"\n{kind}\n" in text
    assert ("Environment=FDSTORE=" in text) == says_store


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes users")
@pytest.mark.parametrize("program", ["systemd-sysusers", "useradd"])
def test_a_user_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """By systemd, or without it; once."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    (tmp_path / "etc").mkdir()
    if program == "useradd":
        done: list[list[str]] = []
        real = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "systemd-sysusers" else real(name))

        def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            done.append(arguments)
            return subprocess.CompletedProcess(arguments, 0, "systemd 300", "")

        monkeypatch.setattr(subprocess, "run", run)
        lines = list(
            Installation(config=Path("/etc/hyperpool/pooler.yaml"), root=tmp_path, user="pool").install()
        )
        assert done[0][0] == "useradd"
        assert done[0][-1] == "pool"
    else:
        lines = list(
            Installation(config=Path("/etc/hyperpool/pooler.yaml"), root=tmp_path, user="pool").install()
        )
        assert "pool:" in (tmp_path / "etc/passwd").read_text()
    assert "user pool is made" in lines


def test_what_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is told."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = _install(root)
    assert result.exit_code == 1
    assert "cannot install the service: cannot write" in result.stderr
    assert "run this as root" in result.stderr


@pytest.mark.parametrize("place", ["/home/ann/.venv", "/tmp/venv"])
def test_a_program_that_the_service_cannot_see(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A virtual environment below /home or /tmp is hidden from it."""
    monkeypatch.setattr(install, "command", lambda: f"{place}/bin/hyperpool")
    only_shown, done = _install(root, "--print"), _install(root)
    assert (only_shown.exit_code, done.exit_code) == (0, 1)
    for result in (only_shown, done):
        assert "is where the service cannot see it" in result.stderr
    assert "Next:" not in done.output


def test_a_python_that_the_service_cannot_see(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment has a link to the Python that it was made with, which may be in somebody's home."""
    monkeypatch.setattr(install, "interpreter", lambda: "/root/.local/share/uv/python/bin/python3.13")
    done = _install(root)
    assert done.exit_code == 1
    assert "is run by /root/.local/share/uv/python/bin/python3.13, which is where" in done.stderr
    assert "Next:" not in done.output
