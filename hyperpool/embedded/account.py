"""Whom PostgreSQL runs as, and running programs as that account.

PostgreSQL refuses to run as root. A pooler that runs as root starts it as the owner of its data directory or,
for a new one, as the first account of `CANDIDATES` that exists. Any other pooler starts it as itself.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Final

import attrs
import trio

from hyperpool.errors import StartupError

CANDIDATES: Final = ("postgres", "nobody")
"""Accounts for new data directories of a pooler that runs as root, best first."""


@attrs.frozen
class Account:
    """A user of the operating system.

    Attributes:
        name: for messages.
        uid: numeric user id.
        gid: numeric id of its primary group; programs run in no other group.
        borrowed: whether it is another account than the pooler's own. Such an account may be barred from
            directories on the way to its files.
    """

    name: str
    uid: int
    gid: int
    borrowed: bool

    @property
    def user(self) -> int | None:
        """The ``user`` argument for starting a process."""
        return self.uid if self.borrowed else None

    @property
    def group(self) -> int | None:
        """The ``group`` argument for starting a process."""
        return self.gid if self.borrowed else None

    @property
    def extra_groups(self) -> list[int] | None:
        """The ``extra_groups`` argument for starting a process."""
        return [] if self.borrowed else None

    def own(self, path: Path) -> None:
        """Make `path`, which the pooler has just created, this account's."""
        if self.borrowed:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    async def run(self, command: list[str], directory: Path) -> tuple[int, str]:
        """Run a program to its end.

        Returns:
            Its exit status, and what it printed.

        Raises:
            OSError: this account cannot execute it.
        """
        result = await trio.run_process(
            command,
            stdin=b"",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=directory,
            env=environment(),
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
            start_new_session=True,
        )
        return result.returncode, result.stdout.decode(errors="replace").strip()

    async def can_enter(self, directory: Path) -> bool:
        """Whether this account may search `directory` and all directories above it."""
        status, _ = await self.run(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)], Path("/"))
        return status == 0


def environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs.

    It is made from nothing, because the pooler's own may hold secrets, which SQL could read from ``/proc``,
    and libpq's variables, which would redirect PostgreSQL's tools.
    """
    kept = ("LD_LIBRARY_PATH", "TZ", "TZDIR")
    return {"PATH": os.defpath, **{name: os.environ[name] for name in kept if name in os.environ}}


def choose(data_dir: Path) -> Account:
    """Choose whom PostgreSQL runs as.

    Args:
        data_dir: the data directory, which may not exist yet.

    Raises:
        StartupError: the pooler runs as root, and there is no account to run PostgreSQL as.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(_name_of(uid), uid, os.getegid(), borrowed=False)
    if data_dir.exists() and (owner := data_dir.stat()).st_uid != 0:
        return Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid, borrowed=True)
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, borrowed=True)
    raise StartupError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(CANDIDATES)} exists: "
        "start hyperpool as an ordinary user, or create an account named postgres"
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
