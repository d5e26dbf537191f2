"""A process that has hyperpool in memory, and becomes one command of it after the other: the part that forks.

An interpreter that imports all of hyperpool takes longer than most tests. `tests.support.launch` starts this module
once, and asks it for processes: each is a fork, and from there on does what ``python -m hyperpool`` does.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import pwd
import signal
import socket
import sys
from typing import Any

import hyperpool
from hyperpool.cli import main
from tests.support.counted import count_tasks

_MAX_REQUEST = 1 << 20
_MAX_FILES = 2


def _import_everything() -> None:
    for module in pkgutil.walk_packages(hyperpool.__path__, "hyperpool."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    codecs.lookup(
        "idna"
    )  # of socket.getaddrinfo; a fork of another user may not read the interpreter's files
    gc.collect()
    gc.freeze()


def _become(request: dict[str, Any], outputs: list[int]) -> None:
    """In the fork: be the process that was asked for."""
    os.setsid()
    files = [os.open(os.devnull, os.O_RDONLY), *outputs]
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if request["user"] is not None:
        account = pwd.getpwnam(request["user"])
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["hyperpool", *request["arguments"]]
    count_tasks()


def serve(wire: socket.socket) -> bool:
    """Answer requests for processes, and for their exit codes, one at a time.

    Args:
        wire: a socket that keeps messages apart; its end is the end of all processes.

    Returns:
        Whether this is a fork, which has to go on as hyperpool.
    """
    children: set[int] = set()
    while True:
        message, files, _, _ = socket.recv_fds(wire, _MAX_REQUEST, _MAX_FILES)
        if not message:
            break
        request = json.loads(message)
        if "pid" in request:
            _, status = os.waitpid(request["pid"], 0)
            children.discard(request["pid"])
            wire.send(b"%d %d" % (request["number"], os.waitstatus_to_exitcode(status)))
            continue
        pid = os.fork()
        if pid == 0:
            wire.close()
            _become(request, files)
            return True
        for file in files:
            os.close(file)
        children.add(pid)
        wire.send(b"%d %d" % (request["number"], pid))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return False


if __name__ == "__main__":
    _import_everything()
    with socket.socket(fileno=int(sys.argv[1])) as wire_of_tests:
        is_fork = serve(wire_of_tests)
    if is_fork:
        main()
