"""Settings files for tests, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
import yaml

from hyperpool.config import load
from hyperpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hyperpool.config import Settings


class Loader(Protocol):
    """Loads settings that are fine but for what a test gives."""

    def __call__(
        self, environ: Mapping[str, str] | None = None, /, **sections: Any
    ) -> Settings:  # pragma: no cover
        """Load the sections; `pooler` gets a listener and `auth_type` trust, missing sections one entry."""


class Problems(Protocol):
    """Loads settings, or a text, with which something is wrong."""

    def __call__(
        self, text: str | None = None, /, *, environ: Mapping[str, str] | None = None, **sections: Any
    ) -> list[str]:  # pragma: no cover
        """Return the problems; fails if there are none."""


def _document(sections: dict[str, Any]) -> str:
    document = {"databases": {"app": {}}, "users": {"ann": {"password": "x"}}, **sections}
    pooler = document.get("pooler", {})
    if isinstance(pooler, dict):
        document["pooler"] = {"listen_addr": "127.0.0.1", "auth_type": "trust", **pooler}
    return yaml.safe_dump(document, allow_unicode=True)


@pytest.fixture
def load_with(tmp_path: Path) -> Loader:
    """Load settings from a file in `tmp_path`."""

    def load_sections(environ: Mapping[str, str] | None = None, /, **sections: Any) -> Settings:
        path = tmp_path / "pooler.yaml"
        path.write_text(_document(sections))
        return load(path, environ or {})

    return load_sections


@pytest.fixture
def problems_with(tmp_path: Path) -> Problems:
    """Find the problems of settings in a file in `tmp_path`."""

    def find(
        text: str | None = None, /, *, environ: Mapping[str, str] | None = None, **sections: Any
    ) -> list[str]:
        path = tmp_path / "pooler.yaml"
        path.write_text(_document(sections) if text is None else text)
        with pytest.raises(ConfigError) as caught:
            load(path, environ or {})
        assert all("\n" not in problem for problem in caught.value.problems)
        return caught.value.problems

    return find
