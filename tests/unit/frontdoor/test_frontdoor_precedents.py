"""Clients that begin like one before them: they come in without being looked at again, while nothing has changed."""

from __future__ import annotations

import contextlib
import ssl
import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from structlog.testing import capture_logs

from hyperpool.auth.scram import ScramClient
from hyperpool.config import AuthType, DatabaseSettings, Secret, SslMode, UserSettings
from hyperpool.config.tls import ClientTls
from hyperpool.frontdoor import precedents
from hyperpool.frontdoor.tls import TlsOffer, make_offer
from hyperpool.wire import messages
from tests.support.certificates import CA, client_side, issue
from tests.support.fronthouse import FULL, QUERY, READY, REPORTED, House, received, startup, told, welcome

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from hyperpool.auth.server_side import ClientAuthentication
    from hyperpool.frontdoor.guest import Guest
    from hyperpool.relay.client import ClientConnection
    from hyperpool.wire.startup import StartupMessage

SSL = struct.pack("!II", 8, 80877103)
GSSENC = struct.pack("!II", 8, 80877104)
ASKED = [AuthType.TRUST, AuthType.ANY, AuthType.SCRAM_SHA_256]


@attrs.define
class Anybody:
    """A guest that came early enough."""

    since: float = 0.0


class Encrypted:
    """A client that speaks TLS, in memory.

    Args:
        house: where it wants to go.
        sock: its connection, on which it has been told to begin.
    """

    def __init__(self, house: House, sock: socket.socket) -> None:
        self._house, self._sock = house, sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_side(CA).wrap_bio(self._in, self._out, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange()
            else:
                break
        self._exchange()

    def _exchange(self) -> None:
        self._house.send(self._sock, self._out.read())
        self._in.write(received(self._sock))

    def send(self, data: bytes) -> None:
        """Send something."""
        self._tls.write(data)
        self._exchange()

    def received(self) -> bytes:
        """Everything that it has been sent since it was last asked."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while some := self._tls.read(65536):
                data += some
        return data


def prove(house: House, client: socket.socket, password: str = "pencil", behind: bytes = b"") -> bytes:
    """Do what a client does that is asked for its password with SCRAM, if it is; returns what comes in the end."""
    answer = received(client)
    if not answer.startswith(messages.authentication_sasl(["SCRAM-SHA-256"])):
        return answer
    exchange = ScramClient(password)
    house.send(client, messages.sasl_initial_response("SCRAM-SHA-256", exchange.first()))
    final = exchange.respond(received(client)[9:])
    house.send(client, messages.sasl_response(final) + behind)
    answer = received(client)
    if answer.startswith(b"R"):
        length = int.from_bytes(answer[1:5]) + 1
        exchange.verify(answer[9:length])
        answer = answer[length:]
    return answer


def newest(house: House) -> ClientConnection:
    """The client that has come last."""
    return list(house.relay.clients.values())[-1]


def open_house(make_house: Callable[..., House], auth_type: AuthType, **pooler: object) -> House:
    """A house in which one client is already, and which cannot look at another one."""
    house = make_house(**{"max_client_conn": 9, "auth_type": auth_type, **pooler})
    databases = {"app": DatabaseSettings(user="ann"), "other": DatabaseSettings(user="ann")}
    house.settings = attrs.evolve(house.settings, databases=databases)
    house.pools.reload(house.settings)
    house.door.configure(house.settings, None)
    house.warm()
    assert prove(house, house.connect(startup())).endswith(READY)
    return house


def forbid(house: House) -> None:
    """From now on, nobody may be looked at."""

    def admit(*_arguments: object) -> None:
        raise AssertionError("it was looked at")

    house.door.admit = admit  # type: ignore[assignment]


@pytest.mark.parametrize("auth_type", ASKED)
def test_the_next_client_with_the_same_words(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """It is greeted in the same way, with a key of its own, and counts as the first one does."""
    house = open_house(make_house, auth_type)
    first = newest(house)
    forbid(house)
    client = house.connect(startup())
    assert prove(house, client) == welcome(house, REPORTED)
    second = newest(house)
    assert second is not first
    assert second.pid != first.pid
    assert second.secret != first.secret
    assert (second.pool, second.tracked, second.user) == (first.pool, first.tracked, first.user)
    assert house.relay.census.databases == {"app": 2}
    assert house.relay.census.users == {"ann": 2}
    assert second.pool.clients == 2
    assert second.pool.stats.logins == 2
    client.close()
    house.relay.turn()
    assert house.relay.census.users == {"ann": 1}
    assert house.relay.population == 1


@pytest.mark.parametrize("auth_type", ASKED)
def test_tls_that_is_refused_comes_before(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """Drivers ask for TLS first; what counts is what they send when they know that there is none."""
    house = open_house(make_house, auth_type)
    forbid(house)
    client = house.connect(SSL)
    assert received(client) == b"N"
    house.send(client, startup())
    assert prove(house, client) == welcome(house, REPORTED)


@pytest.mark.parametrize("asked", [(SSL, SSL), (SSL, GSSENC, SSL), (GSSENC, SSL, SSL), (SSL, GSSENC, GSSENC)])
def test_tls_that_is_asked_for_again(house: House, asked: tuple[bytes, ...]) -> None:
    """As in PostgreSQL, one refusal of each kind is enough."""
    client = house.connect()
    for request in asked[:-1]:
        house.send(client, request)
        assert received(client) == b"N"
    house.send(client, asked[-1])
    assert received(client) == told("08P01", "repeated request for encryption") + b"END"


@pytest.mark.parametrize("pieces", [(SSL[:5], SSL[5:]), (SSL + startup()[:4], startup()[4:])])
def test_a_request_for_tls_in_pieces(house: House, pieces: tuple[bytes, ...]) -> None:
    """However it comes, one byte answers it, and the login goes on."""
    house.warm()
    client = house.connect()
    for piece in pieces:
        house.send(client, piece)
    answer = received(client)
    if not answer.endswith(READY):
        house.send(client, startup())
        answer += received(client)
    assert answer == b"N" + welcome(house, REPORTED)


def test_other_words_are_looked_at(make_house: Callable[..., House]) -> None:
    """Whatever differs in a byte is another client's business, also a packet that only begins like the known one."""
    house = open_house(make_house, AuthType.TRUST)
    forbid(house)
    for other in (startup("bob"), startup(application_name="x"), startup()[:-1]):
        house.connect(other)
        assert len(house.relay.clients) == 1


def test_requests_right_behind_the_login(make_house: Callable[..., House]) -> None:
    """What comes in the same packet goes the long way; what comes behind a proof is not lost."""
    house = open_house(make_house, AuthType.TRUST)
    server = house.warm()
    client = house.connect(startup() + QUERY)
    assert received(client).endswith(READY)
    assert received(server) == QUERY
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    server = house.warm()
    forbid(house)
    assert prove(house, house.connect(startup()), behind=QUERY) == welcome(house, REPORTED)
    assert received(server) == QUERY


def test_a_wrong_password(make_house: Callable[..., House]) -> None:
    """That others with the same words were let in helps nobody, and each failure counts."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256, auth_failure_burst=2)
    wrong = told("28P01", 'password authentication failed for user "ann"') + b"END"
    assert prove(house, house.connect(startup()), "rubber") == wrong
    assert prove(house, house.connect(startup()), "rubber") == wrong
    late = house.connect(startup())
    assert prove(house, late) == b""
    assert house.relay.population == 2
    house.later(house.settings.pooler.auth_failure_interval + 1)
    assert prove(house, late).endswith(READY)


def test_a_proof_after_others_have_failed(make_house: Callable[..., House]) -> None:
    """While somebody owes for failures, it is looked at whether this one does."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256, auth_failure_burst=2)
    house.door.access.penalties.failed("192.0.2.7", "bob", house.clock.now)
    assert prove(house, house.connect(startup())) == welcome(house, REPORTED)
    early = house.connect(startup())
    for _ in range(2):
        house.door.access.penalties.failed("unix", "ann", house.clock.now)
    assert prove(house, early) == b""
    house.later(house.settings.pooler.auth_failure_interval + 1)
    assert received(early).endswith(READY)


class Words:
    """What a client says in its SCRAM exchange, message by message."""

    def __init__(self, header: bytes = b"n,,", user: bytes = b"") -> None:
        self.exchange = ScramClient("pencil", user=user, header=header)

    def first(self) -> bytes:
        """The first message."""
        return messages.sasl_initial_response("SCRAM-SHA-256", self.exchange.first())

    def final(self, challenge: bytes) -> bytes:
        """The second one."""
        assert challenge[:1] + challenge[5:9] == b"R\0\0\0\x0b"
        return messages.sasl_response(self.exchange.respond(challenge[9:]))

    def verify(self, answer: bytes) -> bytes:
        """Check what is proved to the client; returns what stands behind it."""
        length = int.from_bytes(answer[1:5]) + 1
        self.exchange.verify(answer[9:length])
        return answer[length:]


@pytest.mark.parametrize("words", [Words(), Words(b"y,,"), Words(user=b"somebody")])
@pytest.mark.parametrize(("first", "final"), [(1, 1), (4, 1), (9, 1), (1, 3), (2, 2)])
def test_a_proof_in_pieces(make_house: Callable[..., House], words: Words, first: int, final: int) -> None:
    """However it is cut: who comes from the short way to the long one is answered as if it had always been there."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    forbid(house)
    client = house.connect(startup())
    assert received(client) == messages.authentication_sasl(["SCRAM-SHA-256"])

    def say(text: bytes, pieces: int) -> bytes:
        size = -(-len(text) // pieces)
        for at in range(0, len(text), size):
            assert received(client) == b""
            house.send(client, text[at : at + size])
        return received(client)

    challenge = say(words.first(), first)
    assert words.verify(say(words.final(challenge), final)) == welcome(house, REPORTED)
    assert house.relay.census.users == {"ann": 2}
    assert house.relay.population == 2


def test_a_first_message_that_is_asked_for(make_house: Callable[..., House]) -> None:
    """A client need not send it along with the name of the mechanism (RFC 4422)."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    client = house.connect(startup())
    received(client)
    words = Words()
    house.send(client, b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff")
    assert received(client) == messages.authentication_sasl_continue(b"")
    house.send(client, messages.sasl_response(words.first()[-len(words.exchange.first()) :]))
    house.send(client, words.final(received(client)))
    assert words.verify(received(client)) == welcome(house, REPORTED)


@pytest.mark.parametrize("spoilt", ["nonce", "proof", "binding", "type"])
def test_a_proof_that_is_none(make_house: Callable[..., House], spoilt: str) -> None:
    """What does not fit is refused with the words of the long way, and counts where it does there."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    client = house.connect(startup())
    received(client)
    words = Words()
    house.send(client, words.first())
    final = words.final(received(client))
    start, _, proof = final.partition(b",p=")
    said, failures = {
        "nonce": ("invalid SCRAM response: nonce does not match", 0),
        "proof": ('password authentication failed for user "ann"', 1),
        "binding": ("unexpected SCRAM channel-binding attribute in client-final-message", 0),
        "type": ("expected password response, got message type 81", 0),
    }[spoilt]
    changed = {
        "nonce": start[:-1] + (b"A" if start[-1:] != b"A" else b"B") + b",p=" + proof,
        "proof": start + b",p=" + (b"A" if proof[:1] != b"A" else b"B") + proof[1:],
        "binding": final.replace(b"c=biws", b"c=eSws"),
        "type": b"Q" + final[1:],
    }[spoilt]
    house.send(client, changed)
    assert received(client) == told("28P01" if failures else "08P01", said) + b"END"
    assert bool(house.door.access.penalties) == bool(failures)
    assert house.relay.population == 1


def test_who_leaves_before_its_proof(make_house: Callable[..., House]) -> None:
    """Its place is free again, and the log knows who it was."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256, log_disconnections=True)
    with capture_logs() as logs:
        client = house.connect(startup())
        client.close()
        house.relay.turn()
    assert [(entry["user"], entry["database"]) for entry in logs] == [("ann", "app")]
    assert house.relay.population == 1
    with capture_logs() as logs:
        client = house.connect(startup())
        received(client)
        house.later(house.settings.pooler.client_login_timeout + 1)
    assert received(client) == told("08P01", "client_login_timeout") + b"END"
    assert house.relay.population == 1


def test_settings_that_change_before_the_proof(make_house: Callable[..., House]) -> None:
    """It is let in with the password that was right when it came, and counts for limits that have come since."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    early = house.connect(startup())
    users = {"ann": UserSettings(password=Secret("quill"), max_user_client_connections=1)}
    house.settings = attrs.evolve(house.settings, users=users)
    house.door.configure(house.settings, None)
    answer = prove(house, early)
    assert answer.startswith(b"E")
    assert b"max_user_client_connections" in answer
    assert house.relay.population == 1


@pytest.mark.parametrize("user", ["ann", "nobody"])
def test_who_begins_for_the_second_time(make_house: Callable[..., House], user: str) -> None:
    """Whoever it says to be is asked at once, and no sooner for somebody that there is than for somebody else."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    wrong = told("28P01", f'password authentication failed for user "{user}"') + b"END"
    words = startup(user, application_name="not seen yet")
    assert prove(house, house.connect(words), "rubber") == wrong
    forbid(house)
    assert prove(house, house.connect(words), "rubber") == wrong
    if user == "ann":
        assert prove(house, house.connect(words)).endswith(READY)
        first = newest(house)
        assert house.door.precedents.holds(Anybody(), house.door.precedents.find(Anybody(), words))  # type: ignore[arg-type]
        assert prove(house, house.connect(words)).endswith(READY)
        assert newest(house).pool is first.pool
        assert house.relay.census.users == {"ann": 3}
    else:
        assert house.relay.population == 1


def test_who_is_known_only_by_a_question(make_house: Callable[..., House]) -> None:
    """A shut door is shut for it, new settings ask it anew, and there are not too many."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    house.connect(startup("nobody")).close()
    house.relay.turn()
    house.door.close()
    assert received(house.connect(startup("nobody"))) == told("57P03", "pooler is shutting down") + b"END"
    house.door.close(float("inf"))
    settings = attrs.evolve(
        house.settings, pooler=attrs.evolve(house.settings.pooler, auth_type=AuthType.TRUST)
    )
    house.door.configure(settings, None)
    assert (
        received(house.connect(startup("nobody"))) == told("28000", 'role "nobody" does not exist') + b"END"
    )


def test_questions_push_nobody_out(make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has proved nothing takes no memory from those who have, and not much at all."""
    monkeypatch.setattr(precedents, "_MOST", 4)
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    found = house.door.precedents.find
    for number in range(9):
        house.connect(startup(f"nobody{number}")).close()
        house.relay.turn()
    assert found(Anybody(), startup())  # type: ignore[arg-type]
    kept = [number for number in range(9) if found(Anybody(), startup(f"nobody{number}"))]  # type: ignore[arg-type]
    assert 1 <= len(kept) <= 4
    assert kept[-1] == 8


@pytest.mark.parametrize("auth_type", ASKED)
def test_no_room(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """max_client_conn is reached exactly."""
    house = open_house(make_house, auth_type, max_client_conn=2)
    assert prove(house, house.connect(startup())).endswith(READY)
    assert received(house.connect(startup())) == FULL + b"END"
    assert house.relay.population == 2


@pytest.mark.parametrize("auth_type", ASKED)
def test_a_shut_door(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """A pooler that shuts down lets nobody in."""
    house = open_house(make_house, auth_type)
    house.door.close()
    assert received(house.connect(startup())) == told("57P03", "pooler is shutting down") + b"END"


@pytest.mark.parametrize("auth_type", ASKED)
def test_a_disabled_database(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """DISABLE counts for those that come after it, and for those that are about to prove who they are."""
    house = open_house(make_house, auth_type)
    refused = told("08P01", 'database "app" is disabled', "the console's ENABLE lets clients in") + b"END"
    early = house.connect(startup()) if auth_type is AuthType.SCRAM_SHA_256 else None
    house.pools.disabled.add("app")
    for client in (early, house.connect(startup())):
        if client is not None:
            assert prove(house, client) == refused
    house.pools.disabled.clear()
    assert prove(house, house.connect(startup())).endswith(READY)


@pytest.mark.parametrize("auth_type", ASKED)
def test_a_server_that_reports_something_else(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """A greeting is never older than what the pool knows, not even by the time of a proof."""
    house = open_house(make_house, auth_type)
    early = house.connect(startup()) if auth_type is AuthType.SCRAM_SHA_256 else None
    newer = {**REPORTED, "server_version": "17.1"}
    house.warm(newer)
    for client in (early, house.connect(startup())):
        if client is not None:
            assert prove(house, client) == welcome(house, newer)


@pytest.mark.parametrize("asked", [SSL, GSSENC])
def test_a_refused_request_is_no_beginning(make_house: Callable[..., House], asked: bytes) -> None:
    """What has sent a client the long way in the middle of its login: those who ask next are answered."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    early = house.connect(asked)
    assert received(early) == b"N"
    house.send(early, startup())
    newer = {**REPORTED, "server_version": "17.1"}
    house.warm(newer)
    assert prove(house, early) == welcome(house, newer)
    for _ in range(2):
        client = house.connect(asked)
        assert received(client) == b"N"
        house.send(client, startup())
        assert prove(house, client) == welcome(house, newer)


@pytest.mark.parametrize("auth_type", [AuthType.TRUST, AuthType.SCRAM_SHA_256])
def test_a_user_that_is_removed(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """Settings are forgotten with what followed from them."""
    house = open_house(make_house, auth_type)
    users = {"bob": UserSettings(password=Secret("x"))}
    house.door.configure(attrs.evolve(house.settings, users=users), None)
    assert prove(house, house.connect(startup())).endswith(b"END")


def test_a_password_that_is_changed(make_house: Callable[..., House]) -> None:
    """The old one is wrong as soon as the settings are there."""
    house = open_house(make_house, AuthType.SCRAM_SHA_256)
    users = {"ann": UserSettings(password=Secret("quill"))}
    house.door.configure(attrs.evolve(house.settings, users=users), None)
    assert prove(house, house.connect(startup()), "quill").endswith(READY)
    assert prove(house, house.connect(startup())).endswith(b"END")
    assert prove(house, house.connect(startup()), "quill").endswith(READY)


@pytest.mark.parametrize("auth_type", ASKED)
def test_limits_are_looked_at(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """Where a database or a user has a limit, there is no short way."""
    house = open_house(make_house, auth_type, max_db_client_connections=2)
    assert prove(house, house.connect(startup())).endswith(READY)
    assert prove(house, house.connect(startup())).endswith(b"END")
    assert house.relay.census.databases == {"app": 2}


@pytest.mark.parametrize(
    ("auth_type", "pooler"),
    [
        (AuthType.PLAIN, {}),
        (AuthType.MD5, {}),
        (AuthType.TRUST, {"application_name_add_host": True}),
    ],
)
def test_what_is_no_precedent(
    make_house: Callable[..., House], auth_type: AuthType, pooler: dict[str, object]
) -> None:
    """What hangs on more than the settings and the first bytes is looked at each time."""
    house = make_house(auth_type=auth_type, **pooler)
    house.warm()
    proof = messages.password_message(b"pencil") if auth_type is not AuthType.TRUST else b""
    client = house.connect(startup())
    if auth_type is AuthType.PLAIN:
        house.send(client, proof)
    looked: list[object] = []
    admit = house.door.admit

    def look(guest: Guest, message: StartupMessage) -> ClientAuthentication | None:
        looked.append(guest)
        return admit(guest, message)

    house.door.admit = look  # type: ignore[method-assign]
    house.connect(startup())
    assert len(looked) == 1


def test_tls_that_is_asked_for(make_house: Callable[..., House]) -> None:
    """A client of a Unix socket needs no TLS; that it was let in without any says nothing of others."""
    house = make_house()
    offer = TlsOffer(None, b"", required=True)  # type: ignore[arg-type]
    house.door.configure(house.settings, offer)
    house.warm()
    assert received(house.connect(startup())).endswith(READY)
    assert house.door.precedents.find(Anybody(), startup()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("auth_type", ASKED)
@pytest.mark.parametrize("first", [SSL, GSSENC + SSL])
def test_clients_with_tls(
    make_house: Callable[..., House], tmp_path: Path, auth_type: AuthType, first: bytes
) -> None:
    """Each is asked for its startup packet: that one with TLS was let in says nothing of those who ask for it, too."""
    house = make_house(auth_type=auth_type)
    house.settings = attrs.evolve(house.settings, databases={"app": DatabaseSettings(user="ann")})
    house.pools.reload(house.settings)
    files = issue(tmp_path, "localhost")
    offer = make_offer(ClientTls(mode=SslMode.ALLOW, material=files.material))
    house.door.configure(house.settings, offer)
    house.warm()
    for _ in range(2):
        client = house.connect_tcp()
        for request in (first[at : at + 8] for at in range(0, len(first), 8)):
            house.send(client, request)
            assert received(client) == (b"S" if request == SSL else b"N")
        talk = Encrypted(house, client)
        talk.send(startup())
        if auth_type is AuthType.SCRAM_SHA_256:
            assert talk.received().startswith(
                messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
            )
            exchange = ScramClient("pencil")
            talk.send(messages.sasl_initial_response("SCRAM-SHA-256", exchange.first()))
            talk.send(messages.sasl_response(exchange.respond(talk.received()[9:])))
        assert talk.received().endswith(READY)


def test_a_packet_in_pieces(make_house: Callable[..., House]) -> None:
    """A part of a packet says nothing of others that have the same part, whatever it looks like."""
    house = make_house(ignore_startup_parameters=("padding",))
    house.warm()
    house.warm(pool=house.pool("bob"))
    for user in ("ann", "bob"):
        # The first three bytes of its length are, read as a number, how many they are.
        packet = startup(user, padding="x" * 750)
        assert packet[:3] == b"\0\0\3"
        client = house.connect(packet[:3])
        assert received(client) == b""
        house.send(client, packet[3:])
        assert received(client) == welcome(house, REPORTED)
        assert newest(house).user == user
    forbid(house)
    client = house.connect(startup("ann", padding="x" * 750))
    assert received(client) == welcome(house, REPORTED)
    assert newest(house).user == "ann"


@pytest.mark.parametrize("auth_type", ASKED)
def test_requests_in_the_packet_before(make_house: Callable[..., House], auth_type: AuthType) -> None:
    """What only the first one has sent around its login is answered to it alone."""
    house = make_house(auth_type=auth_type)
    house.settings = attrs.evolve(house.settings, databases={"app": DatabaseSettings(user="ann")})
    house.pools.reload(house.settings)
    house.door.configure(house.settings, None)
    server = house.warm()
    first = house.connect(
        GSSENC + SSL + startup() + (QUERY if auth_type is not AuthType.SCRAM_SHA_256 else b"")
    )
    assert first.recv(2) == b"NN"
    assert prove(house, first) == welcome(house, REPORTED)
    assert received(server) == (QUERY if auth_type is not AuthType.SCRAM_SHA_256 else b"")
    forbid(house)
    assert prove(house, house.connect(startup())) == welcome(house, REPORTED)
    assert received(server) == b""


def test_protocol_versions_are_negotiated(make_house: Callable[..., House]) -> None:
    """Each client that asks for what nobody speaks is told so, and has a key of the length of what is spoken."""
    house = open_house(make_house, AuthType.TRUST)
    packet = startup(**{"_pq_.grease": "1"})
    packet = packet[:4] + (3 << 16 | 9999).to_bytes(4) + packet[8:]
    told_first = messages.negotiate_protocol_version(2, ["_pq_.grease"])
    assert received(house.connect(packet)) == told_first + welcome(house, REPORTED)
    forbid(house)
    assert received(house.connect(packet)) == told_first + welcome(house, REPORTED)
    assert len(newest(house).secret) == 32


@pytest.mark.parametrize("auth_type", [AuthType.TRUST, AuthType.ANY])
def test_a_login_that_began_under_other_settings(
    make_house: Callable[..., House], auth_type: AuthType
) -> None:
    """It goes on as it has begun, and says nothing of those who come later."""
    house = make_house(auth_type=auth_type)
    house.settings = attrs.evolve(house.settings, databases={"app": DatabaseSettings(user="ann")})
    house.pools.reload(house.settings)
    house.door.configure(house.settings, None)
    early = house.connect(startup())
    assert received(early) == b""
    pooler = attrs.evolve(house.settings.pooler, auth_type=AuthType.SCRAM_SHA_256)
    house.door.configure(attrs.evolve(house.settings, pooler=pooler), None)
    house.warm()
    assert received(early) == welcome(house, REPORTED)
    for _ in range(2):
        late = house.connect(startup())
        assert (
            prove(house, late, "rubber")
            == told("28P01", 'password authentication failed for user "ann"') + b"END"
        )
        assert prove(house, house.connect(startup())).endswith(READY)


def test_a_user_that_others_know_from_now_on(make_house: Callable[..., House]) -> None:
    """A login that began with a password of the settings says nothing of whom somebody must be asked about."""
    house = make_house(auth_type=AuthType.SCRAM_SHA_256)
    house.warm()
    early = house.connect(startup())
    pooler = attrs.evolve(house.settings.pooler, auth_user="bob")
    users = {"bob": UserSettings(password=Secret("x"))}
    house.door.configure(attrs.evolve(house.settings, pooler=pooler, users=users), None)
    assert prove(house, early).endswith(READY)
    asked = len(house.inquiries)
    house.connect(startup())
    assert len(house.inquiries) == asked + 1


def test_a_password_that_is_changed_before_the_proof(make_house: Callable[..., House]) -> None:
    """Who came before it is let in with the old one; nobody else is."""
    house = make_house(auth_type=AuthType.SCRAM_SHA_256)
    house.warm()
    early = house.connect(startup())
    users = {"ann": UserSettings(password=Secret("quill"))}
    house.door.configure(attrs.evolve(house.settings, users=users), None)
    assert prove(house, early) == welcome(house, REPORTED)
    for _ in range(2):
        assert prove(house, house.connect(startup())).endswith(b"END")
        assert prove(house, house.connect(startup()), "quill") == welcome(house, REPORTED)


def test_what_is_remembered_is_bounded(
    make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that say something new each time do not fill the memory."""
    monkeypatch.setattr(precedents, "_MOST", 4)
    house = open_house(make_house, AuthType.TRUST, max_client_conn=100)
    for number in range(9):
        assert received(house.connect(startup(application_name=f"app{number}"))).endswith(READY)
    kept = [
        number
        for number in range(9)
        if house.door.precedents.find(Anybody(), startup(application_name=f"app{number}"))  # type: ignore[arg-type]
    ]
    assert 1 <= len(kept) <= 4
    assert kept[-1] == 8
