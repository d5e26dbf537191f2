"""The ingress: poolers connect to it from outside, and it connects them to targets in the private network.

Which target is meant, says the request: the query ``?address=`` or ``?target=``, else the header
``CF-Access-Jump-Destination``, else the path; a target's name or its address. When there is only one, nothing needs
to be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from hyperpool.auth.tokens import Token, TokenTable
from hyperpool.errors import ConnectFailed
from hyperpool.tunnel.gate import Gate, GateOptions
from hyperpool.tunnel.upgrade import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import trio

    from hyperpool.config.tunnel import GateSettings, IngressSettings, TokenSettings
    from hyperpool.tunnel.gate import Guest
    from hyperpool.tunnel.targets import Targets
    from hyperpool.tunnel.upgrade import UpgradeRequest

log = structlog.get_logger("ingress")

_DESTINATION: Final = b"cf-access-jump-destination"
_NOT_FOUND: Final = 404
_UNREACHABLE: Final = 502


class Ingress:
    """Lets poolers in and forwards them.

    Args:
        settings: the section.
        targets: where they may be forwarded to.

    Raises:
        TlsFault: certificate or key cannot be used.
    """

    def __init__(self, settings: IngressSettings, targets: Targets) -> None:
        self._settings = settings
        self._targets = targets
        self.gate = Gate("ingress", gate_options(settings, settings.tokens.values()), self._handle)

    def configure(self, settings: IngressSettings) -> None:
        """Take other settings over; listeners stay as they are.

        Raises:
            TlsFault: certificate or key cannot be used; everything stays as it was.
        """
        options = gate_options(settings, settings.tokens.values())
        self._settings = settings
        self.gate.configure(options)

    async def run(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serve until the gate is closed and all have left."""
        await self.gate.run(listeners)

    async def _handle(self, guest: Guest) -> None:
        token = self._settings.tokens[guest.token.name]  # The gate's tokens are these, at any time.
        wanted = _wanted(guest.request)
        target = self._targets.find(wanted, token.targets)
        if target is None:
            raise Refused(f"target {wanted!r} is not one that this token may reach", _NOT_FOUND)
        try:
            server = await self._targets.connect(target)
        except ConnectFailed as error:
            log.warning("target cannot be reached", target=target.name, peer=guest.peer, error=str(error))
            raise Refused(str(error), _UNREACHABLE, noteworthy=False) from error
        await self._targets.serve(
            guest.accept,
            server,
            target,
            lambda: self._allowed(guest.token.name),
            peer=guest.peer,
            token=guest.token.name,
            id=guest.token.id,
        )

    def _allowed(self, token: str) -> tuple[str, ...]:
        """The targets that a token is good for now; empty for all, as for one that is gone: that ends its guests."""
        settings = self._settings.tokens.get(token)
        return settings.targets if settings is not None else ()


def _wanted(request: UpgradeRequest) -> str:
    """The target that a request asks for; empty if it leaves that open."""
    for name in ("address", "target"):
        if name in request.query:
            return request.query[name]
    destination = request.headers.get(_DESTINATION)
    if destination is not None:
        return destination.decode("latin-1")
    return request.path.strip("/")


def gate_options(settings: GateSettings, tokens: Iterable[TokenSettings]) -> GateOptions:
    """What the settings mean for the gate.

    Raises:
        TlsFault: certificate or key cannot be used.
    """
    return GateOptions(
        tokens=TokenTable(Token(token.name, token.id, token.digest) for token in tokens),
        context=settings.tls_context(),
        max_connections=settings.max_connections,
        max_connections_per_token=settings.max_connections_per_token,
        max_handshakes=settings.max_handshakes,
        handshake_timeout=settings.handshake_timeout,
        max_header_size=settings.max_header_size,
        max_message_size=settings.max_message_size,
        keepalive=settings.keepalive,
        health_path=settings.health_path,
    )
