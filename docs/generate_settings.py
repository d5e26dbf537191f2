#!/usr/bin/env python3
"""Writes the tables of docs/settings.md and others from the settings' own metadata; the prose is kept.

python docs/generate_settings.py
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from hyperpool.config import DatabaseSettings, PeerSettings, PoolerSettings, UserSettings
from hyperpool.config.cache import CacheRule, CacheSettings, UserCacheSettings
from hyperpool.config.http import HttpSettings
from hyperpool.config.kinds import Unfit
from hyperpool.config.source import Source
from hyperpool.config.tunnel import (
    AgentsSettings,
    AgentToken,
    IngressSettings,
    IngressToken,
    LinkSettings,
    ProcessSettings,
    TargetSettings,
)
from hyperpool.config.units import format_duration, format_size
from hyperpool.config.unsupported import UNSUPPORTED
from hyperpool.http.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES: Final = tuple(
    Path(__file__).with_name(name) for name in ("metrics.md", "pgbouncer.md", "settings.md", "tunnel.md")
)

_SECTIONS: Final[dict[str, type[attrs.AttrsInstance]]] = {
    "pooler": PoolerSettings,
    "databases": DatabaseSettings,
    "users": UserSettings,
    "cache": CacheSettings,
    "cache_rules": CacheRule,
    "user_cache": UserCacheSettings,
    "peers": PeerSettings,
    "ingress": IngressSettings,
    "ingress_tokens": IngressToken,
    "targets": TargetSettings,
    "tunnel": ProcessSettings,
    "agents": AgentsSettings,
    "agents_tokens": AgentToken,
    "http": HttpSettings,
    "poolers": LinkSettings,
}
_NOWHERE: Final = Source(Path("/"), {})
_UNFIT: Final = -1
"""What no parser accepts: it answers with what it expects, and with the range of a number."""


def render(page: str) -> str:
    """Fill in the generated parts of the page.

    Args:
        page: its text; each part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    Returns:
        The text as it should be.

    Raises:
        KeyError: a part has a name that is not known.
    """
    parts = {section: "\n".join(_table(kind)) for section, kind in _SECTIONS.items()}
    parts["unsupported"] = "\n".join(f"- `{name}`: {reason}." for name, reason in UNSUPPORTED.items())

    parts["metrics"] = "\n".join(_metrics())

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{parts[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- generated: (\w+) -->).*?(<!-- end -->)", fill, page, flags=re.DOTALL)


def _table(kind: type[attrs.AttrsInstance]) -> Iterator[str]:
    yield "| name | default | value | meaning | reload |"
    yield "|---|---|---|---|---|"
    for field in attrs.fields(kind):
        if not field.metadata:
            continue  # the entry's name
        expected = _expected(field)
        about = _escaped(field.metadata["help"])
        reload = "yes" if field.metadata["reload"] else "restart"
        yield f"| `{field.name}` | {_default(field.default, expected)} | {_value(expected)} | {about} | {reload} |"


def _metrics() -> Iterator[str]:
    yield "| metric | kind | what |"
    yield "|---|---|---|"
    for metric in METRICS:
        own = [label for label in metric.labels if label not in {"database", "user"}]
        labels = f": {', '.join(f'`{label}`' for label in own)}" if own else ""
        yield f"| `{metric.sample}` | {metric.kind} | {_escaped(metric.about.rstrip('.'))}{labels} |"


def _expected(field: attrs.Attribute[Any]) -> str:
    """What the setting's parser says that it expects."""
    try:
        field.metadata["parse"](_UNFIT, _NOWHERE)
    except Unfit as error:
        return error.expected
    raise AssertionError(f"{field.name} accepts {_UNFIT}")


def _value(expected: str) -> str:
    """The expectation, without limits that nobody comes near: 32 bits, a century."""
    shown = re.sub(r" to (2147483647B?|36525d)$", "", expected)
    return _escaped(shown.removesuffix(" from 0"))


def _default(default: object, expected: str) -> str:
    if default is None or isinstance(default, dict):
        return ""
    if default is attrs.NOTHING:
        return "none: must be set"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs has it as a function for type checkers
        return '`""`'
    if isinstance(default, enum.Enum):
        return f"`{default.value}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`"
    if isinstance(default, int | float):
        return f"`{_number(default, expected)}`"
    return f'`"{default}"`' if default in {"", "<empty>"} else f"`{default}`"


def _number(number: float, expected: str) -> str:
    if expected.startswith("an octal"):
        return f"{number:04o}"
    if expected.startswith("a duration"):
        return format_duration(number)
    return format_size(int(number)) if expected.startswith("a size") else str(number)


def _escaped(text: str) -> str:
    return re.sub(r"([\\|<*])", r"\\\1", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text("utf-8")), "utf-8")
