"""`hyperpool tunnel` as a process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import yaml

from tests.support import launch, targets
from tests.support.network import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from types import TracebackType

SECRET: Final = "a secret that nobody shall read 1"
NEW_SECRET: Final = "a secret that nobody shall read 2"
_LIMIT: Final = 20.0
_DRAIN_LIMIT: Final = 1.0


def reloads(log: str) -> int:
    """How often the log of a far end says that settings were taken over, or why they were not."""
    return len(re.findall(r" reloaded |reload: settings are unchanged", log))


class FarEnd:
    """A running far end. A context manager: leaving it ends the process, which must do so cleanly.

    Args:
        document: its settings.

    Attributes:
        port: of its ingress.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="hpt-tunnel-"))
        self.path = self._directory / "tunnel.yaml"
        self.port = int(document.get("ingress", {}).get("listen_port", 0))
        self._log = self._directory / "log"
        self.write(document)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.destroy()

    def write(self, document: dict[str, Any]) -> None:
        """Write the settings."""
        self.document = document
        self.path.write_text(yaml.safe_dump(document))

    def start(self) -> None:
        """Start it, once more if it has ended."""
        with self._log.open("ab") as log:
            self.process = launch.start(
                targets.hyperpool_command("tunnel", str(self.path)), log, self._directory
            )

    def reload(self, document: dict[str, Any]) -> None:
        """Write other settings, say so, and wait until they are taken over."""
        before = reloads(self.log_text())
        self.write(document)
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: reloads(self.log_text()) > before, what="the tunnel has reloaded")

    def log_text(self) -> str:
        """The log."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait for something in the log."""

        def told() -> bool:
            runs = self.process.poll() is None
            log = self.log_text()
            found = log.count(text) >= times
            assert found or runs, f"the far end has ended:\n{log}"
            return found

        eventually(told, within=_LIMIT, what=f"{text!r} in the log, {times} times")

    def open_files(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - names are enough

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(_LIMIT)

    def stop(self) -> None:
        """Ask it to end, and insist; it must do so cleanly."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_DRAIN_LIMIT)
            except subprocess.TimeoutExpired:
                if "stopped" not in self.log_text():  # behind that, a signal would end the interpreter
                    self.process.send_signal(signal.SIGINT)
            assert self.process.wait(_LIMIT) == 0, self.log_text()[-4000:]
        self.check_log()

    def check_log(self) -> None:
        """No traceback and no secret may be in the log."""
        text = self.log_text()
        assert "Traceback" not in text, text[-4000:]
        assert SECRET not in text
        assert NEW_SECRET not in text

    def destroy(self) -> None:
        """End it by force if it still runs, and remove its files."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(_LIMIT)
        shutil.rmtree(self._directory, ignore_errors=True)


def ingress(database_port: int, **change: Any) -> dict[str, Any]:
    """Settings of an ingress in front of a database on 127.0.0.1; `change` is for the section `ingress`."""
    tokens = {"pooler": {"id": "pooler.access", "secret": SECRET}}
    return {
        "targets": {"db": {"port": database_port}},
        "ingress": {"listen_port": free_port(), "tokens": tokens, **change},
    }


def to_ingress(port: int, secret: str = SECRET, path: str = "/") -> list[dict[str, Any]]:
    """The transport of a database behind it."""
    url = f"ws://127.0.0.1:{port}{path}"
    return [{"websocket": {"url": url, "token_id": "pooler.access", "token_secret": secret}}]


def agents(**change: Any) -> dict[str, Any]:
    """The pooler's section `agents`."""
    tokens = {"site": {"id": "site.access", "secret": SECRET}}
    return {"listen_port": free_port(), "tokens": tokens, "wait_timeout": 3, **change}


def agent(database_port: int, section: dict[str, Any], secret: str = SECRET, **change: Any) -> dict[str, Any]:
    """Settings of an agent in front of a database; `change` is for the entry of the pooler."""
    url = f"ws://127.0.0.1:{section['listen_port']}/"
    step = {"url": url, "token_id": "site.access", "token_secret": secret}
    return {
        "targets": {"db": {"port": database_port}},
        "poolers": {"main": {"transport": [{"websocket": step}], "retry_max": 0.5, **change}},
    }
