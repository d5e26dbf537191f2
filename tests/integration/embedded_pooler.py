"""A stand-in for a pooler that brings one embedded database along, run as a program of its own.

It drops root's rights if it is told to, starts the database, prints one line of JSON (where the database is, or
why not), keeps it running until standard input ends, and stops it. So it can be killed, and be another user.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import signal
import sys
from pathlib import Path

import trio

from hyperpool.config import Secret
from hyperpool.embedded import EmbeddedPostgres, binaries
from hyperpool.errors import StartupError


async def play(arguments: argparse.Namespace) -> None:
    """Run the database until standard input ends."""
    postgres = EmbeddedPostgres(
        "demo",
        user=arguments.role,
        password=Secret(arguments.password),
        dbname=arguments.dbname,
        state_dir=Path(arguments.state_dir),
    )
    try:
        await postgres.start()
    except StartupError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
        sys.exit(1)
    print(json.dumps({"host": postgres.host, "port": postgres.port}), flush=True)  # noqa: T201
    async with trio.open_nursery() as nursery:
        nursery.start_soon(postgres.keep_running)
        await trio.lowlevel.wait_readable(sys.stdin)
        nursery.cancel_scope.cancel()
    await postgres.stop()


def main() -> None:
    """Become the user that the arguments name, and play the pooler."""
    parser = argparse.ArgumentParser()
    for name in ("packages", "state-dir", "role", "password", "dbname", "cache"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.packages)
    binaries.SYSTEM_CACHE = Path(arguments.cache)  # type: ignore[misc]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.uid != os.geteuid():
        codecs.lookup("idna")  # the standard library may be out of reach for that user
        os.setgroups([])
        os.setgid(arguments.gid)
        os.setuid(arguments.uid)
    trio.run(play, arguments)


if __name__ == "__main__":
    main()
