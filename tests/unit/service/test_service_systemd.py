"""What systemd passes to a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from hyperpool.service import systemd

_PROGRAM = """
import json, os, sys
from hyperpool.service.systemd import activated
from hyperpool.transport.passed import socket_name
found = activated(os.environ)._sockets
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps([[[one.role, one.fixed, socket_name(one.sock), os.get_inheritable(one.sock.fileno())]
                   for one in found], left]))
"""


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("hyperpool.socket:agents", ["clients", "agents"]),
        ("", ["clients", "clients"]),
        ("agents", ["agents", "clients"]),
    ],
)
def test_socket_activation(names: str, roles: list[str]) -> None:
    """The descriptors from 3 on, with their roles; no child gets them, or is told of any."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        fds = [one.fileno(), two.fileno()]
        program = f'exec 3<&{fds[0]} 4<&{fds[1]}; LISTEN_PID=$$ exec "$@"'
        environment = {**os.environ, "LISTEN_FDS": "2"}
        if names:
            environment["LISTEN_FDNAMES"] = names
        done = subprocess.run(
            ["bash", "-c", program, "bash", sys.executable, "-c", _PROGRAM],
            pass_fds=fds,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        expected = [
            [role, True, f"127.0.0.1:{sock.getsockname()[1]}", False]
            for role, sock in zip(roles, (one, two), strict=True)
        ]
    assert json.loads(done.stdout) == [expected, []]


def test_sockets_for_another_process() -> None:
    """They are not ours, whatever the variables say."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "HOME": "/"}
    assert not systemd.activated(environ)
    assert environ == {"HOME": "/"}
