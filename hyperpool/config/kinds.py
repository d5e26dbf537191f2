"""The kinds of values: how what stands in the file becomes what the program uses.

A parser takes a plain YAML value, with environment variables already put in, and either returns the setting's value
or raises `Unfit`. It never names the value that it got: it may be secret.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final, Literal

from hyperpool.config.secret import Secret
from hyperpool.config.source import Substituted, Unavailable, default_state_dir
from hyperpool.config.units import format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from hyperpool.config.source import Source

    Parser: TypeAlias = "Callable[[object, Source], Any]"

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_NO_HEADER_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]$")
_OCTAL: Final = re.compile(r"(?:0o)?[0-7]{3,4}")
_CREDENTIAL: Final = "credential:"
_LONGEST_TARGET: Final = 200
_CENTURY: Final = 36525 * 86400.0
_MAX_INT32: Final = 0x7FFFFFFF


class PoolMode(enum.Enum):
    """When a server connection is given back: pgbouncer's ``pool_mode``."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class SessionState(enum.Enum):
    """What happens to what a session keeps (``SET``, ``LISTEN``, temporary tables) when its transaction ends.

    In pool modes transaction and statement; pgbouncer does as `KEEP` does.
    """

    FOLLOW = "follow"
    RESET = "reset"
    KEEP = "keep"


class AuthType(enum.Enum):
    """How clients prove who they are: pgbouncer's ``auth_type``; `PEER` and `REJECT` stand in an HBA file alone."""

    TRUST = "trust"
    ANY = "any"
    PLAIN = "plain"
    MD5 = "md5"
    SCRAM_SHA_256 = "scram-sha-256"
    CERT = "cert"
    HBA = "hba"
    LDAP = "ldap"
    PAM = "pam"
    PEER = "peer"
    REJECT = "reject"


class SslMode(enum.Enum):
    """Whether a connection is encrypted, and how far the other side is trusted: libpq's ``sslmode``."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def required(self) -> bool:
        """Nothing goes over a connection without TLS."""
        return self not in {SslMode.DISABLE, SslMode.ALLOW, SslMode.PREFER}

    @property
    def verified(self) -> bool:
        """The other side's certificate is verified."""
        return self in {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}


class SslNegotiation(enum.Enum):
    """How TLS begins on a connection to a server: libpq's ``sslnegotiation``."""

    POSTGRES = "postgres"
    DIRECT = "direct"


class ChannelBinding(enum.Enum):
    """What is wanted of channel binding in a SCRAM login: libpq's ``channel_binding``."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


class Unfit(ValueError):
    """A value does not fit its setting.

    Args:
        expected: what would fit.
        remedy: what to do, if that is not plain from what would fit.
    """

    def __init__(self, expected: str, remedy: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.remedy = remedy


def text(value: object, _source: Source) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise Unfit("a text", "" if value is None or _is_collection(value) else "put it in quotes")
    if "\0" in value:
        raise Unfit("a text without zero bytes", "PostgreSQL can neither store nor transfer them")
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise Unfit("a text of Unicode characters", "half of a surrogate pair is none") from None
    return str(value)


def secret(value: object, source: Source) -> Secret:
    """A text that is never shown."""
    found = text(value, source)
    if not found:
        raise Unfit("a secret that is not empty", "leave the key out when there is none")
    return Secret(found)


def name(value: object, source: Source) -> str:
    """A text that is not empty."""
    found = text(value, source)
    if not found:
        raise Unfit("a text that is not empty", "leave the key out for the default")
    return found


def flag(value: object, _source: Source) -> bool:
    """True or false."""
    if isinstance(value, Substituted):
        value = {"true": True, "false": False}.get(value, value)
    if not isinstance(value, bool):
        raise Unfit("true or false", "write it without quotes" if isinstance(value, str) else "")
    return value


def whole(minimum: int, maximum: int = _MAX_INT32) -> Parser:
    """A whole number in a range."""
    expected = f"a whole number from {minimum} to {maximum}"

    def parse(value: object, _source: Source) -> int:
        if isinstance(value, Substituted) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            raise Unfit(expected, "write it without quotes")
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise Unfit(expected)
        return value

    return parse


port: Final = whole(1, 65535)
"""A TCP port."""


def workers(maximum: int) -> Parser:
    """A number of processes up to `maximum`, or ``auto``: as many as there are processors that this one may use."""
    number = whole(1, maximum)

    def parse(value: object, source: Source) -> int:
        if value == "auto":
            return min(len(os.sched_getaffinity(0)), maximum)
        found: int = number(value, source)
        return found

    return parse


def seconds(maximum: float = _CENTURY, minimum: float = 0.0) -> Parser:
    """A duration, as a float in seconds."""
    expected = 'a duration: seconds as a number, or a text like "500ms", "30s", "5m", "1h" or "1d"'
    shortest = format_duration(minimum) if minimum else "0"
    in_range = f"a duration from {shortest} to {format_duration(maximum)}"

    def parse(value: object, _source: Source) -> float:
        return _quantity(value, parse_duration, (minimum, maximum), expected, in_range)

    return parse


def whole_seconds(maximum: int) -> Parser:
    """A duration for the kernel, as a whole number of seconds."""

    def parse(value: object, source: Source) -> int:
        found: float = seconds(maximum)(value, source)
        if not found.is_integer():
            raise Unfit("a whole number of seconds")
        return int(found)

    return parse


def milliseconds(value: object, _source: Source) -> int:
    """A duration, as a whole number of milliseconds; a plain number is milliseconds too, as in pgbouncer."""
    expected = 'a duration: milliseconds as a number, or a text like "30s"'
    in_range = f"a whole number of milliseconds from 0 to {_MAX_INT32}"
    found = _quantity(
        value, lambda given: round(parse_duration(given) * 1000, 6), (0, _MAX_INT32), expected, in_range
    )
    if not found.is_integer():
        raise Unfit(in_range)
    return int(found)


def size(minimum: int, maximum: int = _MAX_INT32) -> Parser:
    """A size, as an int in bytes."""
    expected = 'a size: bytes as a whole number, or a text like "64KiB" or "1MiB"'
    in_range = f"a size from {format_size(minimum)} to {format_size(maximum)}"

    def parse(value: object, _source: Source) -> int:
        found = _quantity(value, parse_size, (minimum, maximum), expected, in_range)
        if isinstance(value, float) or not found.is_integer():
            raise Unfit(expected)
        return int(found)

    return parse


def pool_mode(value: object, source: Source) -> PoolMode:
    """A pool mode."""
    return PoolMode(word(*(mode.value for mode in PoolMode))(value, source))


def session_state(value: object, source: Source) -> SessionState:
    """What happens to session state."""
    return SessionState(word(*(way.value for way in SessionState))(value, source))


def auth_type(value: object, source: Source) -> AuthType:
    """A way for clients to prove who they are."""
    settable = (kind.value for kind in AuthType if kind not in {AuthType.PEER, AuthType.REJECT})
    return AuthType(word(*settable)(value, source))


def sslmode(value: object, source: Source) -> SslMode:
    """A mode of TLS."""
    return SslMode(word(*(mode.value for mode in SslMode))(value, source))


def sslnegotiation(value: object, source: Source) -> SslNegotiation:
    """A way to begin with TLS."""
    return SslNegotiation(word(*(way.value for way in SslNegotiation))(value, source))


def channel_binding(value: object, source: Source) -> ChannelBinding:
    """A wish for channel binding."""
    return ChannelBinding(word(*(wish.value for wish in ChannelBinding))(value, source))


def word(*words: str) -> Parser:
    """One of several words."""

    def parse(value: object, _source: Source) -> str:
        if not isinstance(value, str) or value not in words:
            raise Unfit(f"one of {', '.join(words)}")
        return str(value)

    return parse


def names(value: object, source: Source) -> tuple[str, ...]:
    """Texts: a list, or one text with commas between them."""
    if isinstance(value, str):
        parts: list[object] = list(value.split(","))
        if parts == [""]:
            return ()
    elif isinstance(value, list):
        parts = value
    else:
        raise Unfit("a list of texts, or one text with commas between them")
    found = []
    for part in parts:
        if not isinstance(part, str) or not part.strip():
            raise Unfit("a list of texts that are not empty")
        found.append(text(part.strip(), source))
    return tuple(found)


def hosts(value: object, source: Source) -> str:
    """Where servers are: host names, addresses, directories of Unix sockets or abstract names, with commas between."""
    if isinstance(value, list):
        found = list(names(value, source))
    else:
        found = [one.strip() for one in name(value, source).split(",")]
    if not found or not all(found):
        raise Unfit("hosts that are not empty")
    return ",".join(one if one.startswith(("/", "@")) else _address(one) for one in found)


def ports(value: object, source: Source) -> int | tuple[int, ...]:
    """A TCP port, or one for each host."""
    if isinstance(value, str) and "," in value:
        value = [int(one) if _WHOLE.fullmatch(one.strip()) else one for one in value.split(",")]
    if not isinstance(value, list):
        found: int = port(value, source)
        return found
    return tuple(port(one, source) for one in value)


def load_balance(value: object, source: Source) -> Literal["round-robin", "disable"]:
    """What chooses the host of a new connection."""
    found: Literal["round-robin", "disable"] = word("round-robin", "disable")(value, source)
    return found


def hostname(value: object, source: Source) -> str:
    """A host name or an address."""
    return _address(name(value, source))


def socket_path(value: object, source: Source) -> str:
    """A Unix socket: its file, or its abstract name, which starts with ``@``."""
    found = name(value, source)
    return found if found.startswith("@") else str(source.anchor(found))


def agent_target(value: object, source: Source) -> str:
    """A target of an agent's, which stands on a line between pooler and agent."""
    found = text(value, source)
    if not found.isascii() or not found.isprintable() or len(found) > _LONGEST_TARGET:
        raise Unfit(f"up to {_LONGEST_TARGET} printable ASCII characters")
    return found


def is_header_value(text: str) -> bool:
    """Whether a header of HTTP can have a text as its value (RFC 9110, section 5.5)."""
    return not _NO_HEADER_VALUE.search(text)


def url_path(value: object, source: Source) -> str:
    """The path of a URL, with its query if there is one."""
    found = text(value, source)
    if not found.startswith("/") or not found.isascii() or not found.isprintable() or set(found) & set(" #"):
        raise Unfit("a path that starts with a slash, with other characters percent-encoded")
    return found


def secret_file(value: object, source: Source) -> str:
    """The file of a secret, made absolute: a path, or ``credential:NAME`` for one of systemd's credentials."""
    found = text(value, source)
    if not found.startswith(_CREDENTIAL):
        return path(value, source)
    credential, directory = found.removeprefix(_CREDENTIAL), source.environ.get("CREDENTIALS_DIRECTORY")
    if not credential or "/" in credential or credential in {".", ".."}:
        raise Unfit("the name of a credential behind the colon")
    if not directory:
        raise Unavailable(
            "found a systemd credential, but $CREDENTIALS_DIRECTORY is not set: add LoadCredential= to the unit"
        )
    return str(source.anchor(directory) / credential)


def addresses(value: object, source: Source) -> tuple[str, ...]:
    """Where to listen: names and addresses, or ``*`` for all."""
    return tuple(one if one == "*" else _address(one) for one in names(value, source))


def path(value: object, source: Source) -> str:
    """A path, made absolute; an empty text stays as it is."""
    found = text(value, source)
    return str(source.anchor(found)) if found else ""


def socket_directory(value: object, source: Source) -> str:
    """A directory for a Unix socket, or an abstract name that starts with ``@``; an empty text stays as it is."""
    found = text(value, source)
    return found if found.startswith("@") else path(value, source)


def state_directory(value: object, source: Source) -> Path:
    """A directory; an empty text stands for the default."""
    found = text(value, source)
    return source.anchor(found) if found else default_state_dir(source.environ, source.directory)


def file_mode(value: object, _source: Source) -> int:
    """Permissions: an octal number."""
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        value = int(value.removeprefix("0o"), 8)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
        raise Unfit("an octal number from 0000 to 0777", "it begins with a zero, like 0770")
    return value


def _address(found: str) -> str:
    if "," in found or any(character.isspace() for character in found):
        raise Unfit("one host name or address", "no list, and no spaces")
    if ":" in found or "[" in found:
        try:
            ipaddress.IPv6Address(found)
        except ValueError:
            raise Unfit(
                "a host name or address", "the port has a setting of its own, and IPv6 needs no brackets"
            ) from None
    return found


def _quantity(
    value: object,
    parse: Callable[[str], float],
    limits: tuple[float, float],
    expected: str,
    in_range: str,
) -> float:
    """A number, or a number with a unit, within limits."""
    number: object = value
    if isinstance(value, Substituted) and _DECIMAL.fullmatch(value):
        number = float(value)
    elif isinstance(value, str):
        try:
            number = parse(value)
        except ValueError:
            remedy = "write a number without a unit without quotes" if _DECIMAL.fullmatch(value) else ""
            raise Unfit(expected, remedy) from None
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise Unfit(expected)
    if not limits[0] <= number <= limits[1]:
        raise Unfit(in_range)
    return float(number)


def _is_collection(value: object) -> bool:
    return isinstance(value, list | dict | set)
