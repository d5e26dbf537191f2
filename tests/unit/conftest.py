"""What unit tests share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.support.checkpoints import no_descriptor_left

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """What a command that a test runs in its own process does to the log, it does to no other test."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def nothing_left_open() -> Iterator[None]:
    """A test leaves no descriptor open that it has opened."""
    with no_descriptor_left():
        yield


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, since that of a Unix socket is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path:
        yield Path(path)
