"""Settings of tunnels: of ``hyperpool tunnel``, and of the pooler's section ``agents``.

Each field's metadata explains it; see `hyperpool.config.fields`.
"""

# ruff: noqa: RUF009 - what is called to make a default is `setting`, and it makes a field
from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Final, Literal

import attrs

from hyperpool.config import kinds
from hyperpool.config.document import read_document
from hyperpool.config.fields import Problems, required, setting
from hyperpool.config.kinds import SslMode, Unfit
from hyperpool.config.report import Report
from hyperpool.config.sections import entries, section
from hyperpool.config.source import Source
from hyperpool.config.tls import ClientTls, TlsFault, TlsMaterial
from hyperpool.config.tls_checks import check_steps
from hyperpool.config.tls_contexts import client_context
from hyperpool.config.transports import AgentStep, Steps, TcpStep, UnixStep, WebSocketStep, transport
from hyperpool.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

    from hyperpool.config.report import KeyPath
    from hyperpool.config.secret import Secret

_SHORTEST_SECRET: Final = 16
_SHORTEST_TIME: Final = 0.1
"""Seconds: with none, nobody would ever come in or through, and pauses would be none."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NO_NAMES: Final[tuple[str, ...]] = ()


def _sha256(value: object, source: Source) -> str:
    """A SHA-256 in hexadecimal digits."""
    found = kinds.text(value, source).lower()
    if not _SHA256.fullmatch(found):
        raise Unfit("64 hexadecimal digits: printf %s SECRET | sha256sum")
    return found


def _host(value: object, source: Source) -> str:
    """Where a target is: a host name, an address, the directory of a Unix socket or an abstract name."""
    found = kinds.name(value, source)
    return found if found.startswith(("/", "@")) else kinds.hostname(found, source)


def _token_id(value: object, source: Source) -> str:
    """The public half of a token."""
    found = kinds.name(value, source)
    if not found.isascii() or not found.isprintable() or found != found.strip():
        raise Unfit("printable ASCII, as in an HTTP header, without spaces around it")
    return found


@attrs.frozen(kw_only=True)
class TokenSettings:
    """A service token that is accepted; exactly one of ``secret``, ``secret_file`` and ``secret_sha256`` is set."""

    name: str
    id: str = required(_token_id, "the public half: the header CF-Access-Client-Id")
    secret: Secret | None = setting(
        None, kinds.secret, "the secret half: the header CF-Access-Client-Secret", secret=True
    )
    secret_file: str = setting("", kinds.secret_file, "file that holds the secret")
    secret_sha256: str = setting("", _sha256, "SHA-256 of the secret, in hexadecimal digits", secret=True)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the secret half."""
        if self.secret is None:
            return bytes.fromhex(self.secret_sha256)
        return hashlib.sha256(self.secret.reveal().encode(errors="surrogateescape")).digest()

    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if (self.secret is None) == (not self.secret_sha256):
            return "expected one of secret, secret_file and secret_sha256"
        if self.secret is not None and len(self.secret.reveal()) < _SHORTEST_SECRET:
            return (
                f"found a secret that can be guessed, expected {_SHORTEST_SECRET} characters or more; "
                "make one with: openssl rand -hex 32"
            )
        if self.secret is not None and not kinds.is_header_value(self.secret.reveal()):
            return (
                "found a secret that nobody can show, expected one on one line, without spaces around it and control "
                "characters"
            )
        return ""


@attrs.frozen(kw_only=True)
class IngressToken(TokenSettings):
    """A token for the ingress."""

    targets: tuple[str, ...] = setting(_NO_NAMES, kinds.names, "what it is good for; empty: all targets")


@attrs.frozen(kw_only=True)
class AgentToken(TokenSettings):
    """A token for an agent."""

    agent: str = setting(
        "", kinds.text, "the agent's name in steps of transports; empty: as the token's entry is called"
    )

    @property
    def agent_name(self) -> str:
        """The name of the agents that have this token."""
        return self.agent or self.name


@attrs.frozen(kw_only=True)
class GateSettings:
    """A listener for WebSockets that lets in who has a token."""

    listen_addr: tuple[str, ...] = setting(
        ("127.0.0.1",), kinds.addresses, "addresses to listen on; * is all of them", reload=False
    )
    listen_port: int = required(kinds.port, "port", reload=False)
    tls_cert_file: str = setting(
        "", kinds.path, "certificate, and those that lead to its root; empty: no TLS"
    )
    tls_key_file: str = setting("", kinds.secret_file, "its key; by default in tls_cert_file, too")
    tls_ca_file: str = setting(
        "", kinds.path, "certificates that those who connect are verified with; empty: they need none"
    )
    max_connections: int = setting(1000, kinds.whole(0), "let in at a time; 0 is no limit")
    max_connections_per_token: int = setting(
        0, kinds.whole(0), "let in at a time with one token; 0 is no limit"
    )
    max_handshakes: int = setting(
        100, kinds.whole(1), "connections that have not shown a token yet; beyond it, the oldest has to go"
    )
    handshake_timeout: float = setting(
        10.0, kinds.seconds(3600, _SHORTEST_TIME), "time until a token must have been shown"
    )
    max_header_size: int = setting(16384, kinds.size(512, 1 << 20), "longest request")
    max_message_size: int = setting(1 << 24, kinds.size(1024), "longest WebSocket message")
    keepalive: float = setting(
        30.0,
        kinds.seconds(),
        "time without traffic after which a ping is sent; a peer that does not answer in as much time is gone; 0: none",
    )
    health_path: str = setting(
        "",
        kinds.text,
        "path that is answered with 200 to everybody who asks for no WebSocket; empty: there is none",
    )

    def tls_context(self) -> ssl.SSLContext | None:
        """What OpenSSL needs; None for no TLS.

        Raises:
            TlsFault: certificate or key cannot be used.
        """
        if not self.tls_cert_file:
            return None
        mode = SslMode.VERIFY_CA if self.tls_ca_file else SslMode.REQUIRE
        material = TlsMaterial(
            cert_file=self.tls_cert_file, key_file=self.tls_key_file, ca_file=self.tls_ca_file
        )
        context = client_context(ClientTls(mode=mode, material=material))
        context.set_alpn_protocols(["http/1.1"])
        return context


@attrs.frozen(kw_only=True)
class IngressSettings(GateSettings):
    """The section ``ingress`` of ``hyperpool tunnel``: others connect to it, and it connects them to targets."""

    tokens: Mapping[str, IngressToken] = setting({}, entries(IngressToken), "who is let in, by name")


@attrs.frozen(kw_only=True)
class AgentsSettings(GateSettings):
    """The section ``agents`` of the pooler: agents connect to it, and it opens server connections through them."""

    tokens: Mapping[str, AgentToken] = setting({}, entries(AgentToken), "which agents are let in, by name")
    wait_timeout: float = setting(
        5.0, kinds.seconds(), "time that a new server connection waits for an agent that is not there"
    )
    open_timeout: float = setting(
        5.0,
        kinds.seconds(3600, _SHORTEST_TIME),
        "time that an agent may take to connect to its target; then another one is asked",
    )


@attrs.frozen(kw_only=True)
class TargetSettings:
    """An entry of the section ``targets``: where the tunnel may lead to. Nothing else can be reached through it."""

    name: str
    host: str = setting(
        "127.0.0.1",
        _host,
        "name or address, or a Unix socket's directory (/...) or abstract name (@...)",
    )
    port: int = setting(5432, kinds.port, "port, also in a Unix socket's name")
    connect_timeout: float = setting(
        4.0, kinds.seconds(3600, _SHORTEST_TIME), "time that connecting may take"
    )

    @property
    def step(self) -> TcpStep | UnixStep:
        """How it is reached."""
        if self.host.startswith(("/", "@")):
            return UnixStep(path=f"{self.host}/.s.PGSQL.{self.port}")
        return TcpStep(host=self.host, port=self.port)

    @property
    def address(self) -> str:
        """Host and port, as clients write them that name a target by its address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class LinkSettings:
    """An entry of the section ``poolers``: a hyperpool that the agent connects to."""

    name: str
    transport: Steps = required(
        transport, "the way to the pooler's section agents, with a token: a websocket step or more"
    )
    targets: tuple[str, ...] = setting(_NO_NAMES, kinds.names, "what it may ask for; empty: all targets")
    ready: int = setting(4, kinds.whole(1, 1000), "connections that wait there for work")
    retry_max: float = setting(
        30.0, kinds.seconds(3600, _SHORTEST_TIME), "longest pause between two attempts to connect"
    )


@attrs.frozen(kw_only=True)
class ProcessSettings:
    """The section ``tunnel``: the process."""

    drain_timeout: float = setting(
        30.0, kinds.seconds(), "time that streams have to end after SIGTERM; 0 is no limit"
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = setting(
        "info", kinds.word("debug", "info", "warning", "error", "critical"), "the least that is logged"
    )
    log_format: Literal["auto", "console", "json"] = setting(
        "auto", kinds.word("auto", "console", "json"), "auto: coloured on a terminal, plain lines elsewhere"
    )


@attrs.frozen(kw_only=True)
class TunnelSettings:
    """The settings of ``hyperpool tunnel``."""

    tunnel: ProcessSettings = setting(ProcessSettings(), section(ProcessSettings), "the process")
    targets: Mapping[str, TargetSettings] = setting(
        {}, entries(TargetSettings), "where the tunnel may lead to"
    )
    ingress: IngressSettings | None = setting(None, section(IngressSettings), "a listener for poolers")
    poolers: Mapping[str, LinkSettings] = setting({}, entries(LinkSettings), "poolers to connect to")


def load_tunnel(path: Path, environ: Mapping[str, str] = os.environ) -> TunnelSettings:
    """Load the settings of ``hyperpool tunnel``.

    Args:
        path: the YAML file; relative paths in it start at its directory.
        environ: the environment variables that it may refer to.

    Raises:
        ConfigError: with all problems of the file, and of the files that it names, at once.
    """
    report = Report()
    raw = read_document(path, report)
    if report.problems and not raw:
        raise ConfigError(report.problems)
    settings = TunnelSettings()
    try:
        settings = section(TunnelSettings)(raw, Source(path.absolute().parent, environ))
    except Problems as problems:
        for place, problem in problems.found:
            report.add(place, problem)
    else:
        _check(settings, report)
    if report.problems:
        raise ConfigError(report.problems)
    return settings


def check_gate(place: str, gate: IngressSettings | AgentsSettings, report: Report) -> None:
    """Look for contradictions in a gate's settings.

    Args:
        place: the section's name.
        gate: the section.
        report: gets the problems.
    """
    if not gate.listen_addr:
        report.add((place, "listen_addr"), "found nothing to listen on, expected an address")
    if gate.health_path and not gate.health_path.startswith("/"):
        report.add((place, "health_path"), "expected a path that starts with a slash")
    for part in ("key", "ca"):
        if getattr(gate, f"tls_{part}_file") and not gate.tls_cert_file:
            report.add((place, f"tls_{part}_file"), "found without tls_cert_file; add that, or remove this")
    try:
        gate.tls_context()
    except TlsFault as fault:
        report.add((place, f"tls_{fault.part}"), fault.problem)
    if not gate.tokens:
        report.add((place, "tokens"), "found none, so nobody can come in; add an entry with id and secret")
    for name, token in gate.tokens.items():
        if problem := token.problem():
            report.add((place, "tokens", name), problem)


def _check(settings: TunnelSettings, report: Report) -> None:
    if settings.ingress is None and not settings.poolers:
        report.add((), "found nothing to do, expected a section ingress, or poolers, or both")
    if not settings.targets:
        report.add(
            ("targets",), "found none, so that nothing can be reached; add an entry with host and port"
        )
    if settings.ingress is not None:
        check_gate("ingress", settings.ingress, report)
        for name, token in settings.ingress.tokens.items():
            _check_targets(("ingress", "tokens", name, "targets"), token.targets, settings, report)
    for name, link in settings.poolers.items():
        _check_targets(("poolers", name, "targets"), link.targets, settings, report)
        check_steps(("poolers", name, "transport"), link.transport, report)
        if isinstance(link.transport[0], AgentStep):
            report.add(
                ("poolers", name, "transport"),
                "found a step agent, but agents connect to poolers alone; remove it",
            )
        if not isinstance(link.transport[-1], WebSocketStep):
            report.add(
                ("poolers", name, "transport"), "expected a websocket step at the top; add one with a token"
            )
        elif link.transport[-1].token_id is None:
            report.add(
                ("poolers", name, "transport"), "expected token_id and token_secret in its websocket step"
            )


def _check_targets(place: KeyPath, names: tuple[str, ...], settings: TunnelSettings, report: Report) -> None:
    for name in names:
        if name not in settings.targets:
            report.add(place, f"found {name!r}, which is not in targets; add it there, or remove it here")
