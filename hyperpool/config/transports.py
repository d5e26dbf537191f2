"""How the byte stream to a database's server is made: the steps of a transport, bottom up.

Each kind of step has a class; `STEPS` has them by name. A step's `onto` says what becomes of the steps below it when
it is put on top of them: most are simply appended, a ``websocket`` with a URL brings its own steps along.

Adding a kind: a class here, and a function in `hyperpool.transport.kinds`.
"""

# ruff: noqa: RUF009 - what is called to make a default is `setting`, and it makes a field
from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias
from urllib.parse import urlsplit

import attrs

from hyperpool.config import kinds
from hyperpool.config.fields import Problem, Problems, read_value, required, setting
from hyperpool.config.kinds import Unfit
from hyperpool.config.report import describe, describe_type, key_text
from hyperpool.config.secret import Secret
from hyperpool.config.source import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config.report import KeyPath
    from hyperpool.config.source import Source


_OWN_HEADERS: Final = {
    "host", "upgrade", "connection", "content-length", "transfer-encoding", "te", "trailer", "keep-alive",
    "proxy-connection", "proxy-authorization", "sec-websocket-key", "sec-websocket-version",
    "sec-websocket-accept", "sec-websocket-extensions",
}  # fmt: skip
"""Headers that belong to the handshake, or to one hop only (RFC 9110, section 7.6.1)."""

_TOKEN_HEADERS: Final = {"cf-access-client-id": "token_id", "cf-access-client-secret": "token_secret"}
"""Headers that have a setting of their own."""

_HEADER_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
"""RFC 9110, section 5.1."""


def _headers(value: object, source: Source) -> tuple[tuple[str, Secret], ...]:
    """HTTP headers: names and values; a value may be secret."""
    if not isinstance(value, dict):
        raise Unfit("a mapping of header names and their values")
    found = []
    for name, content in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise Unfit("header names of letters, digits and dashes")
        if name.lower() in _OWN_HEADERS:
            raise Unfit(f"headers without {name}", "hyperpool sets that itself")
        shown = kinds.text(source.substitute(content) if isinstance(content, str) else content, source)
        if not kinds.is_header_value(shown):
            raise Unfit("header values on one line, without spaces around them and control characters")
        found.append((name, Secret(shown)))
    return tuple(found)


def _url(*schemes: str) -> kinds.Parser:
    """A URL with one of some schemes, and without user and password."""
    expected = f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"

    def parse(value: object, source: Source) -> str:
        found = kinds.text(value, source)
        try:
            parts = urlsplit(found)
            port = parts.port
        except ValueError:
            raise Unfit(expected, "the host or the port is not valid") from None
        if parts.scheme not in schemes or not parts.hostname or port == 0:
            raise Unfit(f"{expected} and names a host")
        if "@" in parts.netloc:
            raise Unfit("a URL without user and password", "they have settings of their own")
        if "#" in found or not found.isprintable() or " " in found:
            raise Unfit("a URL without fragment and spaces")
        if not f"{parts.path}{parts.query}".isascii():
            raise Unfit("a URL whose path is ASCII", "percent-encode other characters")
        kinds.hostname(parts.hostname, source)
        return found

    return parse


def _proxy_url(value: object, source: Source) -> str:
    """A proxy's URL: CONNECT has no path there."""
    found: str = _url("http", "https")(value, source)
    parts = urlsplit(found)
    if parts.path not in {"", "/"} or "?" in found:
        raise Unfit("the proxy's URL without a path", "like http://proxy.example.com:3128")
    return found


def _proxy_user(value: object, source: Source) -> str:
    """A user's name for Basic authentication (RFC 7617, section 2)."""
    found = kinds.text(value, source)
    if ":" in found:
        raise Unfit("a user without a colon", "the password has a setting of its own")
    return found


def _host_header(value: object, source: Source) -> str:
    """A host for the header Host, with or without a port."""
    found = kinds.text(value, source)
    if set(found) & set("/,@?# ") or not found.isprintable():
        raise Unfit("a host, or host:port")
    return found


def _server_name(value: object, source: Source) -> str:
    """The name that a certificate is for; an empty text is the default."""
    found = kinds.text(value, source)
    if found.startswith("."):
        raise Unfit("a host name or address", "it does not begin with a dot")
    if found:
        kinds.hostname(found, source)
    return found


def host_and_port(url: str) -> tuple[str, int]:
    """Where a URL that `_url` has accepted leads to."""
    parts = urlsplit(url)
    secure = parts.scheme in {"wss", "https"}
    return parts.hostname or "", parts.port or (443 if secure else 80)


@attrs.frozen(kw_only=True)
class TcpStep:
    """A TCP connection; above a ``proxy``, one that the proxy makes."""

    KIND: ClassVar[str] = "tcp"
    BASE: ClassVar[bool] = True

    host: str = required(kinds.hostname, "name or address")
    port: int = required(kinds.port, "port")

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps."""
        if below and isinstance(below[-1], ProxyStep) and not below[-1].host:
            return (*below[:-1], attrs.evolve(below[-1], host=self.host, port=self.port))
        return _as_base(self, below)


@attrs.frozen(kw_only=True)
class UnixStep:
    """A connection to a Unix socket."""

    KIND: ClassVar[str] = "unix"
    BASE: ClassVar[bool] = True

    path: str = required(kinds.socket_path, "the socket's file (/...) or abstract name (@...)")

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps."""
        return _as_base(self, below)


@attrs.frozen(kw_only=True)
class ProxyStep:
    """A connection that an HTTP proxy makes for us (method CONNECT) to the host of the next step."""

    KIND: ClassVar[str] = "proxy"
    BASE: ClassVar[bool] = True

    url: str = required(_proxy_url, "the proxy")
    user: str = setting("", _proxy_user, "user for the proxy")
    password: Secret | None = setting(None, kinds.secret, "password for the proxy", secret=True)
    password_file: str = setting("", kinds.secret_file, "file that holds that password, or credential:NAME")
    ca_file: str = setting("", kinds.path, "certificates that an https proxy is verified with")
    host: str = setting("", kinds.hostname, "where it shall connect to; by default where the next step does")
    port: int = setting(0, kinds.port, "and the port there")

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken with the proxy."""
        return urlsplit(self.url).scheme == "https"

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps."""
        if bool(self.host) != bool(self.port):
            raise Unfit("host and port together", "or neither, where the next step says it")
        if self.ca_file and not self.secure:
            raise Unfit(
                "ca_file together with an https:// url", "TLS behind the proxy has a ca_file of its own"
            )
        return _as_base(self, below)


@attrs.frozen(kw_only=True)
class AgentStep:
    """A connection that an agent in the private network makes for us, after it has connected to us."""

    KIND: ClassVar[str] = "agent"
    BASE: ClassVar[bool] = True

    name: str = required(
        kinds.name, "the agent's name, as the pooler's section agents gives it; several may share it"
    )
    target: str = setting("", kinds.agent_target, "what the agent calls its target; empty: its only one")

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps."""
        return _as_base(self, below)


@attrs.frozen(kw_only=True)
class TlsStep:
    """TLS over what is below."""

    KIND: ClassVar[str] = "tls"
    BASE: ClassVar[bool] = False

    server_name: str = setting(
        "",
        _server_name,
        "the name in the server's certificate, which is also sent; by default the host below",
    )
    ca_file: str = setting("", kinds.path, "certificates to verify with; empty: the system's")
    cert_file: str = setting("", kinds.path, "certificate that is shown to the server")
    key_file: str = setting("", kinds.secret_file, "that certificate's key")
    verify: bool = setting(default=True, parse=kinds.flag, about="verify the server's certificate and name")
    min_version: str = setting("TLSv1.2", kinds.word("TLSv1.2", "TLSv1.3"), "the oldest version")
    ciphers: str = setting("", kinds.text, "ciphers for TLS 1.2, in OpenSSL's form; empty: OpenSSL's default")

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps."""
        _check_above(self, below)
        if self.key_file and not self.cert_file:
            raise Unfit("cert_file together with key_file")
        name = self.server_name or _reached(below)[0]
        if not name:
            raise Unfit("server_name, as the steps below name no host", "add it")
        return (*below, attrs.evolve(self, server_name=name))


@attrs.frozen(kw_only=True)
class WebSocketStep:
    """A WebSocket whose binary messages carry the bytes."""

    KIND: ClassVar[str] = "websocket"
    BASE: ClassVar[bool] = False

    url: str = setting(
        "", _url("ws", "wss"), "host, port, path and TLS in one: brings its own steps below it"
    )
    ca_file: str = setting(
        "", kinds.path, "certificates that a wss:// url's gateway is verified with; empty: the system's"
    )
    host: str = setting("", _host_header, "the header Host; by default the host below")
    path: str = setting("/", kinds.url_path, "the request's path, with a query if there is one")
    headers: tuple[tuple[str, Secret], ...] = setting(
        (), _headers, "more headers of the request", secret=True
    )
    token_id: Secret | None = setting(
        None, kinds.secret, "service token: the header CF-Access-Client-Id", secret=True
    )
    token_id_file: str = setting("", kinds.secret_file, "file that holds token_id, or credential:NAME")
    token_secret: Secret | None = setting(
        None, kinds.secret, "service token: the header CF-Access-Client-Secret", secret=True
    )
    token_secret_file: str = setting(
        "", kinds.secret_file, "file that holds token_secret, or credential:NAME"
    )
    max_message: int = setting(16384, kinds.size(1, 2**24), "longest message that is sent")
    max_received: int = setting(2**24, kinds.size(1024), "longest message that is accepted")
    keepalive: float = setting(57.0, kinds.seconds(), "time between two pings while nothing is sent; 0: none")

    def onto(self, below: Steps) -> Steps:
        """Put it on top of other steps, and its own below it if it has a URL."""
        self._check_token()
        if self.ca_file and urlsplit(self.url).scheme != "wss":
            raise Unfit("ca_file together with a wss:// url", "a tls step has a ca_file of its own")
        if not self.url:
            _check_above(self, below)
            host = self.host or _authority(*_reached(below), secure=isinstance(below[-1], TlsStep))
            if not host:
                raise Unfit("host, as the steps below name none", "add it")
            return (*below, attrs.evolve(self, host=host))
        if self.host or self.path != "/":
            raise Unfit("url alone, or host and path", "remove one of them")
        if below and not (isinstance(below[-1], ProxyStep) and not below[-1].host):
            raise Unfit("host and path instead of url", "the steps below say how it is reached")
        parts = urlsplit(self.url)
        secure = parts.scheme == "wss"
        host, port = host_and_port(self.url)
        below = TcpStep(host=host, port=port).onto(below)
        if secure:
            below = TlsStep(ca_file=self.ca_file).onto(below)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return (*below, attrs.evolve(self, host=_authority(host, port, secure=secure), path=path))

    def _check_token(self) -> None:
        if bool(self.token_id) != bool(self.token_secret):
            raise Unfit("token_id and token_secret together")
        for name, part in (("token_id", self.token_id), ("token_secret", self.token_secret)):
            if part is not None and not kinds.is_header_value(part.reveal()):
                raise Unfit(f"{name} on one line, without spaces around it and control characters")
        for name, _ in self.headers:
            setting_of_it = _TOKEN_HEADERS.get(name.lower())
            if self.token_id and setting_of_it:
                raise Unfit(f"{setting_of_it} or the header {name}", "remove one of them")


Step: TypeAlias = TcpStep | UnixStep | ProxyStep | AgentStep | TlsStep | WebSocketStep
Steps: TypeAlias = tuple[Step, ...]

STEPS: Final[Mapping[str, type[Step]]] = {
    kind.KIND: kind for kind in (TcpStep, UnixStep, ProxyStep, AgentStep, TlsStep, WebSocketStep)
}
"""Every kind of step, by the name that it has in the settings."""

_EXPECTED: Final = f"a list of steps, each with one of the keys {', '.join(sorted(STEPS))}, or a wss:// URL"


def transport(value: object, source: Source) -> Steps:
    """Read a transport: a list of steps, a step, or a WebSocket's URL.

    Raises:
        Unfit: it is none of these.
        Problems: of single settings of its steps, or of how they stand together.
    """
    if isinstance(value, str):
        value = {WebSocketStep.KIND: {"url": _url("ws", "wss")(value, source)}}
    if isinstance(value, dict) and value:
        value = [value]
    if not isinstance(value, list) or not value:
        raise Unfit(_EXPECTED)
    problems: list[tuple[KeyPath, str]] = []
    steps = [_step(str(number), one, source, problems) for number, one in enumerate(value, 1)]
    if problems:
        raise Problems(problems)
    made: Steps = ()
    for number, step in enumerate(steps, 1):
        assert step is not None  # noqa: S101 - or there would be a problem
        try:
            made = step.onto(made)
        except Unfit as error:
            remedy = f"; {error.remedy}" if error.remedy else ""
            place = str(number), step.KIND
            raise Problems([(place, f"found no sound step, expected {error.expected}{remedy}")]) from None
    if isinstance(made[-1], ProxyStep) and not made[-1].host:
        place = str(len(steps)), ProxyStep.KIND
        raise Problems([(place, "found nowhere to connect to, expected host and port, or a step above it")])
    return made


def _step(number: str, value: object, source: Source, problems: list[tuple[KeyPath, str]]) -> Step | None:
    if not isinstance(value, dict) or len(value) != 1:
        problems.append(((number,), f"found {describe_type(value)}, expected one key: the step's kind"))
        return None
    ((kind, content),) = value.items()
    if kind not in STEPS:
        problems.append(((number,), f"found {describe(kind)} as a step, expected one of {', '.join(STEPS)}"))
        return None
    place = number, str(kind)
    if not isinstance(content, dict):
        problems.append((place, f"found {describe_type(content)}, expected a mapping of the step's settings"))
        return None
    before = len(problems)
    fields = attrs.fields_dict(STEPS[kind])
    given = _values(place, fields, content, source, problems)
    _read_secrets(place, fields, given, source, problems)
    return STEPS[kind](**given) if len(problems) == before else None


def _values(
    place: KeyPath,
    fields: Mapping[str, attrs.Attribute[Any]],
    content: Mapping[object, object],
    source: Source,
    problems: list[tuple[KeyPath, str]],
) -> dict[str, Any]:
    found = {}
    for key, value in content.items():
        if not isinstance(key, str) or key not in fields:
            close = difflib.get_close_matches(key_text(key), fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f", expected one of {', '.join(fields)}"
            problems.append(((*place, key_text(key)), f"found an unknown setting{hint}"))
            continue
        try:
            found[key] = read_value(fields[key], value, source)
        except Problem as problem:
            problems.append(((*place, key), str(problem)))
    for name, field in fields.items():
        if field.default is attrs.NOTHING and name not in content:
            problems.append(((*place, name), f"found nothing, expected {field.metadata['help']}; add it"))
    return found


def _read_secrets(
    place: KeyPath,
    fields: Mapping[str, attrs.Attribute[Any]],
    given: dict[str, Any],
    source: Source,
    problems: list[tuple[KeyPath, str]],
) -> None:
    """Put in the secrets that stand in files of their own."""
    for name in fields:
        file = given.get(f"{name}_file")
        if not fields[name].metadata["secret"] or not file:
            continue
        here = (*place, f"{name}_file")
        if name in given:
            problems.append((here, f"found together with {name}, expected one of the two; remove the other"))
            continue
        try:
            given[name] = source.read_secret(file)
        except Unavailable as error:
            problems.append((here, str(error)))


def _as_base(step: Step, below: Steps) -> Steps:
    if below:
        raise Unfit(f"{step.KIND} as the first step", "it makes a connection of its own")
    return (step,)


def _check_above(step: Step, below: Steps) -> None:
    if not below:
        bases = ", ".join(name for name, kind in STEPS.items() if kind.BASE)
        raise Unfit(f"a step below {step.KIND}", f"begin with one of {bases}")
    if isinstance(below[-1], ProxyStep) and not below[-1].host:
        raise Unfit(f"a tcp step between proxy and {step.KIND}, or the proxy's host and port")


def _reached(below: Steps) -> tuple[str, int]:
    """The host and port that the bytes arrive at, as far as steps name it."""
    for step in reversed(below):
        if isinstance(step, TcpStep | ProxyStep):
            return step.host, step.port
        if not isinstance(step, TlsStep):
            break
    return "", 0


def _authority(host: str, port: int, *, secure: bool) -> str:
    """Host and port as in the header Host (RFC 9110, section 7.2)."""
    shown = f"[{host}]" if ":" in host else host
    return shown if not host or port == (443 if secure else 80) else f"{shown}:{port}"
