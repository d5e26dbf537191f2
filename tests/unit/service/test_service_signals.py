"""Signals that come when the pooler has come to its end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

_PROGRAM = """
import atexit, os, sys
from hyperpool import cli
from hyperpool.config import Settings

def late():
    os.kill(os.getpid(), int(sys.argv[1]))
    print("the end", flush=True)

atexit.register(late)
import hyperpool.service
hyperpool.service.serve = lambda *_arguments: 7
cli._load = lambda _path: Settings()
cli.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2],
)
def test_a_signal_while_python_ends(number: signal.Signals) -> None:
    """The exit code is that of the pooler, which has served all that there was to serve."""
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(int(number)), "serve", "pooler.yaml"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (7, "the end\n", "")
