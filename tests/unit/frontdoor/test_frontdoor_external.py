"""What an LDAP server is sent, whatever bytes a client has for its name and its password."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from hyperpool.config.ldap import LdapOptions
from hyperpool.frontdoor import external
from hyperpool.frontdoor.external import check_ldap
from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("ldap3")

_ACCEPTED = b"\x30\x0c\x02\x01%b\x61\x07\x0a\x01\x00\x04\x00\x04\x00"
"""The BindResponse to a message with a small number: success (RFC 4511, section 4.2.2)."""


class Server:
    """An LDAP server that lets in whoever comes first, and keeps what it has been sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closing.is_set():
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(10)
                data = connection.recv(4096)
                # Some connections only try whether it is there.
                if data:
                    self.received = data
                    connection.sendall(_ACCEPTED % data[4:5])

    def close(self) -> None:
        """Nobody comes any more."""
        self._closing.set()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """One that is asked once."""
    made = Server()
    yield made
    made.close()


def test_a_password_is_sent(server: Server) -> None:
    """And the server's word counts."""
    options = LdapOptions(servers=("127.0.0.1",), port=server.port, prefix="uid=")
    assert check_ldap(options, "ann", "pencil")
    assert server.received.endswith(b"\x04\x07uid=ann\x80\x06pencil")


@pytest.mark.parametrize("password", [b"\xff", "\u00ad".encode(), b"\x07"])
def test_a_password_that_cannot_be_sent_is_wrong(server: Server, password: bytes) -> None:
    """It counts as a failure of the client: the server would let in anybody just now."""
    options = LdapOptions(servers=("127.0.0.1",), port=server.port, prefix="uid=")
    assert not check_ldap(options, "ann", decode(password))
    assert b"uid=ann" not in server.received


def test_a_name_that_is_not_utf8_is_nobody(server: Server) -> None:
    """LDAP has names in UTF-8 alone (RFC 4511, section 4.1.2)."""
    options = LdapOptions(servers=("127.0.0.1",), port=server.port, prefix="uid=")
    assert not check_ldap(options, decode(b"ann\xff"), "pencil")
    assert server.received == b""


@pytest.mark.parametrize(
    ("prefix", "suffix", "user", "name"),
    [
        ("uid=", ",ou=people", "bob,ou=admins", "uid=bob\\,ou\\=admins,ou=people"),
        ("uid=", ",ou=people", "bob+cn=x", "uid=bob\\+cn\\=x,ou=people"),
        ("cn=team-", "", '#"\\;<> ', 'cn=team-\\#\\"\\\\\\;\\<\\>\\ '),
        ("EXAMPLE\\", "", "o'neil, b", "EXAMPLE\\o'neil, b"),
        ("", "@example.net", "a+b", "a+b@example.net"),
    ],
)
def test_a_name_is_one_value(server: Server, prefix: str, suffix: str, user: str, name: str) -> None:
    """No name leads elsewhere in the tree; names that are not distinguished ones stay as they are."""
    options = LdapOptions(servers=("127.0.0.1",), port=server.port, prefix=prefix, suffix=suffix)
    assert check_ldap(options, user, "pencil")
    assert server.received.endswith(b"\x04%c%b\x80\x06pencil" % (len(name), name.encode()))


def test_an_entry_without_a_name_is_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server would take it for somebody who does not say who he is, and let him in."""
    monkeypatch.setattr(external, "_search", lambda *arguments: "")
    options = LdapOptions(servers=("127.0.0.1",), port=server.port, basedn="dc=example")
    assert not check_ldap(options, "ann", "pencil")
    assert server.received == b""
