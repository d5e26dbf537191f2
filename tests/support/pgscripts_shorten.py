"""Makes scripts that fail short: steps are left out, then messages, as long as what is left fails in the same way.

Hypothesis shrinks what scripts are drawn from. That takes many more attempts, and each is two runs with real servers.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from tests.support.pgscripts import Script, Step
from tests.support.waiting import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TIME: Final = 60.0  # seconds after which no shorter script is looked for


def shorten(script: Script, fails: Callable[[Script], bool]) -> Script:
    """Look for a shorter script.

    Args:
        script: one that fails.
        fails: runs a script.

    Returns:
        A script that fails; the same one, if no shorter one does.
    """
    watch = Stopwatch()

    def still_fails(candidate: Script) -> bool:
        return watch.seconds < _TIME and fails(candidate)

    chunks = script.chunks

    def of_steps(steps: list[Step]) -> Script:
        return Script(tuple(steps), chunks)

    def of_messages(messages: list[_Part]) -> Script:
        steps = groupby(messages, lambda part: (part.number, part.client))
        return of_steps([Step(client, tuple(part.message for part in parts)) for (_, client), parts in steps])

    if chunks and still_fails(attrs.evolve(script, chunks=0)):
        chunks = 0
    steps = _reduce(list(script.steps), lambda steps: still_fails(of_steps(steps)))
    messages = [
        _Part(number, step.client, message) for number, step in enumerate(steps) for message in step.messages
    ]
    return of_messages(_reduce(messages, lambda messages: still_fails(of_messages(messages))))


@attrs.frozen
class _Part:
    """A message, and the step that it belongs to."""

    number: int
    client: int
    message: str | bytes


def _reduce(parts: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """Leave out runs of parts, long ones first, until none can be left out."""
    length = max(len(parts) // 2, 1)
    while length:
        shorter = parts
        at = 0
        while at < len(shorter):
            rest = shorter[:at] + shorter[at + length :]
            if rest and fails(rest):
                shorter = rest
            else:
                at += length
        if len(shorter) == len(parts) or length > 1:
            length //= 2
        parts = shorter
    return parts
