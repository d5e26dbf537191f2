"""Reading the YAML file: its syntax, and keys that stand there twice."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from hyperpool.config.report import describe_type

if TYPE_CHECKING:
    from pathlib import Path

    from hyperpool.config.report import KeyPath, Report

_NUMBERS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_TEXT: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"

_CITED: Final = re.compile(r"(alias|tag|tag handle) ['\"].*")
"""What PyYAML cites of the file: names of aliases and tags, which may be passwords that lack their quotes."""


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: ``1:30`` is a text, not 90, and a scalar that does not fit its tag has a place."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:  # noqa: ANN401 - as in PyYAML
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return _TEXT if tag in _NUMBERS and ":" in value else tag

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - as in PyYAML
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
            raise yaml.constructor.ConstructorError(
                None, None, "found a value that does not fit its tag", node.start_mark
            ) from None


def read_document(path: Path, report: Report) -> dict[object, object]:
    """Read a settings file.

    Args:
        path: the file.
        report: gets the problems, at most one for the syntax and one for each key that stands there twice.

    Returns:
        The sections by name; an empty mapping when the file cannot be read at all.
    """
    shown = repr(str(path))
    try:
        raw = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        report.add((), f"cannot read {shown}: {reason}; name a settings file that exists and can be read")
        return {}
    try:
        return _parse(raw.decode(), report)
    except UnicodeDecodeError as error:
        where = _place(raw[: error.start].decode())
        report.add((), f"{shown}, {where}: found bytes that are not UTF-8; save the file as UTF-8")
    except yaml.reader.ReaderError as error:
        where = _place(raw.decode()[: error.position])
        report.add((), f"{shown}, {where}: found a character that YAML does not allow; remove it")
    except yaml.MarkedYAMLError as error:
        report.add((), f"{shown}, {_explain(error)}; {_remedy(error)}")
    except RecursionError:
        report.add((), f"{shown} is nested too deeply; three levels are enough")
    return {}


def _parse(text: str, report: Report) -> dict[object, object]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        _find_repeated_keys(node, report)
        found = loader.construct_document(node)
    finally:
        loader.dispose()
    if found is None:
        return {}
    if not isinstance(found, dict):
        report.add(
            (),
            f"found {describe_type(found)}, expected a mapping of sections, each with its name and a colon",
        )
        return {}
    return found


def _find_repeated_keys(root: yaml.Node, report: Report) -> None:
    """Report keys that stand more than once in their mapping; YAML would silently take the last one."""
    nodes: list[tuple[KeyPath, yaml.Node]] = [((), root)]
    visited: set[int] = set()
    for path, node in nodes:
        if id(node) in visited or not isinstance(node, yaml.MappingNode):
            continue
        visited.add(id(node))
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            below = (*path, key.value)
            identity, line = (key.tag, key.value), key.start_mark.line + 1
            if identity in first:
                lines = f"on lines {first[identity]} and {line}"
                report.add(below, f"found twice, {lines}, expected once: remove one of them")
            first.setdefault(identity, line)
            nodes.append((below, value))


def _explain(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    problem = _CITED.sub(r"\1", error.problem or "found a mistake").removeprefix("but ")
    return place + problem


def _remedy(error: yaml.MarkedYAMLError) -> str:
    if error.context == "while scanning an alias" or (error.problem or "").startswith(
        "found undefined alias"
    ):
        return "put a text that begins with * in quotes"
    return "correct the YAML: check indentation, colons and quotes"


def _place(before: str) -> str:
    line = before.count("\n") + 1
    return f"line {line}, column {len(before) - before.rfind(chr(10))}"
