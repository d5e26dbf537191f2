"""pgbouncer's ``auth_hba_file``: who may come in from where, and how they prove who they are.

The form is that of PostgreSQL's ``pg_hba.conf`` (its documentation, "The pg_hba.conf File"), as far as pgbouncer has
it: one rule per line, and the first one that fits counts. There are neither groups (``+name``, ``samerole``) nor host
names (``samehost``, ``samenet``). Of pgbouncer's own reading one thing is different: a line that cannot be understood
is an error, and not left out, since what it was to forbid would be allowed then.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config.kinds import AuthType, Unfit
from hyperpool.config.ldap import LdapOptions, options_of, parse_ldap
from hyperpool.config.settings import RESERVED
from hyperpool.config.source import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

_TOKEN: Final = re.compile(r"""\s*(?:(,)|(?:"((?:[^"]|"")*)"|([^\s,"#]+))(?=[\s,#]|$))""")
"""A comma, a text in quotes, or a word; what touches another one is neither: it would be read as two fields."""

_BLANK: Final = re.compile(r"\s*(#.*)?")
_MASK_BITS: Final = re.compile("[0-9]{1,3}")
_METHODS: Final = {
    "trust": AuthType.TRUST,
    "reject": AuthType.REJECT,
    "md5": AuthType.MD5,
    "password": AuthType.PLAIN,
    "plain": AuthType.PLAIN,
    "scram-sha-256": AuthType.SCRAM_SHA_256,
    "cert": AuthType.CERT,
    "peer": AuthType.PEER,
    "ldap": AuthType.LDAP,
    "pam": AuthType.PAM,
}
_KINDS: Final = "local, host, hostssl or hostnossl at the beginning"
_APART: Final = "a space or a comma between names, and a double quote at the end of each quoted one"
_ROLES: Final = frozenset({"samerole", "samegroup"})
_HOSTS: Final = frozenset({"samehost", "samenet"})
_DEEPEST: Final = 8
"""Files that name files that name files: no more than these."""


class Kind(enum.Enum):
    """What connections a rule is about."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"


@attrs.frozen(kw_only=True)
class Names:
    """The databases or the users of a rule.

    Attributes:
        names: those that stand there.
        everything: the keyword ``all``: but for physical replication, in a rule's databases.
        sameuser: the database of the user's own name.
        replication: physical replication, which has no database.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False
    sameuser: bool = False
    replication: bool = False


@attrs.frozen(kw_only=True)
class Visitor:
    """A client at the door, as rules see it.

    Attributes:
        address: where it comes from; None for a Unix socket.
        encrypted: with TLS.
        database: that it asks for.
        user: that it wants to be.
        physical: it asks for physical replication.
    """

    address: Address | None
    encrypted: bool
    database: str
    user: str
    physical: bool = False


@attrs.frozen(kw_only=True)
class HbaRule:
    """One line.

    Attributes:
        line: its number.
        kind: what connections it is about.
        databases: that are asked for.
        users: that clients want to be.
        network: where they come from; None for everywhere.
        method: how they prove who they are.
        map: the name of a map in the ``auth_ident_file``, with `AuthType.CERT` and `AuthType.PEER`; empty for none.
        ldap: with `AuthType.LDAP`, if they stand in the line.
        pam_service: with `AuthType.PAM`, if it stands in the line.
    """

    line: int
    kind: Kind
    databases: Names
    users: Names
    network: Network | None
    method: AuthType
    map: str = ""
    ldap: LdapOptions | None = None
    pam_service: str = ""

    def fits(self, visitor: Visitor) -> bool:
        """Whether the rule is about this client."""
        return self._fits_connection(visitor) and self._fits_names(visitor)

    def _fits_connection(self, visitor: Visitor) -> bool:
        address = visitor.address
        if address is None or self.kind is Kind.LOCAL:
            return address is None and self.kind is Kind.LOCAL
        if self.kind is not Kind.HOST and visitor.encrypted is not (self.kind is Kind.HOSTSSL):
            return False
        return self.network is None or address in self.network

    def _fits_names(self, visitor: Visitor) -> bool:
        databases, users = self.databases, self.users
        if not (users.everything or visitor.user in users.names):
            return False
        if visitor.physical:
            return databases.replication
        own = databases.sameuser and visitor.database == visitor.user
        # The console has two names: a rule about one is about both, or the other would be a way around it.
        asked = RESERVED if visitor.database in RESERVED else (visitor.database,)
        return databases.everything or own or not databases.names.isdisjoint(asked)


def find_rule(rules: Sequence[HbaRule], visitor: Visitor) -> HbaRule | None:
    """The first rule that is about this client; None if there is none, and then it is not let in."""
    return next((rule for rule in rules if rule.fits(visitor)), None)


def parse_hba(text: str, read: Callable[[str], str]) -> tuple[tuple[HbaRule, ...], list[str]]:
    """Read the content of an ``auth_hba_file``.

    Args:
        text: the content; bytes that are not UTF-8 as lone surrogates (PEP 383).
        read: returns the content of a file that is named behind an ``@``; raises `Unavailable`. Relative names start at
            the directory of the file in which they stand, and are given as they are seen from that of the rules.

    Returns:
        The rules, and the problems: one per line that cannot be understood, with its number and the remedy.
    """
    rules: list[HbaRule] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if not _BLANK.fullmatch(line):
                rules.append(_Line(line, read).rule(number))
        except Unfit as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            problems.append(f"line {number}: expected {error.expected}{remedy}")
        except Unavailable as error:
            problems.append(f"line {number}: {error}")
    return tuple(rules), problems


class _Line:
    """A line, token by token."""

    def __init__(self, line: str, read: Callable[[str], str]) -> None:
        self._line = line
        self._read = read
        self._at = 0

    def rule(self, number: int) -> HbaRule:
        try:
            kind = Kind(self._word(_KINDS))
        except ValueError:
            raise Unfit(_KINDS) from None
        databases = self._names("database", ("sameuser", "replication"))
        users = self._names("user", ())
        network = None if kind is Kind.LOCAL else self._network()
        method = self._method(kind)
        options = self._options(method)
        ldap = parse_ldap(self._line[self._at :]) if method is AuthType.LDAP and options else None
        return HbaRule(
            line=number,
            kind=kind,
            databases=databases,
            users=users,
            network=network,
            method=method,
            map=options.get("map", ""),
            ldap=ldap,
            pam_service=options.get("pamservice", ""),
        )

    def _token(self) -> re.Match[str] | None:
        """The next token, which is a comma, a text in quotes, or a word; None at the end."""
        match = _TOKEN.match(self._line, self._at)
        if match is None and not _BLANK.fullmatch(self._line, self._at):
            raise Unfit(_APART)
        if match is not None:
            self._at = match.end()
        return match

    def _word(self, expected: str) -> str:
        token = self._token()
        if token is None or token[3] is None:
            raise Unfit(expected)
        return token[3]

    def _names(self, what: str, keywords: tuple[str, ...]) -> Names:
        found: set[str] = set()
        words: set[str] = set()
        while True:
            token = self._token()
            if token is None or token[1]:
                raise Unfit(f"the name of a {what}, or all")
            if token[3] is None:
                found.add(token[2].replace('""', '"'))
            else:
                self._name(token[3], what, keywords, found, words)
            comma = _TOKEN.match(self._line, self._at)
            if comma is None or not comma[1]:
                break
            self._at = comma.end()
        return Names(
            names=frozenset(found),
            everything="all" in words,
            sameuser="sameuser" in words,
            replication="replication" in words,
        )

    def _name(
        self,
        word: str,
        what: str,
        keywords: tuple[str, ...],
        found: set[str],
        words: set[str],
        within: tuple[str, ...] = (),
    ) -> None:
        """A word in place of a name: a name, a keyword, or the file of more of them.

        It stands in the last of the files `within`, if in any.
        """
        if word == "all" or word in keywords:
            words.add(word)
        elif word.startswith("+") or (word in _ROLES and keywords):
            raise Unfit(f"the names of {what}s, or all", "membership in roles is not known here")
        elif not word.startswith("@"):
            found.add(word)
        elif len(within) == _DEEPEST:
            raise Unfit(f"at most {_DEEPEST} files that name each other")
        else:
            file = str(PurePath(within[-1]).parent / word[1:]) if within else word[1:]
            for line in self._read(file).split("\n"):
                at = 0
                while token := _TOKEN.match(line, at):
                    at = token.end()
                    if token[2] is not None:
                        found.add(token[2].replace('""', '"'))
                    elif token[3]:
                        self._name(token[3], what, keywords, found, words, (*within, file))
                if not _BLANK.fullmatch(line, at):
                    raise Unfit(_APART, "so in files behind @")

    def _network(self) -> Network | None:
        word = self._word("an address, like 10.0.0.0/8 or ::1/128, or all")
        if word == "all":
            return None
        address, slash, bits = word.partition("/")
        try:
            base = ipaddress.ip_address(address)
        except ValueError:
            remedy = "the pooler's own networks are not known here" if word in _HOSTS else ""
            raise Unfit("an address, like 10.0.0.0/8 or ::1/128, or all", remedy) from None
        if slash and _MASK_BITS.fullmatch(bits) is None:
            raise Unfit("a number of bits behind the slash")
        mask = bits if slash else self._word("the number of bits of the network behind a slash, or a mask")
        try:
            return ipaddress.ip_network(f"{base}/{int(mask)}", strict=False) if slash else _masked(base, mask)
        except ValueError:
            raise Unfit("a mask that fits the address") from None

    def _method(self, kind: Kind) -> AuthType:
        names = ", ".join(_METHODS)
        word = self._word(f"a method: one of {names}")
        method = _METHODS.get(word)
        if method is None:
            raise Unfit(
                f"one of the methods {names}", "peer is what ident is for local" if word == "ident" else ""
            )
        if method is AuthType.PEER and kind is not Kind.LOCAL:
            raise Unfit(
                "peer in a rule for local alone", "the system tells who is there for Unix sockets alone"
            )
        if method is AuthType.CERT and kind in {Kind.LOCAL, Kind.HOSTNOSSL}:
            raise Unfit("cert in a rule for hostssl or host", "there is no certificate without TLS")
        return method

    def _options(self, method: AuthType) -> dict[str, str]:
        """What stands behind the method; for LDAP, it is read once more by those who know its options."""
        options = dict(options_of(self._line[self._at :]))
        allowed = {
            AuthType.CERT: {"map"},
            AuthType.PEER: {"map"},
            AuthType.PAM: {"pamservice"},
            AuthType.LDAP: set(options),
        }.get(method, set())
        if not options.keys() <= allowed:
            raise Unfit(f"{', '.join(sorted(allowed)) or 'no'} options for this method", "remove the others")
        return options


def _masked(base: Address, mask: str) -> Network:
    """The network of an address and a mask, which may not have gaps.

    Raises:
        ValueError: it is no mask of that kind of address.
    """
    number = int(ipaddress.ip_address(mask))
    if ipaddress.ip_address(mask).version != base.version:
        raise ValueError("an address and a mask of different kinds")
    size = base.max_prefixlen
    zeros = (~number & ((1 << size) - 1)).bit_length()
    if number != ((1 << size) - 1) >> zeros << zeros:
        raise ValueError("a mask with gaps")
    return ipaddress.ip_network(f"{base}/{size - zeros}", strict=False)
