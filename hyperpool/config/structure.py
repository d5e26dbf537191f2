"""From plain YAML values to settings objects, with every problem reported and none of them fatal."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from hyperpool.config import sections as whole
from hyperpool.config.entries import DatabaseSettings, PeerSettings, UserSettings
from hyperpool.config.fields import Problem, Problems, read_value
from hyperpool.config.http import HttpSettings
from hyperpool.config.kinds import Unfit
from hyperpool.config.model import MAX_PEER_ID, PoolerSettings
from hyperpool.config.report import describe, describe_type, key_text
from hyperpool.config.tunnel import AgentsSettings
from hyperpool.config.unsupported import UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hyperpool.config.report import KeyPath, Report
    from hyperpool.config.source import Source

T = TypeVar("T")

_DEPTH: Final = 3
"""Keys on the way to a setting: section, entry, name. What is below belongs to the setting's value."""

_WHOLE: Final[Mapping[str, type[Any]]] = {"agents": AgentsSettings, "http": HttpSettings}
"""Sections that are used as a whole or not at all."""

_MAPPING: Final = "a mapping; each setting or name on a line of its own, with a colon and a space behind it"


@attrs.frozen(kw_only=True)
class Document:
    """A settings file: its sections.

    Attributes:
        pooler: the pooler itself.
        databases: by the name that clients ask for.
        users: by name.
        peers: by their ``peer_id``.
        agents: where agents connect to; None if nowhere.
        http: what is shown over HTTP; None if nothing is.
    """

    pooler: PoolerSettings = attrs.field(factory=PoolerSettings)
    databases: Mapping[str, DatabaseSettings] = attrs.field(factory=dict)
    users: Mapping[str, UserSettings] = attrs.field(factory=dict)
    peers: Mapping[int, PeerSettings] = attrs.field(factory=dict)
    agents: AgentsSettings | None = None
    http: HttpSettings | None = None


def structure(raw: Mapping[object, object], source: Source, report: Report) -> Document:
    """Make settings objects of plain values.

    A value that cannot be used is reported and left out, so that what remains can be checked further.

    Args:
        raw: the file's content.
        source: its surroundings.
        report: gets one problem per value that cannot be used.
    """
    converter = _converter(source)
    remaining = _with_sound_names(raw, report)
    try:
        return converter.structure(remaining, Document)
    except BaseValidationError as errors:
        for path, problem, meant in _flatten(errors, ()):
            report.add(tuple(map(key_text, path)), problem)
            for one in meant:
                if not _stands(raw, one):
                    report.suppose(tuple(map(key_text, one)))
            remaining = _without(remaining, path[: 1 if path[0] in _WHOLE else _DEPTH])
    return converter.structure(remaining, Document)


def _converter(source: Source) -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for cls in (PoolerSettings, DatabaseSettings, UserSettings, PeerSettings):
        hooks: dict[str, Any] = {
            field.name: override(struct_hook=_leaf(field, source)) for field in attrs.fields(cls)
        }
        converter.register_structure_hook(cls, _mapping_of(make_dict_structure_fn(cls, converter, **hooks)))
    sections: dict[str, Any] = {
        name: override(struct_hook=_mapping_of(converter.get_structure_hook(kind)))
        for name, kind in (
            ("databases", Mapping[str, DatabaseSettings]),
            ("users", Mapping[str, UserSettings]),
            ("peers", Mapping[int, PeerSettings]),
        )
    }
    for name, cls in _WHOLE.items():
        sections[name] = override(struct_hook=_section(cls, source))
    converter.register_structure_hook(Document, make_dict_structure_fn(Document, converter, **sections))
    return converter


def _with_sound_names(raw: Mapping[object, object], report: Report) -> dict[object, Any]:
    """A copy without names that nobody can ask for; a section or an entry with nothing below it gets its defaults."""
    copy: dict[object, Any] = {name: {} if below is None else below for name, below in raw.items()}
    for section, problem_of in _NAMES.items():
        entries = copy.get(section)
        if not isinstance(entries, dict):
            continue
        copy[section] = {}
        for name, entry in entries.items():
            if problem := problem_of(name):
                report.add((section, key_text(name)), problem)
            else:
                copy[section][name] = {} if entry is None else entry
    return copy


def _problem_of_name(name: object) -> str:
    if not isinstance(name, str):
        return f"found {describe(name)} as a name, expected a text; put it in quotes"
    if not name:
        return "found an empty name, expected a name"
    return (
        "" if name.isprintable() else "found a name with control characters, expected one that can be printed"
    )


def _problem_of_peer(name: object) -> str:
    if isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= MAX_PEER_ID:
        return ""
    return f"found {describe(name)} as a peer_id, expected a whole number from 1 to {MAX_PEER_ID}, without quotes"


_NAMES: Final[Mapping[str, Callable[[object], str]]] = {
    "databases": _problem_of_name,
    "users": _problem_of_name,
    "peers": _problem_of_peer,
}
"""Sections whose keys are names, and what is wrong with one."""


def _mapping_of(hook: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    def structure_mapping(value: object, kind: object) -> T:
        if not isinstance(value, dict):
            raise Problem(f"found {describe_type(value)}, expected {_MAPPING}")
        return hook(value, kind)

    return structure_mapping


def _section(cls: type[Any], source: Source) -> Callable[[Any, Any], Any]:
    def structure_section(value: object, _type: object) -> object:
        try:
            return whole.section(cls)(value, source)
        except Unfit as error:
            raise Problem(f"found {describe_type(value)}, expected {error.expected}") from None

    return structure_section


def _leaf(field: attrs.Attribute[Any], source: Source) -> Callable[[Any, Any], Any]:
    def structure_leaf(value: object, _type: object) -> object:
        return read_value(field, value, source)

    return structure_leaf


def _flatten(error: BaseValidationError, path: KeyPath) -> Iterator[tuple[KeyPath, str, list[KeyPath]]]:
    """The problems below `error` with their paths, and those of what an unknown setting may mean."""
    for one in error.exceptions:
        below = (*path, *_step(one))
        if isinstance(one, BaseValidationError):
            yield from _flatten(one, below)
        elif isinstance(one, ForbiddenExtraKeysError):
            known = [field.name for field in attrs.fields(one.cl)]
            for key in sorted(one.extra_fields, key=key_text):
                problem, meant = _unknown(key, known, one.cl)
                yield (*below, key), problem, [(*below, *one) for one in meant]
        elif isinstance(one, Problems):
            yield from (((*below, *inside), problem, []) for inside, problem in one.found)
        else:
            yield below, str(one), []


def _step(error: Exception) -> tuple[Any, ...]:
    """What cattrs notes on an error: the attribute or the key that it belongs to."""
    notes = getattr(error, "__notes__", ())
    names = [note.name for note in notes if isinstance(note, AttributeValidationNote)]
    keys = [note.index for note in notes if isinstance(note, IterableValidationNote)]
    return tuple((names + keys)[:1])


def _unknown(key: object, known: list[str], cls: type[Any]) -> tuple[str, list[KeyPath]]:
    """What is wrong with a key, and where that would stand which it may mean."""
    if not isinstance(key, str):
        return f"found {describe_type(key)} as a key, expected one of {', '.join(known)}", []
    if cls is Document and key in attrs.fields_dict(PoolerSettings):
        return "found at the top, expected below pooler; indent it there", [("pooler", key)]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.85) or difflib.get_close_matches(key, known)
    if key in UNSUPPORTED and cls is not Document:
        return f"found a setting of pgbouncer that does nothing here: {UNSUPPORTED[key]}; remove it", []
    if close:
        return f"found an unknown setting; did you mean {' or '.join(close)}?", [(one,) for one in close]
    return f"found an unknown setting, expected one of {', '.join(known)}", []


def _stands(raw: object, path: KeyPath) -> bool:
    for key in path:
        if not isinstance(raw, Mapping) or key not in raw:
            return False
        raw = raw[key]
    return True


def _without(mapping: dict[object, Any], path: KeyPath) -> dict[object, Any]:
    """A copy that lacks the value at `path`."""
    key, *below = path
    if not below:
        # Not-a-number can be a key, and is not equal to itself.
        return {name: value for name, value in mapping.items() if name is not key and name != key}
    return {**mapping, key: _without(mapping[key], tuple(below))}
