"""Loading the settings: from a file to objects, or to the list of everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs

from hyperpool.config.auth_files import read_hba, read_ident, read_userlist
from hyperpool.config.checks import check
from hyperpool.config.document import read_document
from hyperpool.config.entries import DatabaseSettings, UserSettings
from hyperpool.config.inifile import is_ini
from hyperpool.config.pgbouncer import read_pgbouncer
from hyperpool.config.report import Report, key_text
from hyperpool.config.settings import Settings
from hyperpool.config.source import Source, Unavailable, default_state_dir
from hyperpool.config.structure import structure
from hyperpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config.report import KeyPath

Entry = TypeVar("Entry", DatabaseSettings, UserSettings)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Load the settings.

    Args:
        path: the file, in YAML or as pgbouncer has it. Relative paths in it start at its directory; in one of
            pgbouncer's, at the working directory.
        environ: the environment variables that a YAML file may refer to.

    Raises:
        ConfigError: with all problems of the file, and of the files that it names, at once.
    """
    report = Report()
    if is_ini(path):
        source = Source(Path.cwd(), environ)
        raw = read_pgbouncer(path, report).raw
    else:
        source = Source(path.absolute().parent, environ)
        raw = read_document(path, report)
    return resolve(raw, source, report)


def resolve(raw: Mapping[object, object], source: Source, report: Report) -> Settings:
    """Make settings of what stands in a file.

    Args:
        raw: the sections.
        source: the file's surroundings.
        report: what has been found already.

    Raises:
        ConfigError: with all problems at once.
    """
    if report.problems and not raw:
        raise ConfigError(report.in_order())
    document = structure(raw, source, report)
    given = frozenset(_paths(raw))
    pooler = document.pooler
    if ("pooler", "state_dir") not in given:
        pooler = attrs.evolve(pooler, state_dir=default_state_dir(source.environ, source.directory))
    settings = Settings(
        pooler=pooler,
        databases=_with_secret_files("databases", document.databases, source, report),
        users=_with_secret_files("users", document.users, source, report),
        peers=document.peers,
        userlist=read_userlist(pooler, source, report),
        agents=document.agents,
        http=document.http,
        hba=read_hba(pooler, source, report),
        ident=read_ident(pooler, source, report),
    )
    check(settings, given, report)
    if report.problems:
        raise ConfigError(report.in_order())
    return attrs.evolve(settings, notes=tuple(report.notes))


def _paths(raw: object) -> Iterator[KeyPath]:
    """The paths of all settings in the file: a section, an entry, and a key in it at most."""
    level: list[tuple[KeyPath, object]] = [((), raw)]
    for path, value in level:
        if isinstance(value, Mapping) and len(path) < 3:
            level += [((*path, key_text(key)), below) for key, below in value.items()]
        yield path


def _with_secret_files(
    section: str, entries: Mapping[str, Entry], source: Source, report: Report
) -> dict[str, Entry]:
    """Put in the passwords that stand in files of their own."""
    return {
        name: _with_secret_file((section, name), entry, source, report) for name, entry in entries.items()
    }


def _with_secret_file(path: KeyPath, entry: Entry, source: Source, report: Report) -> Entry:
    if not entry.password_file:
        return entry
    here = (*path, "password_file")
    if entry.password is not None or report.is_broken((*path, "password")):
        report.add(here, "found together with password, expected one of the two; remove the other")
        return entry
    try:
        return attrs.evolve(entry, password=source.read_secret(entry.password_file))
    except Unavailable as error:
        report.add(here, str(error))
        return entry
