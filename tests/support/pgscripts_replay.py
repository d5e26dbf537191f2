"""Does again what a recorder has seen, somewhere else; every answer must be the same.

Nothing but this may differ:

- process ids and cancel keys
- the order of ParameterStatus messages that come together, which depends on what the session did before
- which function of PostgreSQL tells that the transaction has failed (fields F, L and R of error 25P02)
- in a failed transaction, what is wrong with a request besides: where servers are shared, the statement that it is
  about may have to be prepared, which cannot be done then
"""

from __future__ import annotations

import contextlib
from itertools import groupby
from typing import TYPE_CHECKING, Final

from tests.support import rawclient as raw
from tests.support.pgscripts_run import Cancel, Connect, Leave, Receive, Send

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.pgscripts_run import Event, Side
    from tests.support.rawclient import Frame

_LAST_LOOK: Final = 0.2  # seconds in which the rest of a wrong answer may still come
_SHOWN: Final = 100  # characters of a row or message
_ROWS: Final = 3
_READY: Final = b"Z"
_PARAMETER: Final = b"S"
_ERROR: Final = b"E"
_FAILED: Final = b"E"  # the status of a transaction, in ReadyForQuery


class Difference(AssertionError):
    """An answer is another one."""


class NoAnswer(Difference):
    """Something has not come."""


class Player:
    """Does again what a recorder has seen.

    Args:
        side: the connections.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self._statuses: dict[int, bytes] = {}

    def run(self, events: Sequence[Event]) -> None:
        """Do everything in the same order.

        Raises:
            Difference: an answer is another one.
            NoAnswer: something has not come in time.
        """
        for at, event in enumerate(events):
            try:
                self._repeat(event)
            except (AssertionError, TimeoutError, raw.ConnectionEnded) as error:
                failure = NoAnswer if isinstance(error, (TimeoutError, NoAnswer)) else Difference
                what = str(error) or type(error).__name__
                raise failure(f"{what}\n{_story(events[: at + 1])}") from None

    def _repeat(self, event: Event) -> None:
        side, client = self._side, event.client
        if isinstance(event, Connect):
            self._statuses[client] = b"I"
            got = side.connect(client)
            if _sorted(got) != _sorted(event.frames):
                raise Difference(f"the login is answered with: {summary(got)}")
        elif isinstance(event, Send):
            side.send(client, event.pieces)
        elif isinstance(event, Cancel):
            try:
                side.cancel(client)
            except AssertionError as error:
                raise NoAnswer(str(error)) from None
        elif isinstance(event, Leave):
            side.leave(client, event.how)
        else:
            self._receive(event)

    def _receive(self, event: Receive) -> None:
        frames: list[Frame] = []
        try:
            self._match(event, frames)
            if event.ended:
                frames.append(self._side.clients[event.client].receive())
                raise Difference(f"the connection should have ended: {summary(frames)}")
        except TimeoutError:
            raise NoAnswer(f"nothing more has come after: {summary(frames)}") from None
        except raw.ConnectionEnded:
            if not event.ended or len(frames) < len(event.frames):
                raise Difference(f"the connection ended after: {summary(frames)}") from None
            self._side.leave(event.client, "")

    def _match(self, event: Receive, frames: list[Frame]) -> None:
        """Read an answer message by message; the first that is another one ends it: who knows what else will come."""
        client, wanted = event.client, event.frames
        connection = self._side.clients[client]
        while len(frames) < len(wanted):
            want, got = wanted[len(frames)], connection.receive()
            if self._statuses[client] == _FAILED and _is_25p02(got) and want.kind not in {_READY, _PARAMETER}:
                rest = wanted[len(frames) :]
                frames += rest[: next((at for at, one in enumerate(rest) if one.kind == _READY), len(rest))]
                continue
            frames.append(got)
            if want != got and not want.kind == got.kind == _PARAMETER:
                frames += _what_else(connection)
                details = f"\n{got} in place of {want}" if summary([want]) == summary([got]) else ""
                raise Difference(f"the answer is: {summary(frames)}{details}")
            if got.kind == _READY:
                self._statuses[client] = got.body
        if _sorted(frames) != _sorted(wanted):
            raise Difference(f"the answer is: {summary(frames)}")


def _is_25p02(got: Frame) -> bool:
    """Whether it says that nothing can be done in a failed transaction."""
    return got.kind == _ERROR and got.fields["C"] == "25P02"


def _what_else(connection: raw.RawClient) -> list[Frame]:
    """What comes at once behind a message that is wrong, for the report."""
    frames: list[Frame] = []
    connection.sock.settimeout(_LAST_LOOK)
    with contextlib.suppress(TimeoutError, raw.ConnectionEnded):
        while True:
            frames.append(connection.receive())
    return frames


def _sorted(frames: list[Frame]) -> list[Frame]:
    """The frames, with ParameterStatus messages that come together in the order of their names."""
    runs = groupby(frames, lambda got: got.kind == _PARAMETER)
    return [
        got
        for statuses, run in runs
        for got in (sorted(run, key=lambda status: status.body) if statuses else run)
    ]


def _story(events: Sequence[Event]) -> str:
    """The script as it was run, with PostgreSQL's answers."""
    lines = []
    for event in events:
        if isinstance(event, Connect):
            lines.append(f"        ({event.client} logs in)")
        elif isinstance(event, Send):
            lines.append(f"{event.step}" + f"   in {len(event.pieces)} pieces" * (len(event.pieces) > 1))
        elif isinstance(event, Cancel):
            lines.append(f"        ({event.client} is cancelled)")
        elif isinstance(event, Receive):
            lines.append(f"        {event.client} <- {summary(event.frames)}" + " (end)" * event.ended)
    return "\n".join(["PostgreSQL's own answers:", *lines])


def summary(frames: Iterable[Frame]) -> str:
    """An answer in one line: types, and what is most worth knowing of each message; not all of many rows."""
    words = []
    for kind, run in groupby(frames, lambda got: got.kind):
        same = [_word(got) for got in run]
        many = kind == b"D" and len(same) > _ROWS
        words += [*same[:_ROWS], f"... {len(same)} rows"] if many else same
    return " ".join(words)


def _word(got: Frame) -> str:
    kind = got.kind.decode()
    if kind == "Z":
        return kind + got.body.decode()
    if kind == "C":
        return f"C[{got.body[:-1].decode()}]"
    if kind in "EN":
        return f"{kind}[{got.fields['C']} {got.fields['M'][:_SHOWN]}]"
    if kind == "D":
        values = ("~" if value is None else value.decode(errors="replace") for value in got.columns)
        return f"D({','.join(values)[:_SHOWN]})"
    if kind == "S":
        return f"S[{got.body[:-1].decode().replace(chr(0), '=')}]"
    return kind
