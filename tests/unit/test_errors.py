"""The error tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hyperpool import errors
from hyperpool.errors import (
    AuthenticationError,
    ClientRefused,
    ConfigError,
    ConnectFailed,
    HyperpoolError,
    LoginFailed,
    UpstreamError,
)
from hyperpool.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

SQLSTATE = re.compile("[0-9A-Z]{5}")


def family(root: type[HyperpoolError]) -> Iterator[type[HyperpoolError]]:
    """A class and everything below it."""
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def make(kind: type[HyperpoolError]) -> HyperpoolError:
    """An error of a kind, made with no more than it needs."""
    if kind is ClientRefused:
        return ClientRefused("no", "53300")
    if kind is ConfigError:
        return ConfigError(["one", "two"])
    return kind("no")


KINDS = list(family(HyperpoolError))


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_sqlstate(kind: type[HyperpoolError]) -> None:
    """Five digits and capitals, none of them a class that says success or a warning; a client can be told."""
    error = make(kind)
    assert SQLSTATE.fullmatch(error.sqlstate)
    assert error.sqlstate[:2] not in {"00", "01", "02"}
    assert messages.error_fields(messages.error_response("x", error.sqlstate)[5:])["C"] == error.sqlstate
    assert str(error)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The drawing at the top of the module shows every class of the module under its parent."""
    drawn = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)(\w+)", line)
        if match and match[2] in vars(errors):
            depth = len(match[1]) // 4 - 1
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1] if depth else "Exception"
    own = [kind for kind in KINDS if kind.__module__ == errors.__name__]
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in own}


def test_config_error_lists_every_problem() -> None:
    """One per line, and as a list."""
    error = ConfigError(["a is wrong", "b is missing"])
    assert error.problems == ["a is wrong", "b is missing"]
    assert str(error) == "a is wrong\nb is missing"


def test_authentication_error() -> None:
    """A wrong password by default; what else it is, it says."""
    assert AuthenticationError("no").sqlstate == "28P01"
    assert AuthenticationError("no", "28000").sqlstate == "28000"


def test_client_refused() -> None:
    """It always says why, and may say what to do."""
    error = ClientRefused("full", "53300", "wait")
    assert (str(error), error.sqlstate, error.hint) == ("full", "53300", "wait")
    assert ClientRefused("full", "53300").hint == ""


def test_upstream_errors() -> None:
    """They may hold the server's own words."""
    assert ConnectFailed("no").response == UpstreamError.response == b""
    own = LoginFailed("ours")
    assert (own.sqlstate, own.response) == ("08004", b"")
    theirs = LoginFailed("no", "28P01", b"E...")
    assert (str(theirs), theirs.sqlstate, theirs.response) == ("no", "28P01", b"E...")
