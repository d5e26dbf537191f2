"""HBA files: what they mean, and what is wrong with them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config.hba import HbaRule, Visitor, find_rule, parse_hba
from hyperpool.config.kinds import AuthType
from hyperpool.config.source import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping


def rules(text: str, files: Mapping[str, str] | None = None) -> tuple[HbaRule, ...]:
    """The rules of a text that is fine."""
    found, problems = parse_hba(text, lambda name: (files or {})[name])
    assert problems == []
    return found


def visitor(address: str | None = "10.1.2.3", **facts: Any) -> Visitor:
    """A client, by default ann without TLS who asks for `app`."""
    known = {"encrypted": False, "database": "app", "user": "ann", **facts}
    return Visitor(address=None if address is None else ipaddress.ip_address(address), **known)


def method(text: str, who: Visitor, files: Mapping[str, str] | None = None) -> str | None:
    """The method of the first rule that fits."""
    rule = find_rule(rules(text, files), who)
    return None if rule is None else rule.method.value


@pytest.mark.parametrize(
    ("line", "fitting", "others"),
    [
        ("local all all md5", [visitor(None)], [visitor(), visitor("::1")]),
        ("host all all all md5", [visitor(), visitor("::1"), visitor(encrypted=True)], [visitor(None)]),
        ("hostssl all all all md5", [visitor(encrypted=True)], [visitor(), visitor(None)]),
        ("hostnossl all all all md5", [visitor()], [visitor(encrypted=True), visitor(None)]),
        ("host all all 10.0.0.0/8 md5", [visitor()], [visitor("11.0.0.1"), visitor("::1")]),
        ("host all all 10.1.2.9/24 md5", [visitor()], [visitor("10.1.3.3")]),
        ("host all all 10.1.0.0 255.255.0.0 md5", [visitor()], [visitor("10.2.0.1")]),
        ("host all all 0.0.0.0 0.0.0.0 md5", [visitor()], [visitor("::1")]),
        ("host all all ::1/128 md5", [visitor("::1")], [visitor("::2"), visitor()]),
        ("host all all fe80:: ffff:: md5", [visitor("fe80::9")], [visitor("fe81::9")]),
        ("host app all all md5", [visitor()], [visitor(database="other")]),
        ("host other,app all all md5", [visitor()], [visitor(database="third")]),
        ("host other , app all all md5", [visitor()], [visitor(database="third")]),
        ("host sameuser all all md5", [visitor(database="ann")], [visitor()]),
        ('host "sameuser" all all md5', [visitor(database="sameuser")], [visitor(database="ann")]),
        ('host "all" all all md5', [visitor(database="all")], [visitor()]),
        (
            "host replication all all md5",
            [visitor(physical=True)],
            [visitor(), visitor(database="replication")],
        ),
        ('host "replication" all all md5', [visitor(database="replication")], [visitor(physical=True)]),
        ("host all all all md5", [visitor()], [visitor(physical=True)]),
        ('host all "a ""b"" c",ann all md5', [visitor(), visitor(user='a "b" c')], [visitor(user="bob")]),
        ("host all sameuser all md5", [visitor(user="sameuser")], [visitor(database="ann")]),
        ("host all ann all md5 # host all all all trust", [visitor()], [visitor(user="bob")]),
        ("host all ann all md5# a comment", [visitor()], []),
    ],
)
def test_who_a_rule_is_about(line: str, fitting: list[Visitor], others: list[Visitor]) -> None:
    """Connection, address, database and user, as in PostgreSQL."""
    assert [method(line, who) for who in fitting] == ["md5"] * len(fitting)
    assert [method(line, who) for who in others] == [None] * len(others)


def test_the_first_rule_counts() -> None:
    """A later one cannot take back what an earlier one says."""
    text = "# who may\n\nhost all bob all reject\n\thost all all 10.0.0.0/8 trust\r\nhost all all all md5\n"
    assert method(text, visitor(user="bob")) == "reject"
    assert method(text, visitor()) == "trust"
    assert method(text, visitor("1.1.1.1")) == "md5"
    assert method(text, visitor(None)) is None
    assert [rule.line for rule in rules(text)] == [3, 4, 5]


def test_names_in_files() -> None:
    """An `@` names a file with names in any form, and it may name further ones."""
    files = {"dba": 'ann, bob # not eve\n\n"c d"\n@more', "more": "dora\n"}
    for user in ("ann", "bob", "c d", "dora"):
        assert method("host all @dba,fred all md5", visitor(user=user), files) == "md5"
    assert method("host all @dba all md5", visitor(user="eve"), files) is None
    assert method("host @all all all md5", visitor(), {"all": "all"}) == "md5"
    files = {
        "lists/dba": "@more @/etc/fred",
        "lists/more": "@../dora",
        "lists/../dora": "ann",
        "/etc/fred": "bob",
    }
    for user in ("ann", "bob"):
        assert method("host all @lists/dba all md5", visitor(user=user), files) == "md5"


def test_options() -> None:
    """Of cert, peer, ldap and pam; values may stand in quotes."""
    cert, peer, ldap, pam = rules(
        'hostssl all all all cert map=people # comment\nlocal all all peer map="the system"\n'
        'host all all all ldap ldapserver="a b" ldapprefix="cn=" "ldapsuffix=, dc=net"\n'
        "host all all all pam pamservice=postgresql"
    )
    assert (cert.map, peer.map, pam.pam_service) == ("people", "the system", "postgresql")
    assert ldap.ldap is not None
    assert (ldap.ldap.servers, ldap.ldap.prefix, ldap.ldap.suffix) == (("a", "b"), "cn=", ", dc=net")
    assert {one.value for one in (cert.method, peer.method, pam.method)} == {"cert", "peer", "pam"}
    words = {"password": AuthType.PLAIN, "plain": AuthType.PLAIN, "scram-sha-256": AuthType.SCRAM_SHA_256}
    for word, kind in words.items():
        assert rules(f"host all all all {word}")[0].method is kind


_APART = "a space or a comma between names, and a double quote at the end of each quoted one"
BROKEN = {
    "hots all all all md5": "local, host, hostssl or hostnossl at the beginning",
    '"host" all all all md5': "local, host, hostssl or hostnossl at the beginning",
    "host": "the name of a database, or all",
    "host all": "the name of a user, or all",
    "host , all all md5": "the name of a database, or all",
    "host all all": "an address, like 10.0.0.0/8 or ::1/128, or all",
    "host all all example.com md5": "an address, like 10.0.0.0/8 or ::1/128, or all",
    "host all all samenet md5": "an address, like 10.0.0.0/8 or ::1/128, or all; the pooler's own networks are not "
    "known here",
    "host all all 10.0.0.0 md5": "a mask that fits the address",
    "host all all 10.0.0.0": "the number of bits of the network behind a slash, or a mask",
    "host all all 10.0.0.0/33 md5": "a mask that fits the address",
    "host all all 10.0.0.0/8x md5": "a number of bits behind the slash",
    "host all all 10.0.0.0/ md5": "a number of bits behind the slash",
    "host all all 10.0.0.0/255.0.0.0 md5": "a number of bits behind the slash",
    "host all all 10.0.0.0 255.0.255.0 md5": "a mask that fits the address",
    "host all all 10.0.0.0 ffff:: md5": "a mask that fits the address",
    "host all all ::1/129 md5": "a mask that fits the address",
    "host all +staff all md5": "the names of users, or all; membership in roles is not known here",
    "host samerole all all md5": "the names of databases, or all; membership in roles is not known here",
    "host all all all": "a method: one of trust, reject, md5, password, plain, scram-sha-256, cert, peer, ldap, pam",
    "host all all all any": "one of the methods trust, reject, md5, password, plain, scram-sha-256, cert, peer, ldap, "
    "pam",
    "local all all ident": "one of the methods trust, reject, md5, password, plain, scram-sha-256, cert, peer, ldap, "
    "pam; peer is what ident is for local",
    "host all all all peer": "peer in a rule for local alone; the system tells who is there for Unix sockets alone",
    "local all all cert": "cert in a rule for hostssl or host; there is no certificate without TLS",
    "host all all all md5 map=m": "no options for this method; remove the others",
    "hostssl all all all cert clientcert=1": "map options for this method; remove the others",
    "host all all all md5 trust": 'options of the form name=value or name="value"; double a quote inside of quotes',
    "host all all all ldap ldapserver=x": "ldapprefix, ldapsuffix or ldapbasedn; it says who is to be bound as, or "
    "searched for",
    'host all "ann all md5': _APART,
    'host a"b" all trust': _APART,
    'host "a"b all all trust': _APART,
    'host all ann"" all trust': _APART,
    'host all "a""b all trust': _APART,
    "host all @joined all md5": f"{_APART}; so in files behind @",
    "host all @cycle all md5": "at most 8 files that name each other",
    "host all @quote all md5": f"{_APART}; so in files behind @",
}
FILES = {"cycle": "@cycle", "quote": 'ann "bob', "joined": 'ann"bob"'}


@pytest.mark.parametrize(("line", "expected"), BROKEN.items())
def test_what_is_wrong(line: str, expected: str) -> None:
    """Each line that cannot be understood is reported, and so are the others."""
    found, problems = parse_hba(f"{line}\nhost all all all trust\nbad", FILES.__getitem__)
    assert problems[0] == f"line 1: expected {expected}"
    assert problems[1:] == ["line 3: expected local, host, hostssl or hostnossl at the beginning"]
    assert [rule.line for rule in found] == [2]


def test_a_file_that_cannot_be_read() -> None:
    """It is the problem of the line that names it."""

    def read(name: str) -> str:
        raise Unavailable("cannot read it")

    assert parse_hba("\nhost all @users all md5", read) == ((), ["line 2: cannot read it"])


_TOKENS = (
    'local host hostssl all app , @f +g 10.0.0.0/8 ::/0 255.0.0.0 md5 cert ldap map=x replication peer # "'
)
_WORDS = st.sampled_from([*_TOKENS.split(), "\\", "/", "=", "\udc80", '"a b"', 'ldapprefix="x"', "\t"])


@given(st.lists(st.lists(_WORDS, max_size=9).map(" ".join), max_size=5).map("\n".join) | st.text())
def test_anything_is_read_or_reported(text: str) -> None:
    """Whatever stands there: each line that is not blank is either a rule or a problem, and nothing else happens."""
    found, problems = parse_hba(text, lambda _: "one, two")
    lines = [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.strip().startswith("#")
    ]
    reported = [int(problem.split(":")[0].removeprefix("line ")) for problem in problems]
    assert sorted([rule.line for rule in found] + reported) == lines


_NAME = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1)
_names = st.lists(_NAME, min_size=1, max_size=4)


def _quoted(names: list[str]) -> str:
    return ",".join('"' + name.replace('"', '""') + '"' for name in names)


@given(_names, _names, st.ip_addresses(network="10.0.0.0/8"), st.integers(0, 32))
def test_what_is_written_is_what_is_meant(
    databases: list[str], users: list[str], address: ipaddress.IPv4Address, bits: int
) -> None:
    """Any name can be written in quotes; a network has the addresses that begin with its bits."""
    line = f"host {_quoted(databases)} {_quoted(users)} {address}/{bits} md5"
    for database in databases:
        for user in users:
            assert method(line, visitor(str(address), database=database, user=user)) == "md5"
    other = ipaddress.ip_address(int(address) ^ (1 << 31))
    assert (method(line, visitor(str(other), database=databases[0], user=users[0])) is None) is (bits > 0)


@pytest.mark.parametrize("written", ["pgbouncer", "hyperpool"])
@pytest.mark.parametrize("asked", ["pgbouncer", "hyperpool"])
def test_the_console_is_one_database(written: str, asked: str) -> None:
    """A rule about one of its names cannot be evaded with the other one."""
    text = f"host {written} all all reject\nhost all all all trust"
    assert method(text, visitor(database=asked)) == "reject"
    assert method(text, visitor()) == "trust"
