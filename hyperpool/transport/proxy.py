"""The step ``proxy``: a TCP connection that an HTTP proxy makes for us (RFC 9110, section 9.3.6: CONNECT)."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import trio

from hyperpool import __version__
from hyperpool.config.transports import TcpStep, TlsStep, host_and_port
from hyperpool.errors import ConnectFailed
from hyperpool.transport.answer import ask, host_header
from hyperpool.transport.dial import open_tcp
from hyperpool.transport.tls import open_tls

if TYPE_CHECKING:
    from hyperpool.config.transports import ProxyStep
    from hyperpool.transport.answer import Answer
    from hyperpool.transport.kinds import DialContext


async def open_proxy(step: ProxyStep, below: trio.abc.Stream | None, context: DialContext) -> trio.abc.Stream:
    """Open a stream to the step's host and port through its proxy. Failed or cancelled, nothing is left open.

    Raises:
        ConnectFailed: the proxy could not be reached, or refused; the message says what to do.
    """
    assert below is None  # noqa: S101 - the settings see to it
    host, port = host_and_port(step.url)
    proxy = f"the HTTP proxy {_authority(host, port)}"
    try:
        stream: trio.abc.Stream = await open_tcp(TcpStep(host=host, port=port), None, context)
        if step.secure:
            stream = await open_tls(TlsStep(server_name=host, ca_file=step.ca_file), stream, context)
    except ConnectFailed as error:
        raise ConnectFailed(f"{proxy} cannot be reached: {error}") from error
    target = _authority(step.host, step.port)
    try:
        with context.trace.hop("proxy", target) as hop:
            asked = host_header(target).decode()
            answer = await ask(stream, proxy, "CONNECT", asked, _headers(step, asked))
            hop.facts["status"] = answer.title
            _check(step, proxy, target, answer)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _headers(step: ProxyStep, target: str) -> list[tuple[str, bytes]]:
    headers = [("Host", target.encode()), ("User-Agent", f"hyperpool/{__version__}".encode())]
    if step.user or step.password:
        password = step.password.reveal() if step.password else ""
        credentials = f"{step.user}:{password}".encode(errors="surrogateescape")
        headers.append(("Proxy-Authorization", b"Basic " + b64encode(credentials)))
    return headers


def _check(step: ProxyStep, proxy: str, target: str, answer: Answer) -> None:
    """Find out whether the connection was made.

    Raises:
        ConnectFailed: it was not; why, and what to do.
    """
    if 200 <= answer.status < 300:
        if answer.rest:
            raise ConnectFailed(
                f"{proxy} made a connection to {target}, on which bytes came before anything was asked: check host "
                "and port, and that it is a proxy which takes CONNECT"
            )
        return
    if answer.status == 407:
        wanted = (
            "other credentials: check user and password"
            if step.user
            else "credentials: add user and password"
        )
        raise ConnectFailed(f"{proxy} wants {wanted} ({answer.title})")
    if answer.status == 403:
        remedy = "let it, or check host and port"
        raise ConnectFailed(f"{proxy} does not allow connections to {target} ({answer.title}): {remedy}")
    if answer.status in {502, 503, 504}:
        raise ConnectFailed(
            f"{proxy} cannot reach {target} ({answer.title}): check host and port, and its way there"
        )
    raise ConnectFailed(
        f"{proxy} made no connection to {target} ({answer.title}): check that it is a proxy which takes CONNECT"
    )
