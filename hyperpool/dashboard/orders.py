"""What administrators have the page do: a few of the console's commands, by the console itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import attrs
import structlog
import trio

from hyperpool.admin.outcomes import ConsoleError, Waits
from hyperpool.admin.statements import Command

if TYPE_CHECKING:
    from hyperpool.admin.conversation import Executor

log = structlog.get_logger("dashboard")

_OF_DATABASES: Final = frozenset({"pause", "resume", "reconnect"})
_WHOLE: Final = frozenset({"reload"})
_PURGE: Final = "purge cache"
_POLL: Final = 0.02
"""Seconds between two looks whether all processes have done it."""


class UnknownOrder(Exception):
    """An order is none of those that the page has; the message is for people."""


@attrs.frozen
class Answer:
    """What has become of an order.

    Attributes:
        done: it has been carried out, or has begun to be.
        text: for people.
    """

    done: bool
    text: str


class Orders:
    """Carries orders out.

    Args:
        console: executes them, as an administrator.
    """

    def __init__(self, console: Executor) -> None:
        self._console = console

    async def carry_out(self, order: bytes, client: str) -> Answer:
        """Do what was asked for.

        Args:
            order: JSON: an object with ``command``, and perhaps ``database`` or ``fingerprint``.
            client: who has asked, for the log.

        Raises:
            UnknownOrder: it is none of those that the page has.
        """
        command = _parsed(order)
        words = f"{command.verb} {command.argument}".strip()
        log.info("order", order=words, client=client)
        try:
            outcome = self._console.execute(command)
            if isinstance(outcome, Waits) and outcome.soon:
                while not outcome.over():  # noqa: ASYNC110 - the relay owns no Trio events
                    await trio.sleep(_POLL)
                outcome = outcome.done()
        except ConsoleError as error:
            return Answer(done=False, text="\n".join(filter(None, (str(error), error.detail, error.hint))))
        if isinstance(outcome, Waits):
            return Answer(done=True, text=f"{outcome.tag} has begun: servers are closed as they become free")
        return Answer(done=True, text=outcome.tag)


def _parsed(order: bytes) -> Command:
    try:
        asked = json.loads(order)
    except ValueError:
        raise UnknownOrder("expected a JSON object") from None
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        raise UnknownOrder("expected a JSON object with strings")
    verb = asked.pop("command", "")
    database, fingerprint = asked.pop("database", ""), asked.pop("fingerprint", "")
    if (
        asked
        or (verb in _WHOLE and database)
        or (verb != _PURGE and fingerprint)
        or (database and fingerprint)
    ):
        raise UnknownOrder("expected command, and perhaps one of database and fingerprint")
    if verb in _OF_DATABASES | _WHOLE:
        return Command(verb, database)
    if verb == _PURGE:
        what = ("database", database) if database else ("fingerprint", fingerprint)
        return Command(_PURGE, " ".join(what) if what[1] else "")
    raise UnknownOrder(f"expected one of {', '.join(sorted(_OF_DATABASES | _WHOLE | {_PURGE}))}")
