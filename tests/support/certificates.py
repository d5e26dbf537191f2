"""Certificates for tests: an authority, what it issues, and the files that settings name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs
import trustme

from hyperpool.config.tls import TlsMaterial

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

CA = trustme.CA()
"""The authority that everybody trusts."""

OTHER_CA = trustme.CA()
"""One that nobody trusts."""


@attrs.frozen
class Files:
    """A certificate as files.

    Attributes:
        cert: the certificate, and those that lead to its root.
        key: its key.
        ca: the authority's certificate.
    """

    cert: Path
    key: Path
    ca: Path

    @property
    def material(self) -> TlsMaterial:
        """The files, as settings name them."""
        return TlsMaterial(ca_file=str(self.ca), cert_file=str(self.cert), key_file=str(self.key))


def issue(
    directory: Path,
    *names: str,
    ca: trustme.CA = CA,
    common_name: str | None = None,
    expires: dt.datetime | None = None,
    key_type: trustme.KeyType = trustme.KeyType.ECDSA,
) -> Files:
    """Issue a certificate for names or addresses, and write the files; those that are there already are replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    files = Files(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    leaf = ca.issue_cert(*names, common_name=common_name, not_after=expires, key_type=key_type)
    files.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    files.key.write_bytes(leaf.private_key_pem.bytes())
    ca.cert_pem.write_to_path(str(files.ca))
    return files


def server_pem(*names: str, ca: trustme.CA = CA) -> bytes:
    """A certificate and its key, and what has issued it, as one file may hold them all."""
    leaf = ca.issue_cert(*names)
    return leaf.private_key_and_cert_chain_pem.bytes() + ca.cert_pem.bytes()


def server_side(*names: str, ca: trustme.CA = CA) -> ssl.SSLContext:
    """The context of a TLS server in a test, with Python's defaults."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


def client_side(ca: trustme.CA = CA) -> ssl.SSLContext:
    """The context of a TLS client in a test, with Python's defaults."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context
