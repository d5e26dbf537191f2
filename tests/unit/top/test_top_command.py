"""What `hyperpool top` says when it has nothing to show, or nowhere to show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing
from click.testing import CliRunner

from hyperpool.cli import main
from hyperpool.errors import ConnectFailed
from hyperpool.overview.collect import ColumnMissing
from hyperpool.top.command import Watch, Wishes, top
from hyperpool.top.session import VIEWS, ConsoleSession, Target
from tests.support.network import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from hyperpool.top.session import View


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


@pytest.mark.parametrize("once", [False, True])
def test_another_version(monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    """What a view lacks is told, on a terminal, too; also where there is no standard input."""
    ours, _theirs = trio.testing.memory_stream_pair()

    async def opened(target: Target) -> ConsoleSession:
        return ConsoleSession(ours, 1.0)

    async def shown(session: ConsoleSession) -> dict[str, View | None]:
        return {name: (["something"], []) for name in VIEWS}

    monkeypatch.setattr(ConsoleSession, "open", opened)
    monkeypatch.setattr(ConsoleSession, "show", shown)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ColumnMissing):
        top(Target(host="::1", port=6432, user="ann"), Wishes(once=once))


def test_no_terminal() -> None:
    """What can be had instead is told."""
    result = CliRunner().invoke(main, ["top", "--port", str(free_port())])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--once" in result.stderr
