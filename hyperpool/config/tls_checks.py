"""Contradictions in the settings of TLS, and files that cannot be used: found by making the contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hyperpool.config.kinds import AuthType, ChannelBinding, SslMode, SslNegotiation
from hyperpool.config.report import dotted
from hyperpool.config.tls import SYSTEM, TlsFault, client_tls, server_tls, step_material
from hyperpool.config.tls_contexts import client_context, server_context
from hyperpool.config.transports import ProxyStep, TlsStep, host_and_port

if TYPE_CHECKING:
    from hyperpool.config.entries import DatabaseSettings
    from hyperpool.config.report import KeyPath, Report
    from hyperpool.config.settings import Settings
    from hyperpool.config.tls import ServerTls
    from hyperpool.config.transports import Steps

_NAMES: Final = {"versions": "protocols"}
"""Parts of `TlsMaterial` whose settings have another name."""

_OWN: Final = {
    "ca_file": "sslrootcert",
    "cert_file": "sslcert",
    "key_file": "sslkey",
    "versions": "ssl_min_protocol_version",
}
"""Parts of `TlsMaterial` for which a database may have a setting of its own."""

_UNSAID: Final = {"versions": ""}
"""How such a setting reads when the database does not have it, if not None."""


def check_tls(settings: Settings, report: Report) -> None:
    """Look for what is wrong with TLS of clients, and of each database's servers and transport."""
    _check_clients(settings, report)
    sound: set[ServerTls] = set()
    for name, database in settings.databases.items():
        if not database.embedded:
            _check_servers(("databases", name), database, settings, report, sound)
            check_steps(("databases", name, "transport"), database.transport, report)


def _check_clients(settings: Settings, report: Report) -> None:
    tls = client_tls(settings.pooler, asks=settings.uses(AuthType.CERT))
    mode = _pooler("client", "sslmode")
    if tls.mode is SslMode.DISABLE or not report.is_sound(mode):
        return
    missing = False
    for part in ("cert_file", "key_file"):
        path = _pooler("client", part)
        if not getattr(tls.material, part) and report.is_sound(path):
            report.add(path, f"found nothing, expected a file, as {dotted(mode)} is {tls.mode.value}")
            missing = True
    if missing or not report.is_sound(
        *(_pooler("client", part) for part in ("cert_file", "key_file", "ca_file"))
    ):
        return
    try:
        client_context(tls)
    except TlsFault as fault:
        report.add(_pooler("client", _NAMES.get(fault.part, fault.part)), fault.problem)


def _check_servers(
    path: KeyPath, database: DatabaseSettings, settings: Settings, report: Report, sound: set[ServerTls]
) -> None:
    """Look for what is wrong with the TLS of one database's servers; `sound` is what needs no second look."""
    tls = server_tls(settings.pooler, database)
    mode = (*path, "sslmode") if database.sslmode is not None else _pooler("server", "sslmode")
    if not report.is_sound(mode):
        return
    _check_modes(path, mode, tls, report)
    if tls.mode is SslMode.DISABLE or tls in sound:
        return
    if tls.material.key_file and not tls.material.cert_file:
        report.add(_place(path, "key_file", database), "found without a certificate, expected both or none")
        return
    try:
        server_context(tls.material, verify=tls.mode.verified, name=tls.mode is SslMode.VERIFY_FULL)
        sound.add(tls)
    except TlsFault as fault:
        place = _place(path, fault.part, database)
        if report.is_sound(place):
            report.add(place, fault.problem)


def _check_modes(path: KeyPath, mode: KeyPath, tls: ServerTls, report: Report) -> None:
    """Look for modes that promise more than they hold, as libpq does."""
    if tls.mode is SslMode.VERIFY_CA and tls.material.ca_file == SYSTEM:
        report.add(
            mode,
            "found verify-ca with the system's certificates, expected verify-full: anybody can have one of those",
        )
    if tls.negotiation is SslNegotiation.DIRECT and not tls.mode.required:
        report.add(
            (*path, "sslnegotiation"),
            f"found direct with sslmode {tls.mode.value}, expected require, verify-ca or verify-full: a connection "
            "that begins with TLS cannot do without",
        )
    if tls.binding is ChannelBinding.REQUIRE and not tls.mode.required:
        report.add(
            (*path, "channel_binding"),
            f"found require with sslmode {tls.mode.value}, expected require, verify-ca or verify-full: without TLS "
            "there is nothing to bind to",
        )


def check_steps(path: KeyPath, steps: Steps, report: Report) -> None:
    """Look for what is wrong with TLS in a transport.

    Args:
        path: of the transport.
        steps: of the transport.
        report: gets the problems.
    """
    for step in steps:
        if isinstance(step, ProxyStep) and step.secure:
            host, _ = host_and_port(step.url)
            tls = TlsStep(server_name=host, ca_file=step.ca_file)
        elif isinstance(step, TlsStep):
            tls = step
        else:
            continue
        try:
            server_context(step_material(tls), verify=tls.verify, name=tls.verify)
        except TlsFault as fault:
            report.add(path, f"{fault.part} for TLS to {tls.server_name}: {fault.problem}")


def _place(path: KeyPath, part: str, database: DatabaseSettings) -> KeyPath:
    """Where the setting stands that decides about a part."""
    own = _OWN.get(part)
    if own is not None and getattr(database, own) != _UNSAID.get(part):
        return (*path, own)
    return _pooler("server", _NAMES.get(part, part))


def _pooler(side: str, name: str) -> KeyPath:
    return "pooler", f"{side}_tls_{name}"
