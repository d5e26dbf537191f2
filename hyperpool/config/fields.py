"""Fields of settings classes: a default, what the setting is for, and how its value is read.

Each field's metadata holds ``help`` (one line for people), ``reload`` (whether a reload of the file changes it),
``parse`` (its kind) and ``secret``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from hyperpool.config.kinds import Unfit
from hyperpool.config.report import describe, describe_type
from hyperpool.config.source import Unavailable

if TYPE_CHECKING:
    from hyperpool.config.kinds import Parser
    from hyperpool.config.report import KeyPath
    from hyperpool.config.source import Source

T = TypeVar("T")


class Problem(Exception):
    """What is wrong with one value; its place is known further up."""


class Problems(Exception):
    """What is wrong inside of one value that has parts.

    Args:
        found: the way from the value to each part, and what is wrong with it.
    """

    def __init__(self, found: list[tuple[KeyPath, str]]) -> None:
        super().__init__(f"{len(found)} problems")
        self.found = found


def metadata(parse: Parser, about: str, *, reload: bool = True, secret: bool = False) -> dict[str, object]:
    """What a field tells about itself."""
    return {"help": about, "reload": reload, "parse": parse, "secret": secret}


def setting(default: T, parse: Parser, about: str, *, reload: bool = True, secret: bool = False) -> T:
    """A field with a default."""
    field: T = attrs.field(default=default, metadata=metadata(parse, about, reload=reload, secret=secret))
    return field


def required(parse: Parser, about: str, *, reload: bool = True) -> Any:  # noqa: ANN401 - of the type that the class says
    """A field without a default."""
    return attrs.field(metadata=metadata(parse, about, reload=reload))


def read_value(field: attrs.Attribute[Any], value: object, source: Source) -> Any:  # noqa: ANN401 - as above
    """Read a setting's value, with environment variables put in.

    Raises:
        Problem: it does not fit; the message holds no secret.
        Problems: parts of it do not fit.
    """
    parse: Parser = field.metadata["parse"]
    show = describe_type if field.metadata["secret"] else describe
    try:
        return parse(_substitute(value, source), source)
    except Unavailable as error:
        raise Problem(str(error)) from None
    except Unfit as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        raise Problem(f"found {show(value)}, expected {error.expected}{remedy}") from None


def _substitute(value: object, source: Source) -> object:
    if isinstance(value, str):
        return source.substitute(value)
    return [_substitute(one, source) for one in value] if isinstance(value, list) else value
