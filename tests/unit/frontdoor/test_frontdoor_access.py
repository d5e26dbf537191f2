"""Who is asked what about a client that logs in, and what becomes of the answers."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.auth import scram, server_side
from hyperpool.auth.scram import ScramClient
from hyperpool.auth.secrets import Shown
from hyperpool.config import AuthType, DatabaseSettings, Secret, UserSettings
from hyperpool.config.hba import parse_hba
from hyperpool.config.ldap import LdapOptions
from hyperpool.errors import ClientRefused
from hyperpool.frontdoor import access
from hyperpool.frontdoor.inquiries import CheckInquiry, SecretInquiry
from hyperpool.wire import messages
from tests.support.fronthouse import (
    CLEARTEXT,
    REPORTED,
    House,
    open_houses,
    received,
    startup,
    told,
    welcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = messages.password_message(b"pencil")
WRONG = messages.password_message(b"pen")
VERIFIER = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


@pytest.fixture
def open_house() -> Iterator[Callable[..., House]]:
    """Front doors."""
    with open_houses() as make:
        yield make


def refused(user: str) -> bytes:
    """What a client with a wrong password is told."""
    return told("28P01", f'password authentication failed for user "{user}"')


def asking(open_house: Callable[..., House], **pooler: Any) -> House:
    """A house that asks a server about strangers."""
    house = open_house(**{"auth_type": AuthType.PLAIN, "auth_user": "asker", **pooler})
    house.warm(pool=house.pool("stranger"))
    return house


def question(house: House) -> SecretInquiry:
    """The one that was asked."""
    (inquiry,) = house.inquiries
    house.inquiries.clear()
    assert isinstance(inquiry, SecretInquiry)
    return inquiry


def check(house: House) -> CheckInquiry:
    """The one that was asked for."""
    (inquiry,) = house.inquiries
    house.inquiries.clear()
    assert isinstance(inquiry, CheckInquiry)
    return inquiry


# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_stranger_is_asked_about(open_house: Callable[..., House]) -> None:
    """And let in with what the server has stored; what it has sent is used for servers."""
    house = asking(open_house)
    client = house.connect(startup("stranger"))
    assert received(client) == b""
    inquiry = question(house)
    assert (inquiry.user, inquiry.source.settings.user, inquiry.source.settings.database) == (
        "stranger",
        "asker",
        "app",
    )
    inquiry.then(Secret("pencil"))
    assert received(client) == CLEARTEXT
    house.send(client, PASSWORD)
    assert received(client) == welcome(house, REPORTED)
    assert house.pool("stranger").shown == Shown(secret=Secret("pencil"))


def test_what_is_sent_ahead_is_kept(open_house: Callable[..., House]) -> None:
    """A client may send its password before it is asked, while the server still is."""
    house = asking(open_house)
    client = house.connect(startup("stranger"))
    house.send(client, PASSWORD)
    question(house).then(Secret("pencil"))
    house.relay.turn()
    assert received(client) == CLEARTEXT + welcome(house, REPORTED)


@pytest.mark.parametrize("answer", [None, Secret(""), Secret(VERIFIER)], ids=["unknown", "empty", "another"])
def test_a_stranger_that_is_not_let_in(open_house: Callable[..., House], answer: Secret | None) -> None:
    """Whether it is known or not, the exchange is the same, and costs the same."""
    house = asking(open_house)
    client = house.connect(startup("stranger"))
    question(house).then(answer)
    house.send(client, WRONG)
    inquiry = check(house)
    assert inquiry.check() is False
    inquiry.then(False)
    assert received(client) == CLEARTEXT + refused("stranger") + b"END"


def test_nobody_is_let_in_without_a_secret(open_house: Callable[..., House]) -> None:
    """Whatever comes of checking the password of somebody who does not exist."""
    house = asking(open_house)
    client = house.connect(startup("stranger"), PASSWORD)
    question(house).then(None)
    check(house).then(True)
    assert received(client) == CLEARTEXT + refused("stranger") + b"END"


def test_nobody_can_be_asked(open_house: Callable[..., House]) -> None:
    """The client is told."""
    house = asking(open_house)
    client = house.connect(startup("stranger"))
    question(house).then(ClientRefused("nobody there", "08001", "wait"))
    assert received(client) == told("08001", "nobody there", "wait") + b"END"


def test_a_stranger_that_leaves(open_house: Callable[..., House]) -> None:
    """The answer is for nobody."""
    house = asking(open_house)
    client = house.connect(startup("stranger"))
    client.close()
    house.relay.turn()
    inquiry = question(house)
    assert inquiry.asker.closed
    assert house.relay.population == 0


def test_known_users_are_not_asked_about(open_house: Callable[..., House]) -> None:
    """Unless their secret is not known."""
    house = asking(open_house)
    house.warm()
    client = house.connect(startup(), PASSWORD)
    assert received(client) == CLEARTEXT + welcome(house, REPORTED)
    assert house.inquiries == []
    users = {**house.settings.users, "limited": UserSettings(pool_size=1)}
    house.door.access.configure(attrs.evolve(house.settings, users=users))
    house.connect(startup("limited"))
    assert question(house).user == "limited"


def test_whom_the_auth_file_locks_out(open_house: Callable[..., House]) -> None:
    """As in pgbouncer, an empty secret there is the answer: no server is asked for another one."""
    house = asking(open_house)
    house.door.access.configure(attrs.evolve(house.settings, userlist={"locked": Secret("")}))
    client = house.connect(startup("locked"), PASSWORD)
    assert house.inquiries == []
    assert received(client) == CLEARTEXT + refused("locked") + b"END"


def test_answers_are_used_again(open_house: Callable[..., House]) -> None:
    """For their time, and not after a failure."""
    house = asking(open_house, auth_query_ttl=10.0)
    house.connect(startup("stranger"))
    question(house).then(Secret("pencil"))
    for password, expected in ((PASSWORD, b"R"), (WRONG, b"E")):
        client = house.connect(startup("stranger"), password)
        assert house.inquiries == []
        assert received(client).removeprefix(CLEARTEXT)[:1] == expected
    house.connect(startup("stranger"))
    question(house).then(Secret("pencil"))
    house.later(10.5)
    house.connect(startup("stranger"))
    question(house)


def test_answers_to_former_settings_are_not_used_again(open_house: Callable[..., House]) -> None:
    """A reload forgets what was answered, and also what is being asked."""
    house = asking(open_house, auth_query_ttl=10.0)
    house.connect(startup("stranger"))
    inquiry = question(house)
    house.door.access.configure(house.settings)
    inquiry.then(Secret("pencil"))
    house.connect(startup("stranger"))
    question(house)


def test_what_is_remembered_is_bounded(
    open_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers may ask for as many names as they like, of users and of databases."""
    monkeypatch.setattr(access, "_MOST_ANSWERS", 5)
    monkeypatch.setattr(access, "_MOST_SOURCES", 5)
    house = asking(open_house, auth_query_ttl=1000.0)
    databases = {**house.settings.databases, "*": DatabaseSettings()}
    house.door.access.configure(attrs.evolve(house.settings, databases=databases))
    for number in range(30):
        house.connect(startup(f"stranger{number}", database=f"db{number}"))
        question(house).then(None)
    assert len(house.door.access._answers) <= 5
    assert len(house.door.access._sources) <= 5


# -- others who know --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AuthType.LDAP, AuthType.PAM])
def test_a_check_elsewhere(open_house: Callable[..., House], kind: AuthType) -> None:
    """A password goes to who knows; the answer lets in, or it does not, or it is an error."""
    house = open_house(auth_type=kind, auth_ldap_options=LdapOptions(prefix="cn="))
    house.warm(pool=house.pool("stranger"))
    clients = [house.connect(startup("stranger"), PASSWORD) for _ in range(3)]
    assert [received(client) for client in clients] == [CLEARTEXT] * 3
    inquiries = [inquiry for inquiry in house.inquiries if isinstance(inquiry, CheckInquiry)]
    inquiries[0].then(True)
    assert received(clients[0]) == welcome(house, REPORTED)
    inquiries[1].then(False)
    failure = told("28000", f'{kind.name} authentication failed for user "stranger"')
    assert received(clients[1]) == failure + b"END"
    inquiries[2].then(ClientRefused("nobody there", "57P03"))
    assert received(clients[2]) == told("57P03", "nobody there") + b"END"


def test_a_verifier_is_computed_elsewhere(open_house: Callable[..., House]) -> None:
    """A password in clear text and a stored SCRAM verifier: it takes long, and nobody waits meanwhile."""
    house = asking(open_house)
    client = house.connect(startup("stranger"), PASSWORD)
    question(house).then(Secret(VERIFIER))
    inquiry = check(house)
    assert inquiry.check() is True
    inquiry.then(True)
    assert received(client) == CLEARTEXT + welcome(house, REPORTED)


# -- rules ------------------------------------------------------------------------------------------------------------


def ruled(open_house: Callable[..., House], text: str) -> House:
    """A house with an HBA file."""
    house = open_house(auth_type=AuthType.HBA)
    rules, problems = parse_hba(text, lambda name: "")
    assert problems == []
    house.door.access.configure(attrs.evolve(house.settings, hba=rules))
    house.warm()
    return house


def test_rules_decide(open_house: Callable[..., House]) -> None:
    """Each client meets its own."""
    house = ruled(open_house, "local other all reject\nlocal all bob password\nlocal app ann trust\n")
    assert received(house.connect(startup())) == welcome(house, REPORTED)
    assert received(house.connect(startup("bob"))) == CLEARTEXT
    rejected = (
        'auth_hba_file rejects connection for host "[local]", user "ann", database "other", no encryption'
    )
    assert received(house.connect(startup(database="other"))) == told("28000", rejected) + b"END"
    absent = 'no entry in auth_hba_file for host "[local]", user "eve", database "app", no encryption'
    assert received(house.connect(startup("eve"))) == told("28000", absent) + b"END"


def test_peers_are_asked_for_in_a_thread(open_house: Callable[..., House]) -> None:
    """The system may have to ask others for the name of its user."""
    house = ruled(open_house, "local all all peer\n")
    clients = [house.connect(startup()) for _ in range(2)]
    yes, no = house.inquiries
    assert isinstance(yes, CheckInquiry)
    assert isinstance(no, CheckInquiry)
    assert yes.check() is False  # nobody is called ann here
    yes.then(True)
    no.then(False)
    assert received(clients[0]) == welcome(house, REPORTED)
    assert received(clients[1]) == told("28000", 'Peer authentication failed for user "ann"') + b"END"


def test_any_needs_a_forced_user(open_house: Callable[..., House]) -> None:
    """There is nobody else to be."""
    house = open_house(auth_type=AuthType.ANY)
    house.warm(pool=house.pool("whoever", "other"))
    assert received(house.connect(startup("whoever", database="other"))) == welcome(house, REPORTED)
    assert b'database "app" lets nobody in with auth_type any' in received(house.connect(startup("whoever")))


# -- those who fail ---------------------------------------------------------------------------------------------------


def test_failures_cost_time(open_house: Callable[..., House]) -> None:
    """A password is looked at when its time has come, the right one too; other users are served at once."""
    house = open_house(auth_type=AuthType.PLAIN, auth_failure_burst=2, auth_failure_interval=1.0)
    for user in ("ann", "bob"):
        house.warm(pool=house.pool(user))
    for _ in range(2):
        assert received(house.connect(startup(), WRONG)) == CLEARTEXT + refused("ann") + b"END"
    late = [house.connect(startup(), password) for password in (WRONG, PASSWORD)]
    assert [received(client) for client in late] == [CLEARTEXT] * 2
    other = house.connect(startup("bob"), messages.password_message(b"x"))
    assert received(other) == CLEARTEXT + welcome(house, REPORTED)
    house.later(0.9)
    assert [received(client) for client in late] == [b""] * 2
    house.later(0.2)
    assert [received(client) for client in late] == [refused("ann") + b"END", b""]
    house.later(1.1)
    assert received(late[1]) == welcome(house, REPORTED)


def test_waiting_ends_with_the_time_for_logins(open_house: Callable[..., House]) -> None:
    """And with the client; nothing of either is left."""
    house = open_house(
        auth_type=AuthType.PLAIN, auth_failure_burst=1, auth_failure_interval=100.0, client_login_timeout=10.0
    )
    assert received(house.connect(startup(), WRONG)).endswith(b"END")
    late = [house.connect(startup(), PASSWORD) for _ in range(2)]
    late[0].close()
    house.relay.turn()
    assert house.relay.population == 1
    house.later(10.1)
    assert received(late[1]) == CLEARTEXT + told("08P01", "client_login_timeout") + b"END"
    house.later(1000)
    assert house.relay.population == 0
    assert house.door.access._late == []


def test_those_that_do_not_wait_leave_nothing_behind(open_house: Callable[..., House]) -> None:
    """However many come, and however long they would have to wait."""
    house = open_house(
        auth_type=AuthType.PLAIN, auth_failure_burst=1, auth_failure_interval=1e6, client_login_timeout=0.0
    )
    assert received(house.connect(startup(), WRONG)).endswith(b"END")
    stays = house.connect(startup(), PASSWORD)
    for _ in range(3 * access._TIDY):
        house.connect(startup(), PASSWORD).close()
        house.relay.turn()
    assert len(house.door.access._late) <= access._TIDY + 1
    house.later(1e6 + 1)
    assert b"END" not in received(stays)


def test_servers_are_not_asked_at_will(open_house: Callable[..., House]) -> None:
    """Who has failed too often waits before the server is asked, too."""
    house = asking(open_house, auth_failure_burst=1, auth_failure_interval=5.0)
    client = house.connect(startup("stranger"), PASSWORD)
    question(house).then(None)
    check(house).then(False)
    assert received(client).endswith(b"END")
    client = house.connect(startup("stranger"), PASSWORD)
    assert house.inquiries == []
    house.later(5.1)
    question(house).then(Secret("pencil"))
    house.relay.turn()
    assert received(client) == CLEARTEXT + welcome(house, REPORTED)


def test_strangers_are_asked_for_what_most_users_are(open_house: Callable[..., House]) -> None:
    """With md5, where a stored verifier makes it SCRAM: those that are not there do not stand out."""
    house = asking(open_house, auth_type=AuthType.MD5)

    def asked(answer: Secret | None) -> int:
        client = house.connect(startup("stranger"))
        question(house).then(answer)
        return received(client)[8]

    md5, sasl = 5, 10
    assert asked(None) == sasl  # as PostgreSQL has it by itself
    assert asked(Secret("md5" + "0" * 32)) == md5
    assert asked(None) == md5
    assert asked(Secret(VERIFIER)) == sasl
    assert asked(None) == md5  # one of each: nothing has changed
    assert asked(Secret(VERIFIER)) == sasl
    assert asked(None) == sasl


def test_strangers_of_this_house_are_like_those_who_live_here(open_house: Callable[..., House]) -> None:
    """Where nobody is asked, what stands here counts: as many rounds, and as much salt."""
    house = open_house(auth_type=AuthType.SCRAM_SHA_256)
    verifier = Secret(VERIFIER.replace("4096:W22ZaJ0SNY7soEsUEjb6gQ==", "777:c2FsdA=="))
    users = {name: UserSettings(password=verifier) for name in ("ann", "bob")}
    house.door.access.configure(attrs.evolve(house.settings, users=users))
    first = messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")
    challenges = []
    for user in ("ann", "stranger", "stranger", "another"):
        sent = received(house.connect(startup(user), first))
        challenges.append(sent.rpartition(b",s=")[2].split(b",i="))
    assert {len(salt) for salt, _ in challenges} == {8}
    assert [rounds for _, rounds in challenges] == [b"777"] * 4
    assert challenges[1] == challenges[2] != challenges[3]


def test_a_first_login_takes_no_longer(open_house: Callable[..., House], computed: list[str]) -> None:
    """What SCRAM takes of a password that is stored as it is has been computed before, in a thread."""
    house = open_house(auth_type=AuthType.SCRAM_SHA_256, scram_iterations=3)
    inquiry = check(house)
    assert inquiry.check() is True
    assert computed == ["pencil", "x"]
    inquiry.then(True)
    for user, password in (("ann", "pencil"), ("stranger", "pencil")):
        client = ScramClient(password)
        sock = house.connect(startup(user), messages.sasl_initial_response("SCRAM-SHA-256", client.first()))
        challenge = received(sock).partition(b"r=")
        house.send(sock, frame(client.respond(challenge[1] + challenge[2])))
        assert (b"password authentication failed" in received(sock)) is (user == "stranger")
    house.door.access.configure(house.settings)
    users = {**house.settings.users, "bob": UserSettings(password=Secret("y"))}
    house.door.access.configure(attrs.evolve(house.settings, users=users))
    check(house).check()
    assert computed == ["pencil", "x", *["pencil"] * 2, "y"]  # the two clients have computed it, too


def frame(data: bytes) -> bytes:
    """A SASLResponse."""
    return b"p" + (len(data) + 4).to_bytes(4, "big") + data


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that have cost a PBKDF2."""
    scram.salted_password.cache_clear()
    server_side.plain_verifier.cache_clear()
    passwords: list[str] = []

    def prepare(password: str) -> bytes:
        passwords.append(password)
        return password.encode()

    monkeypatch.setattr(scram, "saslprep", prepare)
    return passwords


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
    ],
)
def test_where_somebody_comes_from(address: str, origin: str) -> None:
    """A site of IPv6 has more addresses than can be told apart."""
    assert access._origin(access._parsed(address)) == origin


def test_an_ipv4_address_on_a_socket_of_both_families() -> None:
    """A socket that was passed (systemd's are so) tells it as one of IPv6: rules are about what it is."""
    for text in ("192.0.2.7", "::ffff:192.0.2.7"):
        assert access._parsed(text) == ipaddress.IPv4Address("192.0.2.7")
    assert access._parsed("fe80::1%eth0") == ipaddress.IPv6Address("fe80::1")
