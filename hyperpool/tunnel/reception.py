"""Where agents arrive at the pooler: the section ``agents``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.transport.agents import AgentRegistry
from hyperpool.tunnel.gate import Gate, listen
from hyperpool.tunnel.ingress import gate_options
from hyperpool.tunnel.refusals import printable

if TYPE_CHECKING:
    import trio

    from hyperpool.config.tunnel import AgentsSettings
    from hyperpool.transport.passed import PassedSockets
    from hyperpool.tunnel.gate import GateOptions, Guest

_INSTANCE: Final = b"hyperpool-agent"


class Reception:
    """Lets agents in, and keeps their connections for the steps of transports that want them.

    Args:
        settings: the section.

    Attributes:
        registry: the agents that are here.

    Raises:
        TlsFault: certificate or key cannot be used.
    """

    def __init__(self, settings: AgentsSettings) -> None:
        self._settings = settings
        self.registry = AgentRegistry(settings.wait_timeout, settings.open_timeout)
        self._gate = Gate("agents", gate_options(settings, settings.tokens.values()), self._handle)

    async def listen(self, passed: PassedSockets | None = None) -> list[trio.SocketListener]:
        """Open the listeners.

        Args:
            passed: sockets that are open already; those that are of use here are taken.

        Raises:
            StartupError: an address cannot be had; nothing is left open then, but what has not been taken.
        """
        where = "agents.listen_addr and agents.listen_port"
        return await listen(self._settings.listen_addr, self._settings.listen_port, where, passed)

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        """Let agents in until cancelled."""
        await self._gate.run(listeners)

    @staticmethod
    def prepare(settings: AgentsSettings) -> GateOptions:
        """Read what other settings name, for `configure`.

        Raises:
            TlsFault: certificate or key cannot be used.
        """
        return gate_options(settings, settings.tokens.values())

    def configure(self, settings: AgentsSettings, options: GateOptions) -> None:
        """Take other settings over; listeners stay as they are.

        Args:
            settings: the section.
            options: from `prepare`.
        """
        self._settings = settings
        self.registry.wait_timeout = settings.wait_timeout
        self.registry.open_timeout = settings.open_timeout
        self._gate.configure(options)

    async def _handle(self, guest: Guest) -> None:
        name = self._settings.tokens[guest.token.name].agent_name
        instance = printable(guest.request.headers.get(_INSTANCE, b"").decode("latin-1")) or guest.peer
        stream = await guest.accept(f"agent {name} ({guest.peer})")
        try:
            await self.registry.keep(name, instance, guest.peer, stream, guest.verdict)
        finally:
            await stream.aclose()
