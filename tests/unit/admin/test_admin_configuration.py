"""Settings as the console shows and sets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from hyperpool.admin.configuration import assigned, written
from hyperpool.admin.outcomes import ConsoleError
from hyperpool.config import PoolerSettings, PoolMode

if TYPE_CHECKING:
    from pathlib import Path

_DEFAULTS = PoolerSettings()
_FIELDS = attrs.fields_dict(PoolerSettings)


@pytest.mark.parametrize("name", [name for name, field in _FIELDS.items() if field.metadata["reload"]])
def test_what_is_shown_can_be_set(name: str, tmp_path: Path) -> None:
    """Every setting that a reload changes, to what SHOW CONFIG shows of it."""
    shown = written(name, getattr(_DEFAULTS, name))
    assert assigned(_DEFAULTS, name, shown, tmp_path) == _DEFAULTS


@pytest.mark.parametrize("name", [name for name, field in _FIELDS.items() if not field.metadata["reload"]])
def test_what_needs_a_restart_cannot_be_set(name: str, tmp_path: Path) -> None:
    """And says so."""
    with pytest.raises(ConsoleError, match="SET failed") as caught:
        assigned(_DEFAULTS, name, written(name, getattr(_DEFAULTS, name)), tmp_path)
    assert caught.value.detail == f"{name} can be changed by a restart alone"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("query_timeout", "1.5", 1.5),
        ("query_timeout", "2min", None),
        ("query_timeout", "2m", 120.0),
        ("QUERY_TIMEOUT", "3", 3.0),
        ("max_client_conn", "7", 7),
        ("max_client_conn", "-7", None),
        ("max_client_conn", "", None),
        ("log_stats", "0", False),
        ("log_stats", "off", False),
        ("log_stats", "yes", True),
        ("log_stats", "maybe", None),
        ("pool_mode", "transaction", PoolMode.TRANSACTION),
        ("pool_mode", "Transaction", None),
        ("admin_users", "a, b", ("a", "b")),
        ("admin_users", "", ()),
        ("server_reset_query", "", ""),
        ("server_check_query", "select 1", "select 1"),
        ("nothing", "1", None),
    ],
)
def test_values(name: str, text: str, value: object, tmp_path: Path) -> None:
    """In pgbouncer's notation, or in that of the settings file; None for what is refused."""
    if value is None:
        with pytest.raises(ConsoleError, match="SET failed"):
            assigned(_DEFAULTS, name, text, tmp_path)
    else:
        changed = assigned(_DEFAULTS, name, text, tmp_path)
        different = {key for key in _FIELDS if getattr(changed, key) != getattr(_DEFAULTS, key)}
        assert (different <= {name.lower()}, getattr(changed, name.lower())) == (True, value)
