"""Sections of a settings file: mappings that become objects of settings classes, by the fields' own metadata."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from hyperpool.config.fields import Problem, Problems, read_value
from hyperpool.config.kinds import Unfit
from hyperpool.config.report import describe_type, key_text
from hyperpool.config.source import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpool.config.kinds import Parser
    from hyperpool.config.report import KeyPath
    from hyperpool.config.source import Source

T = TypeVar("T")
Found = list[tuple["KeyPath", str]]


def section(cls: type[T]) -> Parser:
    """A mapping with the settings of a class; nothing below the section's name stands for the defaults."""

    def parse(value: object, source: Source) -> T:
        return _whole(cls, value, source)

    return parse


def entries(cls: type[Any]) -> Parser:
    """A mapping from names to the settings of a class; the name becomes the field ``name``."""

    def parse(value: object, source: Source) -> dict[str, Any]:
        problems: Found = []
        found = {}
        for name, content in _mapping(value).items():
            if not isinstance(name, str) or not name or not name.isprintable():
                problems.append(((key_text(name),), "found a name that is not a text that can be printed"))
                continue
            try:
                found[name] = _whole(cls, content, source, name=name)
            except Unfit as error:
                problems.append(((name,), f"found {describe_type(content)}, expected {error.expected}"))
            except Problems as inner:
                problems += [((name, *path), problem) for path, problem in inner.found]
        if problems:
            raise Problems(problems)
        return found

    return parse


def _whole(cls: type[T], value: object, source: Source, **given: object) -> T:
    """An object of a settings class.

    Raises:
        Unfit: there is no mapping.
        Problems: of any of its settings.
    """
    content = _mapping(value)
    problems: Found = []
    fields = {name: field for name, field in attrs.fields_dict(cls).items() if "parse" in field.metadata}  # type: ignore[arg-type]
    found = read_fields(fields, content, source, problems)
    read_secret_files(fields, found, source, problems)
    if problems:
        raise Problems(problems)
    return cls(**found, **given)


def _mapping(value: object) -> Mapping[object, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unfit(
            "a mapping; each setting or name on a line of its own, with a colon and a space behind it"
        )
    return value


def read_fields(
    fields: Mapping[str, attrs.Attribute[Any]],
    content: Mapping[object, object],
    source: Source,
    problems: Found,
) -> dict[str, Any]:
    """Read the values that stand in a mapping.

    Args:
        fields: what may stand there.
        content: what stands there.
        source: its surroundings.
        problems: gets what is wrong.
    """
    found = {}
    for key, value in content.items():
        if not isinstance(key, str) or key not in fields:
            close = difflib.get_close_matches(key_text(key), fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else f", expected one of {', '.join(fields)}"
            problems.append(((key_text(key),), f"found an unknown setting{hint}"))
            continue
        try:
            found[key] = read_value(fields[key], value, source)
        except Problem as problem:
            problems.append(((key,), str(problem)))
        except Problems as inner:
            problems += [((key, *path), problem) for path, problem in inner.found]
    for name, field in fields.items():
        if field.default is attrs.NOTHING and name not in content:
            problems.append(((name,), f"found nothing, expected {field.metadata['help']}; add it"))
    return found


def read_secret_files(
    fields: Mapping[str, attrs.Attribute[Any]], found: dict[str, Any], source: Source, problems: Found
) -> None:
    """Put in the secrets that stand in files of their own: ``password`` from the file of ``password_file``.

    Args:
        fields: of the class.
        found: what has been read; gets the secrets.
        source: the surroundings.
        problems: gets what is wrong.
    """
    for name in fields:
        file = found.get(f"{name}_file")
        if not fields[name].metadata["secret"] or not file:
            continue
        here = (f"{name}_file",)
        if name in found:
            problems.append((here, f"found together with {name}, expected one of the two; remove the other"))
            continue
        try:
            found[name] = source.read_secret(file)
        except Unavailable as error:
            problems.append((here, str(error)))
