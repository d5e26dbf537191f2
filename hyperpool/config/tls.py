"""Settings of TLS. What Python's `ssl` cannot do is refused: cipher suites of TLS 1.3, and DHE parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config.kinds import ChannelBinding, SslMode, SslNegotiation, Unfit, names, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperpool.config.entries import DatabaseSettings
    from hyperpool.config.model import PoolerSettings
    from hyperpool.config.source import Source
    from hyperpool.config.transports import TlsStep

ALPN: Final = "postgresql"
"""The protocol's name in TLS (IANA's registry of ALPN protocol IDs)."""

SYSTEM: Final = "system"
"""In place of a file with certificates: those that the system trusts, as in libpq's ``sslrootcert``."""

Versions = tuple[str, str]
"""The oldest version of TLS, and the newest."""

SECURE: Final[Versions] = ("TLSv1.2", "TLSv1.3")

VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""From the oldest to the newest."""

_PROTOCOLS: Final = {
    "tlsv1": "TLSv1",
    "tlsv1.0": "TLSv1",
    "tlsv1.1": "TLSv1.1",
    "tlsv1.2": "TLSv1.2",
    "tlsv1.3": "TLSv1.3",
}
_SHORTCUTS: Final = {"secure": SECURE, "all": ("TLSv1", "TLSv1.3"), "legacy": ("TLSv1", "TLSv1.3")}
_CIPHERS: Final = {"default": "", "secure": "", "normal": "", "fast": "", "all": "ALL:!aNULL:!eNULL"}


class TlsFault(Exception):
    """TLS settings cannot be used.

    Args:
        part: which of them: the name of a field of `TlsMaterial`.
        problem: what was found, what is expected and the remedy.
    """

    def __init__(self, part: str, problem: str) -> None:
        super().__init__(problem)
        self.part = part
        self.problem = problem


@attrs.frozen(kw_only=True)
class TlsMaterial:
    """What one side of a TLS connection has.

    Attributes:
        ca_file: certificates that the other side is verified with: a file, `SYSTEM`, or nothing.
        cert_file: the certificate that is shown to the other side, and those that lead to its root.
        key_file: its key; by default, it is in `cert_file` too.
        versions: of TLS.
        ciphers: for TLS 1.2 and older, in OpenSSL's form; empty for Python's choice.
        ecdhcurve: the one curve that keys are agreed on; empty for OpenSSL's choice.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    versions: Versions = SECURE
    ciphers: str = ""
    ecdhcurve: str = ""


@attrs.frozen(kw_only=True)
class ServerTls:
    """PostgreSQL's own TLS on connections to servers.

    Attributes:
        mode: whether, and how far servers are trusted.
        negotiation: how it begins.
        binding: what is wanted of channel binding.
        material: what our side has.
    """

    mode: SslMode = SslMode.PREFER
    negotiation: SslNegotiation = SslNegotiation.POSTGRES
    binding: ChannelBinding = ChannelBinding.PREFER
    material: TlsMaterial = TlsMaterial()


@attrs.frozen(kw_only=True)
class ClientTls:
    """TLS on connections from clients.

    Attributes:
        mode: whether, and how far clients are trusted; `SslMode.ALLOW` and `SslMode.PREFER` are the same.
        material: what our side has.
        asks: clients may show a certificate also where `mode` does not say that they must: some log in with it.
    """

    mode: SslMode = SslMode.DISABLE
    material: TlsMaterial = TlsMaterial()
    asks: bool = False


def client_tls(pooler: PoolerSettings, *, asks: bool = False) -> ClientTls:
    """What the settings say about clients.

    Args:
        pooler: the section.
        asks: as in `ClientTls`.
    """
    return ClientTls(
        mode=pooler.client_tls_sslmode,
        asks=asks,
        material=TlsMaterial(
            ca_file=pooler.client_tls_ca_file,
            cert_file=pooler.client_tls_cert_file,
            key_file=pooler.client_tls_key_file,
            versions=pooler.client_tls_protocols,
            ciphers=pooler.client_tls_ciphers,
            ecdhcurve=pooler.client_tls_ecdhcurve,
        ),
    )


def server_tls(pooler: PoolerSettings, database: DatabaseSettings) -> ServerTls:
    """What the settings say about the servers of one database."""
    oldest, newest = pooler.server_tls_protocols
    own = database.sslcert is not None or database.sslkey is not None
    return ServerTls(
        mode=database.sslmode or pooler.server_tls_sslmode,
        negotiation=database.sslnegotiation,
        binding=database.channel_binding,
        material=TlsMaterial(
            ca_file=pooler.server_tls_ca_file if database.sslrootcert is None else database.sslrootcert,
            cert_file=(database.sslcert or "") if own else pooler.server_tls_cert_file,
            key_file=(database.sslkey or "") if own else pooler.server_tls_key_file,
            versions=(database.ssl_min_protocol_version or oldest, newest),
            ciphers=pooler.server_tls_ciphers,
        ),
    )


def step_material(step: TlsStep) -> TlsMaterial:
    """What our side has in a transport's step; servers are verified with the system's certificates by default."""
    return TlsMaterial(
        ca_file=step.ca_file or SYSTEM,
        cert_file=step.cert_file,
        key_file=step.key_file,
        versions=(step.min_version, "TLSv1.3"),
        ciphers=step.ciphers,
    )


# -- How values are read ---------------------------------------------------------------------------------------------


def protocols(value: object, source: Source) -> Versions:
    """Versions of TLS, as in pgbouncer's ``client_tls_protocols``: names, or ``secure``, ``all`` or ``legacy``."""
    expected = "one of secure, all, legacy, or a list of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3"
    found: Sequence[str] = [name.lower() for name in names(value, source)]
    if len(found) == 1 and found[0] in _SHORTCUTS:
        return _SHORTCUTS[found[0]]
    if not found or not set(found) <= set(_PROTOCOLS):
        raise Unfit(expected)
    places = sorted({VERSIONS.index(_PROTOCOLS[name]) for name in found})
    if places[-1] - places[0] != len(places) - 1:
        raise Unfit("a list of versions without a gap", "Python cannot leave out one in the middle")
    return VERSIONS[places[0]], VERSIONS[places[-1]]


def version(value: object, _source: Source) -> str:
    """One version of TLS, as in libpq's ``ssl_min_protocol_version``; empty for the default."""
    if value not in ("", *VERSIONS):
        raise Unfit(f"one of {', '.join(VERSIONS)}")
    return str(value)


def ciphers(value: object, source: Source) -> str:
    """Ciphers in OpenSSL's form, or one of pgbouncer's shortcuts."""
    found = text(value, source)
    return _CIPHERS.get(found, found)


def no_tls13_ciphers(value: object, source: Source) -> str:
    """Nothing: Python cannot choose the cipher suites of TLS 1.3."""
    if text(value, source):
        raise Unfit(
            "nothing", "Python cannot choose the cipher suites of TLS 1.3, and all of them are strong"
        )
    return ""


def curve(value: object, source: Source) -> str:
    """The curve that keys are agreed on; ``auto`` leaves it to OpenSSL."""
    found = text(value, source)
    if found == "none":
        raise Unfit("auto or the name of a curve", "without curves no key could be agreed on")
    return "" if found == "auto" else found


def no_dheparams(value: object, source: Source) -> str:
    """``auto`` or ``none``: keys are agreed on with curves alone."""
    found = text(value, source)
    if found not in {"auto", "none"}:
        raise Unfit(
            "auto or none", "keys are agreed on with elliptic curves alone (ECDHE), which all clients know"
        )
    return found


def certificates(value: object, source: Source) -> str:
    """A file with certificates, made absolute, or ``system``; an empty text stays as it is."""
    found = text(value, source)
    return found if found in {"", SYSTEM} else str(source.anchor(found))
