"""The model of PostgreSQL answers as PostgreSQL does: the oracle of the relay's tests is itself tested here."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support import pgpipelines as pp
from tests.support.pglanguage import (
    error_code,
    frame,
    parse_assignment,
    split_frames,
    split_statements,
    text_of,
    verb_of,
)
from tests.support.pgmodel import Backend
from tests.support.postgres import TRUDY
from tests.support.rawclient import RawClient

if TYPE_CHECKING:
    from tests.support.postgres import PostgresCluster

_MARK = pp.query("show pooler_test_end")
_END = "42704"


def _summary(frames: list[bytes]) -> str:
    """What matters of an answer: types, with the status of Z, the code of E and N, and the name in S."""
    words = []
    for one in frames:
        kind = one[:1].decode()
        if kind == "Z":
            kind += one[5:].decode()
        elif kind in "EN":
            kind += error_code(one)
        elif kind == "S":
            kind += text_of(one[5:])
        words.append(kind)
    runs = itertools.groupby(words, lambda word: word[0] == "S")
    # Parameters that change together are reported in an order that depends on the version of PostgreSQL.
    return " ".join(word for statuses, run in runs for word in (sorted(run) if statuses else run))


def _ask(*parts: str) -> str:
    """What the model answers to messages in the notation of `pgpipelines`; ``|`` in the answer parts the parts."""
    backend = Backend()
    tags = map("t{}".format, itertools.count())
    answers = []
    for part in parts:
        backend.output.clear()
        backend.receive(pp.render([tuple(part.split("|"))], lambda: next(tags)))
        answers.append(_summary(split_frames(bytes(backend.output))[0]) + " closed" * backend.ended)
    return " / ".join(answers)


_GOLDEN: list[tuple[list[str], str]] = [
    (["Qrows 2 5 $"], "T D D C ZI"),
    (["Q;;", "Qrows 0 5 $;"], "I ZI / T C ZI"),
    (
        ["Qbegin;error $;commit", "Qrows 1 1 $", "Qcommit;rows 0 1 $"],
        "C EP0001 ZE / E25P02 ZE / C T C ZI",
    ),
    (["Qcommit;begin;begin"], "N25P01 C C N25001 C ZT"),
    (["Qdeferred $", "Qbegin;deferred $;commit;rows 0 1 $"], "E23503 ZI / C C E23503 ZI"),
    (["P:deferred $|B|E|S"], "1 2 C E23503 ZI"),
    (["P:syntax $|Qrows 1 1 $|S|Qrows 0 1 $"], "E42601 ZI T C ZI"),
    (["P:rows 1 1 $|B|E|H", "Qrows 0 1 $", "S"], "1 2 D C / T C ZI / ZI"),
    (["P:rows 1 1 $|B|E|Qerror $|P:rows 0 1 $|B|E|S"], "1 2 D C EP0001 ZI 1 2 C ZI"),
    (["P:rows 3 1 $|B|E2|E2|E2|S"], "1 2 D D s D C C ZI"),
    (["P:|B|E|S", "P:begin;begin|S"], "1 2 I ZI / E42601 ZI"),
    (
        ["Pa:rows 1 1 $|DSa|Ba|DP|CSa|S", "DSa|S", "Ba|S", "E|S"],
        "1 t T 2 T 3 ZI / E26000 ZI / E26000 ZI / E34000 ZI",
    ),
    # the unnamed statement: a Parse that fails has dropped it, as has a Query; what is discarded has not
    (["P:rows 0 1 $|S", "P:syntax $|S", "B|S"], "1 ZI / E42601 ZI / E26000 ZI"),
    (["P:rows 0 1 $|S", "Qsyntax $", "B|S"], "1 ZI / E42601 ZI / E26000 ZI"),
    (["P:rows 0 1 $|S", "Q", "B|S"], "1 ZI / I ZI / E26000 ZI"),
    (["P:rows 0 1 $|S", "Bx|P:syntax $|Qrows 0 1 $|S", "B|E|S"], "1 ZI / E26000 ZI / 2 C ZI"),
    (["P:rows 0 1 $|S", "F2$", "B|E|S"], "1 ZI / V ZI / 2 C ZI"),
    (
        ["P:rows 0 1 $|S", "Qbegin", "P:rows 0 1 $|S", "Qerror $", "P:rows 0 1 $|S", "Qrollback", "B|S"],
        "1 ZI / C ZT / 1 ZT / EP0001 ZE / E25P02 ZE / C ZI / E26000 ZI",
    ),
    # named statements: a name that is taken, in which order errors are noticed, and what a rollback leaves
    (["Pa:rows 0 1 $|S", "Pa:rows 0 1 $|S", "Ba|E|S"], "1 ZI / E42P05 ZI / 2 C ZI"),
    (["Pa:rows 0 1 $|S", "Pa:syntax $|S"], "1 ZI / E42601 ZI"),
    (
        ["Pa:rows 0 1 $|S", "Qbegin;error $", "Pa:rows 0 1 $|S", "Pa:commit|S"],
        "1 ZI / C EP0001 ZE / E25P02 ZE / E42P05 ZE",
    ),
    (["Qbegin", "Pa:rows 0 1 $|S", "Qrollback", "Ba|E|S"], "C ZT / 1 ZT / C ZI / 2 C ZI"),
    (
        ["Pa:begin|Ba|E|Pb:error $|Bb|E|S", "Ba|S", "DSa|S", "Pc:rollback|Bc|E|S"],
        "1 2 C 1 2 EP0001 ZE / E25P02 ZE / t n ZE / 1 2 C ZI",
    ),
    (["Pa:rows 0 1 $|S", "Bx|CSa|S", "CSa|CSa|S", "Ba|S"], "1 ZI / E26000 ZI / 3 3 ZI / E26000 ZI"),
    (["Pa:rows 0 1 $|P:rows 0 1 $|Qdeallocate all", "Ba|S", "S"], "1 1 C ZI / E26000 ZI / ZI"),
    (["P:deallocate all|Pa:rows 0 1 $|B|E|Ba|S", "B|E|S"], "1 1 2 C E26000 ZI / 2 C ZI"),
    (
        ["Pa:rows 0 1 $|S", "Qbegin;deallocate all", "Qrollback", "Ba|S"],
        "1 ZI / C C ZT / C ZI / E26000 ZI",
    ),
    (["P:begin|B|E|E|S"], "1 2 C E55000 ZE"),
    (["P:copyin $|B|E|S", "d3|c|S"], "1 2 G / C ZI"),
    (["P:copyin-late $|B|E|S", "d3|d3|c|S"], "1 2 G / E22P02 ZI"),
    (["P:copyin-early $|B|E|S", "d3|c|S"], "1 2 G E42809 ZI / ZI"),
    (["Qcopyin-early $", "d3|c"], "G E42809 ZI / "),
    (["Qcopyin $;rows 0 1 $", "f$", "Qcopyin $;rows 0 1 $", "c"], "G / E57014 ZI / G / C T C ZI"),
    (["Qcopyin $", "Qrows 1 1 $"], "G / E08P01 E08P01 closed"),
    (["Qcopyin $", "X"], "G / E08P01 E08P01 closed"),
    (["P:copyout 2 $|B|E|S"], "1 2 H d d c C ZI"),
    (
        ["Qset application_name = 'x'", "Qbegin;set application_name = 'y'", "Qrollback"],
        "C Sapplication_name ZI / C C Sapplication_name ZT / C Sapplication_name ZI",
    ),
    (["Qset application_name = 'x';error $"], "C EP0001 ZI"),
    (
        ["Qbegin;discard all", "Qrollback", "Qrows 0 1 $;discard all"],
        "C E25001 ZE / C ZI / T C E25001 ZI",
    ),
    (["S", "H", "c|f$|d3", "F2$", "F1$"], "ZI /  /  / V ZI / E42883 ZI"),
    (["P:syntax $|X"], "E42601 closed"),
    (["Qfatal $"], "EXX000 closed"),
]


@pytest.mark.parametrize(("messages", "answer"), _GOLDEN)
def test_the_model_answers_what_a_real_server_was_seen_to_answer(messages: list[str], answer: str) -> None:
    """Golden exchanges, taken down from PostgreSQL 15."""
    assert _ask(*messages) == answer


def test_a_statement_sleeps_until_woken_or_cancelled() -> None:
    """Nothing behind a sleeping statement is read; a cancel hits only what sleeps."""
    backend = Backend()
    assert not backend.cancel()
    backend.receive(pp.query("sleep a; sleep b") + pp.query("rows 0 1 c"))
    assert (backend.sleeping, bytes(backend.output)) == ("a", b"")
    backend.wake()
    assert backend.sleeping == "b"
    assert backend.cancel() == "b"
    assert _summary(split_frames(bytes(backend.output))[0]) == "C E57014 ZI T C ZI"


def _translate(one: bytes, zones: dict[str, str]) -> bytes:
    """A message of the model's language -> one that means the same to a real server."""
    kind, body = one[:1], one[5:]
    if kind == b"Q":
        text = ";".join(_sql(sql, zones) for sql in split_statements(text_of(body)))
        return pp.query(text)
    if kind == b"P":
        name, sql = (part.decode() for part in body.split(b"\0")[:2])
        return pp.parse(";".join(_sql(part, zones) for part in split_statements(sql)), name)
    if kind == b"F":
        function = 1 if int.from_bytes(body[:4]) % 2 else 2026  # pg_backend_pid()
        return frame(b"F", function.to_bytes(4) + bytes(6))
    return one


def _sql(statement: str, zones: dict[str, str]) -> str:
    words = statement.split()
    verb = verb_of(statement)
    if verb == "rows":
        return f"select repeat('x', {words[2]}) from generate_series(1, {words[1]})"
    if verb == "copyout":
        return f"copy (select 'x' from generate_series(1, {words[1]})) to stdout"
    if verb == "set":
        name, value = parse_assignment(statement)
        if name == "TimeZone":
            value = zones.setdefault(value, f"Etc/GMT+{len(zones) + 1}")
        return f"set {name} = '{value}'"
    return _SQL.get(verb, statement)


_SQL = {
    "error": "do $$begin raise exception 'failed'; end$$",
    "notice": "do $$begin raise notice 'noted'; end$$",
    "syntax": "selec",
    "deferred": "insert into deferred values (nextval('numbers'), -1)",
    "sleep": "do $$begin end$$",
    "copyin": "copy texts from stdin",
    "copyin-late": "copy deferred from stdin",
    "copyin-early": "copy viewed from stdin",
    "fatal": "do $$begin perform pg_terminate_backend(pg_backend_pid()); end$$",
}

_SCHEMA = """
create table if not exists texts (line text);
create or replace view viewed as select 1 as one;
create table if not exists deferred (id int primary key, other int references deferred deferrable initially deferred);
create sequence if not exists numbers;
grant all on texts, viewed, deferred, numbers to public
"""


def _compare(pg: PostgresCluster, sent: bytes) -> None:
    """Hold the answers of the model to some requests against those of the server."""
    for statement in _SCHEMA.strip().split(";\n"):
        pg.sql(statement, dbname="app")
    model = Backend()
    model.receive(sent + pp.SYNC)
    while model.sleeping:
        model.wake()
    zones: dict[str, str] = {}
    requests = b"".join(_translate(one, zones) for one in split_frames(sent)[0])
    with RawClient(("127.0.0.1", pg.port)) as client:
        client.login("app", TRUDY.name)
        client.send(requests + pp.SYNC + pp.TERMINATE)
        frames = [frame(one.kind, one.body) for one in client.receive_all()]
    expected = _summary(split_frames(bytes(model.output))[0])
    assert _summary(frames) == re.sub("EXX000", "E57P01", expected)


def test_the_real_server_answers_the_golden_exchanges(pg: PostgresCluster) -> None:
    """What was seen once is seen again."""
    for messages, _ in _GOLDEN:
        tags = map("t{}".format, itertools.count())
        _compare(pg, pp.render([tuple("|".join(messages).split("|"))], lambda: next(tags)))  # noqa: B023 - at once


@settings(
    max_examples=settings().max_examples * 3 // 5, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pipeline=pp.pipelines(*pp.NAMED[:4], *pp.SHARED, *pp.ENDINGS, max_size=6))
def test_the_model_answers_random_pipelines_as_the_real_server(
    pg: PostgresCluster, pipeline: list[pp.Unit]
) -> None:
    """Message types, transaction status and SQLSTATEs are the same, whatever is sent."""
    tags = map("t{}".format, itertools.count())
    _compare(pg, pp.render(pipeline, lambda: next(tags)))
