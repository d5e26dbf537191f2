"""What a run was made with: the machine, the versions, the revision."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hyperpool
from benchmarks.peers import ROOT, version_of

if TYPE_CHECKING:
    from benchmarks.peers import Peers


def describe(peers: Peers) -> dict[str, object]:
    """Machine, versions and date, as they go into the JSON file."""
    description: dict[str, object] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": _proc_field("/proc/cpuinfo", "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory": _proc_field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "load_average_at_start": os.getloadavg(),
        "python": sys.version.split()[0],
        "hyperpool": hyperpool.__version__,
        "revision": _revision(),
        "postgresql": version_of(peers.workspace, [peers.tools.bin_dir / "postgres"]),
        "pgbench": version_of(peers.workspace, [peers.tools.pgbench]),
    }
    if peers.pgbouncer is not None:
        description["pgbouncer"] = version_of(peers.workspace, peers.pgbouncer)
    if peers.overrides:
        description["hyperpool_settings"] = dict(peers.overrides)
    return description


def _proc_field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _revision() -> str:
    """The commit of the checkout, marked if hyperpool's files differ from it; "unknown" outside of one."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "hyperpool")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with local changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout.strip()
