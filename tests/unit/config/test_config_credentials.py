"""Secrets as credentials of systemd's: keys and files of users, besides the passwords and tokens tested elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hyperpool.config import load
from hyperpool.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = ("client_tls_key_file", "client_tls_cert_file", "server_tls_key_file", "server_tls_cert_file")


def _write(directory: Path, pooler: dict[str, Any], database: dict[str, Any]) -> Path:
    path = directory / "pooler.yaml"
    document = {
        "pooler": {"listen_addr": "127.0.0.1", "auth_type": "trust", **pooler},
        "databases": {"app": database},
        "users": {"ann": {}},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_they_are_where_systemd_says(tmp_path: Path) -> None:
    """By their names; what is no credential is a path."""
    path = _write(tmp_path, {"auth_file": "credential:users"}, {})
    (tmp_path / "users").write_text('"bob" "secret"\n')
    settings = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.pooler.auth_file == str(tmp_path / "users")
    assert "bob" in settings.credentials
    path = _write(tmp_path, {"auth_file": "users"}, {})
    assert load(path, {}).pooler.auth_file == str(tmp_path / "users")


@pytest.mark.parametrize("name", [*_KEYS, "auth_file", "sslkey", "sslcert"])
def test_each_of_them_needs_the_unit(tmp_path: Path, name: str) -> None:
    """Without its line there, the remedy is told."""
    value = {name: "credential:x"}
    path = _write(tmp_path, *(({}, value) if name.startswith("ssl") else (value, {})))
    with pytest.raises(ConfigError, match=rf"{name}: .*add LoadCredential= to the unit"):
        load(path, {})
