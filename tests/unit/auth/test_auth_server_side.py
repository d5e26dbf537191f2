"""We act as PostgreSQL: the exchange with a client, frame by frame."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.auth.scram import MAX_CLEARTEXT_LENGTH, ScramClient
from hyperpool.auth.server_side import ClientAuthentication, plain_verifier
from hyperpool.config import AuthType, Secret
from hyperpool.errors import AuthenticationError, ProtocolError
from hyperpool.wire import messages
from tests.support.passwords import check_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Answer: TypeAlias = Callable[[ClientAuthentication, str], None]

MOCK_KEY = bytes(range(32))
PASSWORD_MESSAGE = ord("p")

PLAIN = Secret("pencil")
MD5 = Secret("md5" + hashlib.md5(b"penciluser").hexdigest())
# RFC 7677, section 3, in the form that PostgreSQL stores.
SCRAM = Secret(
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

CLEARTEXT_REQUEST = messages.authentication_cleartext_password()
SASL_REQUEST = messages.authentication_sasl(["SCRAM-SHA-256"])


def begin(
    auth_type: str, secret: Secret | None, user: str = "user", iterations: int = 10
) -> ClientAuthentication:
    """Make an authentication that has not started."""
    return ClientAuthentication(AuthType(auth_type), user, secret, MOCK_KEY, iterations)


def body_of(frame: bytes) -> bytes:
    """The body of a message."""
    return frame[5:]


def answer_cleartext(exchange: ClientAuthentication, password: str) -> None:
    """Answer a request for a cleartext password."""
    assert exchange.start() == CLEARTEXT_REQUEST
    assert exchange.receive(PASSWORD_MESSAGE, password.encode() + b"\x00") == b""
    check_password(exchange)


def answer_md5(exchange: ClientAuthentication, password: str) -> None:
    """Answer an MD5 challenge, as a client computes it."""
    code, salt = messages.authentication_fields(body_of(exchange.start()))
    assert (code, len(salt)) == (5, 4)
    inner = hashlib.md5(password.encode() + b"user").hexdigest().encode()
    reply = b"md5" + hashlib.md5(inner + salt).hexdigest().encode()
    assert exchange.receive(PASSWORD_MESSAGE, reply + b"\x00") == b""


def answer_scram(exchange: ClientAuthentication, password: str) -> None:
    """Go through a SCRAM exchange, and check the server's signature."""
    assert exchange.start() == SASL_REQUEST
    client = ScramClient(password)
    first = messages.sasl_initial_response("SCRAM-SHA-256", client.first())
    challenge = exchange.receive(PASSWORD_MESSAGE, body_of(first))
    code, data = messages.authentication_fields(body_of(challenge))
    assert code == 11
    final = exchange.receive(PASSWORD_MESSAGE, client.respond(data))
    code, data = messages.authentication_fields(body_of(final))
    assert code == 12
    client.verify(data)


EXCHANGES = [
    pytest.param("plain", PLAIN, answer_cleartext, id="plain, plain password"),
    pytest.param("plain", MD5, answer_cleartext, id="plain, MD5 digest"),
    pytest.param("plain", SCRAM, answer_cleartext, id="plain, SCRAM verifier"),
    pytest.param("md5", PLAIN, answer_md5, id="md5, plain password"),
    pytest.param("md5", MD5, answer_md5, id="md5, MD5 digest"),
    pytest.param("md5", SCRAM, answer_scram, id="md5, SCRAM verifier"),
    pytest.param("scram-sha-256", PLAIN, answer_scram, id="scram-sha-256, plain password"),
    pytest.param("scram-sha-256", SCRAM, answer_scram, id="scram-sha-256, SCRAM verifier"),
]
MOCKED = [
    pytest.param("plain", answer_cleartext, id="plain"),
    pytest.param("md5", answer_md5, id="md5"),
    pytest.param("scram-sha-256", answer_scram, id="scram-sha-256"),
]


@pytest.mark.parametrize(("auth_type", "secret", "answer"), EXCHANGES)
def test_right_password(auth_type: str, secret: Secret, answer: Answer) -> None:
    """Each auth_type lets a client in with each kind of secret that it works with."""
    exchange = begin(auth_type, secret)

    answer(exchange, "pencil")

    assert exchange.done


@pytest.mark.parametrize(("auth_type", "secret", "answer"), EXCHANGES)
@pytest.mark.parametrize("password", ["wrong", "pencil ", "Pencil", "pencil" * 100])
def test_wrong_password(auth_type: str, secret: Secret, answer: Answer, password: str) -> None:
    """A wrong password fails with PostgreSQL's words and SQLSTATE."""
    exchange = begin(auth_type, secret)

    with pytest.raises(AuthenticationError) as failure:
        answer(exchange, password)

    assert str(failure.value) == 'password authentication failed for user "user"'
    assert failure.value.sqlstate == "28P01"
    assert not exchange.done


@pytest.mark.parametrize("secret", [None, Secret("")], ids=["unknown", "no password"])
@pytest.mark.parametrize(("auth_type", "answer"), MOCKED)
@pytest.mark.parametrize("password", ["pencil", ""])
def test_unknown_user(auth_type: str, answer: Answer, secret: Secret | None, password: str) -> None:
    """A user that is unknown, or has no password, goes through the whole exchange and fails as with a wrong one."""
    exchange = begin(auth_type, secret)

    with pytest.raises(AuthenticationError) as failure:
        answer(exchange, password)

    assert str(failure.value) == 'password authentication failed for user "user"'
    assert failure.value.sqlstate == "28P01"


def test_md5_digest_is_no_good_for_scram() -> None:
    """With scram-sha-256, a user who has an MD5 digest alone fails as with a wrong password."""
    with pytest.raises(AuthenticationError) as failure:
        answer_scram(begin("scram-sha-256", MD5), "pencil")

    assert failure.value.sqlstate == "28P01"


def test_a_hash_is_not_a_password() -> None:
    """Knowing a stored hash does not help with a cleartext password."""
    for secret in (MD5, SCRAM):
        with pytest.raises(AuthenticationError):
            answer_cleartext(begin("plain", secret), secret.reveal())


@pytest.mark.parametrize("secret", [PLAIN, Secret("")], ids=["with a password", "without"])
def test_trust_lets_known_users_in(secret: Secret) -> None:
    """With trust there is nothing to send and nothing to wait for."""
    exchange = begin("trust", secret)

    assert exchange.start() == b""
    assert exchange.done


def test_trust_turns_unknown_users_away() -> None:
    """With trust an unknown user fails as in PostgreSQL when the role does not exist."""
    exchange = begin("trust", None)

    with pytest.raises(AuthenticationError) as failure:
        exchange.start()

    assert str(failure.value) == 'role "user" does not exist'
    assert failure.value.sqlstate == "28000"
    assert not exchange.done


def test_no_early_success() -> None:
    """Nobody is authenticated before the last step."""
    exchange = begin("scram-sha-256", PLAIN)
    client = ScramClient("pencil")
    assert not exchange.done

    exchange.start()
    assert not exchange.done

    exchange.receive(
        PASSWORD_MESSAGE, body_of(messages.sasl_initial_response("SCRAM-SHA-256", client.first()))
    )
    assert not exchange.done


def server_first(
    user: str, secret: Secret | None, iterations: int = 10, mock_key: bytes = MOCK_KEY
) -> list[bytes]:
    """The attributes of the server-first-message, without the nonce."""
    exchange = ClientAuthentication(AuthType("scram-sha-256"), user, secret, mock_key, iterations)
    exchange.start()
    first = messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")
    _, data = messages.authentication_fields(body_of(exchange.receive(PASSWORD_MESSAGE, body_of(first))))
    return data.split(b",")[1:]


def test_an_unknown_user_looks_like_a_known_one() -> None:
    """Salt and rounds are the same from try to try, differ between users, and do not tell who exists."""
    unknown = server_first("nobody", None)

    assert unknown == server_first("nobody", None)
    assert unknown == server_first("nobody", PLAIN)
    assert unknown == server_first("nobody", MD5)
    assert unknown != server_first("somebody", None)
    assert unknown != server_first("nobody", None, mock_key=b"another process")
    assert server_first("nobody", None, iterations=4096)[1] == b"i=4096"
    assert len(unknown[0]) == len(server_first("user", SCRAM)[0])


def test_equal_passwords_do_not_show() -> None:
    """Two users with the same password have different salts."""
    assert server_first("one", PLAIN) != server_first("two", PLAIN)


def test_a_plain_password_is_hashed_once() -> None:
    """A second login of the same user costs no PBKDF2; an unknown user never does."""
    secret = Secret("hashed once")
    before = plain_verifier.cache_info()

    for _ in range(3):
        server_first("frequent", secret)
        server_first("nobody", None)
    after = plain_verifier.cache_info()

    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)


def test_md5_salts_are_fresh() -> None:
    """A recorded answer to an MD5 challenge is worthless."""
    salts = {begin("md5", MD5).start() for _ in range(20)}

    assert len(salts) > 1


def test_a_client_may_wait_for_an_empty_challenge() -> None:
    """A SASL client that sends no initial response is asked for it, and the exchange goes on."""
    exchange = begin("scram-sha-256", PLAIN)
    exchange.start()
    client = ScramClient("pencil")

    empty = exchange.receive(PASSWORD_MESSAGE, b"SCRAM-SHA-256\x00\xff\xff\xff\xff")
    challenge = exchange.receive(PASSWORD_MESSAGE, client.first())
    final = exchange.receive(PASSWORD_MESSAGE, client.respond(challenge[9:]))

    assert empty == messages.authentication_sasl_continue(b"")
    client.verify(final[9:])
    assert exchange.done


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "PLAIN", ""])
def test_a_mechanism_that_was_not_offered_is_refused(mechanism: str) -> None:
    """A client cannot choose another mechanism, with channel binding or weaker."""
    exchange = begin("scram-sha-256", PLAIN)
    exchange.start()

    with pytest.raises(ProtocolError, match="invalid SASL authentication mechanism"):
        exchange.receive(PASSWORD_MESSAGE, body_of(messages.sasl_initial_response(mechanism, b"n,,n=,r=abc")))


@pytest.mark.parametrize("auth_type", ["plain", "md5", "scram-sha-256"])
@pytest.mark.parametrize("kind", [ord("Q"), ord("X"), ord("P"), 0])
def test_only_passwords_are_expected(auth_type: str, kind: int) -> None:
    """A query in place of the password is refused with PostgreSQL's words, and ends the exchange."""
    exchange = begin(auth_type, PLAIN)
    exchange.start()

    with pytest.raises(ProtocolError, match=f"expected password response, got message type {kind}"):
        exchange.receive(kind, b"select 1\x00")
    with pytest.raises(ProtocolError, match="none was asked for"):
        exchange.receive(PASSWORD_MESSAGE, b"pencil\x00")


def test_nothing_is_expected_before_the_start_and_after_the_end() -> None:
    """A message out of turn is refused, and does not undo or repeat anything."""
    exchange = begin("plain", PLAIN)
    with pytest.raises(ProtocolError, match="none was asked for"):
        exchange.receive(PASSWORD_MESSAGE, b"pencil\x00")

    answer_cleartext(exchange, "pencil")

    with pytest.raises(ProtocolError, match="none was asked for"):
        exchange.receive(PASSWORD_MESSAGE, b"pencil\x00")
    assert exchange.done


@pytest.mark.parametrize(
    ("auth_type", "body"),
    [
        ("plain", b"pencil"),
        ("plain", b"wrong\x00pencil\x00"),
        ("md5", b""),
        ("scram-sha-256", b""),
        ("scram-sha-256", b"SCRAM-SHA-256\x00\x00\x00\x00\x01n,,n=,r=abc"),
        ("scram-sha-256", b"SCRAM-SHA-256\x00\x00\x00\x00\x03n,,"),
    ],
)
def test_one_try_per_connection(auth_type: str, body: bytes) -> None:
    """A malformed answer is refused, and the right one after it comes too late."""
    exchange = begin(auth_type, PLAIN)
    exchange.start()

    with pytest.raises(ProtocolError):
        exchange.receive(PASSWORD_MESSAGE, body)
    with pytest.raises(ProtocolError, match="none was asked for"):
        exchange.receive(PASSWORD_MESSAGE, b"pencil\x00")


def test_a_wrong_password_cannot_be_corrected() -> None:
    """After a wrong password there is no second try on the same connection."""
    exchange = begin("plain", PLAIN)
    with pytest.raises(AuthenticationError):
        answer_cleartext(exchange, "wrong")

    with pytest.raises(ProtocolError, match="none was asked for"):
        exchange.receive(PASSWORD_MESSAGE, b"pencil\x00")


def test_a_plain_password_may_be_longer_than_what_is_hashed() -> None:
    """Long tokens work as plain passwords; the bound of a cleartext password is for verifiers alone."""
    token = "t" * (MAX_CLEARTEXT_LENGTH * 4)
    exchange = begin("plain", Secret(token))

    answer_cleartext(exchange, token)

    assert exchange.done


def test_names_and_passwords_in_an_unknown_encoding() -> None:
    """Bytes that are not UTF-8 count as they are, in user name and password."""
    user, password = b"J\xe9r\xf4me", b"caf\xe9"
    secret = Secret("md5" + hashlib.md5(password + user).hexdigest())
    exchange = begin("plain", secret, user.decode("utf-8", "surrogateescape"))
    exchange.start()

    exchange.receive(PASSWORD_MESSAGE, password + b"\x00")

    assert exchange.done


@given(
    auth_type=st.sampled_from(["plain", "md5", "scram-sha-256"]),
    secret=st.sampled_from([PLAIN, MD5, SCRAM, None]),
    frames=st.lists(
        st.tuples(
            st.sampled_from([PASSWORD_MESSAGE, ord("Q")]),
            st.binary(max_size=60)
            | st.just(b"SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc")
            | st.binary(max_size=30).map(lambda tail: b"SCRAM-SHA-256\x00" + tail)
            | st.binary(max_size=30).map(lambda head: head + b"\x00"),
        ),
        max_size=4,
    ),
)
def test_no_message_breaks_the_exchange(
    auth_type: str, secret: Secret | None, frames: list[tuple[int, bytes]]
) -> None:
    """Arbitrary messages end in ProtocolError or AuthenticationError, nothing else, and let nobody in."""
    exchange = begin(auth_type, secret, iterations=1)
    exchange.start()

    for kind, body in frames:
        try:
            exchange.receive(kind, body)
        except (ProtocolError, AuthenticationError):
            continue

    assert not exchange.done
