"""Channel binding: proof that the other end of a SCRAM exchange is also the other end of the TLS connection.

PostgreSQL knows one type, ``tls-server-end-point`` (RFC 5929, section 4.1): both sides put a hash of the server's
certificate into what they sign. Somebody in the middle, who has another certificate, cannot pass the exchange on.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

BINDING_TYPE: Final = b"tls-server-end-point"

_SEQUENCE: Final = 0x30
_OID: Final = 0x06
_FIRST_PARAMETER: Final = 0xA0

_HASHES: Final = {
    # MD5 and SHA-1 are too weak: RFC 5929 puts SHA-256 in their place.
    "2a864886f70d010104": "sha256",  # md5WithRSAEncryption
    "2a864886f70d010105": "sha256",  # sha1WithRSAEncryption
    "2a864886f70d01010e": "sha224",  # sha224WithRSAEncryption
    "2a864886f70d01010b": "sha256",  # sha256WithRSAEncryption
    "2a864886f70d01010c": "sha384",  # sha384WithRSAEncryption
    "2a864886f70d01010d": "sha512",  # sha512WithRSAEncryption
    "2a8648ce3d0401": "sha256",  # ecdsa-with-SHA1
    "2a8648ce3d040301": "sha224",  # ecdsa-with-SHA224
    "2a8648ce3d040302": "sha256",  # ecdsa-with-SHA256
    "2a8648ce3d040303": "sha384",  # ecdsa-with-SHA384
    "2a8648ce3d040304": "sha512",  # ecdsa-with-SHA512
    "2a8648ce380403": "sha256",  # dsa-with-SHA1
    "608648016503040301": "sha224",  # dsa-with-SHA224
    "608648016503040302": "sha256",  # dsa-with-SHA256
}
"""Signature algorithms of certificates, by the bytes of their object identifiers (RFC 3279, 4055, 5758)."""

_PSS: Final = "2a864886f70d01010a"
_PSS_HASHES: Final = {
    "2b0e03021a": "sha256",  # SHA-1
    "608648016503040204": "sha224",
    "608648016503040201": "sha256",
    "608648016503040202": "sha384",
    "608648016503040203": "sha512",
}
"""Hashes that are a parameter of RSASSA-PSS (RFC 4055)."""


@attrs.frozen
class Channel:
    """What a login knows about the connection that it runs on.

    Attributes:
        encrypted: with TLS.
        endpoint: the hash of the server's certificate; empty without TLS, and when there is no hash to agree on.
    """

    encrypted: bool = False
    endpoint: bytes = b""


PLAIN: Final = Channel()
"""A connection without TLS."""


def endpoint_hash(certificate: bytes) -> bytes:
    """Hash a server's certificate for channel binding, with the hash of the certificate's own signature.

    Args:
        certificate: in DER; TLS has verified that it is well-formed.

    Returns:
        The hash, or b"" if the signature has none of its own (Ed25519): both RFC 5929 and PostgreSQL leave channel
        binding undefined then.
    """
    name = _signature_hash(certificate)
    return hashlib.new(name, certificate).digest() if name else b""


def _signature_hash(certificate: bytes) -> str:
    # Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { algorithm, parameters }, signature }
    try:
        whole = _element(certificate, 0, _SEQUENCE)
        signed = _element(certificate, whole.start, _SEQUENCE)
        algorithm = _element(certificate, signed.stop, _SEQUENCE)
        identifier = _element(certificate, algorithm.start, _OID)
        name = certificate[identifier.start : identifier.stop].hex()
        return _pss_hash(certificate, identifier.stop) if name == _PSS else _HASHES.get(name, "")
    except (IndexError, ValueError):
        return ""


def _pss_hash(certificate: bytes, at: int) -> str:
    # RSASSA-PSS-params ::= SEQUENCE { [0] SEQUENCE { hash } DEFAULT sha1, ... }
    parameters = _element(certificate, at, _SEQUENCE)
    if parameters.start == parameters.stop or certificate[parameters.start] != _FIRST_PARAMETER:
        return "sha256"
    first = _element(certificate, parameters.start, _FIRST_PARAMETER)
    algorithm = _element(certificate, first.start, _SEQUENCE)
    identifier = _element(certificate, algorithm.start, _OID)
    return _PSS_HASHES.get(certificate[identifier.start : identifier.stop].hex(), "")


def _element(data: bytes, at: int, tag: int) -> range:
    """Where the content of the DER element at `at` stands.

    Raises:
        ValueError: it is another element, or longer than the data.
        IndexError: there is none.
    """
    if data[at] != tag:
        raise ValueError("another element was expected")
    length, start = data[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[at + 2 : start])
    if start + length > len(data):
        raise ValueError("the element is longer than the data")
    return range(start, start + length)
