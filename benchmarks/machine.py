"""What a run was made with: the machine, the versions, the revision."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.postgres import version_of
from benchmarks.ways import ROOT, find_program

if TYPE_CHECKING:
    from benchmarks.stage import Stage


def describe(stage: Stage) -> dict[str, object]:
    """Machine, versions and date, as the first line of a file of measurements has them."""
    description: dict[str, object] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": _proc_field("/proc/cpuinfo", "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory": f"{int(_proc_field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.1f} GiB",
        "kernel": platform.release(),
        "load average before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": " ".join(sys.version.split()),
        "hyperpool": version_of(stage.workspace, [sys.executable, "-m", "hyperpool"]),
        "revision": _revision(),
        "postgresql": version_of(stage.workspace, [stage.tools.bin_dir / "postgres"]),
        "pgbench": version_of(stage.workspace, [stage.tools.pgbench]),
    }
    if stage.pgbouncer is not None:
        description["pgbouncer"] = version_of(stage.workspace, stage.pgbouncer)
    if pgpool := find_program("pgpool"):
        description["pgpool-II"] = version_of(stage.workspace, [pgpool])
    if stage.overrides:
        description["settings of hyperpool"] = ", ".join(
            f"{key}={text}" for key, text in stage.overrides.items()
        )
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
