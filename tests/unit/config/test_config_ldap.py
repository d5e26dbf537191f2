"""Options of LDAP: their forms, their contradictions, and that the password among them is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config import Secret
from hyperpool.config.kinds import Unfit
from hyperpool.config.ldap import LdapOptions, parse_ldap


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (
            'ldapserver=ldap.example.net ldapprefix="cn=" ldapsuffix=", dc=example, dc=net"',
            LdapOptions(servers=("ldap.example.net",), prefix="cn=", suffix=", dc=example, dc=net"),
        ),
        (
            "ldapurl=ldap://127.0.0.1:12345/dc=example,dc=net?uid?sub",
            None,
        ),
        (
            'ldapurl="ldap://127.0.0.1:12345/dc=example,dc=net?mail?one"',
            LdapOptions(
                servers=("127.0.0.1",),
                port=12345,
                basedn="dc=example,dc=net",
                searchattribute="mail",
                scope="one",
            ),
        ),
        (
            'ldapurl="ldaps://[::1]/ou=a%20b??base?(x=$username)"',
            LdapOptions(
                servers=("::1",),
                port=636,
                scheme="ldaps",
                basedn="ou=a b",
                searchfilter="(x=$username)",
                scope="base",
            ),
        ),
        (
            'ldapserver="a b" ldapport=1389 ldaptls=1, ldapbasedn="dc=x" ldapbinddn="cn=r" ldapbindpasswd="p""q"',
            LdapOptions(
                servers=("a", "b"),
                port=1389,
                tls=True,
                basedn="dc=x",
                binddn="cn=r",
                bindpasswd=Secret('p"q'),
            ),
        ),
        ("ldapscheme=ldaps ldapsuffix=@x", LdapOptions(scheme="ldaps", port=636, suffix="@x")),
    ],
)
def test_options(text: str, options: LdapOptions | None) -> None:
    """As in pg_hba.conf; a comma ends a value that is not in quotes."""
    if options is None:
        with pytest.raises(Unfit):
            parse_ldap(text)
    else:
        assert parse_ldap(text) == options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "ldapprefix, ldapsuffix or ldapbasedn"),
        ("ldapserver=x", "ldapprefix, ldapsuffix or ldapbasedn"),
        ("ldapprefix=x ldapbasedn=y", "either ldapprefix and ldapsuffix, or ldapbasedn"),
        (
            "ldapbasedn=x ldapsearchattribute=a ldapsearchfilter=b",
            "either ldapsearchattribute or ldapsearchfilter",
        ),
        ("ldapbasedn=x ldapport=0", "a port from 1 to 65535 as ldapport"),
        ("ldapbasedn=x ldapport=65536", "a port from 1 to 65535 as ldapport"),
        ("ldapbasedn=x ldapscheme=http", "ldapscheme ldap or ldaps"),
        ("ldapbasedn=x ldaptls=yes", "ldaptls 0 or 1"),
        ("ldapbasedn=x ldaptls=1 ldapscheme=ldaps", "either ldaptls=1 or ldapscheme=ldaps"),
        ('ldapbasedn=x ldapserver=" "', "a host as ldapserver"),
        ("ldapurl=http://x/y", "an LDAP URL that begins with ldap:// or ldaps://"),
        ("ldapurl=ldap://x:y/z", "an LDAP URL like ldap://host/basedn?uid?sub"),
        ("ldapurl=ldap://x/z?uid?deep", "an LDAP URL with the scope base, one or sub"),
        ("ldapbasedn", 'options of the form name=value or name="value"'),
        ('ldapbindpasswd="hunter2', 'options of the form name=value or name="value"'),
        ("bindpasswd=hunter2", "LDAP options, which are ldapurl, ldapserver, ldapport"),
    ],
)
def test_what_is_wrong(text: str, expected: str) -> None:
    """What would fit is said, and nothing of what stands there."""
    with pytest.raises(Unfit) as caught:
        parse_ldap(text)
    assert caught.value.expected.startswith(expected)
    assert "hunter2" not in f"{caught.value!r} {caught.value.remedy}"


@given(st.text(st.sampled_from('ldapurl=ldap://x?" ,#ldapbasedn=1:[]%\n\\')) | st.text())
def test_anything_is_read_or_refused(text: str) -> None:
    """Whatever stands there."""
    try:
        parse_ldap(text)
    except Unfit as error:
        assert error.expected  # noqa: PT017 - both outcomes are fine


def test_the_password_is_not_shown() -> None:
    """It is a secret like others; the rest can be read again."""
    options = parse_ldap('ldapbasedn="dc=a, dc=""b""" ldapbinddn=x ldapbindpasswd=hunter2 ldaptls=1')
    assert "hunter2" not in repr(options) + str(options)
    again = parse_ldap(str(options).replace("***", "hunter2"))
    assert again == options
    filtered = parse_ldap('ldapurl="ldaps://h/dc=a??sub?(cn=$username)"')
    assert parse_ldap(str(filtered)) == filtered
    assert parse_ldap(str(parse_ldap("ldapsuffix=@x"))) == parse_ldap("ldapsuffix=@x")
