"""Channel binding: the hash of a certificate, both sides of SCRAM-SHA-256-PLUS, and whoever stands in the middle."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient as OtherClient
from scramp import ScramMechanism as OtherMechanism

from hyperpool.auth.binding import PLAIN, Channel, endpoint_hash
from hyperpool.auth.client_side import ServerLogin
from hyperpool.auth.scram import (
    BINDING_NOT_OFFERED,
    BOUND,
    MECHANISM,
    MECHANISM_PLUS,
    ScramClient,
    ScramServer,
    ScramVerifier,
    pbkdf2,
)
from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType, ChannelBinding, Secret
from hyperpool.errors import AuthenticationError, LoginFailed, ProtocolError
from hyperpool.wire import messages

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

ENDPOINT = bytes(range(32))
CHANNEL = Channel(encrypted=True, endpoint=ENDPOINT)
PASSWORD = Secret("pencil")
SALT = b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81"
VERIFIER = ScramVerifier.from_salted(pbkdf2("pencil", SALT, 4096), SALT, 4096)
BOTH = messages.authentication_sasl([MECHANISM_PLUS, MECHANISM])

# The example of RFC 7677, section 3, with a GS2 header that binds; computed with nothing but hmac and hashlib.
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"p=tls-server-end-point,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=nY1Wus9a+gM2DrbQ1msXFgyhW6KM5ktOxWiU+/P/EGY="
)
SERVER_FINAL = b"v=RwppMGddhz/J0lFYaRReBjXcQeNUFP5Qc76Lo5Exrig="


# -- The hash of a certificate ---------------------------------------------------------------------------------


def certificate(
    key: CertificateIssuerPrivateKeyTypes,
    algorithm: hashes.HashAlgorithm | None,
    pss: padding.PSS | None = None,
    *,
    extensions: int = 0,
) -> bytes:
    """Make a certificate that is signed with its own key, in DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db.example.com")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(4711)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    )
    if extensions:
        names = [x509.DNSName(f"db{number}.example.com") for number in range(extensions)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key, algorithm, rsa_padding=pss)  # type: ignore[arg-type]  # any hash will do
    return made.public_bytes(Encoding.DER)


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = [hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("kind", ["RSA", "RSA-PSS", "ECDSA"])
def test_the_hash_is_that_of_the_signature(kind: str, algorithm: hashes.HashAlgorithm) -> None:
    """RFC 5929: the hash function is that of the certificate's signature."""
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size) if kind == "RSA-PSS" else None
    der = certificate(EC if kind == "ECDSA" else RSA, algorithm, pss)

    assert endpoint_hash(der) == hashlib.new(algorithm.name, der).digest()


def test_a_long_certificate() -> None:
    """Lengths of two bytes in DER, and of three."""
    for extensions in (10, 5000):
        der = certificate(EC, hashes.SHA384(), extensions=extensions)
        assert endpoint_hash(der) == hashlib.sha384(der).digest()


@pytest.mark.parametrize(
    ("before", "after"),
    [("2a864886f70d01010b", "2a864886f70d010104"), ("2a864886f70d01010b", "2a864886f70d010105")],
    ids=["MD5", "SHA-1"],
)
def test_a_weak_hash_gives_way_to_sha256(before: str, after: str) -> None:
    """RFC 5929: SHA-256 takes the place of MD5 and SHA-1."""
    der = certificate(RSA, hashes.SHA256()).replace(bytes.fromhex(before), bytes.fromhex(after))

    assert endpoint_hash(der) == hashlib.sha256(der).digest()


def test_pss_with_its_default_hash() -> None:
    """RFC 4055: RSASSA-PSS without parameters uses SHA-1, for which SHA-256 stands in."""
    algorithm = bytes.fromhex("300d06092a864886f70d01010a3000")
    body = b"\x30\x00" + algorithm
    der = b"\x30" + bytes([len(body)]) + body

    assert endpoint_hash(der) == hashlib.sha256(der).digest()


def test_ed25519_has_no_hash() -> None:
    """Neither RFC 5929 nor PostgreSQL says what to hash with."""
    assert endpoint_hash(certificate(ed25519.Ed25519PrivateKey.generate(), None)) == b""


@given(st.binary(max_size=40))
def test_what_is_no_certificate_has_no_hash(data: bytes) -> None:
    """Whatever the bytes are, nothing breaks."""
    assert endpoint_hash(data) == b""


def test_a_certificate_that_is_cut_off_has_no_hash() -> None:
    """Nor does a length that leads out of it."""
    der = certificate(EC, hashes.SHA256())

    assert {endpoint_hash(der[:end]) for end in range(len(der))} == {b""}


# -- The exchange ------------------------------------------------------------------------------------------------


def test_the_bytes_of_an_exchange() -> None:
    """Both sides send exactly these messages."""
    client = ScramClient("pencil", CLIENT_NONCE, b"user", BOUND, ENDPOINT)
    server = ScramServer(VERIFIER, SERVER_NONCE, ENDPOINT, plus=True)

    assert client.first() == CLIENT_FIRST
    assert server.challenge(CLIENT_FIRST) == SERVER_FIRST
    assert client.respond(SERVER_FIRST) == CLIENT_FINAL
    assert server.finish(CLIENT_FINAL) == SERVER_FINAL
    client.verify(SERVER_FINAL)


def test_another_client_binds_to_our_server() -> None:
    """The scramp package and our server agree about SCRAM-SHA-256-PLUS."""
    client = OtherClient(
        [MECHANISM_PLUS], "user", "pencil", channel_binding=("tls-server-end-point", ENDPOINT)
    )
    server = ScramServer(VERIFIER, b"", ENDPOINT, plus=True)

    client.set_server_first(server.challenge(client.get_client_first().encode()).decode())
    server_final = server.finish(client.get_client_final().encode())

    assert server_final is not None
    client.set_server_final(server_final.decode())


def test_our_client_binds_to_another_server() -> None:
    """The scramp package and our client agree about SCRAM-SHA-256-PLUS."""
    mechanism = OtherMechanism(MECHANISM_PLUS)
    stored = mechanism.make_auth_info("pencil", iteration_count=4096, salt=SALT)
    server = mechanism.make_server(lambda _user: stored, channel_binding=("tls-server-end-point", ENDPOINT))
    client = ScramClient("pencil", user=b"user", header=BOUND, endpoint=ENDPOINT)

    server.set_client_first(client.first().decode())
    server.set_client_final(client.respond(server.get_server_first().encode()).decode())

    client.verify(server.get_server_final().encode())


def test_whoever_stands_in_the_middle_is_found_out() -> None:
    """A client that sees another certificate than ours is not let in, though it knows the password."""
    client = ScramClient("pencil", header=BOUND, endpoint=b"another certificate")
    server = ScramServer(VERIFIER, b"", ENDPOINT, plus=True)

    with pytest.raises(AuthenticationError, match="channel binding check failed") as caught:
        server.finish(client.respond(server.challenge(client.first())))

    assert caught.value.sqlstate == "28000"


def test_an_offer_that_was_taken_away_is_found_out() -> None:
    """A client that could bind, and says that it was not offered to, has been lied to."""
    server = ScramServer(VERIFIER, b"", ENDPOINT)

    with pytest.raises(AuthenticationError, match="negotiation error"):
        server.challenge(BINDING_NOT_OFFERED + b"n=,r=abc")


@pytest.mark.parametrize(
    ("plus", "header", "message"),
    [
        (True, b"n,,", "does not include channel binding data"),
        (True, b"y,,", "does not include channel binding data"),
        (True, b"p=tls-unique,,", "unsupported SCRAM channel-binding type"),
        (True, b"p=tls-server-end-point,a=me,", "authorization identity"),
        (False, b"p=tls-server-end-point,,", "includes channel binding data"),
    ],
)
def test_a_header_that_does_not_fit_the_mechanism(plus: bool, header: bytes, message: str) -> None:
    """What the client says about binding must agree with the mechanism that it has chosen."""
    with pytest.raises(ProtocolError, match=message):
        ScramServer(VERIFIER, b"", ENDPOINT, plus=plus).challenge(header + b"n=,r=abc")


# -- We log in to a server -------------------------------------------------------------------------------------


def give(login: ServerLogin, frame: bytes) -> bytes:
    """Feed a complete message; returns what is to be sent."""
    return login.receive(frame[0], frame[5:])


def first_message(channel: Channel, offer: bytes = BOTH, binding: str = "prefer") -> tuple[str, bytes]:
    """The mechanism that is chosen, and the GS2 header."""
    login = ServerLogin("user", PASSWORD, {}, binding=ChannelBinding(binding))
    login.start(channel)
    mechanism, data = messages.sasl_initial_response_fields(give(login, offer)[5:])
    assert data is not None
    return mechanism, data.partition(b"n=")[0]


ONE = messages.authentication_sasl([MECHANISM])
UNHASHABLE = Channel(encrypted=True)


@pytest.mark.parametrize(
    ("channel", "offer", "binding", "chosen"),
    [
        (CHANNEL, BOTH, "prefer", (MECHANISM_PLUS, BOUND)),
        (CHANNEL, BOTH, "require", (MECHANISM_PLUS, BOUND)),
        (CHANNEL, BOTH, "disable", (MECHANISM, b"n,,")),
        (CHANNEL, ONE, "prefer", (MECHANISM, b"y,,")),
        (CHANNEL, ONE, "disable", (MECHANISM, b"n,,")),
        (UNHASHABLE, BOTH, "prefer", (MECHANISM, b"n,,")),
        (PLAIN, ONE, "prefer", (MECHANISM, b"n,,")),
    ],
)
def test_what_we_choose(channel: Channel, offer: bytes, binding: str, chosen: tuple[str, bytes]) -> None:
    """We bind wherever both sides can; where only we can, we say so."""
    assert first_message(channel, offer, binding) == chosen


def test_an_offer_without_tls_is_refused() -> None:
    """There is nothing to bind to, so somebody has made the offer up or has taken TLS away."""
    with pytest.raises(LoginFailed, match="SCRAM-SHA-256-PLUS over a connection without TLS"):
        first_message(PLAIN)


def test_required_binding_needs_tls() -> None:
    """Not even the StartupMessage is sent without."""
    login = ServerLogin("user", PASSWORD, {}, binding=ChannelBinding.REQUIRE)

    with pytest.raises(LoginFailed, match="no TLS"):
        login.start(PLAIN)


@pytest.mark.parametrize(
    "request_",
    [
        messages.authentication_ok(),
        messages.authentication_cleartext_password(),
        messages.authentication_md5_password(b"salt"),
        ONE,
    ],
    ids=["none", "cleartext", "MD5", "SCRAM"],
)
def test_required_binding_takes_nothing_less(request_: bytes) -> None:
    """A server that cannot prove that it is the other end of the TLS connection gets no password."""
    login = ServerLogin("user", PASSWORD, {}, binding=ChannelBinding.REQUIRE)
    login.start(CHANNEL)

    with pytest.raises(LoginFailed, match="channel binding is required, but the server"):
        give(login, request_)


# -- A client logs in to us ------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth_type", ["md5", "scram-sha-256"])
@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_a_client_of_ours_logs_in_to_us(auth_type: str, binding: str) -> None:
    """Over TLS, every client gets in that knows the password, bound or not."""
    stored = Secret(
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    server = ClientAuthentication(AuthType(auth_type), "user", stored, b"mock key", endpoint=ENDPOINT)
    client = ServerLogin("user", PASSWORD, {}, binding=ChannelBinding(binding))
    client.start(CHANNEL)

    answer = server.start()
    while not server.done:
        sent = give(client, answer)
        answer = server.receive(sent[0], sent[5:])

    assert give(client, answer) == b""


def test_without_tls_nothing_is_offered() -> None:
    """SCRAM-SHA-256-PLUS is neither offered nor accepted."""
    server = ClientAuthentication(AuthType("scram-sha-256"), "user", PASSWORD, b"mock key")

    assert server.start() == messages.authentication_sasl([MECHANISM])
    with pytest.raises(ProtocolError, match="invalid SASL authentication mechanism"):
        server.receive(ord("p"), messages.sasl_initial_response(MECHANISM_PLUS, CLIENT_FIRST)[5:])
