"""Checking passwords in place of those who do it while the relay goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from hyperpool.auth.server_side import ClientAuthentication


def check_password(exchange: ClientAuthentication) -> None:
    """Conclude an exchange whose password is to be checked with a SCRAM verifier; else do nothing."""
    if exchange.password is not None:
        verifier = exchange.verifier_to_check()
        assert verifier is not None
        assert exchange.conclude(matches=verifier.accepts(decode(exchange.password))) == b""
