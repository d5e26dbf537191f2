"""Transports: how their steps are read, what becomes of short forms, and what is said about mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.config import Secret
from hyperpool.config.transports import AgentStep, ProxyStep, TcpStep, TlsStep, UnixStep, WebSocketStep
from tests.support.certificates import server_pem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.config.conftest import Loader, Problems

WHERE = "databases.app.transport"


def app(transport: Any, **more: Any) -> dict[str, Any]:
    """The section ``databases``, with one entry."""
    return {"app": {"transport": transport, **more}}


def steps_of(load_with: Loader, transport: Any, environ: dict[str, str] | None = None) -> Any:
    """The steps that settings lead to."""
    pool = load_with(environ, databases=app(transport)).pool_for("app", "ann")
    assert pool is not None
    return pool.transport


# -- what is accepted --------------------------------------------------------------------------------------------------


def test_no_transport(load_with: Loader) -> None:
    """Host and port are the way."""
    pool = load_with(databases={"app": {"host": "db1, db2", "port": [1, 2]}}).pool_for("app", "ann")
    assert pool is not None
    assert (pool.transport, pool.servers) == ((), (("db1", 1), ("db2", 2)))
    assert (pool.load_balance_hosts, pool.host_connect_timeout) == ("round-robin", 5.0)


@pytest.mark.parametrize(
    ("host", "port", "servers"),
    [
        ("a", 1, [("a", 1)]),
        ("a,b", 1, [("a", 1), ("b", 1)]),
        (["a", "/run"], "1,2", [("a", 1), ("/run", 2)]),
        ("fd00::1,@pg", [1, 2], [("fd00::1", 1), ("@pg", 2)]),
    ],
)
def test_hosts_and_their_ports(load_with: Loader, host: Any, port: Any, servers: list[Any]) -> None:
    """Lists, or texts with commas, as in pgbouncer and libpq."""
    database = load_with(databases={"app": {"host": host, "port": port}}).databases["app"]
    assert list(database.servers) == servers


def test_every_kind(load_with: Loader, tmp_path: Path) -> None:
    """Each kind of step with its defaults; relative paths start at the file's directory."""
    tcp = {"tcp": {"host": "gw", "port": 443}}
    assert steps_of(load_with, tcp) == steps_of(load_with, [tcp]) == (TcpStep(host="gw", port=443),)
    assert steps_of(load_with, {"unix": {"path": "run/pg"}}) == (UnixStep(path=str(tmp_path / "run/pg")),)
    assert steps_of(load_with, {"unix": {"path": "@pg"}}) == (UnixStep(path="@pg"),)
    agents = {"listen_port": 1, "tokens": {"site-a": {"id": "i", "secret": "s" * 64}}}
    pool = load_with(databases=app({"agent": {"name": "site-a"}}), agents=agents).pool_for("app", "ann")
    assert pool is not None
    assert pool.transport == (AgentStep(name="site-a"),)
    tls = {"tls": {"ca_file": "ca.pem", "verify": False, "min_version": "TLSv1.3"}}
    assert steps_of(load_with, [tcp, tls])[1] == TlsStep(
        server_name="gw", ca_file=str(tmp_path / "ca.pem"), verify=False, min_version="TLSv1.3"
    )
    assert steps_of(load_with, [tcp, {"tls": {}}, {"websocket": {"path": "/db?x=1"}}])[2] == WebSocketStep(
        host="gw", path="/db?x=1"
    )


@pytest.mark.parametrize(
    ("url", "steps"),
    [
        (
            "wss://gw.example.com/db?x=1",
            (
                TcpStep(host="gw.example.com", port=443),
                TlsStep(server_name="gw.example.com"),
                WebSocketStep(url="wss://gw.example.com/db?x=1", host="gw.example.com", path="/db?x=1"),
            ),
        ),
        (
            "ws://[fd00::1]:8080",
            (
                TcpStep(host="fd00::1", port=8080),
                WebSocketStep(url="ws://[fd00::1]:8080", host="[fd00::1]:8080", path="/"),
            ),
        ),
    ],
)
def test_a_url_brings_its_own_steps(load_with: Loader, url: str, steps: Any) -> None:
    """As the whole transport, or as a step with more settings; TLS is verified."""
    assert steps_of(load_with, url) == steps
    assert steps_of(load_with, [{"websocket": {"url": url}}]) == steps
    assert steps_of(load_with, "${WAY}", {"WAY": url}) == steps


def test_a_url_may_name_its_authorities(load_with: Loader, tmp_path: Path) -> None:
    """They are those of the TLS that it brings, and verify it; a path starts at the settings file's directory."""
    (tmp_path / "ca.pem").write_bytes(server_pem("gw.example.com"))
    _, tls, _ = steps_of(load_with, [{"websocket": {"url": "wss://gw.example.com", "ca_file": "ca.pem"}}])
    assert tls == TlsStep(server_name="gw.example.com", ca_file=str(tmp_path / "ca.pem"))
    assert tls.verify


def test_a_proxy_reaches_for_the_next_step(load_with: Loader) -> None:
    """What is above it says where to; it can be told, too."""
    proxy = {"proxy": {"url": "http://proxy:3128"}}
    tcp = {"tcp": {"host": "db", "port": 5432}}
    assert steps_of(load_with, [proxy, tcp]) == (ProxyStep(url="http://proxy:3128", host="db", port=5432),)
    base, tls, websocket = steps_of(load_with, [proxy, {"websocket": {"url": "wss://gw:8443/"}}])
    assert (base.host, base.port, tls.server_name, websocket.host) == ("gw", 8443, "gw", "gw:8443")
    told = {"proxy": {"url": "https://proxy", "host": "gw", "port": 443}}
    assert steps_of(load_with, [told, {"tls": {}}])[1].server_name == "gw"


def test_steps_may_repeat(load_with: Loader) -> None:
    """TLS over WebSocket over TLS over TCP is a list like any other."""
    steps = steps_of(
        load_with,
        [
            {"tcp": {"host": "gw", "port": 443}},
            {"tls": {}},
            {"websocket": {}},
            {"tls": {"server_name": "db"}},
        ],
    )
    assert [step.KIND for step in steps] == ["tcp", "tls", "websocket", "tls"]
    assert (steps[1].server_name, steps[3].server_name) == ("gw", "db")


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets(load_with: Loader, tmp_path: Path) -> None:
    """From the environment, from a file, or from systemd; none of them is ever shown."""
    (tmp_path / "secret").write_text("hunter3\n")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "proxy").write_text("hunter4")
    steps = steps_of(
        load_with,
        [
            {"proxy": {"url": "http://proxy", "user": "ann", "password_file": "credential:proxy"}},
            {
                "websocket": {
                    "url": "wss://gw/",
                    "token_id": "${ID}",
                    "token_secret_file": "secret",
                    "headers": {"Authorization": "Bearer ${ID}"},
                }
            },
        ],
        {"ID": "hunter2", "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")},
    )
    proxy, _, websocket = steps
    assert proxy.password == Secret("hunter4")
    assert (websocket.token_id, websocket.token_secret) == (Secret("hunter2"), Secret("hunter3"))
    assert websocket.headers == (("Authorization", Secret("Bearer hunter2")),)
    assert "hunter" not in repr(steps)


def test_a_credential_as_password_file(load_with: Loader, tmp_path: Path) -> None:
    """Passwords can be systemd's credentials, too."""
    (tmp_path / "db").write_text("hunter2\n")
    settings = load_with(
        {"CREDENTIALS_DIRECTORY": str(tmp_path)},
        databases={"app": {"user": "ann", "password_file": "credential:db"}},
    )
    assert settings.databases["app"].password == Secret("hunter2")


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_credential_is_a_name(problems_with: Problems, name: str) -> None:
    """Not a way out of systemd's directory."""
    (problem,) = problems_with(
        environ={"CREDENTIALS_DIRECTORY": "/x"},
        databases={"app": {"user": "ann", "password_file": f"credential:{name}"}},
    )
    assert "expected the name of a credential behind the colon" in problem


def test_a_credential_without_systemd(problems_with: Problems) -> None:
    """Nobody has set the directory."""
    (problem,) = problems_with(databases={"app": {"user": "ann", "password_file": "credential:db"}})
    assert "LoadCredential=" in problem


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once(problems_with: Problems) -> None:
    """Each with its place; steps are counted from one."""
    steps = [
        {"tcp": {"host": "a b", "prot": 1}},
        {"tls": {"min_version": "SSLv3"}},
        {"websockets": {}},
        {"tls": None},
        "tcp",
        {"websocket": {"token_secret_file": "none", "token_secret": "hunter2"}},
    ]
    both = "token_secret_file: found together with token_secret, expected one of the two"
    assert problems_with(databases=app(steps)) == [
        f"{WHERE}.1.tcp.host: found the text 'a b', expected one host name or address; no list, and no spaces",
        f"{WHERE}.1.tcp.prot: found an unknown setting; did you mean port?",
        f"{WHERE}.1.tcp.port: found nothing, expected port; add it",
        f"{WHERE}.2.tls.min_version: found the text 'SSLv3', expected one of TLSv1.2, TLSv1.3",
        f"{WHERE}.3: found the text 'websockets' as a step, expected one of tcp, unix, proxy, agent, tls, websocket",
        f"{WHERE}.4.tls: found nothing, expected a mapping of the step's settings",
        f"{WHERE}.5: found a text, expected one key: the step's kind",
        f"{WHERE}.6.websocket.{both}; remove the other",
    ]


@pytest.mark.parametrize(
    ("steps", "place", "problem"),
    [
        ([{"tls": {}}], "1.tls", "expected a step below tls; begin with one of tcp, unix, proxy, agent"),
        (
            [{"agent": {"name": "a"}}, {"tcp": {"host": "a", "port": 1}}],
            "2.tcp",
            "expected tcp as the first step; it makes a connection of its own",
        ),
        (
            [{"agent": {"name": "a"}}, {"tls": {}}],
            "2.tls",
            "expected server_name, as the steps below name no host; add it",
        ),
        (
            [{"unix": {"path": "/a"}}, {"websocket": {}}],
            "2.websocket",
            "expected host, as the steps below name none; add it",
        ),
        (
            [{"tcp": {"host": "a", "port": 1}}, {"websocket": {"url": "ws://a"}}],
            "2.websocket",
            "expected host and path instead of url; the steps below say how it is reached",
        ),
        (
            [{"websocket": {"url": "ws://a", "path": "/b"}}],
            "1.websocket",
            "expected url alone, or host and path; remove one of them",
        ),
        (
            [{"websocket": {"url": "ws://a", "token_id": "x"}}],
            "1.websocket",
            "expected token_id and token_secret together",
        ),
        *(
            (
                [{"tcp": {"host": "a", "port": 1}}, {"websocket": {**way, "ca_file": "x"}}],
                "2.websocket",
                "expected ca_file together with a wss:// url; a tls step has a ca_file of its own",
            )
            for way in ({"path": "/"}, {"url": "ws://a"})
        ),
        (
            [{"proxy": {"url": "http://a"}}, {"tls": {}}],
            "2.tls",
            "expected a tcp step between proxy and tls, or the proxy's host and port",
        ),
        (
            [{"tcp": {"host": "a", "port": 1}}, {"tls": {"key_file": "k"}}],
            "2.tls",
            "expected cert_file together with key_file",
        ),
        *(
            (
                [{"proxy": {"url": "http://a", **half}}, {"tcp": {"host": "b", "port": 1}}],
                "1.proxy",
                "expected host and port together; or neither, where the next step says it",
            )
            for half in ({"host": "b"}, {"port": 1})
        ),
        (
            [{"proxy": {"url": "http://a", "ca_file": "x"}}, {"tcp": {"host": "b", "port": 1}}],
            "1.proxy",
            "expected ca_file together with an https:// url; TLS behind the proxy has a ca_file of its own",
        ),
        (
            [
                {
                    "websocket": {
                        "url": "ws://a",
                        "token_id": "x",
                        "token_secret": "y",
                        "headers": {"cf-Access-Client-Secret": "z"},
                    }
                }
            ],
            "1.websocket",
            "expected token_secret or the header cf-Access-Client-Secret; remove one of them",
        ),
    ],
)
def test_steps_that_do_not_fit_together(
    problems_with: Problems, steps: Any, place: str, problem: str
) -> None:
    """The step that is in the wrong place is named, and what to do."""
    assert problems_with(databases=app(steps)) == [f"{WHERE}.{place}: found no sound step, {problem}"]


def test_a_proxy_that_leads_nowhere(problems_with: Problems) -> None:
    """Nothing above it says where to."""
    assert problems_with(databases=app([{"proxy": {"url": "http://a"}}])) == [
        f"{WHERE}.1.proxy: found nowhere to connect to, expected host and port, or a step above it"
    ]


@pytest.mark.parametrize(
    "value", ["db", "https://gw", "wss://", "wss://ann:hunter2@gw", "wss://gw:0", "wss://a b"]
)
def test_other_urls(problems_with: Problems, value: str) -> None:
    """Refused, and never shown."""
    (problem,) = problems_with(databases=app(value))
    assert problem.startswith(f"{WHERE}: found ")
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://gw/pä", "a URL whose path is ASCII; percent-encode other characters"),
        ("ws://gw/db?x=ä", "a URL whose path is ASCII; percent-encode other characters"),
        ("ws://gw/db#x", "a URL without fragment and spaces"),
        ("ws://gw/db#", "a URL without fragment and spaces"),
        ("ws://gw,gw2/db", "one host name or address; no list, and no spaces"),
    ],
)
def test_urls_that_no_request_can_be_made_of(problems_with: Problems, url: str, expected: str) -> None:
    """Found with the settings, and not when the first client waits for a server."""
    assert problems_with(databases=app(url)) == [f"{WHERE}: found a URL, expected {expected}"]


@pytest.mark.parametrize(
    "transport",
    [
        "gw.example.com/db?key=hidden",
        [{"tcp": {"host": "gw", "port": 1}}, {"websocket": {"path": "/db?key=hidden#x"}}],
    ],
)
def test_a_query_is_not_shown(problems_with: Problems, transport: Any) -> None:
    """It may hold a token, also in a path that is wrong, or a URL without its beginning."""
    (problem,) = problems_with(databases=app(transport))
    assert "/db?...'" in problem
    assert "hidden" not in problem


def test_a_host_may_be_written_in_any_script(load_with: Loader) -> None:
    """What cannot stand in a request is for the path alone: names have a form for the DNS."""
    assert steps_of(load_with, "ws://bücher.example/db")[0].host == "bücher.example"


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        (
            {"url": "http://a:3128/path"},
            "url: found a URL, expected the proxy's URL without a path; like http://proxy.example.com:3128",
        ),
        (
            {"url": "http://a:3128?x"},
            "url: found a URL, expected the proxy's URL without a path; like http://proxy.example.com:3128",
        ),
        (
            {"url": "http://a", "user": "ann:pw"},
            "user: found the text 'ann:pw', expected a user without a colon; the password has a setting of its own",
        ),
        (
            {"url": "http://a", "host": "[::1]", "port": 1},
            (
                "host: found the text '[::1]', expected a host name or address; the port has a setting of its own, and "
                "IPv6 needs no brackets"
            ),
        ),
    ],
)
def test_proxies_that_are_none(problems_with: Problems, proxy: dict[str, Any], problem: str) -> None:
    """What a request cannot hold, or would do nothing there."""
    steps = [{"proxy": proxy}, {"tcp": {"host": "db", "port": 1}}]
    assert problems_with(databases=app(steps)) == [f"{WHERE}.1.proxy.{problem}"]


def test_a_proxy_url_may_end_in_a_slash(load_with: Loader) -> None:
    """As browsers and the environment variable ``http_proxy`` have it."""
    proxy = {"proxy": {"url": "http://proxy:3128/", "host": "fd00::1", "port": 5432}}
    assert steps_of(load_with, proxy) == (ProxyStep(url="http://proxy:3128/", host="fd00::1", port=5432),)


def test_a_scheme_is_one_in_any_case(load_with: Loader, problems_with: Problems, tmp_path: Path) -> None:
    """As in every URL: what goes for https goes for HTTPS."""
    (tmp_path / "ca.pem").write_bytes(server_pem("proxy"))
    proxy = {"url": "HTTPS://proxy", "host": "db", "port": 1}
    assert steps_of(load_with, {"proxy": {**proxy, "ca_file": "ca.pem"}})[0].secure
    (problem,) = problems_with(databases=app({"proxy": {**proxy, "ca_file": "none.pem"}}))
    assert "ca_file for TLS to proxy: cannot read the file" in problem


@pytest.mark.parametrize("name", ["token_id", "token_secret"])
@pytest.mark.parametrize("value", ["hunter2\n", " hunter2", "hunter2\t", "hun\x01ter2"])
def test_tokens_that_no_header_can_hold(problems_with: Problems, name: str, value: str) -> None:
    """A file with an empty line too many, for example; the token is not shown."""
    step = {"url": "ws://a", "token_id": "x", "token_secret": "y", name: value}
    assert problems_with(databases=app([{"websocket": step}])) == [
        (
            f"{WHERE}.1.websocket: found no sound step, expected {name} on one line, without spaces around it and "
            "control characters"
        )
    ]


@pytest.mark.parametrize("name", [".db", "a b", "a,b", "[::1]"])
def test_server_names_that_are_none(problems_with: Problems, name: str) -> None:
    """No certificate can be for them."""
    steps = [{"tcp": {"host": "a", "port": 1}}, {"tls": {"server_name": name}}]
    (problem,) = problems_with(databases=app(steps))
    assert problem.startswith(f"{WHERE}.2.tls.server_name: found the text {name!r}, expected ")


@pytest.mark.parametrize("host", ["a b", "http://a", "a/b", "a\tb", "ann@a"])
def test_host_headers_that_are_none(problems_with: Problems, host: str) -> None:
    """A host, or host and port, and nothing else."""
    steps = [{"tcp": {"host": "a", "port": 1}}, {"websocket": {"host": host}}]
    (problem,) = problems_with(databases=app(steps))
    assert problem.startswith(f"{WHERE}.2.websocket.host: found ")
    assert problem.endswith("expected a host, or host:port")


@pytest.mark.parametrize("value", [[], {}, 1, {"tcp": {}, "tls": {}}, [[]]])
def test_other_values(problems_with: Problems, value: Any) -> None:
    """No transport at all."""
    assert problems_with(databases=app(value))[0].startswith(WHERE)


@pytest.mark.parametrize("name", ["Host", "connection", "Sec-WebSocket-Extensions", "Transfer-Encoding"])
def test_headers_of_the_handshake_cannot_be_set(problems_with: Problems, name: str) -> None:
    """They would change what is asked."""
    (problem,) = problems_with(databases=app([{"websocket": {"url": "ws://a", "headers": {name: "x"}}}]))
    assert f"headers without {name}" in problem


@pytest.mark.parametrize(
    "headers",
    [
        *("x", {"a b": "x"}, {"": "x"}, {"A": "x\r\nB: y"}, {"A": 1}, {"A:": "x"}),
        *({"A(": "x"}, {"A\n": "x"}, {"Ä": "x"}, {"A": " x"}, {"A": "x\t"}, {"A": "x\x01"}),
    ],
)
def test_headers_that_are_none(problems_with: Problems, headers: Any) -> None:
    """A header cannot bring others along."""
    (problem,) = problems_with(databases=app([{"websocket": {"url": "ws://a", "headers": headers}}]))
    assert problem.startswith(f"{WHERE}.1.websocket.headers: found ")


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        (
            {"host": "a,b", "port": [1]},
            "port: found 1 ports, expected one, or one for each of 2 hosts; correct one list",
        ),
        (
            {"host": "a,b", "transport": {"unix": {"path": "/a"}}},
            "transport: found together with 2 hosts, expected one; the transport says what to connect to",
        ),
        (
            {"embedded": True, "user": "u", "password": "p", "transport": {"unix": {"path": "/a"}}},
            "transport: found together with embedded: true, which decides it; remove one of the two",
        ),
        (
            {"load_balance_hosts": "random"},
            "load_balance_hosts: found the text 'random', expected one of round-robin, disable",
        ),
    ],
)
def test_contradictions(problems_with: Problems, database: dict[str, Any], problem: str) -> None:
    """Settings that are fine one by one."""
    assert problems_with(databases={"app": database}) == [f"databases.app.{problem}"]
