r"""A relay between raw sockets, and scripts that say who sends what, and who has received what.

A script has a step per line:

=========================  =============================================================================================
``c1 > Pa:select 1|S``     the client c1 sends this; it comes when it is first named
``c1 < 1|Z``               it has received this and nothing else since the last look
``s1 > 1|Z``               the same for the server s1; servers come when the pool asks for them
``s1 < P~1:select 1|S``
``c1 comes TimeZone=UTC``  a client with startup parameters, separated by ``;``
``c1 proves x.y=1``        the same, with parameters that a server has to take first
``c1 leaves``              it closes its connection
``s1 dies``
``wait 1.5``               so many seconds pass, and the relay's timers look
=========================  =============================================================================================

Nobody may receive what the script does not say. ``END`` means that the relay has closed the connection.

Messages are spelt as below, with ``|`` between them, so that each spelling stands for exactly one sequence of bytes.
``~`` stands for ``HYPERPOOL_``, and words in angle brackets for the pooler's own long texts of SQL (`ABBREVIATIONS`).

===================  ===================================================================================================
frontend             ``Qtext``, ``Pname:text``, ``Pname:text[23,25]`` (parameter types), ``Bname``, ``Bportal=name``,
                     ``Bname(7)`` (a parameter, all bytes ``x``, so long), ``Eportal``, ``Eportal/2`` (rows),
                     ``DSname``, ``DPname``, ``CSname``, ``CPname``, ``F2078`` (function), ``S``, ``H``, ``X``, ``c``,
                     ``d5``, ``f``
backend              ``1``, ``2``, ``3``, ``n``, ``s``, ``I``, ``G``, ``t``, ``T``, ``Da,b`` (a row; ``-`` for null),
                     ``CSELECT 1``, ``Z``, ``ZT``, ``ZE``, ``E42601 text``, ``E42601 text {hint} @Routine``, ``Ntext``,
                     ``Achannel``, ``Sname=value``, ``V``, and for a FATAL error ``!57P01 text``
both                 ``\x00ff``: anything else
===================  ===================================================================================================
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import struct
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from hyperpool.config import SessionState
from hyperpool.pool.handover import ServerReady
from hyperpool.pool.state import Pool
from hyperpool.relay import catalog, rewriting, session
from hyperpool.relay.handover import ClientReady
from hyperpool.relay.options import RelayOptions
from hyperpool.relay.parameters import ParameterTracker
from hyperpool.relay.translate import Translator
from hyperpool.wire import messages
from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame, split_frames
from tests.support.relaypeers import make_pair
from tests.support.relayworld import POOL, WELCOME, Clock, WatchedRelay, memory_used, open_descriptors

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from hyperpool.relay.client import ClientConnection
    from hyperpool.relay.handover import RelayPool
    from hyperpool.relay.parameters import ParameterSet
    from hyperpool.relay.server import ServerConnection

REPORTED: Final = {"application_name": "", "client_encoding": "UTF8", "TimeZone": "UTC"}
"""What a server reports at login."""

ABBREVIATIONS: Final = {
    "<refusal>": rewriting.REFUSAL.decode(),
    "<pins>": "SELECT " + ",".join(session._TRUTHS.values()),
    "<settings>": session._ALL_SETTINGS,
    "<catalog>": catalog.CATALOG_QUERY,
    "<begin>": "SET TRANSACTION ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE",
    "<no timeout>": "SELECT 'statement_timeout', pg_catalog.current_setting('statement_timeout'), NULL;"
    "SET LOCAL statement_timeout = 0",
}
"""The pooler's own texts; what is in them is tested where they are made."""

_ABBREVIATION: Final = re.compile("|".join(map(re.escape, ABBREVIATIONS)))
_LONG: Final = re.compile("|".join(map(re.escape, ABBREVIATIONS.values())))
_SHORT: Final = {text: name for name, text in ABBREVIATIONS.items()}
_PARSE: Final = re.compile(r"([^:]*):(.*?)(?:\[([\d,]+)\])?", re.DOTALL)
_BIND: Final = re.compile(r"(?:([^=]*)=)?([^(]*)(?:\((\d+)\))?")


def _expand(text: str) -> bytes:
    text = text.replace("~", "HYPERPOOL_")
    return _ABBREVIATION.sub(lambda found: ABBREVIATIONS[found[0]], text).encode()


def _shorten(data: bytes) -> str:
    text = data.decode()
    return _LONG.sub(lambda found: _SHORT[found[0]], text).replace("HYPERPOOL_", "~")


# -- what clients send ---------------------------------------------------------------------------------------------


def requests(spelling: str) -> bytes:
    """Write frontend messages."""
    return b"".join(map(_request, spelling.split("|"))) if spelling else b""


def _request(word: str) -> bytes:
    if word.startswith("\\x"):
        return bytes.fromhex(word[2:])
    kind, rest = word[0], word[1:]
    if kind == "P":
        return _write_parse(rest)
    if kind == "B":
        return _write_bind(rest)
    if kind == "E":
        portal, _, limit = rest.partition("/")
        return frame(b"E", _expand(portal) + b"\0" + struct.pack("!i", int(limit or 0)))
    if kind == "F":
        return frame(b"F", struct.pack("!IHHH", int(rest), 0, 0, 0))
    if kind == "d":
        return pp.copy_data(int(rest))
    if kind in "QDCf":
        return frame(kind.encode(), _expand(rest) + b"\0")
    return frame(kind.encode(), rest.encode())


def _write_parse(rest: str) -> bytes:
    found = _PARSE.fullmatch(rest)
    assert found, rest
    types = [int(oid) for oid in (found[3] or "").split(",") if oid]
    body = _expand(found[1]) + b"\0" + _expand(found[2]) + b"\0"
    return frame(b"P", body + struct.pack(f"!H{len(types)}I", len(types), *types))


def _write_bind(rest: str) -> bytes:
    found = _BIND.fullmatch(rest)
    assert found, rest
    names = _expand(found[1] or "") + b"\0" + _expand(found[2]) + b"\0"
    if found[3] is None:
        return frame(b"B", names + bytes(6))
    size = int(found[3])
    return frame(b"B", names + struct.pack("!HHi", 0, 1, size) + b"x" * size + bytes(2))


def spell_requests(data: bytes) -> str:
    """Spell frontend messages; what is no whole message stands at the end, as it is."""
    return _spell(data, _spell_request, _request)


def _spell_request(one: bytes) -> str:
    kind, body = chr(one[0]), one[5:]
    parts = body.split(b"\0")
    if kind == "P":
        name, text = parts[:2]
        (count,) = struct.unpack_from("!H", body, len(name) + len(text) + 2)
        types = struct.unpack_from(f"!{count}I", body, len(name) + len(text) + 4)
        suffix = f"[{','.join(map(str, types))}]" if types else ""
        return f"P{_shorten(name)}:{_shorten(text)}{suffix}"
    if kind == "B":
        portal, name = parts[:2]
        size = len(body) - len(portal) - len(name) - 12
        parameter = f"({size})" if size >= 0 else ""
        return "B" + (_shorten(portal) + "=" if portal else "") + _shorten(name) + parameter
    if kind == "E":
        limit = int.from_bytes(body[-4:])
        return "E" + _shorten(parts[0]) + (f"/{limit}" if limit else "")
    if kind == "F":
        return f"F{int.from_bytes(body[:4])}"
    if kind == "d":
        return f"d{len(body)}"
    return kind + _shorten(parts[0])


# -- what servers send ---------------------------------------------------------------------------------------------

_BODIES: Final = {"t": bytes(2), "T": b"\0\1column\0" + bytes(18), "G": bytes(3), "V": b"\xff" * 4}
_FIELDS: Final = re.compile(r"(\w{5}) (.*?)(?: \{(.*)\})?(?: @(\w+))?", re.DOTALL)


def answers(spelling: str) -> bytes:
    """Write backend messages."""
    return b"".join(map(_answer, spelling.split("|"))) if spelling else b""


def _answer(word: str) -> bytes:
    if word.startswith("\\x"):
        return bytes.fromhex(word[2:])
    kind, rest = word[0], word[1:]
    if kind == "Z":
        return frame(b"Z", rest.encode() or b"I")
    if kind in "E!":
        return _write_error(kind, rest)
    if kind == "N":
        return frame(b"N", b"SNOTICE\0VNOTICE\0C01000\0M" + _expand(rest) + b"\0\0")
    if kind == "A":
        return frame(b"A", struct.pack("!I", 1) + rest.encode() + b"\0\0")
    if kind == "D":
        values = [None if value == "-" else value.encode() for value in rest.split(",")]
        cells = (b"\xff" * 4 if one is None else struct.pack("!i", len(one)) + one for one in values)
        return frame(b"D", struct.pack("!H", len(values)) + b"".join(cells))
    if kind == "S":
        name, _, value = rest.partition("=")
        return messages.parameter_status(name, value)
    if kind == "C":
        return frame(b"C", rest.encode() + b"\0")
    return frame(kind.encode(), _BODIES.get(kind, b"") + rest.encode())


def _write_error(kind: str, rest: str) -> bytes:
    found = _FIELDS.fullmatch(rest)
    assert found, rest
    severity = b"FATAL" if kind == "!" else b"ERROR"
    hint = b"H" + _expand(found[3]) + b"\0" if found[3] else b""
    routine = b"R" + found[4].encode() + b"\0" if found[4] else b""
    fields = (b"S" + severity, b"V" + severity, b"C" + found[1].encode(), b"M" + _expand(found[2]))
    return frame(b"E", b"\0".join(fields) + b"\0" + hint + routine + b"\0")


def spell_answers(data: bytes) -> str:
    """Spell backend messages; what is no whole message stands at the end, as it is."""
    return _spell(data, _spell_answer, _answer)


def _spell_answer(one: bytes) -> str:
    kind, body = chr(one[0]), one[5:]
    if kind == "Z":
        return "Z" + body.decode().replace("I", "")
    if kind in "EN":
        fields = {part[:1].decode(): part[1:] for part in body.split(b"\0") if part}
        text = _shorten(fields["M"])
        if kind == "N":
            return "N" + text
        hint = " {" + _shorten(fields["H"]) + "}" if "H" in fields else ""
        routine = f" @{fields['R'].decode()}" if "R" in fields else ""
        return ("!" if fields["V"] == b"FATAL" else "E") + f"{fields['C'].decode()} {text}{hint}{routine}"
    if kind == "A":
        return "A" + body[4:].partition(b"\0")[0].decode()
    if kind == "D":
        return "D" + ",".join(_cells(body))
    if kind == "S":
        return "S{}={}".format(*messages.parameter_status_fields(body))
    if kind == "C":
        return "C" + body[:-1].decode()
    return kind


def _cells(body: bytes) -> Iterator[str]:
    at = 2
    while at < len(body):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        yield "-" if size < 0 else body[at : at + size].decode()
        at += max(size, 0)


def _spell(data: bytes, spell: Callable[[bytes], str], write: Callable[[str], bytes]) -> str:
    frames, rest = split_frames(data)
    words = []
    for one in frames:
        word = ""
        with contextlib.suppress(ValueError, KeyError, struct.error, AssertionError):
            word = spell(one)
            if write(word) != one:
                word = ""
        words.append(word or "\\x" + one.hex())
    return "|".join([*words, *(["\\x" + rest.hex()] if rest else [])])


# -- the stage -----------------------------------------------------------------------------------------------------


class Actor:
    """A client or a server: the test's end of its connection.

    Attributes:
        sock: the test's end.
        got: what it has received since the last look.
        closed: the relay has closed it.
        told: and the script knows.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got = b""
        self.closed = False
        self.told = False

    def receive(self) -> bool:
        """Take what has come. Returns whether there was anything."""
        before = len(self.got)
        while not self.closed:
            try:
                chunk = self.sock.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            self.got += chunk
            self.closed = not chunk
        return len(self.got) > before

    def take(self) -> tuple[bytes, bool]:
        """What it has received since the last look, and whether it has been closed since."""
        self.receive()
        got, self.got = self.got, b""
        end, self.told = self.closed and not self.told, self.closed
        return got, end


def whole(data: bytes) -> list[bytes]:
    """All at once."""
    return [data]


def pieces_of(size: int) -> Callable[[bytes], list[bytes]]:
    """In pieces of so many bytes."""
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def cut_at(at: int) -> Callable[[bytes], list[bytes]]:
    """In two pieces."""
    return lambda data: [part for part in (data[:at], data[at:]) if part]


class Stage:
    """A relay with one pool.

    Args:
        buffer: the relay's, in bytes.
        functions: names that the database gives when it is asked which functions change session state.
        memory: ``max_prepared_memory``.
        pool: settings of the pool that are not those of `relayworld.POOL`.

    Attributes:
        split: cuts what clients send into what the relay reads at once.
    """

    def __init__(
        self, *, buffer: int = 512, functions: tuple[str, ...] = (), memory: int = 1 << 20, **pool: Any
    ) -> None:
        self._descriptors = open_descriptors()
        self.clock = Clock()
        options = RelayOptions(
            buffer=buffer,
            linger=0.0,
            slice=60.0,
            max_packet_size=100_000,
            max_prepared_memory=memory,
            log_connections=False,
            log_disconnections=False,
        )
        self.relay = WatchedRelay(options, ParameterTracker(), self.clock)
        self.pool: RelayPool = Pool(attrs.evolve(POOL, **{"pool_size": 1, **pool}), lambda: 0.5)
        self.split: Callable[[bytes], list[bytes]] = whole
        self._functions = functions
        self._actors: dict[str, Actor] = {}
        self._numbers = itertools.count(1)

    def client(self, name: str) -> ClientConnection:
        """The relay's end of a client."""
        (found,) = (conn for conn in self.relay.clients.values() if conn.address == name)
        return found

    def server(self, name: str) -> ServerConnection:
        """The relay's end of a server."""
        (found,) = (conn for conn in self.pool.servers if f"s{conn.pid}" == name)
        return found

    # -- scripts -----------------------------------------------------------------------------------------------------

    def play(self, script: str) -> None:
        """Do what the script says, and hold what it claims."""
        done = ""
        for line in filter(None, map(str.strip, script.splitlines())):
            done += line + "\n"
            name, verb, what = (*line.split(" ", 2), "")[:3]
            if name == "wait":
                self.wait(float(verb))
            elif verb == ">":
                self._send(name, what)
            elif verb == "<":
                got = self.take(name)
                assert got == what, f"{done}but {name} has received {got}"
            elif verb in {"comes", "proves"}:
                self._come(name, what, proven=verb == "comes")
            else:
                assert verb in {"leaves", "dies"}, line
                self._actors.pop(name).sock.close()
                self.turn()
        self.check(done)

    def take(self, name: str) -> str:
        """What somebody has received since the last look."""
        data, end = self._actors[name].take()
        spelt = spell_requests(data) if name[0] == "s" else spell_answers(data)
        return "|".join(filter(None, (spelt, "END" * end)))

    def _send(self, name: str, what: str) -> None:
        if name not in self._actors:
            self._come(name, "", proven=True)
        sock = self._actors[name].sock
        if name[0] == "s":
            sock.sendall(answers(what))
            self.turn()
            return
        for part in self.split(requests(what)):
            sock.sendall(part)
            self.turn()

    def _come(self, name: str, parameters: str, *, proven: bool) -> None:
        """A client has logged in."""
        wanted = dict(one.split("=", 1) for one in parameters.split(";") if one)
        inner, outer = make_pair(small=False)
        self._actors[name] = Actor(outer)
        pid, secret = self.relay.reserve_key()
        tracked = self.relay.tracker.with_settings(self.relay.tracker.intern(REPORTED), wanted)
        welcome, greet = (WELCOME, None) if proven else (b"", _greet)
        self.relay.adopt_client(
            ClientReady(inner, self.pool, tracked, pid, secret, welcome, b"", name, greet)
        )
        self.turn()
        if proven:
            assert self.take(name) == "Z"

    def wait(self, seconds: float) -> None:
        """Time passes, and the relay's timers look."""
        self.clock.now += seconds
        self.relay.sweep(iter([self.pool]))
        self.turn()

    def turn(self) -> None:
        """The relay handles events, and gets the servers that it wants; everybody takes what comes."""
        while True:
            self.relay.turn()
            took = [actor.receive() for actor in self._actors.values()]
            if self.pool.missing(self.clock()):
                self._arrive()
            elif not any(took):
                return

    def _arrive(self) -> None:
        asks = self.pool.reader is not None and not self.pool.catalog_due
        outer = self.arrive()
        if asks and self.pool.settings.session_state is not SessionState.KEEP:
            data = outer.recv(1 << 20)
            assert spell_requests(data) == "Q<catalog>"
            rows = "".join(f"D{name},-|" for name in self._functions)
            outer.sendall(answers(f"T|{rows}CSELECT {len(self._functions)}|Z"))

    def arrive(self) -> socket.socket:
        """A server comes, and answers nothing yet. Returns the test's end of its connection."""
        inner, outer = make_pair(small=False)
        number = next(self._numbers)
        self._actors[f"s{number}"] = Actor(outer)
        self.pool.dialing += 1
        ready = ServerReady(inner, self.pool, self.pool.generation, dict(REPORTED), number, b"secret", 0.0)
        self.relay.adopt_server(ready)
        return outer

    # -- what must be true -------------------------------------------------------------------------------------------

    def check(self, done: str = "") -> None:
        """Nobody has received what was not said, and everything is consistent."""
        for name in self._actors:
            got = self.take(name)
            assert not got, f"{done}and then {name} has received {got}"
        relay, pool = self.relay, self.pool
        assert not relay.translator._pieces, f"{done}and then pieces are left for somebody else"
        kept = [client.statements for client in relay.clients.values() if client.statements is not None]
        assert relay.budget.used == memory_used(relay, pool)
        for statements in kept:
            assert {name: one for one, name in statements.holders.items()} == statements.names
        assert pool.pinned == sum(bool(conn.pinned) for conn in pool.servers)
        for conn in pool.servers:
            changing = [entry for entry in conn.ledger.entries if entry & 0xFF in b"PC"]
            assert len(conn.ledger.changes) == len(changing)
            assert not conn.ledger.undone
            assert conn.statements.certain <= set(conn.statements._used)
            assert (conn in pool.idle) + (conn in pool.conditioning) + (conn.client is not None) == 1
            assert conn not in pool.idle or (conn.ledger.clean and conn.suspicion is None and not conn.pinned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Close everything; if all went well, see that nothing is left."""
        self._close()
        if kind is None:
            self.relay.translator = Translator(self.clock)  # It remembers whom it has worked for.
            if self.relay.budget.used:
                gc.collect()
            assert self.relay.budget.used == 0
            assert open_descriptors() == self._descriptors, "file descriptors have leaked"

    def _close(self) -> None:
        self.relay.shut_down(iter([self.pool]), "the test ends")
        self.relay.turn()
        for actor in self._actors.values():
            actor.sock.close()
        for conn in list(self.relay.transients):
            conn.lost("the test ends")
        self.relay.close()


def _greet(made: ParameterSet) -> bytes:
    """The end of a login: what the server has made of the parameters."""
    return b"".join(messages.parameter_status(*pair) for pair in made.values.items()) + WELCOME


def play(script: str, *, split: Callable[[bytes], list[bytes]] = whole, **stage: Any) -> None:
    """Play a script on a new stage (see `Stage`)."""
    with Stage(**stage) as made:
        made.split = split
        made.play(script)


def play_in_pieces(script: str, **stage: Any) -> None:
    """Play a script again and again: what clients send at once is cut at every place, and into pieces of every size."""
    play(script, **stage)
    sent = [
        requests(line.split(" ", 2)[2])
        for line in map(str.strip, script.splitlines())
        if line[:4] in _CLIENTS
    ]
    for at in range(1, max(map(len, sent))):
        play(script, split=cut_at(at), **stage)
    for size in (1, 2, 3, 5, 7, 11):
        play(script, split=pieces_of(size), **stage)


_CLIENTS: Final = frozenset(f"c{number} >" for number in range(1, 10))
