"""Names that make a text suspicious, and texts whose effects are remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import pytest

from hyperpool.sql import effects as effects_module
from hyperpool.sql.effects import CAPACITY, EVERYTHING, LONGEST, EffectReader, Effects, Pin
from hyperpool.sql.names import Names
from hyperpool.sql.tree import TreeReader

if TYPE_CHECKING:
    from collections.abc import Callable

_FUNCTION: Final = Effects(pins=Pin.FUNCTION)
_SETS_A: Final = Effects(settings=frozenset("a"), sets=frozenset("a"))
_MANY: Final = tuple(f"function_{number}" for number in range(100))


def _reader(pinning: tuple[str, ...] = (), stateful: tuple[str, ...] = ()) -> EffectReader:
    reader = EffectReader(pinning)
    reader.learn(stateful)
    return reader


# -- stateful names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), _MANY], ids=["alone", "among many"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT Set_Tenant(1)",
        'SELECT public."set_tenant" (1)',
        "SELECT x.set_tenant FROM x",
        "INSERT INTO set_tenant VALUES (1)",
        "TRUNCATE set_tenant;",
        "SELECT 1; DELETE FROM set_tenant",
        "SELECT '1'::set_tenant",
        "SELECT query('SELECT set_tenant(1)')",
        "SELECT/**/set_tenant(1)",
        "SELECT 1+set_tenant(1)",
        "SELECT $1,set_tenant($2)",
    ],
)
def test_the_mention_of_a_stateful_name_may_do_everything(text: str, others: tuple[str, ...]) -> None:
    """Functions and relations alike, wherever they stand."""
    assert _reader(stateful=(*others, "Set_Tenant")).read(text.encode()) == EVERYTHING


@pytest.mark.parametrize("others", [(), _MANY], ids=["alone", "among many"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT reset_tenant(1)",
        "SELECT set_tenants(1)",
        "SELECT set_tenant$(1)",
        "SELECT set_tenant\u00e9(1)",
        "SELECT \u00e9set_tenant(1)",
        "NOTIFY set_tenant",
        "SAVEPOINT set_tenant",
    ],
)
def test_other_words_are_no_mention(text: str, others: tuple[str, ...]) -> None:
    """A name counts as a whole word, in a statement that can execute something."""
    assert _reader(stateful=(*others, "set_tenant")).read(text.encode()) is None


def test_stateful_names_in_what_is_parsed() -> None:
    """The mention adds to what the text does anyway."""
    reader = _reader(stateful=("f",))
    assert reader.read(b"DEALLOCATE a; SELECT f()") == attrs.evolve(EVERYTHING, deallocates=(b"a",))
    assert reader.read(b"SET a = 1; SELECT f()") == attrs.evolve(
        EVERYTHING, settings=frozenset("a"), sets=frozenset("a")
    )
    assert reader.read(rb"""SELECT U&"\0066"()""") == EVERYTHING
    assert reader.read(rb"""SELECT U&"\0066" FROM t""") == EVERYTHING
    assert reader.read(rb"""INSERT INTO U&"\0066" VALUES (1)""") == EVERYTHING


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ('od"d', 'SELECT "od""d"()'),
        ("set-tenant", 'SELECT "set-tenant"()'),
        ("+++", "SELECT a+++b"),
        ("a.b", 'INSERT INTO "a.b" VALUES (1)'),
        ("x" * 63, f"SELECT {'x' * 70}()"),
        ("größe", 'SELECT "GRÖßE" FROM t'),
        ("größe", "SELECT größe()"),
        ("注文", "DELETE FROM 注文"),
    ],
)
def test_names_that_are_not_plain(name: str, text: str) -> None:
    """Quotes are doubled in texts, long names are cut by the server, and any character may be in a name."""
    assert _reader(stateful=(name,)).read(text.encode()) == EVERYTHING
    assert _reader(stateful=(*_MANY, name)).read(text.encode()) == EVERYTHING


def test_names_beyond_ascii_may_be_in_any_text_of_another_encoding() -> None:
    """Where bytes are not UTF-8, such names cannot be recognised."""
    reader = _reader(stateful=("größe",))
    assert reader.read("SELECT 'Köln'".encode("latin-1")) == EVERYTHING
    assert reader.read("SELECT 'Köln'".encode()) is None
    assert _reader(stateful=("f",)).read("SELECT 'Köln'".encode("latin-1")) is None


def test_learning_takes_the_place_of_what_was_known() -> None:
    """Also for texts that were read before."""
    reader = _reader(stateful=("f",))
    texts = (b"SELECT f()", b"LISTEN g")
    listens = Effects(pins=Pin.LISTEN)
    assert [reader.read(text) for text in texts] == [EVERYTHING, listens]
    reader.learn(["g"])
    assert [reader.read(text) for text in texts] == [None, EVERYTHING]
    reader.learn([])
    assert [reader.read(text) for text in texts] == [None, listens]


def test_few_names_are_searched_one_by_one_and_many_together() -> None:
    """One search may do for several names; many take the same time as a few."""
    few, many = Names(["dblink_connect", "dblink_connect_u"]), Names([*_MANY, "+++"])
    assert (few.needles, few.many) == (("dblink_connect",), False)
    assert (many.needles, many.many) == (("+++",), True)


# -- functions that pin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), _MANY], ids=["alone", "among many"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT dblink_connect('x')",
        'SELECT * FROM public . "dblink_connect" (1)',
        "SELECT t.dblink_connect FROM t",
        "SELECT (t).dblink_connect FROM t",
        rb"""SELECT U&"dblink\005fconnect"(1)""".decode(),
        "EXPLAIN ANALYZE SELECT dblink_connect('x')",
        "DECLARE c CURSOR FOR SELECT dblink_connect('x')",
        "BEGIN; SELECT dblink_connect('x'); COMMIT",
    ],
)
def test_the_call_of_a_pinning_function(text: str, others: tuple[str, ...]) -> None:
    """Its name counts, in any schema."""
    assert _reader(pinning=(*others, "public.DBLink_Connect")).read(text.encode()) == _FUNCTION


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'dblink_connect'",
        "SELECT dblink_connect_u('x')",
        "SELECT 1 AS dblink_connect",
        "SELECT 1 -- dblink_connect()",
        "GRANT EXECUTE ON FUNCTION dblink_connect(text) TO a",
        "PREPARE TRANSACTION 'dblink_connect'",
    ],
)
def test_what_is_no_call_of_a_pinning_function(text: str) -> None:
    """Since that lasts as long as the session, it is looked at exactly."""
    assert _reader(pinning=("dblink_connect",)).read(text.encode()) is None


def test_pinning_functions_with_other_effects() -> None:
    """They add up, also where a text cannot be read."""
    reader = _reader(pinning=("f",), stateful=("g",))
    with_function = attrs.evolve(EVERYTHING, pins=EVERYTHING.pins | Pin.FUNCTION)
    assert reader.read(b"SELECT f(), pg_advisory_lock(1)") == Effects(pins=Pin.FUNCTION | Pin.LOCK)
    assert reader.read(b"SELECT f(), g()") == with_function
    assert reader.read(rb"""SELECT U&"\0066"(), g()""") == with_function
    assert reader.read(b"CALL f()") == with_function
    assert reader.read(b"PREPARE a AS SELECT f()") == Effects(pins=Pin.FUNCTION | Pin.PREPARE)
    assert reader.read(b"FUTURE COMMAND f()") == with_function
    assert reader.read(rb"""FUTURE COMMAND U&"\0066"()""") == with_function
    assert reader.read(b"CREATE VIEW v AS SELECT f()") == Effects(schema=True)


# -- how texts are read ----------------------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that have been parsed."""
    found: list[str] = []
    read = TreeReader.read

    def note(self: TreeReader, text: str, codec: str, *, deep: bool, mentions: bool) -> Effects | None:
        found.append(text)
        return read(self, text, codec, deep=deep, mentions=mentions)

    monkeypatch.setattr(TreeReader, "read", note)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
        "SELECT coalesce(a, '(;') FROM t WHERE b = any($1)",
        "BEGIN; UPDATE t SET a = 1; COMMIT;",
        "INSERT INTO t VALUES ('; SET x = 1; it''s', $1); COMMIT",
        "/* application */ SELECT 1",
        "SELECT name, setting FROM pg_settings",
        "\n  INSERT INTO templates (temp, attempts) VALUES (1, $2)\n",
        "SELECT template_id, pg_advisory_xact_lock(1), a & b, offset_config FROM pg_templates",
        "SELECT " + ", ".join(["'SET x = 1'"] * 20000),
    ],
    ids=lambda text: text[:40],
)
def test_usual_texts_are_not_parsed(text: str, parsed: list[str]) -> None:
    """It is enough to search them."""
    assert EffectReader().read(text.encode()) is None
    assert parsed == []


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_texts_may_be_of_either_kind(kind: Callable[[bytes], bytes | bytearray]) -> None:
    """Bytes that can change are copied before they are kept."""
    reader = EffectReader()
    for text in (b"SELECT 1", b"SET a = 1", b"SET a = 1", b"SELECT set_config('a', '', false)"):
        expected = None if text == b"SELECT 1" else _SETS_A
        assert reader.read(kind(text)) == expected


def test_texts_are_parsed_once(parsed: list[str]) -> None:
    """Their effects are remembered, and so is that they have none."""
    reader = EffectReader()
    for _ in range(3):
        assert reader.read(b"SET a = 1") == _SETS_A
        assert reader.read(b"SET LOCAL a = 1") == Effects(local=True)
    assert parsed == ["SET a = 1", "SET LOCAL a = 1"]


def test_memory_is_bounded(parsed: list[str]) -> None:
    """The texts that have not been read for longest are forgotten."""
    reader = EffectReader(capacity=3 * 400)
    for text in (
        b"SET a = 1",
        b"SET b = 1",
        b"SET c = 1",
        b"SET a = 1",
        b"SET d = 1",
        b"SET a = 1",
        b"SET b = 1",
    ):
        reader.read(text)
    assert parsed == ["SET a = 1", "SET b = 1", "SET c = 1", "SET d = 1", "SET b = 1"]


def test_the_capacity_holds_for_any_texts() -> None:
    """Long texts, and many short ones, count with what they take."""
    reader = EffectReader()
    for number in range(4000):
        reader.read(b"SET a = %d" % number)
        reader.read(b"SET a = '%d%s'" % (number, b"x" * (number % 6000)))
    known = reader._known
    assert sum(len(text) + effects_module._OVERHEAD for text in known) == reader._size <= CAPACITY
    assert max(map(len, known)) <= LONGEST


def test_long_texts_are_not_parsed(parsed: list[str]) -> None:
    """Nor remembered; the parser's stack, and its time, grow with the text."""
    reader = EffectReader()
    text = b"SET a = 1"
    assert reader.read(text.ljust(LONGEST)) == _SETS_A
    assert reader.read(text.ljust(LONGEST + 1)) == EVERYTHING
    assert len(parsed) == 1
    assert len(reader._known) == 1


def test_whatever_is_wrong_with_the_parser_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a message of its own that is not UTF-8."""

    def parse(_text: str) -> object:
        return b"\xff".decode()

    monkeypatch.setattr("hyperpool.sql.tree.parse", parse)
    assert EffectReader().read(b"SET a = 1") == EVERYTHING


@pytest.mark.parametrize(
    ("part", "end"),
    [
        ("1+", "1"),
        ("(", "1" + ")" * 2000),
        ("not ", "true"),
        ("- ", "1"),
        ("array[", "1" + "]" * 680),
        ("f(", "1" + ")" * 1000),
        ("(select ", "1" + ")" * 400),
        ("case when ", "1"),
        ("a[", "1" + "]" * 1000),
        ("a||", "1"),
        ("/*", "*/" * 1000),
        ("select 1;", ""),
    ],
)
def test_the_deepest_texts(part: str, end: str) -> None:
    """Nested as deep as their length allows, they neither break the parser nor this one."""
    start = "select set_config('a', '', true), "
    text = (start + part * ((LONGEST - len(start) - len(end)) // len(part)) + end).encode()
    assert EffectReader().read(text) in {Effects(local=True), EVERYTHING}
