"""We act as a client: the login to a server, frame by frame."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.client_side import ServerLogin
from hyperpool.auth.scram import ScramServer, ScramVerifier, pbkdf2
from hyperpool.config import Secret
from hyperpool.errors import LoginFailed, ProtocolError
from hyperpool.wire import messages

PASSWORD = Secret("pencil")
DIGEST = hashlib.md5(b"penciluser").hexdigest()
MD5 = Secret("md5" + DIGEST)
SCRAM = Secret(
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

AUTHENTICATION_OK = messages.authentication_ok()
KEY = messages.backend_key_data(4711, b"s3cr")
READY = messages.ready_for_query()
SASL = messages.authentication_sasl(["SCRAM-SHA-256"])


def begin(password: Secret | None = PASSWORD, user: str = "user", minor: int = 2) -> ServerLogin:
    """Make a login that has sent its StartupMessage."""
    login = ServerLogin(user, password, {"database": "shop"}, minor)
    login.start()
    return login


def give(login: ServerLogin, *frames: bytes) -> bytes:
    """Feed complete messages; returns everything that is to be sent."""
    return b"".join(login.receive(frame[0], frame[5:]) for frame in frames)


def scram_server(password: str = "pencil") -> ScramServer:
    """Make the server's side of an exchange."""
    salted = pbkdf2(password, b"salt", 10)
    return ScramServer(ScramVerifier.from_salted(salted, b"salt", 10))


def challenged(login: ServerLogin, server: ScramServer) -> bytes:
    """Go through a SCRAM exchange up to the client's proof; returns the client-final-message."""
    mechanism, first = messages.sasl_initial_response_fields(give(login, SASL)[5:])
    assert mechanism == "SCRAM-SHA-256"
    assert first is not None
    return give(login, messages.authentication_sasl_continue(server.challenge(first)))[5:]


def test_startup_message_asks_for_version_3_2() -> None:
    """User, database and run-time parameters go into the StartupMessage."""
    login = ServerLogin("user", None, {"database": "shop", "application_name": "app"})

    assert login.start() == (
        b"\x00\x00\x00\x36\x00\x03\x00\x02database\x00shop\x00application_name\x00app\x00user\x00user\x00\x00"
    )


def test_startup_message_that_asks_for_version_3_0() -> None:
    """For servers that know nothing newer, and no negotiation."""
    login = ServerLogin("user", None, {"database": "shop"}, 0)

    assert login.start() == messages.startup_message({"database": "shop", "user": "user"}, (3, 0))


def test_nobody_smuggles_another_user_in() -> None:
    """A parameter called user does not override the user of the login."""
    login = ServerLogin("user", None, {"user": "postgres", "database": "shop"})

    assert login.start() == messages.startup_message({"user": "user", "database": "shop"}, (3, 2))


def test_a_parameter_with_a_zero_byte_is_refused() -> None:
    """A parameter cannot end early and begin another one."""
    with pytest.raises(ProtocolError):
        ServerLogin("user", None, {"application_name": "a\x00user\x00postgres"}).start()


def test_login_without_password() -> None:
    """A server that trusts us is ready after one round trip; what it reports is remembered."""
    login = begin(password=None)

    sent = give(
        login,
        AUTHENTICATION_OK,
        messages.parameter_status("TimeZone", "UTC"),
        messages.parameter_status("in_hot_standby", "off"),
        messages.parameter_status("TimeZone", "Europe/Berlin"),
        KEY,
    )
    assert (sent, login.done) == (b"", False)

    give(login, READY)

    assert login.done
    assert login.method == "trust"
    assert login.parameters == {"TimeZone": "Europe/Berlin", "in_hot_standby": "off"}
    assert (login.pid, login.secret) == (4711, b"s3cr")


def test_a_server_need_not_give_a_cancel_key() -> None:
    """Some servers that are poolers themselves send no BackendKeyData."""
    login = begin()

    give(login, AUTHENTICATION_OK, READY)

    assert (login.done, login.pid, login.secret) == (True, 0, b"")


def test_cleartext_password() -> None:
    """A server that asks for the password gets it."""
    login = begin()

    sent = give(login, messages.authentication_cleartext_password())

    assert sent == messages.password_message(b"pencil")
    give(login, AUTHENTICATION_OK, READY)
    assert (login.done, login.method) == (True, "password")


@pytest.mark.parametrize("password", [PASSWORD, MD5], ids=["plain password", "MD5 digest"])
def test_md5_password(password: Secret) -> None:
    """An MD5 challenge is answered from the password, or from its digest as pgbouncer's auth_file stores it."""
    login = begin(password)
    salt = b"\x00\xff\x01\x02"

    sent = give(login, messages.authentication_md5_password(salt))

    expected = b"md5" + hashlib.md5(DIGEST.encode() + salt).hexdigest().encode()
    assert sent == messages.password_message(expected)
    give(login, AUTHENTICATION_OK, READY)
    assert (login.done, login.method) == (True, "md5")


def test_scram() -> None:
    """A SCRAM exchange proves the password to the server and the server to us."""
    login, server = begin(), scram_server()

    server_final = server.finish(challenged(login, server))

    assert server_final is not None
    give(login, messages.authentication_sasl_final(server_final), AUTHENTICATION_OK, READY)
    assert (login.done, login.method) == (True, "SCRAM-SHA-256")


def test_a_server_that_does_not_know_the_password_is_not_trusted() -> None:
    """A wrong signature ends the login, although we have not learned anything from the server's point of view."""
    login, server = begin(), scram_server()
    challenged(login, server)

    with pytest.raises(LoginFailed, match="could not prove"):
        give(login, messages.authentication_sasl_final(b"v=AAAA"))


@pytest.mark.parametrize("step", ["after the offer", "after the challenge"])
def test_a_server_cannot_skip_its_proof(step: str) -> None:
    """AuthenticationOk in the middle of a SCRAM exchange is refused: the server has not proved itself."""
    login, server = begin(), scram_server()
    if step == "after the offer":
        give(login, SASL)
    else:
        challenged(login, server)

    with pytest.raises(ProtocolError, match="unexpected authentication request 0"):
        give(login, AUTHENTICATION_OK)


@pytest.mark.parametrize(
    "request_frame",
    [messages.authentication_cleartext_password(), messages.authentication_md5_password(b"salt"), SASL],
    ids=["cleartext", "MD5", "SASL"],
)
@pytest.mark.parametrize(
    "first", [messages.authentication_cleartext_password(), SASL], ids=["cleartext", "SASL"]
)
def test_one_request_per_login(first: bytes, request_frame: bytes) -> None:
    """A server cannot have SCRAM first and then the cleartext password after all, or the same twice."""
    login = begin()
    give(login, first)

    with pytest.raises(ProtocolError, match="unexpected authentication request"):
        give(login, request_frame)


@pytest.mark.parametrize(
    "frame",
    [messages.authentication_sasl_continue(b"r=x"), messages.authentication_sasl_final(b"v=x")],
    ids=["challenge", "outcome"],
)
def test_sasl_messages_out_of_turn(frame: bytes) -> None:
    """A challenge or an outcome of an exchange that has not begun is refused."""
    with pytest.raises(ProtocolError, match="unexpected authentication request"):
        give(begin(), frame)


@pytest.mark.parametrize("code", [1, 4, 6, 8, 99, 0xFFFFFFFF])
def test_an_unknown_authentication_request(code: int) -> None:
    """A request that does not exist, or that continues something that did not begin, is refused."""
    with pytest.raises(ProtocolError, match=f"unexpected authentication request {code}"):
        begin().receive(ord("R"), code.to_bytes(4, "big"))


@pytest.mark.parametrize(("code", "name"), [(2, "Kerberos V5"), (7, "GSSAPI"), (9, "SSPI")])
def test_a_method_that_we_do_not_speak_is_named(code: int, name: str) -> None:
    """The operator is told which method the server asks for, and what to use instead."""
    with pytest.raises(LoginFailed, match=f"asks for {name} authentication") as failure:
        begin().receive(ord("R"), code.to_bytes(4, "big"))

    assert failure.value.response == b""


def test_a_mechanism_that_we_do_not_speak_is_named() -> None:
    """The operator is told which SASL mechanisms the server offers."""
    with pytest.raises(LoginFailed, match="authentication with OAUTHBEARER, X, but not with SCRAM-SHA-256"):
        give(begin(), messages.authentication_sasl(["OAUTHBEARER", "X"]))


REQUESTS = [
    pytest.param(messages.authentication_cleartext_password(), id="cleartext"),
    pytest.param(messages.authentication_md5_password(b"salt"), id="MD5"),
    pytest.param(SASL, id="SASL"),
]


@pytest.mark.parametrize("password", [None, Secret("")], ids=["none", "empty"])
@pytest.mark.parametrize("request_frame", REQUESTS)
def test_a_missing_password_is_reported(request_frame: bytes, password: Secret | None) -> None:
    """When the server asks for a password that is not configured, the message says where to configure it."""
    with pytest.raises(LoginFailed, match="none is configured: set `password`"):
        give(begin(password), request_frame)


@pytest.mark.parametrize(
    ("request_frame", "password"),
    [
        pytest.param(messages.authentication_cleartext_password(), MD5, id="cleartext, MD5 digest"),
        pytest.param(messages.authentication_cleartext_password(), SCRAM, id="cleartext, SCRAM verifier"),
        pytest.param(messages.authentication_md5_password(b"salt"), SCRAM, id="MD5, SCRAM verifier"),
        pytest.param(SASL, MD5, id="SASL, MD5 digest"),
        pytest.param(SASL, SCRAM, id="SASL, SCRAM verifier"),
    ],
)
def test_a_hash_that_is_no_good_is_reported(request_frame: bytes, password: Secret) -> None:
    """When only a hash is configured that the method cannot use, the message says so and does not show it."""
    with pytest.raises(LoginFailed, match="only a hash of it is known") as failure:
        give(begin(password), request_frame)

    assert password.reveal() not in str(failure.value)


@pytest.mark.parametrize(
    "frame",
    [
        messages.authentication_ok() + b"x",
        messages.authentication_cleartext_password() + b"x",
        messages.frame(ord("R"), b"\x00\x00\x00\x05sal"),
        messages.frame(ord("R"), b"\x00\x00\x00\x05salty"),
        messages.frame(ord("R"), b"\x00\x00\x00"),
        messages.frame(ord("R"), b"\x00\x00\x00\x0aSCRAM-SHA-256\x00"),
    ],
    ids=["AuthenticationOk", "cleartext", "short salt", "long salt", "no code", "open list"],
)
def test_a_malformed_authentication_request(frame: bytes) -> None:
    """A request with too little or too much in it is refused."""
    with pytest.raises(ProtocolError):
        give(begin(), frame)


@pytest.mark.parametrize("when", ["at once", "after the password", "after AuthenticationOk"])
def test_a_refusal_is_passed_on_in_the_servers_words(when: str) -> None:
    """At any moment of the login, an ErrorResponse fails it with the server's message, SQLSTATE and whole frame."""
    login = begin()
    if when == "after the password":
        give(login, messages.authentication_cleartext_password())
    elif when == "after AuthenticationOk":
        give(login, AUTHENTICATION_OK)
    response = messages.error_response("sorry, too many clients already", "53300", hint="wait")

    with pytest.raises(LoginFailed, match=r"^sorry, too many clients already$") as failure:
        give(login, response)

    assert failure.value.sqlstate == "53300"
    assert failure.value.response == response


@pytest.mark.parametrize(
    ("body", "message", "sqlstate"),
    [
        (b"\x00", "the server refused the login without a message", "08004"),
        (b"Mgo away\x00\x00", "go away", "08004"),
        (b"C53300\x00\x00", "the server refused the login without a message", "53300"),
        (b"Mgo away\x00C\x00\x00", "go away", "08004"),
        (b"Mgo away\x00Cnonsense\x00\x00", "go away", "08004"),
        (b"Mgo away\x00C5330\n\x00\x00", "go away", "08004"),
    ],
)
def test_a_refusal_may_lack_any_field(body: bytes, message: str, sqlstate: str) -> None:
    """A server, or something else that answers, may leave out the SQLSTATE or the message."""
    with pytest.raises(LoginFailed) as failure:
        begin().receive(ord("E"), body)

    assert str(failure.value) == message
    assert failure.value.sqlstate == sqlstate
    assert failure.value.response == messages.frame(ord("E"), body)


def test_notices_are_passed_over() -> None:
    """A NoticeResponse may come at any time and changes nothing."""
    login = begin()
    notice = messages.notice_response("collation version mismatch", "01000")

    sent = give(login, notice, AUTHENTICATION_OK, notice, READY, notice)

    assert (sent, login.done) == (b"", True)


@pytest.mark.parametrize(
    ("version", "asked"),
    [(0x30000, 2), (0x30002, 2), (0x30000, 0), (0, 2), (2, 2), (0, 0)],
)
def test_negotiation_down(version: int, asked: int) -> None:
    """A server may settle for less, or confirm; written as PostgreSQL does, or as the minor version alone."""
    login = begin(minor=asked)

    sent = login.receive(ord("v"), version.to_bytes(4, "big") + b"\x00\x00\x00\x00")

    assert sent == b""
    give(login, AUTHENTICATION_OK, READY)
    assert login.done


@pytest.mark.parametrize(
    ("version", "asked"), [(0x30003, 2), (3, 2), (0x30002, 0), (0x20000, 2), (0x40000, 2)]
)
def test_negotiation_of_another_version(version: int, asked: int) -> None:
    """A server cannot talk us into a version that we did not ask for."""
    with pytest.raises(ProtocolError, match=f"asked for 3.{asked}"):
        begin(minor=asked).receive(ord("v"), version.to_bytes(4, "big") + b"\x00\x00\x00\x00")


@pytest.mark.parametrize("length", [4, 5, 32, 256])
@pytest.mark.parametrize("settled", [[], [messages.negotiate_protocol_version(0, [])]], ids=["3.2", "3.0"])
def test_cancel_secrets_of_any_length(length: int, settled: list[bytes]) -> None:
    """They are kept as they come, whatever version was settled for."""
    login, secret = begin(), bytes(range(256))[:length]

    give(login, *settled, AUTHENTICATION_OK, messages.backend_key_data(0xFFFFFFFF, secret), READY)

    assert (login.pid, login.secret) == (0xFFFFFFFF, secret)


def refused_with(login: ServerLogin, sqlstate: str, *before: bytes) -> bool:
    """Whether the login is worth another try after a refusal."""
    give(login, *before)
    with pytest.raises(LoginFailed):
        give(login, messages.error_response("no", sqlstate))
    return login.baffled


@pytest.mark.parametrize("sqlstate", ["0A000", "08P01"])
def test_a_server_that_is_at_a_loss_with_the_version(sqlstate: str) -> None:
    """It says so before anything else, with one of two SQLSTATEs; to version 3.0 that would be its last word."""
    assert refused_with(begin(), sqlstate)
    assert not refused_with(begin(minor=0), sqlstate)


@pytest.mark.parametrize("sqlstate", ["28000", "28P01", "53300", "57P03", "3D000", "XX000"])
def test_a_server_that_refuses_for_another_reason(sqlstate: str) -> None:
    """It would refuse an older version as well."""
    assert not refused_with(begin(), sqlstate)


@pytest.mark.parametrize(
    "before",
    [
        messages.negotiate_protocol_version(0, []),
        messages.authentication_cleartext_password(),
        AUTHENTICATION_OK,
    ],
    ids=["negotiated", "asked for the password", "let us in"],
)
def test_a_server_that_has_gone_on_is_not_at_a_loss(before: bytes) -> None:
    """Whatever it refuses then, it is not the version; a password is never sent twice."""
    assert not refused_with(begin(), "08P01", before)


def test_a_server_that_says_nothing_may_be_at_a_loss() -> None:
    """Some poolers hang up; a login that has not begun tells nothing."""
    assert not ServerLogin("user", None, {}).baffled
    assert begin().baffled
    assert not begin(minor=0).baffled


@pytest.mark.parametrize(
    "frame",
    [
        messages.parameter_status("TimeZone", "UTC"),
        KEY,
        READY,
        messages.frame(ord("T"), b"\x00\x00"),
        messages.frame(ord("?")),
    ],
    ids=["ParameterStatus", "BackendKeyData", "ReadyForQuery", "RowDescription", "unknown"],
)
def test_nothing_else_comes_before_authentication(frame: bytes) -> None:
    """What a server sends before it has authenticated us is not believed."""
    login = begin()

    with pytest.raises(ProtocolError, match="unexpected message type"):
        give(login, frame)
    assert (login.done, login.parameters, login.pid) == (False, {}, 0)


@pytest.mark.parametrize(
    "frame",
    [
        AUTHENTICATION_OK,
        messages.negotiate_protocol_version(0, []),
        messages.ready_for_query(b"T"),
        messages.frame(ord("D"), b"\x00\x00"),
    ],
    ids=["AuthenticationOk", "NegotiateProtocolVersion", "in a transaction", "DataRow"],
)
def test_nothing_else_comes_after_authentication(frame: bytes) -> None:
    """Between authentication and readiness a server sends its state and nothing else."""
    login = begin()
    give(login, AUTHENTICATION_OK)

    with pytest.raises(ProtocolError, match="unexpected message type"):
        give(login, frame)
    assert not login.done


@pytest.mark.parametrize("frame", [READY, KEY, messages.parameter_status("a", "b")])
def test_nothing_comes_after_the_end(frame: bytes) -> None:
    """Once the server is ready, the login takes no further message: it belongs to whoever has the connection."""
    login = begin()
    give(login, AUTHENTICATION_OK, READY)

    with pytest.raises(ProtocolError, match="unexpected message type"):
        give(login, frame)


@given(
    st.lists(
        st.tuples(st.sampled_from(b"RRRRvSKZENT?"), st.binary(max_size=40))
        | st.tuples(
            st.just(ord("R")),
            st.tuples(st.sampled_from([0, 3, 5, 10, 11, 12]), st.binary(max_size=40)).map(
                lambda request: request[0].to_bytes(4, "big") + request[1]
            ),
        )
        | st.sampled_from([AUTHENTICATION_OK, SASL, KEY, READY]).map(lambda frame: (frame[0], frame[5:])),
        max_size=6,
    )
)
def test_no_message_breaks_the_login(frames: list[tuple[int, bytes]]) -> None:
    """Arbitrary messages end in ProtocolError or LoginFailed, nothing else."""
    login = begin()

    try:
        for kind, body in frames:
            login.receive(kind, body)
    except (ProtocolError, LoginFailed):
        pass
    else:
        assert not login.done or READY in [messages.frame(*frame) for frame in frames]
