"""The contexts that OpenSSL needs for settings of TLS.

They are made with the settings, so that whatever is wrong with certificates, keys and ciphers is found with the other
problems.
"""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hyperpool.config.tls import SYSTEM, VERSIONS, TlsFault

if TYPE_CHECKING:
    from hyperpool.config.tls import ClientTls, TlsMaterial

_ENUM: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


def server_context(material: TlsMaterial, *, verify: bool, name: bool) -> ssl.SSLContext:
    """Make the context of connections on which the other side is the TLS server.

    Args:
        material: what our side has.
        verify: the other side's certificate must lead to one of `TlsMaterial.ca_file`.
        name: and it must be for the name that was dialed.

    Raises:
        TlsFault: the material cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify and name
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    _configure(context, material)
    if verify:
        _trust(context, material.ca_file)
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Make the context of connections on which we are the TLS server.

    As in PostgreSQL, sessions are not resumed and never renegotiated.

    Raises:
        TlsFault: the settings cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _configure(context, tls.material)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 0
    if tls.material.ecdhcurve:
        try:
            context.set_ecdh_curve(tls.material.ecdhcurve)
        except ValueError:
            raise TlsFault(
                "ecdhcurve",
                'found a curve that OpenSSL does not know, expected one like "prime256v1", or auto',
            ) from None
    if tls.mode.verified or tls.asks:
        _trust(context, tls.material.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED if tls.mode.verified else ssl.CERT_OPTIONAL
    return context


def first_certificate(file: str) -> bytes:
    """The certificate that is shown to the other side, in DER.

    Args:
        file: `TlsMaterial.cert_file`; a context has been made with it.

    Raises:
        OSError: it cannot be read any more.
        ValueError: it holds no certificate any more.
    """
    found = Path(file).read_text(errors="replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    at = found.index(begin)
    return ssl.PEM_cert_to_DER_cert(found[at : found.index(end, at)] + end)


def _configure(context: ssl.SSLContext, material: TlsMaterial) -> None:
    oldest, newest = material.versions
    if VERSIONS.index(oldest) > VERSIONS.index(newest):
        raise TlsFault("versions", f"found {oldest} as the oldest version of TLS, expected at most {newest}")
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    with warnings.catch_warnings():
        # Python warns of TLS 1.0 and 1.1; whoever asks for them by name knows what they are.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = _ENUM[oldest], _ENUM[newest]
    if material.ciphers:
        try:
            context.set_ciphers(material.ciphers)
        except ssl.SSLError:
            raise TlsFault(
                "ciphers", "found ciphers that OpenSSL does not know, expected its form, like HIGH:!aNULL"
            ) from None
    if material.cert_file:
        _load_certificate(context, material.cert_file, material.key_file)


def _load_certificate(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    _check_readable("cert_file", cert_file)
    if key_file:
        _check_readable("key_file", key_file)
    key_part = "key_file" if key_file else "cert_file"
    try:
        first_certificate(cert_file)
    except ValueError:
        raise TlsFault("cert_file", "found no certificate in the file, expected one in PEM") from None
    except OSError as error:
        raise _unreadable("cert_file", error) from None
    try:
        context.load_cert_chain(cert_file, key_file or None, password=_refuse_password)
    except _Encrypted:
        raise TlsFault(
            key_part, "found a key with a passphrase, expected one without; take it away with openssl pkey"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault(
                key_part,
                "found a key that does not belong to the certificate of cert_file; name the right one",
            ) from None
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"}:
            raise TlsFault(
                "cert_file",
                "found a certificate with a key or a signature that OpenSSL holds for too weak; make a new one",
            ) from None
        raise TlsFault(
            key_part, "found no key in the file that OpenSSL can read, expected one in PEM"
        ) from None
    except OSError as error:
        raise _unreadable(key_part, error) from None


class _Encrypted(Exception):
    """A key wants a passphrase."""


def _refuse_password() -> str:
    raise _Encrypted


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    if ca_file == SYSTEM:
        context.load_default_certs(
            ssl.Purpose.SERVER_AUTH
            if context.protocol is ssl.PROTOCOL_TLS_CLIENT
            else ssl.Purpose.CLIENT_AUTH
        )
        return
    if not ca_file:
        raise TlsFault("ca_file", "found nothing, expected the file with the certificates to verify with")
    _check_readable("ca_file", ca_file)
    try:
        context.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise TlsFault("ca_file", "found no certificates in the file, expected one or more in PEM") from None
    except OSError as error:
        raise _unreadable("ca_file", error) from None


def _check_readable(part: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise _unreadable(part, error) from None


def _unreadable(part: str, error: OSError) -> TlsFault:
    return TlsFault(
        part,
        f"cannot read the file that is named here ({error.strerror}); hyperpool's user must be able to read it",
    )
