"""Asking others whether somebody is who it says: LDAP servers, PAM, and the operating system. All of it blocks.

The libraries are imported when they are needed: they are extras.
"""

from __future__ import annotations

import pwd
import ssl
import warnings
from typing import TYPE_CHECKING, Any, Final

import structlog

from hyperpool.config.ident import is_allowed
from hyperpool.errors import ClientRefused
from hyperpool.wire.text import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config.ident import IdentEntry
    from hyperpool.config.ldap import LdapOptions

log = structlog.get_logger("auth")

_LDAP_TIMEOUT: Final = 10
"""Seconds that an LDAP server may take to connect, and for each answer."""

_PLACEHOLDER: Final = "$username"
_UNAVAILABLE: Final = "57P03"


def check_peer(uid: int, user: str, name: str, maps: Mapping[str, tuple[IdentEntry, ...]]) -> bool:
    """Whether the operating system's user may log in.

    Args:
        uid: the number of that user.
        user: as whom it wants to log in.
        name: of the map that says so; empty for none.
        maps: the maps.
    """
    try:
        system = pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return is_allowed(maps, name, system, user)


def check_pam(service: str, user: str, password: str) -> bool:
    """Whether PAM takes a password, and the account may be used now.

    Args:
        service: the name of PAM's service.
        user: the user's name.
        password: what the client has sent, not empty.
    """
    import pam  # noqa: PLC0415 - an extra

    stack = pam.PamAuthenticator()
    accepted: bool = stack.authenticate(encode(user), encode(password), service=service, resetcreds=False)
    if not accepted:
        log.info("PAM refuses a user", user=user, service=service, reason=str(stack.reason))
    return accepted


def check_ldap(options: LdapOptions, user: str, password: str) -> bool:
    """Whether an LDAP server takes a password.

    Args:
        options: which server, and how the user is called there.
        user: the user's name.
        password: what the client has sent, not empty.

    Raises:
        ClientRefused: no server can be asked, or it refuses what has nothing to do with this user.
    """
    if not _is_utf8(user):
        # LDAP has no other names (RFC 4511, section 4.1.2).
        return False
    ldap3 = _library()
    servers = [
        ldap3.Server(
            host,
            options.port,
            use_ssl=options.scheme == "ldaps",
            tls=ldap3.Tls(validate=ssl.CERT_REQUIRED),  # with the certificates that the system trusts
            connect_timeout=_LDAP_TIMEOUT,
            get_info=ldap3.NONE,
        )
        for host in options.servers
    ]
    pool = ldap3.ServerPool(servers, ldap3.FIRST, active=1)
    try:
        name = _search(ldap3, pool, options, user) if options.basedn else _bind_name(ldap3, options, user)
        if not name:
            # A server lets in anybody without a name (RFC 4513, section 5.1.2).
            return False
        return _bind(ldap3, pool, options, name, password)
    except ldap3.core.exceptions.LDAPException as error:
        log.warning(
            "LDAP cannot be asked",
            servers=" ".join(options.servers),
            error=f"{type(error).__name__}: {error}",
        )
        raise ClientRefused(
            "the LDAP server cannot be asked", _UNAVAILABLE, "try again later; the pooler's log says more"
        ) from None


def _bind_name(ldap3: Any, options: LdapOptions, user: str) -> str:  # noqa: ANN401 - no types
    r"""As whom to bind for a user, without a search.

    In a distinguished name the user's is one value, whatever it holds: no name of a user leads to another part of the
    tree (RFC 4514, section 2.4). Other names, as Active Directory has them (``DOMAIN\user``, ``user@domain``), have no
    such rules.
    """
    own = ldap3.utils.dn.escape_rdn(user) if "=" in options.prefix else user
    return f"{options.prefix}{own}{options.suffix}"


def _library() -> Any:  # noqa: ANN401 - it has no types
    # It uses names that pyasn1, and functions that Python, will drop.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ldap3\.")
    import ldap3.core.exceptions  # noqa: PLC0415 - an extra
    import ldap3.utils.conv  # noqa: PLC0415
    import ldap3.utils.dn  # noqa: PLC0415

    return ldap3


def _bind(ldap3: Any, pool: Any, options: LdapOptions, name: str, password: str) -> bool:  # noqa: ANN401 - no types
    connection = _connection(ldap3, pool, options, name, password)
    try:
        return bool(connection.bind())
    except ldap3.core.exceptions.LDAPSASLPrepError:
        # It cannot be sent, so it is nobody's: that is the client's failure, and not the server's.
        return False
    finally:
        connection.unbind()


def _search(ldap3: Any, pool: Any, options: LdapOptions, user: str) -> str | None:  # noqa: ANN401 - no types
    """The distinguished name of the one entry that is about a user; None if there is none, or several."""
    escaped = ldap3.utils.conv.escape_filter_chars(user)
    wanted = options.searchfilter.replace(_PLACEHOLDER, escaped) or f"({options.searchattribute}={escaped})"
    scopes = {"base": ldap3.BASE, "one": ldap3.LEVEL, "sub": ldap3.SUBTREE}
    connection = _connection(ldap3, pool, options, options.binddn, options.bindpasswd.reveal())
    try:
        if not connection.bind():
            raise ldap3.core.exceptions.LDAPBindError("the server refuses ldapbinddn and ldapbindpasswd")
        connection.search(options.basedn, wanted, search_scope=scopes[options.scope], size_limit=2)
        found = [one["dn"] for one in connection.response or () if one.get("type") == "searchResEntry"]
    finally:
        connection.unbind()
    return found[0] if len(found) == 1 else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _connection(ldap3: Any, pool: Any, options: LdapOptions, name: str, password: str) -> Any:  # noqa: ANN401
    """A connection that is open, with TLS if that is wanted."""
    connection = ldap3.Connection(
        pool,
        user=name or None,
        password=password or None,
        authentication=ldap3.SIMPLE if name else ldap3.ANONYMOUS,
        receive_timeout=_LDAP_TIMEOUT,
        raise_exceptions=False,
        read_only=True,
    )
    connection.open()
    if options.tls and not connection.start_tls():
        connection.unbind()
        raise ldap3.core.exceptions.LDAPStartTLSError("the server refuses StartTLS")
    return connection
