"""Reading the files that settings of authentication name; their forms are pgbouncer's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hyperpool.config.hba import parse_hba
from hyperpool.config.ident import parse_ident
from hyperpool.config.kinds import AuthType
from hyperpool.config.source import Unavailable
from hyperpool.config.userlist import parse_userlist

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config.hba import HbaRule
    from hyperpool.config.ident import IdentEntry
    from hyperpool.config.model import PoolerSettings
    from hyperpool.config.report import Report
    from hyperpool.config.secret import Secret
    from hyperpool.config.source import Source


def read_userlist(pooler: PoolerSettings, source: Source, report: Report) -> Mapping[str, Secret]:
    """Read the ``auth_file``, if there is one.

    Returns:
        The secrets by user name.
    """
    if not pooler.auth_file:
        return {}
    try:
        entries, problems = parse_userlist(source.read(pooler.auth_file))
    except Unavailable as error:
        entries, problems = {}, [str(error)]
    for problem in problems:
        report.doubt(("pooler", "auth_file"), problem)
    return entries


def read_hba(pooler: PoolerSettings, source: Source, report: Report) -> tuple[HbaRule, ...]:
    """Read the ``auth_hba_file`` and what it names, if ``auth_type`` is hba.

    Returns:
        The rules in their order.
    """
    if pooler.auth_type is not AuthType.HBA or not pooler.auth_hba_file:
        return ()
    directory = Path(pooler.auth_hba_file).parent
    try:
        rules, problems = parse_hba(
            source.read(pooler.auth_hba_file), lambda name: source.read(str(directory / name))
        )
    except Unavailable as error:
        rules, problems = (), [str(error)]
    _add("auth_hba_file", problems, report)
    return rules


def read_ident(
    pooler: PoolerSettings, source: Source, report: Report
) -> Mapping[str, tuple[IdentEntry, ...]]:
    """Read the ``auth_ident_file``, if there is one and ``auth_type`` is hba.

    Returns:
        The maps by name.
    """
    if pooler.auth_type is not AuthType.HBA or not pooler.auth_ident_file:
        return {}
    try:
        maps, problems = parse_ident(source.read(pooler.auth_ident_file))
    except Unavailable as error:
        maps, problems = {}, [str(error)]
    _add("auth_ident_file", problems, report)
    return maps


def _add(setting: str, problems: list[str], report: Report) -> None:
    for problem in problems:
        report.add(("pooler", setting), problem)
