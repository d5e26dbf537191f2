"""Settings that change while the pooler runs: one of them (SET), or all of them (RELOAD)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import structlog

from hyperpool.admin.configuration import assigned
from hyperpool.admin.outcomes import ConsoleError
from hyperpool.config import PoolerSettings
from hyperpool.config.auth_checks import with_auth_files
from hyperpool.config.source import Source

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from hyperpool.config import Settings

log = structlog.get_logger("pooler")


def with_setting(settings: Settings, key: str, value: str, directory: Path) -> Settings:
    """The settings with one of them changed.

    Args:
        settings: as they are.
        key: its name, however it is spelled.
        value: as for `admin.configuration.assigned`.
        directory: where relative paths start.

    Raises:
        ConsoleError: it cannot be changed, or not to this.
    """
    changed = attrs.evolve(settings, pooler=assigned(settings.pooler, key, value, directory))
    if key.lower().startswith("auth_"):
        changed, problems = with_auth_files(changed, Source(directory, {}))
        if problems:
            raise set_failed(problems)
    return changed


def set_failed(problems: list[str]) -> ConsoleError:
    """What a client is told whose SET makes no sense together with other settings."""
    return ConsoleError("SET failed", detail="\n".join(problems))


def log_set(key: str, value: str) -> None:
    """Log that a setting has been changed."""
    secret = attrs.fields_dict(PoolerSettings)[key.lower()].metadata["secret"]
    log.info("setting changed", setting=key, value="***" if secret else value)


def warn_of_restarts(settings: Settings, at_start: Settings, embedded: Collection[str]) -> None:
    """Tell of changes that only a restart makes.

    Args:
        settings: as they are in the file now.
        at_start: what needs a restart is still as it was then, whatever reloads there were since.
        embedded: the databases that have a PostgreSQL of their own.
    """
    for field in attrs.fields(PoolerSettings):
        changed = getattr(settings.pooler, field.name) != getattr(at_start.pooler, field.name)
        if changed and not field.metadata["reload"]:
            log.warning("reload: this setting needs a restart", setting=f"pooler.{field.name}")
    for name, database in settings.databases.items():
        if database.embedded and name not in embedded:
            log.warning("reload: an embedded database needs a restart", setting=f"databases.{name}")
    for section in ("agents", "http"):
        new, before = getattr(settings, section), getattr(at_start, section)
        if new is None or before is None:
            if new is not before:
                log.warning("reload: this setting needs a restart", setting=section)
            continue
        for field in attrs.fields(type(new)):
            name = field.name
            if not field.metadata["reload"] and getattr(new, name) != getattr(before, name):
                log.warning("reload: this setting needs a restart", setting=f"{section}.{name}")
