"""Options of LDAP authentication, as in pgbouncer's ``auth_ldap_options`` and behind ``ldap`` in an HBA file.

Names and meanings are PostgreSQL's (its documentation, "LDAP Authentication"). There are two ways: *bind* as
``ldapprefix`` + user + ``ldapsuffix``; or *search* for the user below ``ldapbasedn`` and bind as what was found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote, urlsplit

import attrs

from hyperpool.config.kinds import Unfit, text
from hyperpool.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config.source import Source

Scope = Literal["base", "one", "sub"]

_OPTION: Final = re.compile(r"""\s*,?\s*([a-z_0-9]+)=(?:"((?:[^"]|"")*)"|([^\s,"#]*))""")
_QUOTED: Final = re.compile(r"""\s*,?\s*"([a-z_0-9]+)=((?:[^"]|"")*)\"""")
_END: Final = re.compile(r"\s*,?\s*(#.*)?")
_SCOPES: Final[dict[str, Scope]] = {"": "base", "base": "base", "one": "one", "sub": "sub"}
_PORTS: Final = {"ldap": 389, "ldaps": 636}
_NO_SECRET: Final = Secret("")
_SEARCH: Final = ("basedn", "binddn", "bindpasswd", "searchattribute", "searchfilter")


@attrs.frozen(kw_only=True)
class LdapOptions:
    """How to ask an LDAP server whether a password is right; names as in PostgreSQL, without ``ldap`` in front.

    Attributes:
        servers: hosts; the next one is asked when one cannot be reached.
        port: of all of them.
        scheme: ``ldaps`` for TLS from the beginning.
        tls: StartTLS.
        prefix: stands in front of the user's name, to bind as.
        suffix: stands behind it.
        basedn: where a search begins; empty for no search.
        scope: how deep it goes.
        binddn: as whom to search; empty for nobody.
        bindpasswd: the password of `binddn`.
        searchattribute: what must be equal to the user's name.
        searchfilter: the filter of the search, in which ``$username`` stands for the name; empty for `searchattribute`.
    """

    servers: tuple[str, ...] = ("localhost",)
    port: int = 389
    scheme: Literal["ldap", "ldaps"] = "ldap"
    tls: bool = False
    prefix: str = ""
    suffix: str = ""
    basedn: str = ""
    scope: Scope = "sub"
    binddn: str = ""
    bindpasswd: Secret = _NO_SECRET
    searchattribute: str = "uid"
    searchfilter: str = ""

    def __str__(self) -> str:
        """As in a file, without the password."""
        given = {
            "server": " ".join(self.servers),
            "port": str(self.port),
            "scheme": self.scheme,
            "tls": str(int(self.tls)),
            "prefix": self.prefix,
            "suffix": self.suffix,
            "basedn": self.basedn,
            "binddn": self.binddn,
            "bindpasswd": "***" if self.bindpasswd else "",
            "searchattribute": self.searchattribute if self.basedn and not self.searchfilter else "",
            "searchfilter": self.searchfilter,
        }
        quoted = {name: value.replace('"', '""') for name, value in given.items() if value}
        return " ".join(f'ldap{name}="{value}"' for name, value in quoted.items())


def ldap_options(value: object, source: Source) -> LdapOptions | None:
    """A text like ``ldapserver=a.example.net ldapprefix="cn=" ldapsuffix=", dc=example, dc=net"``; empty for none."""
    found = text(value, source)
    return parse_ldap(found) if found.strip() else None


def options_of(line: str) -> Iterator[tuple[str, str]]:
    """The options in a text: names, and values that may stand in double quotes; a comment may follow.

    Raises:
        Unfit: it is of another form. The error does not cite the text, which may hold a password.
    """
    at = 0
    while not (end := _END.match(line, at)) or end.end() < len(line):
        match = _OPTION.match(line, at) or _QUOTED.match(line, at)
        if match is None:
            raise Unfit('options of the form name=value or name="value"', "double a quote inside of quotes")
        quoted = match[2]
        yield match[1], match[3] if quoted is None else quoted.replace('""', '"')
        at = match.end()


def parse_ldap(line: str) -> LdapOptions:
    """Read options.

    Raises:
        Unfit: they cannot be understood, or contradict each other; without any value in it, that may be secret.
    """
    given: dict[str, str] = {}
    for name, value in options_of(line):
        if name == "ldapurl":
            given |= _url(value)
        elif name.startswith("ldap") and name[4:] in _NAMES:
            given[name[4:]] = value
        else:
            raise Unfit(f"LDAP options, which are ldapurl, {', '.join(f'ldap{one}' for one in _NAMES)}")
    _check(given)
    scheme: Literal["ldap", "ldaps"] = "ldaps" if given.pop("scheme", "ldap") == "ldaps" else "ldap"
    servers = tuple(given.pop("server", "localhost").split())
    port = int(given.pop("port", _PORTS[scheme]))
    scope = _SCOPES[given.pop("scope", "sub")]
    password = Secret(given.pop("bindpasswd", ""))
    tls = given.pop("tls", "0") == "1"
    return LdapOptions(
        servers=servers,
        port=port,
        scheme=scheme,
        tls=tls,
        scope=scope,
        bindpasswd=password,
        **given,
    )


_NAMES: Final = ("server", "port", "scheme", "tls", "prefix", "suffix", *_SEARCH)


def _check(given: dict[str, str]) -> None:
    searches = [f"ldap{name}" for name in _SEARCH if name in given]
    if ("prefix" in given or "suffix" in given) and searches:
        raise Unfit(f"either ldapprefix and ldapsuffix, or {', '.join(searches)}")
    if not given.keys() & {"prefix", "suffix"} and not given.get("basedn"):
        raise Unfit("ldapprefix, ldapsuffix or ldapbasedn", "it says who is to be bound as, or searched for")
    if "searchattribute" in given and "searchfilter" in given:
        raise Unfit("either ldapsearchattribute or ldapsearchfilter")
    if given.get("scheme", "ldap") not in _PORTS:
        raise Unfit("ldapscheme ldap or ldaps")
    if given.get("tls", "0") not in {"0", "1"}:
        raise Unfit("ldaptls 0 or 1")
    if given.get("tls") == "1" and given.get("scheme") == "ldaps":
        raise Unfit("either ldaptls=1 or ldapscheme=ldaps", "both are TLS")
    if not re.fullmatch("[1-9][0-9]{0,4}", given.get("port", "389")) or int(given.get("port", 1)) > 65535:
        raise Unfit("a port from 1 to 65535 as ldapport")
    if not given.get("server", "localhost").split():
        raise Unfit("a host as ldapserver")


def _url(value: str) -> dict[str, str]:
    """What an LDAP URL says (RFC 4516): ``ldap://host:port/basedn?attribute?scope?filter``."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise Unfit("an LDAP URL like ldap://host/basedn?uid?sub") from None
    if parts.scheme not in _PORTS:
        raise Unfit("an LDAP URL that begins with ldap:// or ldaps://")
    attributes, scope, search, *_ = [*parts.query.split("?"), "", "", ""]
    if scope not in _SCOPES:
        raise Unfit("an LDAP URL with the scope base, one or sub")
    found = {
        "scheme": parts.scheme,
        "server": parts.hostname or "localhost",
        "basedn": unquote(parts.path.removeprefix("/")),
        "scope": scope,
        "searchattribute": unquote(attributes.split(",")[0]),
        "searchfilter": unquote(search),
        "port": str(port) if port else "",
    }
    return {name: text for name, text in found.items() if text or name == "scope"}
