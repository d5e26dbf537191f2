"""The settings of tunnels: what is read, and everything that is wrong at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hyperpool.config import load
from hyperpool.config.tunnel import load_tunnel
from hyperpool.errors import ConfigError
from tests.support.certificates import issue
from tests.support.tunnels import SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from hyperpool.config.tunnel import TunnelSettings

_TOKEN = {"id": "alice.access", "secret": SECRET}
_LINK = {
    "transport": [
        {"websocket": {"url": "wss://pooler.example.com/", "token_id": "a", "token_secret": SECRET}}
    ]
}


def _document(**change: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "targets": {"db": {}},
        "ingress": {"listen_port": 8443, "tokens": {"alice": _TOKEN}},
        **change,
    }
    return {name: section for name, section in document.items() if section is not ...}


def _load(directory: Path, document: object, environ: dict[str, str] | None = None) -> TunnelSettings:
    path = directory / "tunnel.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_tunnel(path, environ or {})


def test_smallest_ingress(tmp_path: Path) -> None:
    """A port, a token and a target are enough; it listens on loopback, without TLS."""
    settings = _load(tmp_path, _document())
    assert settings.ingress is not None
    assert settings.ingress.listen_addr == ("127.0.0.1",)
    assert settings.ingress.tls_context() is None
    assert settings.targets["db"].address == "127.0.0.1:5432"
    assert settings.ingress.tokens["alice"].digest == hashlib.sha256(SECRET.encode()).digest()


def test_three_ways_to_keep_a_secret(tmp_path: Path) -> None:
    """As it is, in a file, or as a digest: they are the same token; a value may come from the environment."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    ways = {
        "value": {"id": "a", "secret": "${TOKEN}"},
        "file": {"id": "a", "secret_file": "secret"},
        "credential": {"id": "a", "secret_file": "credential:secret"},
        "digest": {"id": "a", "secret_sha256": digest.upper()},
    }
    environ = {"TOKEN": SECRET, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = _load(tmp_path, _document(ingress={"listen_port": 1, "tokens": ways}), environ)
    assert settings.ingress is not None
    assert {token.digest for token in settings.ingress.tokens.values()} == {bytes.fromhex(digest)}
    assert SECRET not in repr(settings)


def test_targets(tmp_path: Path) -> None:
    """Host and port are read as libpq does."""
    targets = {
        "a": {"host": "/run/pg", "port": 1},
        "b": {"host": "::1"},
        "c": {"host": "db.example.com", "port": 2},
    }
    found = _load(tmp_path, _document(targets=targets)).targets
    assert [found[name].address for name in "abc"] == ["/run/pg:1", "[::1]:5432", "db.example.com:2"]
    assert [found[name].step.KIND for name in "abc"] == ["unix", "tcp", "tcp"]


_SHORT = "ingress.tokens.alice: found a secret that can be guessed, expected 16 characters or more"
_ONE_OF = "ingress.tokens.alice: expected one of secret, secret_file and secret_sha256"


def _tokens(**settings: Any) -> dict[str, Any]:
    return {"ingress": {"listen_port": 1, "tokens": {"alice": {"id": "a", **settings}}}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ingress": ...}, "found nothing to do"),
        ({"targets": ...}, "targets: found none"),
        ({"targets": []}, "targets: found"),
        ({"targets": {"db": 5}}, "targets.db: found a number, expected a mapping"),
        ({"targets": {"": {}}}, "targets.'': found a name"),
        ({"targets": {"db": {"hots": "x"}}}, "targets.db.hots: found an unknown setting; did you mean host?"),
        ({"targets": {"db": {"port": 0}}}, "targets.db.port: found 0"),
        ({"targets": {"db": {"host": "a:5432"}}}, "targets.db.host: found"),
        ({"ingress": {}}, "ingress.listen_port: found nothing, expected port; add it"),
        ({"ingress": {"listen_port": 1}}, "ingress.tokens: found none"),
        ({"ingress": {"listen_port": 1, "tokens": {"a": {}}}}, "ingress.tokens.a.id: found nothing"),
        (_tokens(), _ONE_OF),
        (_tokens(secret=SECRET, secret_sha256="0" * 64), _ONE_OF),
        (_tokens(secret="short"), _SHORT),
        *(
            (
                _tokens(secret=secret),
                "ingress.tokens.alice: found a secret that nobody can show, expected one on one line",
            )
            for secret in (f"{SECRET}\n", f" {SECRET}", f"{SECRET}\x01{SECRET}")
        ),
        (_tokens(secret_sha256="0" * 63), "ingress.tokens.alice.secret_sha256: found a text, expected 64"),
        (_tokens(secret_file="none"), "ingress.tokens.alice.secret_file: cannot read"),
        (
            _tokens(secret=SECRET, secret_file="tunnel.yaml"),
            "ingress.tokens.alice.secret_file: found together with",
        ),
        (_tokens(secret=SECRET, id="ä"), "ingress.tokens.alice.id: found"),
        (
            _tokens(secret=SECRET, targets=["x"]),
            "ingress.tokens.alice.targets: found 'x', which is not in targets",
        ),
        (
            {"ingress": {"listen_port": 1, "tokens": {"a": _TOKEN}, "tls_key_file": "x"}},
            "ingress.tls_key_file: found",
        ),
        (
            {"ingress": {"listen_port": 1, "tokens": {"a": _TOKEN}, "tls_cert_file": "x"}},
            "ingress.tls_cert_file: ",
        ),
        (
            {"ingress": {"listen_port": 1, "tokens": {"a": _TOKEN}, "listen_addr": []}},
            "ingress.listen_addr: found",
        ),
        (
            {"ingress": {"listen_port": 1, "tokens": {"a": _TOKEN}, "health_path": "x"}},
            "ingress.health_path: expected",
        ),
        ({"poolers": {"p": {}}}, "poolers.p.transport: found nothing"),
        (
            {"poolers": {"p": {"transport": "ws://x"}}},
            "poolers.p.transport: expected token_id and token_secret",
        ),
        (
            {"poolers": {"p": {"transport": [{"tcp": {"host": "x", "port": 1}}]}}},
            "poolers.p.transport: expected a web",
        ),
        (
            {
                "poolers": {
                    "p": {
                        "transport": [
                            {"agent": {"name": "a"}},
                            {"websocket": {"host": "x", "token_id": "a", "token_secret": SECRET}},
                        ]
                    }
                }
            },
            "poolers.p.transport: found a step agent, but agents connect to poolers alone; remove it",
        ),
        (
            {"poolers": {"p": {**_LINK, "targets": "y"}}},
            "poolers.p.targets: found 'y', which is not in targets",
        ),
        ({"poolers": {"p": {**_LINK, "ready": 0}}}, "poolers.p.ready: found 0"),
        (
            {"poolers": {"p": {**_LINK, "retry_max": 0}}},
            "poolers.p.retry_max: found 0, expected a duration from 100ms to 1h",
        ),
        ({"targets": {"db": {"connect_timeout": 0}}}, "targets.db.connect_timeout: found 0, expected a"),
        (
            {"ingress": {"listen_port": 1, "tokens": {"a": _TOKEN}, "handshake_timeout": 0}},
            "ingress.handshake_timeout: found 0, expected a",
        ),
        ({"tunnel": {"log_level": "loud"}}, "tunnel.log_level: found"),
        ({"tunel": {}}, "tunel: found an unknown setting; did you mean tunnel?"),
    ],
)
def test_a_problem(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    """Each mistake is one line, with its path and what would be right."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, _document(**change))
    (found,) = caught.value.problems
    assert found.startswith(problem)
    assert SECRET not in found


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Nobody has to find them one after the other."""
    change = {
        "targets": {"db": {"port": -1}},
        "ingress": {"listen_port": "x", "tokens": {"a": {"secret": ""}}},
        "poolers": {"p": {"transport": "x"}},
    }
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, _document(**change))
    paths = [problem.partition(":")[0] for problem in caught.value.problems]
    expected = [
        "ingress.listen_port",
        "ingress.tokens.a.id",
        "ingress.tokens.a.secret",
        "poolers.p.transport",
    ]
    assert sorted(paths) == [*expected, "targets.db.port"]


def test_certificate(tmp_path: Path) -> None:
    """A certificate turns TLS on; one for clients makes them show theirs."""
    files = issue(tmp_path / "tls", "localhost")
    ingress = {
        "listen_port": 1,
        "tokens": {"a": _TOKEN},
        "tls_cert_file": "tls/cert.pem",
        "tls_key_file": str(files.key),
    }
    settings = _load(tmp_path, _document(ingress=ingress))
    assert settings.ingress is not None
    context = settings.ingress.tls_context()
    assert context is not None
    assert context.verify_mode == 0
    settings = _load(tmp_path, _document(ingress={**ingress, "tls_ca_file": str(files.ca)}))
    assert settings.ingress is not None
    context = settings.ingress.tls_context()
    assert context is not None
    assert context.verify_mode == 2


def _load_pooler(directory: Path, agents: Any, transport: Any = None) -> list[str]:
    """The problems of a pooler's settings."""
    path = directory / "pooler.yaml"
    database = {"transport": transport} if transport else {}
    document = {
        "pooler": {"listen_addr": "127.0.0.1", "auth_type": "trust"},
        "databases": {"app": database},
        "users": {"ann": {}},
        "agents": agents,
    }
    path.write_text(yaml.safe_dump(document))
    try:
        load(path, {})
    except ConfigError as error:
        return error.problems
    return []


def test_the_pooler_takes_agents_in(tmp_path: Path) -> None:
    """The section `agents` has a gate's settings; a token's name is the agent's, unless it says another."""
    tokens = {"site-a": _TOKEN, "site-a-new": {**_TOKEN, "agent": "site-a"}}
    assert _load_pooler(tmp_path, {"listen_port": 1, "tokens": tokens}, [{"agent": {"name": "site-a"}}]) == []
    settings = load(tmp_path / "pooler.yaml", {})
    assert settings.agents is not None
    assert [token.agent_name for token in settings.agents.tokens.values()] == ["site-a", "site-a"]


@pytest.mark.parametrize(
    ("agents", "problem"),
    [
        (5, "agents: found a number, expected a mapping"),
        ({"tokens": {"site-a": _TOKEN}}, "agents.listen_port: found nothing"),
        ({"listen_port": 1, "tokens": {"site-b": _TOKEN}}, "databases.app.transport: found agent 'site-a'"),
        (
            {"listen_port": 1, "tokens": {"site-a": {"id": "x"}}},
            "agents.tokens.site-a: expected one of secret",
        ),
        (
            {"listen_port": 1, "tokens": {"site-a": {**_TOKEN, "x": 1}}},
            "agents.tokens.site-a.x: found an unknown",
        ),
        (
            {"listen_port": 1, "tokens": {"site-a": _TOKEN}, "open_timeout": 0},
            "agents.open_timeout: found 0, expected a",
        ),
    ],
)
def test_problems_of_agents(tmp_path: Path, agents: Any, problem: str) -> None:
    """Mistakes in the section are found with all others, and so is an agent that nobody can be."""
    (found,) = _load_pooler(tmp_path, agents, [{"agent": {"name": "site-a"}}])
    assert found.startswith(problem)
