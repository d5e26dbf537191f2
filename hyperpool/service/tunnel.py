"""``hyperpool tunnel``: from its settings to a running far end, and back to nothing."""

from __future__ import annotations

import ipaddress
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import structlog
import trio

from hyperpool import __version__
from hyperpool.config.tls import TlsFault
from hyperpool.config.tunnel import load_tunnel
from hyperpool.errors import ConfigError
from hyperpool.service.limits import ensure_open_files
from hyperpool.service.logs import configure_logging
from hyperpool.service.signals import drop
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from hyperpool.tunnel.agent import Agent
from hyperpool.tunnel.gate import listen
from hyperpool.tunnel.ingress import Ingress
from hyperpool.tunnel.targets import Targets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hyperpool.config.tunnel import IngressSettings, TunnelSettings

log = structlog.get_logger("tunnel")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DNS_TTL: Final = 15.0


def tunnel(settings: TunnelSettings, config_path: Path) -> int:
    """Run the far end of tunnels until a signal ends it.

    Args:
        settings: as loaded from `config_path`.
        config_path: read again on SIGHUP.

    Returns:
        The exit code of the process.

    Raises:
        StartupError: it cannot start; nothing is left open.
    """
    configure_logging(settings.tunnel)
    if settings.ingress is not None:
        # Each stream has a connection at either end.
        ensure_open_files(2 * settings.ingress.max_connections, "ingress.max_connections")
    return trio.run(TunnelProcess(settings, config_path).run)


class TunnelProcess:
    """The process: an ingress, agents, or both.

    Args:
        settings: all of them.
        config_path: read again on SIGHUP.
    """

    def __init__(self, settings: TunnelSettings, config_path: Path) -> None:
        self._settings = settings
        self._at_start = settings
        self._config_path = config_path
        self._context = DialContext(options=TcpOptions(), resolver=Resolver(_DNS_TTL, _DNS_TTL))
        self._targets = Targets(settings.targets, self._context)
        self._ingress: Ingress | None = None
        self._agents: dict[str, Agent] = {}

    async def run(self) -> int:
        """Start, serve, drain and stop.

        Raises:
            StartupError: it cannot start.
        """
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            listeners = await self._listen()
            async with trio.open_nursery() as nursery:
                if self._ingress is not None:
                    nursery.start_soon(self._ingress.run, listeners)
                for name in self._settings.poolers:
                    self._start_agent(name, nursery)
                log.info(
                    "tunnel is up", version=__version__, targets=len(self._settings.targets), pid=os.getpid()
                )
                await self._obey(signals, nursery)
            await drop(signals, len(_SIGNALS))
        log.info("stopped")
        return 0

    async def _listen(self) -> list[trio.SocketListener]:
        ingress = self._settings.ingress
        if ingress is None:
            return []
        self._ingress = Ingress(ingress, self._targets)
        where = "ingress.listen_addr and ingress.listen_port"
        listeners = await listen(ingress.listen_addr, ingress.listen_port, where)
        _warn_of_plain_text(ingress)
        names = ", ".join(f"{address}:{ingress.listen_port}" for address in ingress.listen_addr)
        log.info("listening", addresses=names, tls=bool(ingress.tls_cert_file))
        return listeners

    def _start_agent(self, name: str, nursery: trio.Nursery) -> None:
        def allowed() -> tuple[str, ...] | None:
            link = self._settings.poolers.get(name)
            return None if link is None else link.targets

        agent = Agent(self._settings.poolers[name], self._targets, self._context, random.random, allowed)
        self._agents[name] = agent
        nursery.start_soon(agent.run)

    async def _obey(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        """Reload on SIGHUP; otherwise drain. A second signal, or ``drain_timeout``, ends what is left."""
        draining = False
        async for number in signals:
            if number == signal.SIGHUP:
                if not draining:
                    self._reload(nursery)
                continue
            if draining:
                break
            draining = True
            self._drain(nursery)
        nursery.cancel_scope.cancel()

    def _drain(self, nursery: trio.Nursery) -> None:
        """Take nothing new, and let streams end."""
        log.info("waiting for streams to end; a second signal ends at once", streams=self._targets.streams)
        if self._ingress is not None:
            self._ingress.gate.close()
        for agent in self._agents.values():
            agent.close()
        nursery.start_soon(self._end_of_drain, nursery)

    async def _end_of_drain(self, nursery: trio.Nursery) -> None:
        with trio.move_on_after(self._settings.tunnel.drain_timeout or float("inf")) as limit:
            await self._targets.wait_idle()
        if limit.cancelled_caught:
            log.warning("streams are ended: drain_timeout is over", streams=self._targets.streams)
        nursery.cancel_scope.cancel()

    def _reload(self, nursery: trio.Nursery) -> None:
        """Take over the settings file as it is now; a bad one changes nothing."""
        try:
            settings = load_tunnel(self._config_path)
            self._reload_ingress(settings.ingress)
        except ConfigError as error:
            for problem in error.problems:
                log.error("reload: settings are unchanged", problem=problem)
            return
        except TlsFault as fault:
            log.error("reload: settings are unchanged", problem=f"ingress.tls_{fault.part}: {fault.problem}")
            return
        old, self._settings = self._settings, settings
        configure_logging(settings.tunnel)
        self._targets.configure(settings.targets)
        for name in old.poolers:
            if settings.poolers.get(name) != old.poolers[name]:
                self._agents.pop(name).close()
        for name in settings.poolers:
            if name not in self._agents:
                self._start_agent(name, nursery)
        log.info("reloaded", config=str(self._config_path))

    def _reload_ingress(self, settings: IngressSettings | None) -> None:
        old = self._at_start.ingress
        if (settings is None) != (old is None):
            log.warning("reload: this setting needs a restart", setting="ingress")
        if settings is None or old is None or self._ingress is None:
            return
        for name in ("listen_addr", "listen_port"):
            if getattr(settings, name) != getattr(old, name):
                log.warning("reload: this setting needs a restart", setting=f"ingress.{name}")
        self._ingress.configure(settings)


def _warn_of_plain_text(ingress: IngressSettings) -> None:
    """Warn when tokens would travel in the clear, where others may listen."""
    if ingress.tls_cert_file or all(map(_is_loopback, ingress.listen_addr)):
        return
    log.warning(
        "tokens and queries are readable on the network: the ingress has no TLS",
        remedy="set ingress.tls_cert_file, or listen on 127.0.0.1 behind a proxy that has it",
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
