"""A systemd as PID 1, in namespaces of its own and with a file system of its own in memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parents[2]
_SCRIPT: Final = Path(__file__).with_name("root.sh")
_SYSTEMD: Final = Path("/lib/systemd/systemd")
_PROGRAMS: Final = ("unshare", "nsenter", "systemctl", "systemd-analyze", "python3")
_NAMESPACES: Final = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")
_PATIENCE: Final = 30.0


def obstacle() -> str:
    """Why this cannot be done on this machine; empty if it can be tried."""
    if os.geteuid() != 0:
        return "only root can make namespaces with a systemd in them"
    if not _SYSTEMD.exists():
        return f"{_SYSTEMD} is not there"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing"
    system = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if system.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        return (
            "the system's own Python is another version than the one that runs this, whose libraries are used"
        )
    groups = _cgroups()
    if groups is None:
        return "no control groups of version 2 are mounted: mount -t cgroup2 none /sys/fs/cgroup/unified"
    if not os.access(groups, os.W_OK):
        return f"{groups} cannot be written to"
    return ""


def _cgroups() -> Path | None:
    """Where the tree of control groups of version 2 is mounted; None if it is not."""
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


class Machine:
    """A machine with a systemd and hyperpool on it, and nothing else. Its network is that of the real one.

    Attributes:
        log: what systemd has written.
    """

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="hpt-systemd-"))
        self.log = self._directory / "systemd.log"
        root = self._directory / "root"
        root.mkdir()
        groups = _cgroups()
        if groups is None:
            raise RuntimeError(obstacle())
        self._group = groups / self._directory.name
        self._group.mkdir()
        join = f"echo $$ > {self._group}/cgroup.procs; "
        command = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "sh", str(_SCRIPT), str(root)]
        command += [str(ROOT), sysconfig.get_path("purelib")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", f'{join}exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._pid = self._find_systemd()
            self._wait_until_running()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, command: str, *, check: bool = True, timeout: float = 120.0) -> str:
        """Run a command line as root, there.

        Returns:
            What it has written, to both of its outputs.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            [*self._enter, "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, there."""
        place = Path(path)
        subprocess.run(
            [*self._enter, "sh", "-c", f"mkdir -p {place.parent} && cat > {place} && chmod {mode:o} {place}"],
            input=text,
            text=True,
            check=True,
        )

    def show(self, name: str, unit: str = "hyperpool") -> str:
        """A property of a unit."""
        return self.run(f"systemctl show --value -p {name} {unit}").strip()

    @property
    def _enter(self) -> list[str]:
        flags = [f"--{name.removeprefix('--')}" for name in _NAMESPACES]
        return ["nsenter", f"--target={self._pid}", *flags, "--root", "--wd"]

    def _find_systemd(self) -> int:
        """The process id that the systemd has outside."""
        deadline = time.monotonic() + _PATIENCE
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while time.monotonic() < deadline and self._process.poll() is None:
            for child in children.read_text().split():
                if os.path.realpath(f"/proc/{child}/exe").endswith("/systemd/systemd"):
                    return int(child)
            time.sleep(0.05)
        raise RuntimeError(f"no systemd:\n{self.log.read_text(errors='replace')}")

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (state := self.run("systemctl is-system-running", check=False).strip()) != "running":
            if time.monotonic() > deadline or self._process.poll() is not None:
                failed = self.run("systemctl --failed --no-legend", check=False)
                raise RuntimeError(f"systemd is {state}: {failed}\n{self.log.read_text(errors='replace')}")
            time.sleep(0.1)

    def _end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        # Whatever was in there has been killed, and takes a moment to go.
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                for group in sorted(self._group.glob("**/"), reverse=True):
                    group.rmdir()
            except OSError:
                time.sleep(0.05)
            else:
                break
        shutil.rmtree(self._directory)
