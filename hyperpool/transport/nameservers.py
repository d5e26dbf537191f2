"""Looking names up at DNS servers of the settings' choice (``resolv_conf``), by dnspython.

As with the system's resolver, the file of hosts goes before DNS, and addresses stand for themselves.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyperpool.errors import StartupError
from hyperpool.transport.resolve import Resolver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hyperpool.config import PoolerSettings
    from hyperpool.transport.resolve import Address

HOSTS: Final = Path("/etc/hosts")


def make_resolver(settings: PoolerSettings) -> Resolver:
    """What looks names up as the settings say.

    Raises:
        StartupError: as `lookup_by`.
    """
    lookup = lookup_by(settings.resolv_conf) if settings.resolv_conf else None
    return Resolver(settings.dns_max_ttl, settings.dns_nxdomain_ttl, lookup=lookup)


def lookup_by(
    resolv_conf: str, hosts: Path = HOSTS, port: int = 53
) -> Callable[[str, int], Awaitable[list[Address]]]:
    """What looks names up as a file says.

    Args:
        resolv_conf: the file, with servers and domains (resolv.conf(5)).
        hosts: names that need no DNS (hosts(5)).
        port: of the servers, which that file cannot tell.

    Returns:
        Takes a host and a port. Raises `socket.gaierror` when there are no addresses, or they cannot be found out now.

    Raises:
        StartupError: dnspython is not installed, or the file cannot be read.
    """
    try:
        import dns.asyncresolver  # noqa: PLC0415 - optional
        import dns.exception  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415
    except ImportError:
        raise StartupError(
            "resolv_conf needs dnspython: install hyperpool with its extra dns, or remove it"
        ) from None
    try:
        resolver = dns.asyncresolver.Resolver(filename=resolv_conf)
    except (OSError, dns.exception.DNSException) as error:
        raise StartupError(f"cannot use {resolv_conf} as resolv_conf: {error}") from error
    resolver.port = port

    async def look_up(host: str, port: int) -> list[Address]:
        known = _without_dns(host, hosts)
        if known:
            return [_address(one, port) for one in known]
        try:
            answers = await resolver.resolve_name(host, search=True)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        except dns.exception.DNSException as error:
            raise socket.gaierror(
                socket.EAI_AGAIN, f"Temporary failure in name resolution: {error}"
            ) from None
        return [_address(one, port) for one in answers.addresses()]

    return look_up


def _without_dns(host: str, hosts: Path) -> list[str]:
    """The addresses of a host that is an address itself, or stands in the file of hosts."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        lines = hosts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    entries = (line.partition("#")[0].lower().split() for line in lines)
    return [entry[0] for entry in entries if host.lower() in entry[1:]]


def _address(text: str, port: int) -> Address:
    if ":" in text:
        return socket.AF_INET6, (text, port, 0, 0)
    return socket.AF_INET, (text, port)
