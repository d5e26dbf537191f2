"""TLS for clients: what the pooler shows them, and the handshake as a guest goes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.auth.binding import endpoint_hash
from hyperpool.config import SslMode
from hyperpool.config.tls import ALPN
from hyperpool.config.tls_contexts import client_context, first_certificate

if TYPE_CHECKING:
    import ssl

    from hyperpool.config.tls import ClientTls

HANDSHAKE: Final = b"\x16"
"""The first byte of a TLS connection (RFC 8446, section 5.1). No startup packet that we take begins with it."""


@attrs.frozen(eq=False)
class TlsOffer:
    """TLS as the settings and their files are now. A guest keeps the one that it has begun with.

    Attributes:
        context: what OpenSSL needs.
        endpoint: the hash of the certificate, for channel binding; empty if it has none.
        required: nobody is let in without TLS, but through a Unix socket.
    """

    context: ssl.SSLContext
    endpoint: bytes
    required: bool


def make_offer(tls: ClientTls) -> TlsOffer | None:
    """Read certificate and key.

    Returns:
        What clients are offered; None if that is nothing.

    Raises:
        TlsFault: they cannot be used.
        OSError: the certificate cannot be read any more.
        ValueError: its file holds none any more.
    """
    if tls.mode is SslMode.DISABLE:
        return None
    context = client_context(tls)
    context.set_alpn_protocols([ALPN])
    endpoint = endpoint_hash(first_certificate(tls.material.cert_file))
    return TlsOffer(context, endpoint, tls.mode.required)
