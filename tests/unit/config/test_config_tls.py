"""The settings of TLS: how they are read, what follows from them, and what is wrong with files."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.config import ChannelBinding, SslMode, SslNegotiation, tls_contexts
from hyperpool.config.tls import ClientTls, ServerTls, TlsFault, TlsMaterial, client_tls
from hyperpool.config.tls_contexts import client_context, first_certificate, server_context
from tests.support.certificates import issue

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.certificates import Files
    from tests.unit.config.conftest import Loader, Problems


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate."""
    return issue(tmp_path / "tls", "localhost")


def clients(files: Files, **changed: object) -> dict[str, Any]:
    """A section `pooler` with TLS for clients."""
    return {
        "client_tls_sslmode": "require",
        "client_tls_cert_file": str(files.cert),
        "client_tls_key_file": str(files.key),
        **changed,
    }


# -- What follows ------------------------------------------------------------------------------------------------


def test_the_defaults(load_with: Loader) -> None:
    """pgbouncer's: nothing for clients, for servers whatever they have."""
    settings = load_with()
    pool = settings.pool_for("app", "ann")

    assert client_tls(settings.pooler) == ClientTls()
    assert pool is not None
    assert pool.tls == ServerTls(mode=SslMode.PREFER)


def test_servers(load_with: Loader, files: Files) -> None:
    """A database's own settings go before the pooler's; a certificate of its own brings its own key."""
    settings = load_with(
        pooler={
            "server_tls_sslmode": "verify-ca",
            "server_tls_ca_file": str(files.ca),
            "server_tls_cert_file": str(files.cert),
            "server_tls_key_file": str(files.key),
            "server_tls_protocols": "all",
            "server_tls_ciphers": "HIGH",
        },
        databases={
            "plain": {"sslmode": "disable"},
            "same": {},
            "own": {
                "sslmode": "verify-full",
                "sslnegotiation": "direct",
                "sslrootcert": "system",
                "sslcert": "",
                "ssl_min_protocol_version": "TLSv1.3",
                "channel_binding": "require",
            },
        },
    )
    found = {name: settings.pool_for(name, "ann") for name in ("plain", "same", "own")}
    tls = {name: pool.tls for name, pool in found.items() if pool is not None}

    assert tls["plain"].mode is SslMode.DISABLE
    assert tls["same"] == ServerTls(
        mode=SslMode.VERIFY_CA,
        material=TlsMaterial(
            ca_file=str(files.ca),
            cert_file=str(files.cert),
            key_file=str(files.key),
            versions=("TLSv1", "TLSv1.3"),
            ciphers="HIGH",
        ),
    )
    assert tls["own"] == ServerTls(
        mode=SslMode.VERIFY_FULL,
        negotiation=SslNegotiation.DIRECT,
        binding=ChannelBinding.REQUIRE,
        material=TlsMaterial(ca_file="system", versions=("TLSv1.3", "TLSv1.3"), ciphers="HIGH"),
    )


def test_an_embedded_database_has_no_tls(load_with: Loader) -> None:
    """Its server is reached through a Unix socket."""
    settings = load_with(databases={"app": {"embedded": True, "user": "ann", "password": "x"}})
    pool = settings.pool_for("app", "ann")

    assert pool is not None
    assert pool.tls.mode is SslMode.DISABLE


@pytest.mark.parametrize(
    ("given", "versions"),
    [
        ("secure", ("TLSv1.2", "TLSv1.3")),
        ("all", ("TLSv1", "TLSv1.3")),
        ("legacy", ("TLSv1", "TLSv1.3")),
        ("tlsv1.3", ("TLSv1.3", "TLSv1.3")),
        ("tlsv1.2, tlsv1.3", ("TLSv1.2", "TLSv1.3")),
        (["TLSv1.1", "TLSv1.0", "TLSv1.2"], ("TLSv1", "TLSv1.2")),
    ],
)
def test_protocols(load_with: Loader, given: object, versions: tuple[str, str]) -> None:
    """Pgbouncer's names and shortcuts."""
    settings = load_with(pooler={"client_tls_protocols": given})

    assert settings.pooler.client_tls_protocols == versions


@pytest.mark.parametrize("shortcut", ["default", "secure", "normal", "fast"])
def test_cipher_shortcuts(load_with: Loader, shortcut: str) -> None:
    """Pgbouncer's words for a choice that is good without thinking."""
    assert load_with(pooler={"server_tls_ciphers": shortcut}).pooler.server_tls_ciphers == ""


def test_pgbouncers_defaults_can_be_written_down(load_with: Loader, files: Files) -> None:
    """Every client_tls_* setting of a pgbouncer that has not been changed is taken."""
    load_with(
        pooler=clients(
            files,
            client_tls_ca_file="",
            client_tls_protocols="secure",
            client_tls_ciphers="default",
            client_tls13_ciphers="",
            client_tls_ecdhcurve="auto",
            client_tls_dheparams="auto",
        )
    )


# -- Contexts ----------------------------------------------------------------------------------------------------


def test_the_context_of_clients(files: Files) -> None:
    """No tickets, no renegotiation; certificates are wanted where they are verified."""
    context = client_context(ClientTls(mode=SslMode.REQUIRE, material=files.material))
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode is ssl.CERT_NONE
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2

    context = client_context(ClientTls(mode=SslMode.VERIFY_CA, material=files.material))
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_context_of_servers(files: Files) -> None:
    """What is verified is what was asked for."""
    for verify, name in ((False, False), (True, False), (True, True)):
        context = server_context(files.material, verify=verify, name=name)
        assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verify, name)
        assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_key_in_the_certificates_file(files: Files) -> None:
    """One file may hold both, the key first or last."""
    cert, key = files.cert.read_bytes(), files.key.read_bytes()
    for both in (cert + key, key + cert):
        files.cert.write_bytes(both)
        server_context(TlsMaterial(cert_file=str(files.cert)), verify=False, name=False)
        assert first_certificate(str(files.cert)) == ssl.PEM_cert_to_DER_cert(
            cert.decode().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
        )


# -- What is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pooler", "problem"),
    [
        (
            {"client_tls_protocols": "tlsv1.0,tlsv1.2"},
            (
                "pooler.client_tls_protocols: found the text 'tlsv1.0,tlsv1.2', expected a list of versions without a "
                "gap; Python cannot leave out one in the middle"
            ),
        ),
        (
            {"client_tls_protocols": "sslv3"},
            (
                "pooler.client_tls_protocols: found the text 'sslv3', expected one of secure, all, legacy, or a list "
                "of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3"
            ),
        ),
        (
            {"server_tls13_ciphers": "TLS_AES_128_GCM_SHA256"},
            (
                "pooler.server_tls13_ciphers: found the text 'TLS_AES_128_GCM_SHA256', expected nothing; Python cannot "
                "choose the cipher suites of TLS 1.3, and all of them are strong"
            ),
        ),
        (
            {"client_tls_ecdhcurve": "none"},
            (
                "pooler.client_tls_ecdhcurve: found the text 'none', expected auto or the name of a curve; without "
                "curves no key could be agreed on"
            ),
        ),
        (
            {"client_tls_dheparams": "legacy"},
            (
                "pooler.client_tls_dheparams: found the text 'legacy', expected auto or none; keys are agreed on with "
                "elliptic curves alone (ECDHE), which all clients know"
            ),
        ),
        (
            {"client_tls_sslmode": "on"},
            (
                "pooler.client_tls_sslmode: found the text 'on', expected one of disable, allow, prefer, require, "
                "verify-ca, verify-full"
            ),
        ),
    ],
)
def test_values_that_cannot_be(problems_with: Problems, pooler: dict[str, object], problem: str) -> None:
    """What Python cannot do is refused, and why."""
    assert problems_with(pooler=pooler) == [problem]


def test_all_at_once(problems_with: Problems, tmp_path: Path, files: Files) -> None:
    """Every problem has the path of its own setting."""
    other = issue(tmp_path / "other", "localhost")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")

    found = problems_with(
        pooler=clients(files, client_tls_key_file=str(other.key), server_tls_sslmode="verify-full"),
        databases={
            "one": {"sslrootcert": "none.pem"},
            "two": {"sslrootcert": str(nonsense)},
            "three": {"sslmode": "require", "sslcert": str(nonsense), "sslkey": str(files.key)},
            "four": {"sslmode": "require", "sslkey": str(files.key)},
            "five": {"sslmode": "prefer", "sslnegotiation": "direct"},
            "six": {"sslmode": "verify-ca", "sslrootcert": "system"},
            "seven": {"sslmode": "disable", "channel_binding": "require"},
            "eight": {"sslrootcert": str(files.ca)},
            "nine": {},
        },
    )

    assert sorted(found) == sorted(
        [
            (
                "pooler.client_tls_key_file: found a key that does not belong to the certificate of cert_file; name "
                "the right one"
            ),
            (
                "databases.one.sslrootcert: cannot read the file that is named here (No such file or directory); "
                "hyperpool's user must be able to read it"
            ),
            "databases.two.sslrootcert: found no certificates in the file, expected one or more in PEM",
            "databases.three.sslcert: found no certificate in the file, expected one in PEM",
            "databases.four.sslkey: found without a certificate, expected both or none",
            (
                "databases.five.sslnegotiation: found direct with sslmode prefer, expected require, verify-ca or "
                "verify-full: a connection that begins with TLS cannot do without"
            ),
            (
                "databases.six.sslmode: found verify-ca with the system's certificates, expected verify-full: anybody "
                "can have one of those"
            ),
            (
                "databases.seven.channel_binding: found require with sslmode disable, expected require, verify-ca or "
                "verify-full: without TLS there is nothing to bind to"
            ),
            "pooler.server_tls_ca_file: found nothing, expected the file with the certificates to verify with",
        ]
    )


def test_a_database_that_takes_the_authorities_away(problems_with: Problems, files: Files) -> None:
    """The pooler's setting is fine: it is the database's own that is named."""
    assert problems_with(
        pooler={"server_tls_sslmode": "verify-full", "server_tls_ca_file": str(files.ca)},
        databases={"one": {"sslrootcert": ""}, "two": {}},
    ) == ["databases.one.sslrootcert: found nothing, expected the file with the certificates to verify with"]


@pytest.mark.parametrize("part", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_goes_while_it_is_read(files: Files, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Files are read anew while connections are made: one that is being replaced is a fault like any other."""
    names = {"ca_file": str(files.ca), "cert_file": str(files.cert), "key_file": str(files.key)}
    names[part] = "/nowhere/at/all"
    material = TlsMaterial(ca_file=names["ca_file"], cert_file=names["cert_file"], key_file=names["key_file"])
    monkeypatch.setattr(tls_contexts, "_check_readable", lambda _part, _file: None)
    with pytest.raises(TlsFault, match="cannot read the file that is named here") as caught:
        server_context(material, verify=True, name=True)
    assert caught.value.part == part


def test_clients_without_a_certificate(problems_with: Problems) -> None:
    """TLS needs both files."""
    assert problems_with(pooler={"client_tls_sslmode": "allow"}) == [
        "pooler.client_tls_cert_file: found nothing, expected a file, as pooler.client_tls_sslmode is allow",
        "pooler.client_tls_key_file: found nothing, expected a file, as pooler.client_tls_sslmode is allow",
    ]


@pytest.mark.parametrize(
    ("changed", "setting", "problem"),
    [
        (
            {"client_tls_sslmode": "verify-ca"},
            "ca_file",
            "found nothing, expected the file with the certificates",
        ),
        ({"client_tls_ciphers": "NONSENSE"}, "ciphers", "found ciphers that OpenSSL does not know"),
        ({"client_tls_ecdhcurve": "nonsense"}, "ecdhcurve", "found a curve that OpenSSL does not know"),
        ({"client_tls_cert_file": "none.pem"}, "cert_file", "cannot read the file that is named here"),
        ({"client_tls_key_file": "none.pem"}, "key_file", "cannot read the file that is named here"),
    ],
)
def test_files_of_clients(
    problems_with: Problems, files: Files, changed: dict[str, object], setting: str, problem: str
) -> None:
    """One problem, with the setting that must be changed."""
    (found,) = problems_with(pooler=clients(files, **changed))

    assert found.startswith(f"pooler.client_tls_{setting}: {problem}")


def test_keys_that_cannot_be_used(problems_with: Problems, files: Files) -> None:
    """A key with a passphrase does not make anybody wait at a terminal."""
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key(files.key.read_bytes(), None)
    locked = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret")
    )
    files.key.write_bytes(locked)
    assert problems_with(pooler=clients(files)) == [
        (
            "pooler.client_tls_key_file: found a key with a passphrase, expected one without; take it away with "
            "openssl pkey"
        )
    ]
    files.key.write_text("nonsense")
    assert problems_with(pooler=clients(files)) == [
        "pooler.client_tls_key_file: found no key in the file that OpenSSL can read, expected one in PEM"
    ]


def test_weak_certificates(problems_with: Problems, tmp_path: Path) -> None:
    """OpenSSL has its own idea of what is strong enough."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(form.Encoding.PEM)
    )
    files = issue(tmp_path / "weak", "localhost")
    files.cert.write_bytes(cert)
    files.key.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))

    assert problems_with(pooler=clients(files)) == [
        (
            "pooler.client_tls_cert_file: found a certificate with a key or a signature that OpenSSL holds for too "
            "weak; make a new one"
        )
    ]


def test_versions_that_contradict_each_other(problems_with: Problems) -> None:
    """The oldest one of a database, and the newest one of the pooler."""
    assert problems_with(
        pooler={"server_tls_protocols": "tlsv1.2"},
        databases={"app": {"ssl_min_protocol_version": "TLSv1.3"}},
    ) == [
        "databases.app.ssl_min_protocol_version: found TLSv1.3 as the oldest version of TLS, expected at most TLSv1.2"
    ]


@pytest.mark.parametrize(
    "steps",
    [
        [{"tcp": {"host": "gw.example.com", "port": 443}}, {"tls": {"ca_file": "none.pem"}}],
        [{"websocket": {"url": "wss://gw.example.com", "ca_file": "none.pem"}}],
        [
            {"proxy": {"url": "https://gw.example.com", "ca_file": "none.pem"}},
            {"websocket": {"url": "ws://a"}},
        ],
    ],
)
def test_steps_of_a_transport(problems_with: Problems, steps: object) -> None:
    """Their files are looked into, too."""
    (problem,) = problems_with(databases={"app": {"transport": steps}})

    assert problem.startswith(
        "databases.app.transport: ca_file for TLS to gw.example.com: cannot read the file"
    )


def test_the_same_problem_is_told_once(problems_with: Problems) -> None:
    """However many databases have it."""
    assert problems_with(
        pooler={"server_tls_sslmode": "verify-ca"}, databases={"one": {}, "two": {}, "three": {}}
    ) == ["pooler.server_tls_ca_file: found nothing, expected the file with the certificates to verify with"]


def test_what_is_broken_already_is_not_looked_into(problems_with: Problems) -> None:
    """A setting that could not be read has one problem."""
    assert problems_with(pooler={"client_tls_sslmode": "nonsense", "server_tls_sslmode": 5}) == [
        (
            "pooler.client_tls_sslmode: found the text 'nonsense', expected one of disable, allow, prefer, require, "
            "verify-ca, verify-full"
        ),
        "pooler.server_tls_sslmode: found 5, expected one of disable, allow, prefer, require, verify-ca, verify-full",
    ]
