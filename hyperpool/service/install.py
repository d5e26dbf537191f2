"""Makes hyperpool a service of systemd's: a unit, a user, and settings to begin with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.errors import StartupError
from hyperpool.service import unit

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNIT: Final = "etc/systemd/system/hyperpool.service"
_SYSUSERS: Final = "etc/sysusers.d/hyperpool.conf"
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - nothing is written there
"""What ``ProtectHome=yes`` and ``PrivateTmp=yes`` hide."""


@attrs.frozen(kw_only=True)
class Installation:
    """What is installed, and where.

    Attributes:
        config: the settings file.
        user: who runs the service; is made if it is not there.
        root: the directory that stands for ``/``, as for an image of another system.
        overwrite: settings that are there are replaced.
    """

    config: Path
    user: str = "hyperpool"
    root: Path = Path("/")
    overwrite: bool = False

    def files(self) -> Iterator[tuple[Path, str, int]]:
        """Each file, by its place in the system, with its text and its mode."""
        yield Path("/", _SYSUSERS), unit.SYSUSERS.format(user=self.user), 0o644
        yield Path("/", _UNIT), unit.unit(command(), self.config, self.user, systemd_version()), 0o644
        yield self.config, unit.settings(self.config, self.user), 0o640

    def install(self) -> Iterator[str]:
        """Install it; what is there already stays as it is.

        Yields:
            What has been done, a line for people each.

        Raises:
            StartupError: it cannot be done.
        """
        try:
            for path, text, mode in self.files():
                yield self._write(path, text, mode)
                if path.name == Path(_SYSUSERS).name:
                    yield self._make_user()
            self._let_read()
            if self.root == Path("/") and Path("/run/systemd/system").is_dir():
                subprocess.run(["systemctl", "daemon-reload"], check=True)  # noqa: S607 - wherever it is
                yield "systemd has read the unit"
        except PermissionError as error:
            raise StartupError(f"cannot write {error.filename}: run this as root") from error
        except OSError as error:
            raise StartupError(f"cannot write {error.filename}: {error.strerror}") from error
        except subprocess.CalledProcessError as error:
            raise StartupError(f"{error.cmd[0]} failed: {(error.stderr or '').strip()}") from error

    def warnings(self) -> Iterator[str]:
        """What will keep the service from running."""
        program, python = command().split()[0], interpreter()
        if program.startswith(_HIDDEN):
            yield (
                f"{program} is where the service cannot see it: install hyperpool elsewhere, for example with "
                "python3 -m venv /opt/hyperpool, and run install-service from there"
            )
        elif python.startswith(_HIDDEN):
            yield (
                f"{program} is run by {python}, which is where the service cannot see it: make the virtual environment "
                "with a Python that is elsewhere, such as the system's /usr/bin/python3"
            )

    def _write(self, path: Path, text: str, mode: int) -> str:
        place = self._place(path)
        kept = path == self.config and not self.overwrite
        if place.exists() and (kept or place.read_text("utf-8") == text):
            return f"{path} is there already"
        known = place.exists()
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.new")
        fresh.write_text(text, "utf-8")
        fresh.chmod(mode)
        fresh.rename(place)
        return f"{path} is {'replaced' if known else 'written'}"

    def _make_user(self) -> str:
        if self._id_of("passwd") is not None:
            return f"user {self.user} is there already"
        sysusers = shutil.which("systemd-sysusers")
        if sysusers is not None:
            arguments = [sysusers, f"--root={self.root}", str(self._place(Path("/", _SYSUSERS)))]
        else:
            home = ["--home-dir", "/var/lib/hyperpool", "--shell", "/usr/sbin/nologin"]
            arguments = ["useradd", "--root", str(self.root), "--system", "--user-group", *home, self.user]
        subprocess.run(arguments, check=True, capture_output=True, text=True)  # noqa: S603 - the user is root
        return f"user {self.user} is made"

    def _let_read(self) -> None:
        """Let the service read its settings, which may hold secrets, and nobody else."""
        group = self._id_of("group")
        if group is not None and os.geteuid() == 0:
            os.chown(self._place(self.config), -1, group)

    def _id_of(self, table: str) -> int | None:
        """The number of the user, or of its group, as the system's table says."""
        path = self._place(Path("/etc", table))
        found = re.search(
            rf"^{re.escape(self.user)}:[^:]*:(\d+):",
            path.read_text("utf-8") if path.exists() else "",
            re.MULTILINE,
        )
        return None if found is None else int(found[1])

    def _place(self, path: Path) -> Path:
        return self.root / path.relative_to("/")


def command() -> str:
    """The program that runs now, as ``ExecStart=`` wants it."""
    program = Path(sys.executable).with_name("hyperpool")
    return str(program) if program.exists() else f"{sys.executable} -m hyperpool"


def interpreter() -> str:
    """The Python that runs now: what a virtual environment has is a link to it."""
    return os.path.realpath(sys.executable)


def systemd_version() -> int:
    """The version of systemd on this machine; where there is none, one that knows all."""
    program = shutil.which("systemctl")
    if program is None:
        return unit.TELLS_OF_STORE
    told = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)  # noqa: S603
    found = re.match(r"systemd (\d+)", told.stdout)
    return unit.TELLS_OF_STORE if found is None else int(found[1])
