"""What `hyperpool top` says when nobody is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hyperpool.errors import ConnectFailed
from hyperpool.top.command import Watch
from hyperpool.top.session import ConsoleSession, Target
from tests.support.network import free_port

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_nobody_is_there(host: str) -> None:
    """The address is told once, an IPv6 one in brackets."""
    port = free_port()
    watch = Watch(Target(host=host, port=port, user="ann"))
    await watch.look()
    assert (
        watch.note == f"cannot connect to {f'[{host}]' if ':' in host else host}:{port}: Connection refused"
    )


async def test_no_socket_is_there(tmp_path: Path) -> None:
    """The socket's file is what was looked for."""
    watch = Watch(Target(host=str(tmp_path), port=6432, user="ann"))
    await watch.look()
    assert watch.note == f"cannot connect to {tmp_path}/.s.PGSQL.6432: No such file or directory"


async def test_errors_that_name_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told with the address."""

    async def broken(target: Target) -> ConsoleSession:
        raise ConnectFailed("the connection broke")

    monkeypatch.setattr(ConsoleSession, "open", broken)
    watch = Watch(Target(host="::1", port=6432, user="ann"))
    await watch.look()
    assert watch.note == "[::1]:6432: the connection broke"
