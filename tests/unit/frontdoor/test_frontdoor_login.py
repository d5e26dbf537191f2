"""A client's login as bytes: whatever comes, in whatever chunks."""

from __future__ import annotations

import hashlib
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.scram import ScramClient
from hyperpool.auth.server_side import ClientAuthentication
from hyperpool.config import AuthType, Secret
from hyperpool.errors import AuthenticationError, ClientRefused, HyperpoolError, ProtocolError
from hyperpool.frontdoor.login import Login
from hyperpool.wire import messages
from hyperpool.wire.startup import CancelRequest

if TYPE_CHECKING:
    from hyperpool.wire.startup import StartupMessage

SSL = struct.pack("!II", 8, 80877103)
GSSENC = struct.pack("!II", 8, 80877104)
STARTUP = messages.startup_message({"user": "ann", "database": "shop"})
MODERN = messages.startup_message({"user": "ann", "_pq_.test": "1"}, version=(3, 9999))
NEGOTIATED = messages.negotiate_protocol_version(2, ["_pq_.test"])
CLEARTEXT = messages.authentication_cleartext_password()
PASSWORD = messages.password_message(b"pencil")
CANCEL = messages.cancel_request(4711, b"s3cr")
QUERY = messages.query("SELECT 1")


def new_login(auth_type: AuthType = AuthType.PLAIN) -> Login:
    """A login to a door that knows ann, and lets anybody try."""

    def admit(message: StartupMessage) -> ClientAuthentication:
        secret = Secret("pencil") if message.user == "ann" else None
        return ClientAuthentication(auth_type, message.user, secret, b"mock", scram_iterations=10)

    return Login(admit)


def answers(login: Login, *chunks: bytes) -> bytes:
    """Feed chunks; returns everything that has been answered."""
    return b"".join(map(login.receive, chunks))


# -- logins --------------------------------------------------------------------------------------------------


def test_trust() -> None:
    """Done with the StartupMessage."""
    login = new_login(AuthType.TRUST)
    assert answers(login, STARTUP) == b""
    assert login.message is not None
    assert (login.done, login.pending, login.message.user, login.message.database) == (
        True,
        b"",
        "ann",
        "shop",
    )
    assert login.leftover() == b""


def test_password() -> None:
    """The client is asked, answers, and is in."""
    login = new_login()
    assert answers(login, STARTUP) == CLEARTEXT
    assert not login.done
    assert answers(login, PASSWORD) == b""
    assert (login.done, login.pending) == (True, b"")


def test_scram() -> None:
    """The last message of the exchange is sent together with what follows it."""
    login = new_login(AuthType.SCRAM_SHA_256)
    client = ScramClient("pencil")
    assert answers(login, STARTUP) == messages.authentication_sasl(["SCRAM-SHA-256"])
    challenge = answers(login, messages.sasl_initial_response("SCRAM-SHA-256", client.first()))
    assert answers(login, messages.sasl_response(client.respond(challenge[9:]))) == b""
    assert login.done
    assert login.pending[:1] == b"R"
    client.verify(login.pending[9:])


def test_what_a_client_sends_ahead_is_kept() -> None:
    """Password and first query may come with the StartupMessage, and the query reaches the relay untouched."""
    login = new_login()
    assert answers(login, STARTUP + PASSWORD + QUERY + QUERY[:3]) == b""
    assert (login.done, login.pending) == (True, CLEARTEXT)
    assert login.leftover() == QUERY + QUERY[:3]
    assert login.leftover() == b""


def test_a_client_that_asks_for_more_than_we_speak() -> None:
    """It learns what there is before it is asked for its password."""
    login = new_login()
    assert answers(login, MODERN) == NEGOTIATED + CLEARTEXT
    trusting = new_login(AuthType.TRUST)
    assert answers(trusting, MODERN) == b""
    assert (trusting.done, trusting.pending) == (True, NEGOTIATED)


# -- encryption, cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [[SSL], [GSSENC], [GSSENC, SSL], [SSL, GSSENC]])
def test_requests_for_encryption(requests: list[bytes]) -> None:
    """Each is declined with one byte; then the login goes on."""
    login = new_login()
    for request in requests:
        assert answers(login, request) == b"N"
    assert answers(login, STARTUP, PASSWORD) == CLEARTEXT
    assert login.done


@pytest.mark.parametrize("requests", [[SSL, SSL], [GSSENC, GSSENC], [SSL, GSSENC, SSL]])
def test_repeated_requests_for_encryption(requests: list[bytes]) -> None:
    """A client that has been told no and asks again is turned away."""
    login = new_login()
    answers(login, *requests[:-1])
    with pytest.raises(ProtocolError, match="repeated"):
        login.receive(requests[-1])


@pytest.mark.parametrize("before", [b"", SSL, GSSENC + SSL])
def test_cancel_request(before: bytes) -> None:
    """It is no login; what follows it is nobody's."""
    login = new_login()
    assert answers(login, before + CANCEL + STARTUP) == b"N" * (len(before) // 8)
    assert login.cancel == CancelRequest(4711, b"s3cr")
    assert (login.done, login.message) == (False, None)


def test_cancel_request_after_a_startup_message() -> None:
    """It is not a message of an open connection."""
    login = new_login()
    login.receive(STARTUP)
    with pytest.raises(ProtocolError, match="expected password response"):
        answers(login, CANCEL, bytes(0x1004))  # CancelRequest's code is where the length of a message is
    assert login.cancel is None


# -- refusals ------------------------------------------------------------------------------------------------


def test_refused_at_the_door() -> None:
    """What `admit` raises comes out; who was refused is known."""

    def admit(message: StartupMessage) -> ClientAuthentication:
        raise ClientRefused("full", "53300")

    login = Login(admit)
    with pytest.raises(ClientRefused, match="full"):
        login.receive(STARTUP)
    assert login.message is not None
    assert not login.done


def test_wrong_password() -> None:
    """Whether it was awaited or sent ahead, the client is asked for it first."""
    awaited = new_login()
    assert answers(awaited, STARTUP) == CLEARTEXT
    with pytest.raises(AuthenticationError):
        awaited.receive(messages.password_message(b"rubber"))
    assert awaited.pending == b""
    ahead = new_login()
    with pytest.raises(AuthenticationError):
        ahead.receive(STARTUP + messages.password_message(b"rubber"))
    assert ahead.pending == CLEARTEXT


@pytest.mark.parametrize("length", [0, 3, 7, 10_005, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_startup_packets_are_bounded(length: int) -> None:
    """The length alone condemns a packet: nothing is collected."""
    with pytest.raises(ProtocolError, match="length"):
        new_login().receive(struct.pack("!I", length))


@pytest.mark.parametrize("length", [0, 3, 65_537, 0xFFFFFFFF])
def test_passwords_are_bounded(length: int) -> None:
    """The same holds for the messages of a login."""
    login = new_login()
    login.receive(STARTUP)
    with pytest.raises(ProtocolError, match="length"):
        login.receive(struct.pack("!cI", b"p", length))


@pytest.mark.parametrize("other", [QUERY, messages.TERMINATE, messages.SYNC])
def test_a_query_instead_of_a_password(other: bytes) -> None:
    """Nothing else is listened to before the password."""
    login = new_login()
    login.receive(STARTUP)
    with pytest.raises(ProtocolError, match="expected password response"):
        login.receive(other)


# -- chunks --------------------------------------------------------------------------------------------------

CONVERSATIONS = [
    SSL + GSSENC + STARTUP + PASSWORD + QUERY,
    GSSENC + MODERN + PASSWORD,
    MODERN + messages.password_message(b"rubber"),
    SSL + SSL + STARTUP,
    SSL + CANCEL,
    SSL + MODERN + QUERY,
    GSSENC + b"\0\0\0\x09\0\2\0\0x",
    STARTUP + struct.pack("!cI", b"p", 1 << 20),
]


def outcome(auth_type: AuthType, chunks: list[bytes]) -> tuple[object, ...]:
    """All that can be seen of a login in the end; after an error nothing more is read."""
    login = new_login(auth_type)
    answered = b""
    error = None
    unread = b""
    for chunk in chunks:
        if error or login.done or login.cancel:
            unread += chunk
            continue
        try:
            answered += login.receive(chunk)
        except HyperpoolError as caught:
            error = type(caught), str(caught), caught.sqlstate
    left = login.leftover() + unread if login.done else b""
    return answered + login.pending, error, login.done, login.cancel, login.message, left


@given(
    st.sampled_from(CONVERSATIONS),
    st.lists(st.integers(0, 120)),
    st.sampled_from([AuthType.PLAIN, AuthType.TRUST]),
)
def test_chunks_do_not_matter(conversation: bytes, cuts: list[int], auth_type: AuthType) -> None:
    """However a stream is cut, the client is sent the same bytes and meets the same end."""
    edges = [0, *sorted(cuts), len(conversation)]
    chunks = [conversation[start:end] for start, end in pairwise(edges)]
    assert outcome(auth_type, chunks) == outcome(auth_type, [conversation])


@given(
    st.sampled_from(AuthType),
    st.sampled_from([b"", SSL, STARTUP, MODERN, SSL + STARTUP]),
    st.lists(
        st.binary(max_size=40)
        | st.builds(messages.frame, st.just(ord("p")), st.binary(max_size=60))
        | st.builds(lambda body: struct.pack("!I", len(body) + 4) + body, st.binary(max_size=60))
        | st.builds(messages.sasl_initial_response, st.just("SCRAM-SHA-256"), st.binary(max_size=40)),
        max_size=4,
    ),
)
def test_arbitrary_bytes(auth_type: AuthType, before: bytes, chunks: list[bytes]) -> None:
    """Nothing that a client can send makes anything but one of our own errors."""
    login = new_login(auth_type)
    refusal = b""
    try:
        answers(login, before, *chunks)
    except HyperpoolError as error:
        # A message that cannot be built would leave the client without an answer.
        refusal = messages.error_response(str(error), error.sqlstate)
    unasked = auth_type in {AuthType.TRUST, AuthType.ANY, AuthType.CERT, AuthType.PEER}
    assert login.done <= (unasked or b"pencil" in b"".join(chunks))
    assert not (login.done and refusal)


# -- waiting for somebody else ---------------------------------------------------------------------------------------


def pending_login(auth_type: AuthType = AuthType.PLAIN) -> tuple[Login, ClientAuthentication]:
    """A login whose user must be looked up first, and how it goes on then."""
    login = Login(lambda message: None)
    assert answers(login, MODERN, PASSWORD) == b""
    assert login.held
    return login, ClientAuthentication(auth_type, "ann", Secret("pencil"), b"mock", scram_iterations=10)


def test_a_user_that_must_be_looked_up() -> None:
    """Nothing is answered before; what the client has sent ahead is kept."""
    login, authentication = pending_login()
    assert login.receive(QUERY) == b""
    assert login.begin(authentication) == b""
    assert (login.done, login.held, login.pending) == (True, False, NEGOTIATED + CLEARTEXT)
    assert login.leftover() == QUERY


def test_a_user_that_is_not_known_after_all() -> None:
    """The refusal comes as if it had been known at once."""
    login, _ = pending_login()
    unknown = ClientAuthentication(AuthType.TRUST, "ann", None, b"mock")
    with pytest.raises(AuthenticationError, match='role "ann" does not exist'):
        login.begin(unknown)


@pytest.mark.parametrize("auth_type", [AuthType.LDAP, AuthType.PAM])
@pytest.mark.parametrize("matches", [True, False])
def test_a_password_that_somebody_else_checks(auth_type: AuthType, *, matches: bool) -> None:
    """The login is held until the outcome is known."""
    login = new_login(auth_type)
    assert answers(login, STARTUP, PASSWORD + QUERY) == CLEARTEXT
    assert (login.held, login.done) == (True, False)
    assert login.authentication is not None
    assert login.authentication.password == b"pencil"
    if matches:
        assert login.judge(matches=True) == b""
        assert (login.done, login.held, login.leftover()) == (True, False, QUERY)
        assert login.authentication.shown.secret == Secret("pencil")
    else:
        failure = f'{auth_type.name} authentication failed for user "ann"'
        with pytest.raises(AuthenticationError, match=failure) as caught:
            login.judge(matches=False)
        assert caught.value.sqlstate == "28000"
    assert login.authentication.password is None


@pytest.mark.parametrize("auth_type", [AuthType.LDAP, AuthType.PAM, AuthType.PLAIN])
def test_an_empty_password_is_nobodys(auth_type: AuthType) -> None:
    """LDAP servers would let it in."""
    login = new_login(auth_type)
    with pytest.raises(AuthenticationError):
        answers(login, STARTUP, messages.password_message(b""))


@pytest.mark.parametrize("auth_type", [AuthType.PLAIN, AuthType.MD5, AuthType.SCRAM_SHA_256, AuthType.PAM])
def test_a_password_that_comes_too_early(auth_type: AuthType) -> None:
    """Its message is kept, and looked at when it may be; all before it goes on as ever."""
    allowed = False

    def admit(message: StartupMessage) -> ClientAuthentication:
        return ClientAuthentication(auth_type, message.user, Secret("pencil"), b"mock", scram_iterations=10)

    login = Login(admit, may_try=lambda: allowed)
    first = login.receive(STARTUP)
    if auth_type is AuthType.SCRAM_SHA_256:
        client = ScramClient("pencil")
        challenge = login.receive(messages.sasl_initial_response("SCRAM-SHA-256", client.first()))
        assert not login.early
        final = messages.sasl_response(client.respond(challenge[9:]))
    elif auth_type is AuthType.MD5:
        inner = hashlib.md5(b"pencilann").hexdigest().encode()
        final = messages.password_message(b"md5" + hashlib.md5(inner + first[9:13]).hexdigest().encode())
    else:
        final = PASSWORD
    assert login.receive(final + QUERY) == b""
    assert (login.early, login.held, login.done) == (True, True, False)
    assert login.proceed() == b""
    assert login.early
    allowed = True
    login.proceed()
    if auth_type is AuthType.PAM:
        login.judge(matches=True)
    assert (login.early, login.held, login.done, login.leftover()) == (False, False, True, QUERY)
