"""Session state of clients that are not UTF-8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import rawclient as raw

if TYPE_CHECKING:
    from tests.support.sharing import Sharing

pytestmark = pytest.mark.hyperpool_only


def test_values_in_an_encoding(sharing: Sharing) -> None:
    """What a client has set in its own encoding is the same text on each server."""
    client, other = sharing.client(client_encoding="LATIN1"), sharing.client()
    client.send(raw.frame(b"Q", "SET my.setting = 'é'; SET application_name = 'x'\0".encode("latin-1")))
    client.receive_until()
    for _ in range(2):
        assert sharing.everywhere(client, "SELECT ascii(current_setting('my.setting'))") == str(ord("é"))
        assert (
            sharing.everywhere(other, "SELECT current_setting('my.setting', true) IS NOT DISTINCT FROM 'é'")
            == "f"
        )


def test_names_in_an_encoding(sharing: Sharing) -> None:
    """A search_path with names that are not ASCII is the same names on each server."""
    client, other = sharing.client(client_encoding="LATIN1"), sharing.client()
    client.send(raw.frame(b"Q", "SET search_path = public, \"Käse\", 'größe'\0".encode("latin-1")))
    client.receive_until()
    for _ in range(2):
        sql = "SELECT convert_to(current_setting('search_path'), 'UTF8')"
        expected = 'public, "Käse", "größe"'.encode()
        assert sharing.everywhere(client, sql) == rf"\x{expected.hex()}"
        assert sharing.everywhere(other, "SHOW search_path") == '"$user", public'


def test_an_encoding_with_backslashes_in_its_characters(sharing: Sharing) -> None:
    """A character whose second byte is a backslash (SJIS) is a character, and neither an escape nor two."""
    client, other = sharing.client(client_encoding="SJIS"), sharing.client()
    client.send(raw.frame(b"Q", "SET my.setting = '表''表'\0".encode("shift_jis")))
    assert raw.kinds(client.receive_until()) == b"CZ"
    for _ in range(2):
        sql = "SELECT convert_to(current_setting('my.setting'), 'UTF8')"
        assert sharing.everywhere(client, sql) == rf"\x{'''表'表'''.encode().hex()}"
        assert sharing.everywhere(other, "SELECT coalesce(current_setting('my.setting', true), '')") == ""
