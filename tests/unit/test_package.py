"""What is published: an archive of the sources, and a wheel that is built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(
    ".*",
    "build",
    "dist",
    "site",
    "*.egg-info",
    "__pycache__",
    "node_modules",
    "target",
    "results",
    "*.so",
    "*.c",
)


def test_the_wheel(tmp_path: Path) -> None:
    """It holds the whole package, with the dashboard's files, and nothing else; and it runs."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
    # Pure, because the compiler takes minutes; the other form is installed by whoever runs these tests.
    environ = {**os.environ, "HYPERPOOL_PURE": "1"}
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(source),
    ]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Deprecat" not in told, told
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (_,) = (tmp_path / "dist").glob("*.tar.gz")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {"hyperpool"}
    wanted = {
        path.relative_to(source)
        for path in (source / "hyperpool").rglob("*")
        if path.suffix in {".py", ".js", ".css", ".html", ".svg", ".pxd", ".pyx"} or path.name == "py.typed"
    }
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*")}
    assert not wanted - found
    program = "import hyperpool.dashboard.routes; from hyperpool.cli import main; main(['--version'])"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=unpacked, env=environ, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("hyperpool ")
