"""A console client's conversation, byte by byte."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.admin.conversation import Conversation
from hyperpool.admin.outcomes import ConsoleError, Done, Waits
from hyperpool.admin.statements import Assignment, Command
from hyperpool.admin.tables import columns
from hyperpool.errors import ProtocolError
from hyperpool.wire import constants as wire
from hyperpool.wire import messages
from hyperpool.wire.text import cstring

if TYPE_CHECKING:
    from hyperpool.admin.outcomes import Outcome
    from hyperpool.admin.statements import Statement
    from hyperpool.admin.tables import Column

_SHAPE = columns("name size:int4")
_ROWS = (("a", 1), ("b", 2), ("c", None))


class _Executor:
    """Shows three rows, waits on PAUSE, and refuses FAIL."""

    def __init__(self) -> None:
        self.done: list[Statement] = []
        self.paused = True
        self.interrupted = 0

    def describe(self, statement: Statement) -> tuple[Column, ...] | None:
        """Of SHOW alone."""
        return _SHAPE if isinstance(statement, Command) and statement.verb == "show" else None

    def execute(self, statement: Statement) -> Outcome:
        """Write it down."""
        self.done.append(statement)
        verb = statement.verb if isinstance(statement, Command) else ""
        if verb == "show":
            return Done("SHOW", _SHAPE, _ROWS, notice="look")
        if verb == "fail":
            raise ConsoleError("failed", "08P01", "why", "what now")
        if verb == "pause":
            return Waits("PAUSE", lambda: not self.paused, self._interrupt)
        return Done("" if verb == "shutdown" else "DONE")

    def _interrupt(self) -> None:
        self.interrupted += 1


def _parse(text: str, name: str = "", *oids: int) -> bytes:
    body = cstring(name) + cstring(text) + struct.pack(f"!h{len(oids)}I", len(oids), *oids)
    return messages.frame(wire.PARSE, body)


def _bind(
    *values: bytes | None, statement: str = "", portal: str = "", binary: bool = False, results: str = ""
) -> bytes:
    body = cstring(portal) + cstring(statement)
    body += struct.pack("!hh", 1, 1) if binary else struct.pack("!h", 0)
    body += struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    formats = [int(one) for one in results]
    return messages.frame(wire.BIND, body + struct.pack(f"!h{len(formats)}h", len(formats), *formats))


def _describe(kind: str, name: str = "") -> bytes:
    return messages.frame(wire.DESCRIBE, kind.encode() + cstring(name))


def _execute(limit: int = 0, portal: str = "") -> bytes:
    return messages.frame(wire.EXECUTE, cstring(portal) + struct.pack("!i", limit))


def _spell(data: bytes) -> str:
    """The types of the messages, with what matters in them."""
    words = []
    while data:
        kind, length = struct.unpack_from("!cI", data)
        body, data = data[5 : length + 1], data[length + 1 :]
        word = kind.decode()
        if word in "EN":
            word += messages.error_fields(body)["C"] if word == "E" else ""
        elif word in "CZ":
            word += body.rstrip(b"\0").decode()
        words.append(word)
    return " ".join(words)


@pytest.fixture
def executor() -> _Executor:
    """What executes statements."""
    return _Executor()


@pytest.fixture
def talk(executor: _Executor) -> Conversation:
    """A conversation with it."""
    return Conversation(executor)


def test_simple_queries(talk: Conversation) -> None:
    """One after the other, in one piece."""
    sent = (
        messages.query("SHOW x") + messages.query("fail") + messages.query("") + messages.query("SET a = b")
    )
    assert _spell(talk.receive(sent)) == "N T D D D CSHOW ZI E08P01 ZI I ZI CDONE ZI"


def test_what_is_no_statement(talk: Conversation, executor: _Executor) -> None:
    """It is refused without being executed."""
    answer = talk.receive(messages.query("select 1 + 1"))
    assert _spell(answer) == "E08P01 ZI"
    assert b"Minvalid command 'select 1 + 1', use SHOW HELP;\0" in answer
    assert not executor.done


def test_an_extended_query(talk: Conversation) -> None:
    """As drivers send it: all at once, with the description of the statement or of the portal."""
    whole = _parse("SHOW x") + _bind() + _describe("P") + _execute() + messages.SYNC
    assert _spell(talk.receive(whole)) == "1 2 T N D D D CSHOW ZI"
    assert _spell(talk.receive(_parse("SHOW x", "s") + _describe("S", "s") + messages.SYNC)) == "1 t T ZI"
    again = _bind(statement="s", results="01") + _execute() + messages.SYNC
    assert b"\0\0\0\x01b\0\0\0\x04\0\0\0\x02" in talk.receive(again)
    assert _spell(talk.receive(_parse("reload") + _describe("S") + _bind() + _execute() + messages.SYNC)) == (
        "1 t n 2 CDONE ZI"
    )


def test_parameters(talk: Conversation, executor: _Executor) -> None:
    """As text, or as integers in binary."""
    talk.receive(
        _parse("KILL_CLIENT $1", "", 23)
        + _bind(struct.pack("!i", 7), binary=True)
        + _execute()
        + messages.SYNC
    )
    talk.receive(_parse("SET a = $1") + _bind(b"x") + _execute() + messages.SYNC)
    assert executor.done == [Command("kill_client", "7"), Assignment("a", "x")]
    described = talk.receive(_parse("SET a = $2") + _describe("S") + messages.SYNC)
    assert b"t\0\0\0\x0e\0\x02\0\0\0\x19\0\0\0\x19" in described


@pytest.mark.parametrize(
    ("sent", "sqlstate"),
    [
        (_parse("PAUSE $1") + _bind(), "08P01"),
        (_parse("PAUSE $1") + _bind(None), "22004"),
        (_parse("PAUSE $1", "", 701) + _bind(bytes(8), binary=True), "0A000"),
        (_parse("SHOW x") + _bind(results="000"), "08P01"),
        (_parse("SHOW x y"), "08P01"),
        (_parse("SHOW x", "s") + _parse("SHOW x", "s"), "42P05"),
        (_bind(statement="none"), "26000"),
        (_describe("S", "none"), "26000"),
        (_describe("P", "none"), "34000"),
        (_execute(portal="none"), "34000"),
    ],
)
def test_an_error_skips_up_to_sync(talk: Conversation, sent: bytes, sqlstate: str) -> None:
    """As in PostgreSQL; then everything goes on."""
    answer = _spell(talk.receive(sent + _parse("reload") + _bind() + _execute() + messages.SYNC))
    assert answer.split()[-2:] == [f"E{sqlstate}", "ZI"]
    assert _spell(talk.receive(messages.query("reload"))) == "CDONE ZI"


def test_rows_in_portions(talk: Conversation) -> None:
    """A portal goes on where it stopped, and does not execute again."""
    sent = _parse("SHOW x") + _bind() + _execute(2) + _execute(2) + _execute(2) + messages.SYNC
    assert _spell(talk.receive(sent)) == "1 2 N D D s D CSHOW CSHOW ZI"
    assert _spell(talk.receive(_execute() + messages.SYNC)) == "E34000 ZI"


def _kept(talk: Conversation, name: str) -> int:
    """How many rows a portal that has been executed keeps."""
    done = talk._portals[name].done
    assert done is not None
    return len(done.rows)


def test_rows_are_not_kept_for_nobody(talk: Conversation) -> None:
    """Once all have been sent, they are gone; and portals that hold some have a bound."""
    begin = messages.query("BEGIN")
    talk.receive(begin + _parse("SHOW x", "s"))
    assert _spell(talk.receive(_bind(statement="s", portal="p") + _execute(2, "p"))) == "2 N D D s"
    assert _kept(talk, "p") == 3
    assert _spell(talk.receive(_execute(2, "p") + _execute(2, "p"))) == "D CSHOW CSHOW"
    assert _kept(talk, "p") == 0
    for number in range(200):
        talk.receive(_bind(statement="s", portal=f"p{number}"))
    assert len(talk._portals) == 100


def test_close(talk: Conversation) -> None:
    """What is closed is gone; to close what is not there is no error."""
    close = messages.frame(wire.CLOSE, b"Ss\0") + messages.frame(wire.CLOSE, b"Pp\0")
    sent = (
        _parse("SHOW x", "s")
        + _bind(statement="s", portal="p")
        + close
        + _execute(portal="p")
        + messages.SYNC
    )
    assert _spell(talk.receive(sent)) == "1 2 3 3 E34000 ZI"


def test_transactions_that_drivers_begin(talk: Conversation) -> None:
    """They change nothing but what ReadyForQuery says."""
    asked = ("BEGIN", "reload", "fail", "reload", "COMMIT", "BEGIN", "COMMIT", "ROLLBACK")
    answers = [_spell(talk.receive(messages.query(text))) for text in asked]
    assert answers == [
        *("CBEGIN ZT", "CDONE ZT", "E08P01 ZE", "E25P02 ZE", "CROLLBACK ZI"),
        *("CBEGIN ZT", "CCOMMIT ZI", "CROLLBACK ZI"),
    ]


def test_a_statement_that_takes_time(talk: Conversation, executor: _Executor) -> None:
    """What is sent behind it waits for it."""
    assert talk.receive(messages.query("PAUSE") + messages.query("reload")) == b""
    assert talk.poll() == b""
    executor.paused = False
    assert _spell(talk.poll()) == "CPAUSE ZI CDONE ZI"
    assert talk.waits is None
    executor.paused = True
    assert _spell(talk.receive(_parse("PAUSE") + _bind() + _execute() + messages.SYNC)) == "1 2"
    executor.paused = False
    assert _spell(talk.poll()) == "CPAUSE ZI"


def test_a_statement_that_is_canceled(talk: Conversation, executor: _Executor) -> None:
    """It fails, in either protocol; one that is over cannot be canceled."""
    talk.receive(messages.query("PAUSE"))
    assert _spell(talk.interrupt()) == "E57014 ZI"
    assert _spell(talk.receive(_parse("PAUSE") + _bind() + _execute() + messages.SYNC)) == "1 2"
    assert _spell(talk.interrupt()) == "E57014 ZI"
    assert talk.interrupt() == b""
    assert executor.interrupted == 2


def test_the_last_statement_is_not_answered(talk: Conversation) -> None:
    """The end of the connection says that the pooler has ended."""
    assert talk.receive(messages.query("SHUTDOWN")) == b""


def test_goodbye(talk: Conversation) -> None:
    """Nothing behind it is handled."""
    assert talk.receive(messages.TERMINATE + messages.query("reload")) == b""
    assert talk.ended


@pytest.mark.parametrize(
    "sent",
    [
        b"Q\0\0\0\x07abc",
        b"Q\0\0\0\x08a\0b\0",
        b"P\0\0\0\x06a\0",
        b"B\0\0\0\x08\0\0\0\x01",
        b"D\0\0\0\x06X\0",
        b"D\0\0\0\x04",
        b"E\0\0\0\x05\0",
        b"F\0\0\0\x04",
        b"Q\x7f\xff\xff\xff",
        b"Q\0\0\0\x03",
    ],
)
def test_broken_messages(talk: Conversation, sent: bytes) -> None:
    """They end the conversation."""
    with pytest.raises(ProtocolError):
        talk.receive(sent)


@given(st.lists(st.tuples(st.sampled_from(b"QPBDECSHXF"), st.binary(max_size=40))), st.data())
def test_any_bytes(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """They are answered, or break the protocol; in whatever pieces they come."""
    sent = b"".join(messages.frame(kind, body) for kind, body in frames)
    cut = data.draw(st.integers(0, len(sent)))

    def answer(*pieces: bytes) -> bytes | str:
        talk = Conversation(_Executor())
        try:
            return b"".join(map(talk.receive, pieces))
        except ProtocolError as error:
            return str(error)

    assert isinstance(answer(sent), str) == isinstance(answer(sent[:cut], sent[cut:]), str)
