"""The section `http`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Loader, Problems

_TOKEN = "0123456789abcdef"


def test_an_empty_section_is_enough(load_with: Loader) -> None:
    """It is for this machine alone; without the section, there is no HTTP."""
    assert load_with().http is None
    http = load_with(http=None).http
    assert http is not None
    assert (http.listen_addr, http.is_local, http.token) == (("127.0.0.1",), True, None)


@pytest.mark.parametrize(
    ("addresses", "local"),
    [
        (["127.0.0.2", "::1", "localhost"], True),
        ("*", False),
        (["127.0.0.1", "192.0.2.1"], False),
        ("pooler.example", False),
    ],
)
def test_who_can_connect(load_with: Loader, addresses: Any, local: bool) -> None:
    """Loopback addresses, and the name that stands for them, can be reached from this machine alone."""
    http = load_with(http={"listen_addr": addresses, "token": _TOKEN}).http
    assert http is not None
    assert http.is_local == local


def test_tokens_from_elsewhere(load_with: Loader, tmp_path: Path) -> None:
    """From a file, a credential or the environment; they are not shown."""
    (tmp_path / "t").write_text(f"{_TOKEN}1\n")
    for section, environ, suffix in (
        ({"token_file": "t"}, {}, "1"),
        ({"token_file": "credential:t"}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, "1"),
        ({"token": "${SHOWN}"}, {"SHOWN": f"{_TOKEN}2"}, "2"),
    ):
        http = load_with(environ, http=section).http
        assert http is not None
        assert http.token is not None
        assert http.token.reveal() == f"{_TOKEN}{suffix}"
        assert _TOKEN not in repr(http)


@pytest.mark.parametrize(
    ("http", "problem"),
    [
        (5, "http: found a number, expected a mapping"),
        ({"listen_prot": 1}, "http.listen_prot: found an unknown setting; did you mean listen_port?"),
        ({"listen_addr": []}, "http.listen_addr: found nothing to listen on"),
        ({"listen_addr": "*"}, "http.token: found none, but others than this machine can connect"),
        ({"token": "short"}, "http.token: found a token that can be guessed"),
        ({"admin_token": "short"}, "http.admin_token: found a token that can be guessed"),
        ({"token": _TOKEN, "admin_token": _TOKEN}, "http.admin_token: found the same as token"),
        ({"token": _TOKEN, "token_file": "x"}, "http.token_file: found together with token"),
    ],
)
def test_problems(problems_with: Problems, http: Any, problem: str) -> None:
    """Each has a place and a remedy, and tells no token."""
    (found,) = problems_with(http=http)
    assert found.startswith(problem)
    assert _TOKEN not in found
