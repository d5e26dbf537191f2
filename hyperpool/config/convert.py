"""A file of pgbouncer's as YAML: the same settings, with the comments that say something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import yaml

from hyperpool.config import kinds, tls
from hyperpool.config.loader import resolve
from hyperpool.config.model import PoolerSettings
from hyperpool.config.pgbouncer import DEFAULTS, read_pgbouncer
from hyperpool.config.report import Report
from hyperpool.config.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hyperpool.config.pgbouncer import PgbouncerFile
    from hyperpool.config.report import KeyPath

_SETTING: Final = re.compile(r"[;#\s]*(\"[^\"]+\"|[\w.*-]+)\s*=.*|[;#\s]*%include\s.*", re.ASCII)
_PATHS: Final = (kinds.path, kinds.secret_file, kinds.socket_directory, tls.certificates)
_INDENT: Final = "  "


def convert(path: Path, environ: Mapping[str, str]) -> str:
    """Write a file of pgbouncer's as YAML.

    What it includes becomes part of it, and relative paths become absolute. A comment right above a setting or section
    is kept, unless it is a setting that is commented out.

    Args:
        path: the file.
        environ: the environment variables.

    Returns:
        A settings file with the same effective settings.

    Raises:
        ConfigError: with all problems of the file at once.
    """
    report = Report()
    file = read_pgbouncer(path, report)
    source = Source(Path.cwd(), environ)
    resolve(file.raw, source, report)
    return "\n".join(_document(file, source)) + "\n"


def _document(file: PgbouncerFile, source: Source) -> Iterator[str]:
    fields = attrs.fields_dict(PoolerSettings)
    yield "pooler:"
    yield from _comments(file, ("pooler",), _INDENT)
    for key, value in file.raw["pooler"].items():
        path: KeyPath = ("pooler", key)
        if path not in file.places and key in DEFAULTS:
            yield f"{_INDENT}# pgbouncer's default"
        yield from _comments(file, path, _INDENT)
        yield f"{_INDENT}{key}: {_scalar(_anchored(fields[key], value, source))}"
    for (*_, key), (text, reason) in file.dropped.items():
        yield f"{_INDENT}# {key} = {text} has no effect: {reason}"
    for section in ("databases", "users", "peers"):
        if entries := file.raw[section]:
            yield ""
            yield from _comments(file, (section,), "")
            yield f"{section}:"
            for name, entry in entries.items():
                yield from _comments(file, (section, str(name)), _INDENT)
                yield f"{_INDENT}{_scalar(name)}: {'' if entry else '{}'}".rstrip()
                for key, value in entry.items():
                    yield f"{_INDENT * 2}{key}: {_scalar(value)}"


def _comments(file: PgbouncerFile, path: KeyPath, indent: str) -> Iterator[str]:
    for comment in file.comments.get(path, ()):
        words = comment.lstrip(";# \t")
        if words and not _SETTING.fullmatch(comment):
            yield f"{indent}# {words}"


def _anchored(field: attrs.Attribute[Any], value: object, source: Source) -> object:
    """A path as an absolute one: YAML has another directory where relative ones start."""
    if field.metadata["parse"] not in _PATHS or not value:
        return value
    parsed = field.metadata["parse"](str(value).replace("$${", "${"), source)
    return str(parsed).replace("${", "$${")


def _scalar(value: object) -> str:
    """A value on one line; a text that YAML would take for something else has quotes."""
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")
