"""Contradictions among the settings of authentication: above all, ways to log in that nobody can go."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config.auth_files import read_hba, read_ident, read_userlist
from hyperpool.config.kinds import AuthType, SslMode
from hyperpool.config.report import Report
from hyperpool.config.settings import FALLBACK

if TYPE_CHECKING:
    from collections.abc import Collection

    from hyperpool.config.report import KeyPath
    from hyperpool.config.settings import Settings
    from hyperpool.config.source import Source

MD5: Final = re.compile("md5[0-9a-f]{32}")
"""A stored secret that is an MD5 digest."""

LIBRARIES: Final = {AuthType.LDAP: "ldap3", AuthType.PAM: "pam"}
"""The modules that do what we do not, each in the extra of its method's name."""

_AUTH_TYPE: Final[KeyPath] = ("pooler", "auth_type")
_HBA_FILE: Final[KeyPath] = ("pooler", "auth_hba_file")
_UNKNOWN_USERS: Final = frozenset({AuthType.ANY, AuthType.LDAP, AuthType.PAM})
"""Methods for users of whom nothing is stored."""


def check_auth(settings: Settings, given: Collection[KeyPath], report: Report) -> None:
    """Look for contradictions.

    Args:
        settings: all settings; what could not be read has its default.
        given: the paths that stand in the file.
        report: knows what could not be read, and gets the problems.
    """
    if settings.pooler.auth_type is AuthType.HBA:
        _check_hba(settings, report)
    else:
        _check_credentials(settings, given, report)
    _check_certificates(settings, report)
    _check_libraries(settings, report)
    _check_auth_dbname(settings, report)


def with_auth_files(settings: Settings, source: Source) -> tuple[Settings, list[str]]:
    """Settings of authentication have changed: read the files that they name.

    Returns:
        The settings with what the files say, and what is wrong with them.
    """
    report = Report()
    pooler = settings.pooler
    found = attrs.evolve(
        settings,
        userlist=read_userlist(pooler, source, report),
        hba=read_hba(pooler, source, report),
        ident=read_ident(pooler, source, report),
    )
    check_auth(found, (_AUTH_TYPE,), report)
    return found, report.problems


def _check_hba(settings: Settings, report: Report) -> None:
    if not report.is_sound(_AUTH_TYPE, _HBA_FILE):
        return
    if not settings.hba:
        found = "a file without rules" if settings.pooler.auth_hba_file else "nothing"
        report.add(
            _HBA_FILE,
            f"found {found}, expected rules like 'host all all all scram-sha-256', for auth_type hba",
        )
    for rule in settings.hba:
        if rule.map and rule.map not in settings.ident and report.is_sound(("pooler", "auth_ident_file")):
            report.add(
                _HBA_FILE, f"line {rule.line}: expected a map that stands in auth_ident_file; add its lines"
            )
        if rule.method is AuthType.LDAP and rule.ldap is None and settings.pooler.auth_ldap_options is None:
            report.add(
                _HBA_FILE, f"line {rule.line}: expected LDAP options behind ldap, or as auth_ldap_options"
            )


def _check_credentials(settings: Settings, given: Collection[KeyPath], report: Report) -> None:
    """Report an ``auth_type`` with which nobody at all can log in."""
    kind = settings.pooler.auth_type
    if kind in _UNKNOWN_USERS or not report.is_sound(_AUTH_TYPE, ("pooler", "auth_file"), ("users",)):
        if kind is AuthType.LDAP and settings.pooler.auth_ldap_options is None:
            report.add(
                ("pooler", "auth_ldap_options"),
                "found nothing, expected options like ldapurl=..., for auth_type ldap",
            )
        return
    if any(settings.auth_source(name) for name in settings.databases):
        return
    known = settings.credentials.values()
    if kind in {AuthType.TRUST, AuthType.CERT}:
        usable, missing = bool(known), "user is known"
    elif kind is AuthType.SCRAM_SHA_256:
        usable = any(secret and not MD5.fullmatch(secret.reveal()) for secret in known)
        missing = "user has a password or SCRAM verifier"
    else:
        usable, missing = any(known), "user has a password"
    if not usable:
        found = kind.value if _AUTH_TYPE in given else f"nothing, which means {kind.value}"
        report.doubt(
            _AUTH_TYPE,
            f"found {found}, but no {missing}, so nobody can log in; add entries to users or an auth_file",
        )


def _check_certificates(settings: Settings, report: Report) -> None:
    mode: KeyPath = ("pooler", "client_tls_sslmode")
    if not settings.uses(AuthType.CERT) or not report.is_sound(_AUTH_TYPE, mode):
        return
    if settings.pooler.client_tls_sslmode is SslMode.DISABLE:
        report.add(
            mode, "found disable, expected TLS, without which there are no certificates to log in with"
        )


def _check_libraries(settings: Settings, report: Report) -> None:
    for kind, module in LIBRARIES.items():
        if settings.uses(kind) and report.is_sound(_AUTH_TYPE, _HBA_FILE) and find_spec(module) is None:
            report.add(
                _AUTH_TYPE,
                f"found {kind.value}, for which a library is missing; install hyperpool with its extra {kind.value}, "
                f"as in pip install '.[{kind.value}]' where its sources are",
            )


def _check_auth_dbname(settings: Settings, report: Report) -> None:
    pooler, databases = settings.pooler, settings.databases
    if FALLBACK in databases or not report.is_sound(("databases",)):
        return
    named: list[tuple[KeyPath, str | None]] = [(("pooler", "auth_dbname"), pooler.auth_dbname)]
    named += [(("databases", name, "auth_dbname"), entry.auth_dbname) for name, entry in databases.items()]
    for path, name in named:
        if name and name not in databases:
            report.add(path, f"found {name!r}, expected the name of an entry of databases; add it")
