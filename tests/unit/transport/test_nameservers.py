"""Names that are looked up at servers of the settings' choice."""

from __future__ import annotations

import builtins
import socket
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from hyperpool.config import PoolerSettings
from hyperpool.errors import StartupError
from hyperpool.transport.nameservers import lookup_by, make_resolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_RECORDS = {
    ("db.example.", "A"): "192.0.2.1",
    ("db.example.", "AAAA"): "2001:db8::1",
    ("four.example.", "A"): "192.0.2.4",
    ("short.corp.example.", "A"): "192.0.2.5",
}


@pytest.fixture
async def server(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[tuple[str, Path, int]]:
    """A DNS server of ours, which knows `_RECORDS`: a resolv.conf, a hosts file that is not there, and the port."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        nursery.start_soon(_serve, sock)
        port = sock.getsockname()[1]
        file = tmp_path / "resolv.conf"
        file.write_text(
            f"nameserver 127.0.0.1\nsearch corp.example\noptions timeout:1 attempts:1 port:{port}\n"
        )
        yield str(file), tmp_path / "hosts", port
        nursery.cancel_scope.cancel()


async def _serve(sock: Any) -> None:
    while True:
        data, peer = await sock.recvfrom(4096)
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        (question,) = query.question
        kind = question.to_text().split()[-1]
        name = question.name.to_text()
        if record := _RECORDS.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, record))
        elif not any(known == name for known, _ in _RECORDS):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        await sock.sendto(answer.to_wire(), peer)


async def test_names_are_asked_for_at_those_servers(server: tuple[str, Path, int]) -> None:
    """Both kinds of addresses, and names that are completed."""
    look_up = lookup_by(*server)
    found = await look_up("db.example", 5432)
    assert sorted(found) == [
        (socket.AF_INET, ("192.0.2.1", 5432)),
        (socket.AF_INET6, ("2001:db8::1", 5432, 0, 0)),
    ]
    assert await look_up("four.example", 1) == [(socket.AF_INET, ("192.0.2.4", 1))]
    assert await look_up("short", 1) == [(socket.AF_INET, ("192.0.2.5", 1))]


async def test_a_name_that_is_not_there(server: tuple[str, Path, int]) -> None:
    """It is an error as the system's resolver has it, and is remembered as one."""
    with pytest.raises(socket.gaierror) as caught:
        await lookup_by(*server)("nowhere.example", 1)
    assert caught.value.errno == socket.EAI_NONAME


async def test_what_needs_no_dns(tmp_path: Path) -> None:
    """Addresses, and names in the file of hosts: no server is asked, as there is none."""
    conf, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    conf.write_text("nameserver 192.0.2.99\n")
    hosts.write_text("# names\n192.0.2.7 db.local DB # ours\n::7 db\n")
    look_up = lookup_by(str(conf), hosts)
    assert await look_up("192.0.2.3", 5) == [(socket.AF_INET, ("192.0.2.3", 5))]
    assert await look_up("::1", 5) == [(socket.AF_INET6, ("::1", 5, 0, 0))]
    assert await look_up("db", 5) == [(socket.AF_INET, ("192.0.2.7", 5)), (socket.AF_INET6, ("::7", 5, 0, 0))]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The pooler does not start, and says why."""
    with pytest.raises(StartupError, match="as resolv_conf"):
        make_resolver(PoolerSettings(resolv_conf=str(tmp_path / "nowhere")))


def test_without_dnspython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the setting is told what it needs."""
    original = builtins.__import__

    def refuse(name: str, *more: Any, **options: Any) -> Any:
        if name.startswith("dns"):
            raise ImportError(name)
        return original(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StartupError, match="its extra dns"):
        make_resolver(PoolerSettings(resolv_conf=str(tmp_path / "resolv.conf")))
    assert make_resolver(PoolerSettings()) is not None
