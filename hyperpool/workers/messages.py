"""What supervisor and workers tell each other, and its form: frames of four bytes of length and JSON. Sans-IO."""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, Final, TypeAlias

import attrs
from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union

from hyperpool.errors import ProtocolError

MAX_FRAME: Final = 256 * 1024**2
"""Bytes of a frame: a table of the console may have a row for each client."""

_MOST: Final = 1 << 20
_amount: Final = attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(_MOST))
"""So many of something as a worker may have, or want: the supervisor's accounts need not expect anything else."""

_length = Struct("!I")
HEADER: Final = _length.size
"""Bytes of the length in front of each frame."""


@attrs.frozen
class PoolKey:
    """Which pool.

    Attributes:
        database: the name that clients ask for.
        user: as whom it logs in.
        own: tells the pools of replication clients apart; empty for all others.
    """

    database: str
    user: str
    own: str = ""


@attrs.frozen
class SeatKey:
    """Which limit on clients.

    Attributes:
        kind: ``all``, ``database``, ``user`` or ``replication``.
        name: the database or user; for replication, the database.
        user: for replication, the user.
    """

    kind: str
    name: str = ""
    user: str = ""


@attrs.frozen
class Fact:
    """What the first server connection of a pool has told: clients need not wait for one in each worker.

    Attributes:
        pool: which one; never that of a replication client.
        parameters: what the server has reported.
        base: what ``connect_query`` has set.
    """

    pool: PoolKey
    parameters: dict[str, str]
    base: dict[str, str]


@attrs.frozen
class Deed:
    """Something to do, as in the console: a verb in lower case, and its argument."""

    verb: str
    argument: str = ""


@attrs.frozen
class Outcome:
    """What came of a `Deed`.

    Attributes:
        tag: the command tag; empty if it failed.
        rows: of its table, if it has one.
        error: why it failed.
        sqlstate: of the failure.
        detail: of the failure.
        hint: of the failure.
    """

    tag: str = ""
    rows: list[list[Any]] = attrs.field(factory=list)
    error: str = ""
    sqlstate: str = ""
    detail: str = ""
    hint: str = ""


RESUME: Final = Deed("resume if stopped")
"""Go on, if the pooler is paused or suspended."""


# -- from the supervisor -----------------------------------------------------------------------------------------------


@attrs.frozen
class Welcome:
    """The first message to a worker.

    Attributes:
        number: its own, from 0.
        workers: how many there are.
        settings: the whole settings, pickled and in base64; they come from the file, as the supervisor has read it.
        config_path: their file.
        quiet: no log to standard error.
        http: of the sockets that it gets, so many at first are for HTTP.
        statements: what operators have done that still holds.
        facts: what is known of pools.
        cached: what is known of the result cache's databases.
        held: nothing is answered from the result cache for now; see `HoldCache`.
    """

    number: int
    workers: int
    settings: str
    config_path: str
    quiet: bool
    http: int
    statements: list[Deed]
    facts: list[Fact]
    cached: list[str]
    held: bool


@attrs.frozen
class Granted:
    """The worker may have so many more server connections.

    Attributes:
        pool: of this pool.
        count: how many.
        slot: where the pool's clients are counted that keep theirs; see `tally`.
    """

    pool: PoolKey
    count: int
    slot: int


@attrs.frozen
class PartWith:
    """The worker is to part with one server connection; see `permits.Reduce`."""

    pool: PoolKey
    force: bool


@attrs.frozen
class Lent:
    """The worker may let in so many more clients; with 0 it turns away those that wait for a seat."""

    seat: SeatKey
    count: int


@attrs.frozen
class GiveBack:
    """The worker is to give back the seats that it does not use."""

    seat: SeatKey


@attrs.frozen
class Do:
    """Execute statements and answer with `Did`."""

    number: int
    statements: list[Deed]


@attrs.frozen
class Quit:
    """Whoever has asked for this does not want it any more: no answer is waited for."""

    number: int


@attrs.frozen
class Answers:
    """What came of what the worker has asked all for: the outcomes of each worker."""

    number: int
    outcomes: list[list[Outcome]]


@attrs.frozen
class NewSettings:
    """Take over settings, pickled and in base64, and answer with `Did`."""

    number: int
    settings: str


@attrs.frozen
class End:
    """End, in one of the ways of SHUTDOWN."""

    mode: str


@attrs.frozen
class Leave:
    """Another pooler has the listening sockets: accept nobody any more, and end when all clients have left."""


@attrs.frozen
class HoldCache:
    """Answer nothing from the result cache, since another pooler serves clients beside this one; or do so again."""

    held: bool


@attrs.frozen
class Alone:
    """All other workers have ended: whoever has waited for that alone may do so, too."""


# -- from a worker -----------------------------------------------------------------------------------------------------


@attrs.frozen
class Ready:
    """It serves clients."""


@attrs.frozen
class Filled:
    """Its pools are filled, or it is known why not."""


@attrs.frozen
class Failed:
    """It cannot start."""

    reason: str


@attrs.frozen
class Wanted:
    """It would have so many more server connections; see `permits.Permits.want`."""

    pool: PoolKey
    count: int = attrs.field(validator=_amount)
    urgent: bool
    late: bool


@attrs.frozen
class Returned:
    """It needs so many permits no longer."""

    pool: PoolKey
    count: int = attrs.field(validator=_amount)


@attrs.frozen
class PartsWith:
    """The answer to `PartWith`: it will give back so many permits."""

    pool: PoolKey
    count: int = attrs.field(validator=_amount)


@attrs.frozen
class Sought:
    """It needs so many more seats."""

    seat: SeatKey
    count: int = attrs.field(validator=_amount)


@attrs.frozen
class SeatsBack:
    """The answer to `GiveBack`."""

    seat: SeatKey
    count: int = attrs.field(validator=_amount)


@attrs.frozen
class Ask:
    """Have workers execute statements; `Answers` come back.

    Attributes:
        number: the worker's own.
        statements: what to execute.
        others: all but the worker itself.
    """

    number: int
    statements: list[Deed]
    others: bool = False


@attrs.frozen
class Abandon:
    """What was asked for is not wanted any more."""

    number: int


@attrs.frozen
class Did:
    """The answer to `Do` and `NewSettings`."""

    number: int
    outcomes: list[Outcome]


@attrs.frozen
class Counted:
    """What it has counted so far, about once a second: should it die, that is not forgotten.

    Attributes:
        figures: as `admin.statistics.packed`, of the databases that have counted something since the last time.
        clients: how many it has.
    """

    figures: list[list[Any]]
    clients: int = attrs.field(validator=_amount)


@attrs.frozen
class ConsoleClients:
    """It has so many clients of the console now: when nobody is left who could resume what is suspended, it is resumed.

    Attributes:
        count: how many.
    """

    count: int = attrs.field(validator=_amount)


# -- from one worker to all others -------------------------------------------------------------------------------------


@attrs.frozen
class Learned:
    """A server has told what is so for all of its pool."""

    fact: Fact


@attrs.frozen
class Forgotten:
    """The last server connection of a pool is gone: nobody knows what the next one will tell."""

    pool: PoolKey


@attrs.frozen
class LoginFailed:
    """Somebody could not prove who it is.

    Attributes:
        origin: where from.
        user: as whom.
    """

    origin: str
    user: str


Message: TypeAlias = (
    Counted
    | ConsoleClients
    | Welcome
    | Granted
    | PartWith
    | Lent
    | GiveBack
    | Do
    | Quit
    | Answers
    | NewSettings
    | End
    | Leave
    | HoldCache
    | Alone
    | Ready
    | Filled
    | Failed
    | Wanted
    | Returned
    | PartsWith
    | Sought
    | SeatsBack
    | Ask
    | Abandon
    | Did
    | Learned
    | Forgotten
    | LoginFailed
)

_converter = make_converter()
configure_tagged_union(Message, _converter, tag_name="is")


def encode(message: Message) -> bytes:
    """Make a frame."""
    body = json.dumps(_converter.unstructure(message, unstructure_as=Message), separators=(",", ":")).encode()
    return _length.pack(len(body)) + body


class Decoder:
    """Feed it what comes, and take messages out."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take in bytes.

        Returns:
            The messages that are whole now.

        Raises:
            ProtocolError: a frame is too long, or no message.
        """
        held = self._held
        held += data
        messages: list[Message] = []
        while len(held) >= _length.size:
            (length,) = _length.unpack_from(held)
            if length > MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes between supervisor and worker")
            end = _length.size + length
            if len(held) < end:
                break
            body = bytes(held[_length.size : end])
            del held[:end]
            try:
                messages.append(_converter.structure(json.loads(body), Message))  # type: ignore[arg-type]
            except Exception as error:
                raise ProtocolError("a frame that is no message between supervisor and worker") from error
        return messages
