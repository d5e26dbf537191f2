"""Prepared statements: one text, one statement; bounds; what is certain on a server."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING

import pytest

from hyperpool.pool.statements import (
    ClientStatements,
    MemoryBudget,
    ServerStatements,
    Statement,
    StatementStore,
    text_of,
)
from hyperpool.sql.effects import EVERYTHING, EffectReader, Pin

if TYPE_CHECKING:
    from collections.abc import Iterable

GERMAN = (("DateStyle", "German, DMY"),)
OVERHEAD = 400
NAME = 100
OWN = 65_536


def body(text: str, *types: int) -> bytes:
    """A Parse message's body behind the name."""
    oids = b"".join(oid.to_bytes(4) for oid in types)
    return text.encode() + b"\0" + len(types).to_bytes(2) + oids


def statement(number: int = 1, text: str = "select 1") -> Statement:
    """A statement as a store makes it."""
    return Statement(body(text), b"HYPERPOOL_%d" % number, None)


def pins(one: Statement) -> Pin | None:
    """What session state a statement may create, as far as the store's reader knows."""
    return one.effects.pins if one.effects is not None else None


# -- the store -----------------------------------------------------------------------------------------------------


def test_a_statement_is_known_by_its_text_and_types() -> None:
    """Names are numbered as statements come; what differs in a single byte is another statement."""
    store = StatementStore(None)
    bodies = [
        body("select 1"),
        body("select 1 "),
        body("select 1", 23),
        body("select 1", 25),
        body("SELECT 1"),
    ]
    made = [store.intern(one) for one in bodies]
    assert [one.name for one in made] == [b"HYPERPOOL_%d" % number for number in range(1, 6)]
    assert [store.intern(one) for one in reversed(bodies)] == made[::-1]
    assert [one.body for one in made] == bodies
    assert len(store) == 5


def test_sessions_that_read_texts_differently_share_no_statement() -> None:
    """A literal may have been read when the statement was prepared."""
    store = StatementStore(None)
    one = store.intern(body("select '1.2.2000'::date"))
    other = store.intern(body("select '1.2.2000'::date"), GERMAN)
    assert one is not other
    assert (one.flavor, other.flavor) == ((), GERMAN)
    assert store.intern(one.body, GERMAN) is other
    assert store.find(one.body, GERMAN) is other
    assert store.find(one.body, ()) is one
    assert store.find(one.body, (("DateStyle", "ISO"),)) is None


def test_two_names_of_one_text_at_one_client_are_two_statements() -> None:
    """So that each statement has one name at each client; others share them, in the same order."""
    store = StatementStore(None)
    one = store.intern(body("select 1"))
    two = store.intern(body("select 1"), (), {one})
    three = store.intern(body("select 1"), (), {two, one})
    assert len({one, two, three}) == 3
    assert store.intern(body("select 1"), (), {one, three}) is two
    assert store.intern(body("select 1"), (), {two, three}) is one
    assert store.find(body("select 1"), ()) is one


def test_nobody_is_found_where_nobody_is() -> None:
    """Looking for a statement does not make one."""
    store = StatementStore(None)
    assert store.find(body("select 1"), ()) is None
    assert len(store) == 0


def test_a_statement_that_nobody_has_is_forgotten() -> None:
    """And its name is not used again: it may still be on its way to a server."""
    store = StatementStore(None)
    one = store.intern(body("select 1"))
    assert one.name == b"HYPERPOOL_1"
    del one
    gc.collect()
    assert len(store) == 0
    assert store.intern(body("select 1")).name == b"HYPERPOOL_2"


def test_when_the_first_of_two_twins_is_forgotten_the_second_stays_itself() -> None:
    """A newcomer gets a name of its own and not that of the twin."""
    store = StatementStore(None)
    one = store.intern(body("select 1"))
    two = store.intern(body("select 1"), (), {one})
    del one
    gc.collect()
    again = store.intern(body("select 1"))
    assert again is not two
    assert again.name == b"HYPERPOOL_3"
    assert store.intern(body("select 1"), (), {again}) is two


def test_unnamed_statements_are_nobody_elses() -> None:
    """They have no name, and are not found."""
    store = StatementStore(None)
    one = store.unnamed(body("select 1"))
    assert (one.name, one.body) == (b"", body("select 1"))
    assert store.unnamed(body("select 1")) is not one
    assert len(store) == 0


def test_effects_are_read_once_and_again_when_there_is_another_reader() -> None:
    """A reader knows more when the database has told which functions change session state."""
    reader = EffectReader()
    store = StatementStore(reader)
    listens, calls = store.intern(body("listen x", 23)), store.intern(body("select f()"))
    unnamed = store.unnamed(body("select f()"))

    def now() -> list[Pin | None]:
        effects = [store.effects(one) for one in (listens, calls, unnamed)]
        return [one.pins if one is not None else None for one in effects]

    assert now() == [Pin.LISTEN, None, None]
    reader.learn(["f"])
    assert now() == [Pin.LISTEN, None, None]
    store.relearn(reader)
    assert now() == [Pin.LISTEN, EVERYTHING.pins, EVERYTHING.pins]
    assert pins(store.unnamed(body("listen x"))) == Pin.LISTEN
    store.relearn(None)
    assert now() == [None, None, None]
    assert pins(store.unnamed(body("listen x"))) is None


def test_texts_are_read_again_when_they_are_used() -> None:
    """Not all of them at once: there may be many."""
    reader = EffectReader()
    store = StatementStore(reader)
    made = [store.intern(body(f"select f({number})")) for number in range(3)]
    reader.learn(["f"])
    store.relearn(reader)
    store.effects(made[1])
    assert [one.generation == store.generation for one in made] == [False, True, False]
    assert store.intern(body("select f(3)")).generation == store.generation
    assert store.intern(made[2].body).generation != store.generation


@pytest.mark.parametrize(
    ("data", "text"),
    [(body("select 1", 23), b"select 1"), (b"\0\0\0", b""), (b"\xff\0\0\0", b"\xff")],
)
def test_text(data: bytes, text: bytes) -> None:
    """What stands before the types, in any encoding."""
    assert text_of(data) == text
    assert Statement(data, b"x", None).text == text


def test_repr() -> None:
    """What stands in a log: the name on the servers."""
    assert repr(statement(7)) == "<Statement HYPERPOOL_7>"
    assert repr(StatementStore(None).unnamed(body("x"))) == "<Statement unnamed>"


# -- clients -------------------------------------------------------------------------------------------------------


def test_names_of_a_client() -> None:
    """A name is given, given to another statement, and taken away."""
    own = ClientStatements(MemoryBudget(10_000))
    one, two = statement(1), statement(2)
    own.put(b"a", one)
    assert (own.names, own.holders) == ({b"a": one}, {one: b"a"})
    own.put(b"a", two)
    assert (own.names, own.holders) == ({b"a": two}, {two: b"a"})
    own.put(b"a", None)
    own.put(b"b", None)
    assert (own.names, own.holders) == ({}, {})


@pytest.mark.parametrize(
    ("name", "text", "size"),
    [
        (b"a", "select 1", OVERHEAD + NAME + 12),
        (b"", "", OVERHEAD + NAME + 3),
        (b"x" * 50, "y" * 1000, OVERHEAD + NAME + 1053),
    ],
)
def test_what_a_statement_counts_for(name: bytes, text: str, size: int) -> None:
    """Its text, its name, and what both cost besides; all of it is given back."""
    budget = MemoryBudget(10_000)
    own = ClientStatements(budget)
    own.put(name, statement(1, text))
    assert (budget.used, own.size) == (size, size)
    own.put(name, None)
    assert (budget.used, own.size) == (0, 0)


def test_a_text_counts_once_however_many_have_it() -> None:
    """Each name costs a little; each client is charged with the whole, in case that it is the last."""
    budget = MemoryBudget(10_000)
    shared = statement()
    clients = [ClientStatements(budget) for _ in range(3)]
    for number, own in enumerate(clients, 1):
        own.put(b"a", shared)
        assert budget.used == OVERHEAD + 11 + number * (NAME + 1)
        assert own.size == OVERHEAD + 11 + NAME + 1
    clients[0].clear()
    clients[1].put(b"a", None)
    assert budget.used == OVERHEAD + 11 + NAME + 1
    assert (clients[0].names, clients[0].holders, clients[0].size) == ({}, {}, 0)
    clients[0].clear()
    clients[2].clear()
    assert budget.used == 0


def _fits(limit: int, used: int, own: int, size: int, shared: Statement | None = None) -> bool:
    budget = MemoryBudget(limit)
    ClientStatements(budget).reserve(used)
    client = ClientStatements(budget)
    client.reserve(own)
    return client.fits(b"n", size - OVERHEAD - NAME - 1, shared)


@pytest.mark.parametrize(
    ("limit", "used", "own", "size", "fits"),
    [
        (16_000, 0, 0, 1000, True),
        (16_000, 15_000, 0, 1001, False),
        (16_000, 0, 0, 16_000, True),  # one may be longer than a client's share, if nothing else is there
        (16_000, 0, 0, 16_001, False),
        (32_000, 0, 1000, 1000, True),
        (32_000, 0, 1000, 1001, False),
        (32_000, 0, 2000, 1000, False),
        (16_000, 0, 1, 16_000 // 16 + 5, False),
        (0, 0, 0, 501, False),
        (1 << 24, 0, OWN, 1000, True),
        (1 << 24, (1 << 24) - OWN - 1000, OWN, 1000, True),
        (1 << 24, (1 << 24) - OWN - 999, OWN, 1000, False),
    ],
)
def test_a_client_may_take_a_part_of_the_budget(
    limit: int, used: int, own: int, size: int, fits: bool
) -> None:
    """A sixteenth, or one statement that is longer than that; together, all clients stay within the limit."""
    assert _fits(limit, used, own, size) is fits


@pytest.mark.parametrize(
    ("limit", "own", "size", "fits"),
    [
        (1 << 24, 0, OWN, True),
        (1 << 24, OWN - 1000, 1000, True),
        (1 << 24, OWN - 1000, 1001, False),
        (16_000, 0, 1000, True),  # not more than its share
        (16_000, 0, 1001, False),
    ],
)
def test_a_client_may_have_a_little_whatever_others_have(limit: int, own: int, size: int, fits: bool) -> None:
    """The budget is used up."""
    assert _fits(limit, limit, own, size) is fits
    assert _fits(limit, 10 * limit, own, size) is fits


def test_a_text_that_somebody_has_takes_no_room_but_for_its_name() -> None:
    """It is there; but it counts in full for the client's share."""
    shared = statement(1, "x" * 100_000)
    size = len(shared.body) + OVERHEAD + NAME + 1
    limit = 1 << 24
    assert not _fits(limit, limit - 1000, OWN, size, shared)
    owner = ClientStatements(MemoryBudget(limit))
    owner.put(b"a", shared)
    assert _fits(limit, limit - 1000 - OWN, OWN, size, shared)
    assert not _fits(limit, limit - NAME - OWN, OWN, size, shared)
    assert not _fits(limit, 0, limit // 16, size, shared)


def test_what_is_collected_counts_meanwhile() -> None:
    """And is given back when the client goes in the middle of it."""
    budget = MemoryBudget(10_000)
    own = ClientStatements(budget)
    own.reserve(600)
    own.put(b"a", statement())
    assert budget.used == own.size == 600 + OVERHEAD + NAME + 12
    own.clear()
    assert (budget.used, own.size) == (0, 0)


def test_what_waits_counts_meanwhile() -> None:
    """Only the newest: there is one at a time."""
    budget = MemoryBudget(10_000)
    own = ClientStatements(budget)
    own.put_aside(600)
    own.put_aside(200)
    assert (budget.used, own.size, own.aside) == (200, 200, 200)
    own.put_aside(0)
    assert (budget.used, own.size) == (0, 0)
    own.put_aside(600)
    own.clear()
    assert (budget.used, own.size, own.aside) == (0, 0, 0)


def test_a_statement_of_nobody_counts_as_long_as_it_lives() -> None:
    """A long one without a name."""
    budget = MemoryBudget(10_000)
    unnamed = StatementStore(None).unnamed(body("x" * 1000))
    budget.lend(unnamed)
    assert budget.used == OVERHEAD + 1003
    del unnamed
    gc.collect()
    assert budget.used == 0


def test_the_budget_is_used_as_long_as_anything_is_held() -> None:
    """Whatever is put and taken away, in any order: the sum is that of what is held."""
    random_numbers = random.Random(1)
    budget = MemoryBudget(1 << 20)
    clients = [ClientStatements(budget) for _ in range(3)]
    statements = [statement(number, "x" * number) for number in range(9)]
    for _ in range(2000):
        own = random_numbers.choice(clients)
        wanted = random_numbers.choice([None, *statements])
        if wanted is None or wanted not in own.holders:
            own.put(random_numbers.choice([b"a", b"bb", b"ccc"]), wanted)
        if random_numbers.random() < 0.01:
            own.clear()
        assert {one: name for name, one in own.names.items()} == own.holders
        texts = {one for each in clients for one in each.holders}
        names = [len(name) + NAME for each in clients for name in each.names]
        assert budget.used == sum(one.size for one in texts) + sum(names)


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "translated"),
    [
        (b'Mprepared statement "HYPERPOOL_1" already exists\0', b'Mprepared statement "a" already exists\0'),
        (b"HYPERPOOL_1 HYPERPOOL_2 HYPERPOOL_1", b"a bb a"),
        (b"HYPERPOOL_10 HYPERPOOL_12", b"HYPERPOOL_10 ten"),
        (b"HYPERPOOL_3", b"closed"),
        (b'"HYPERPOOL_1?" "HYPERPOOL_x?" "HYPERPOOL_?"', b'"HYPERPOOL_1" "HYPERPOOL_x?" "HYPERPOOL_"'),
        (b"what? HYPERPOOL", b"what? HYPERPOOL"),
        (b"\xff\0HYPERPOOL_2\0\xfe", b"\xff\0bb\0\xfe"),
    ],
)
def test_names_in_errors(report: bytes, translated: bytes) -> None:
    """A client reads the names that it has given, those of statements that it has just closed included."""
    own = ClientStatements(MemoryBudget(1 << 20))
    for name, number in ((b"closed", 3), (b"a", 1), (b"bb", 2), (b"ten", 12)):
        own.put(name, statement(number))
    own.put(b"closed", None)
    assert own.translate(report) == translated


def test_a_long_name_in_errors() -> None:
    """As it was sent last, and not as far as it counts; of an alias for a very long one, the beginning."""
    own = ClientStatements(MemoryBudget(1 << 20))
    assert own.shortened(b"x" * 63) == b"x" * 63
    for ends in (b"a", b"bb"):
        name = own.shortened(b"x" * 63 + ends)
        assert name == b"x" * 63
        own.put(name, statement(1))
    own.put(b"short", statement(2))
    assert own.translate(b"HYPERPOOL_1 HYPERPOOL_2") == b"x" * 63 + b"bb short"
    assert [len(own.translate(own.alias(b"x" * size))) for size in (16384, 16385)] == [16384, 16384]


def test_names_that_were_closed_long_ago_are_forgotten() -> None:
    """An error that is on its way speaks of the newest."""
    own = ClientStatements(MemoryBudget(1 << 20))
    for number in range(1, 41):
        own.put(b"n%d" % number, statement(number))
        own.put(b"n%d" % number, None)
    spoken = b" ".join(b"HYPERPOOL_%d" % number for number in range(1, 41))
    expected = [b"HYPERPOOL_%d" % number for number in range(1, 9)] + [
        b"n%d" % number for number in range(9, 41)
    ]
    assert own.translate(spoken).split() == expected


def test_a_name_that_is_given_again_is_the_newest() -> None:
    """A statement that was closed under one name and has another now is called by that."""
    own = ClientStatements(MemoryBudget(1 << 20))
    one = statement(1)
    own.put(b"old", one)
    own.put(b"old", None)
    own.put(b"new", one)
    assert own.translate(b"HYPERPOOL_1") == b"new"


# -- servers -------------------------------------------------------------------------------------------------------


def server(*used: float) -> tuple[ServerStatements, list[Statement]]:
    """What a server has, used at these times, and all certain."""
    kept = ServerStatements()
    made = [statement(number) for number in range(1, len(used) + 1)]
    for one, when in zip(made, used, strict=True):
        one.users = 1
        kept.use(one, when)
        kept.certain.add(one)
    return kept, made


def numbers(statements: Iterable[Statement]) -> list[int]:
    """Statements by their numbers."""
    return [int(one.name.removeprefix(b"HYPERPOOL_")) for one in statements]


@pytest.mark.parametrize(
    ("used", "limit", "since", "gone"),
    [
        ([], 1, 9.0, []),
        ([1.0, 2.0], 3, 9.0, []),
        ([1.0, 2.0, 3.0], 3, 9.0, [1]),
        ([1.0, 2.0, 3.0, 4.0], 3, 9.0, [1, 2]),
        ([1.0, 2.0, 3.0], 1, 9.0, [1, 2, 3]),
        ([1.0, 2.0, 3.0], 3, 1.0, []),  # what has been used since the transaction began may be needed again
        ([1.0, 2.0, 3.0], 3, 1.5, [1]),
        ([1.0, 2.0, 3.0], 1, 2.0, [1]),
        ([1.0, 1.0, 3.0], 1, 3.0, [1, 2]),
    ],
)
def test_what_was_used_longest_ago_makes_room(
    used: list[float], limit: int, since: float, gone: list[int]
) -> None:
    """For one more; but nothing that this transaction has used."""
    kept, made = server(*used)
    assert numbers(kept.evict(limit, since)) == gone
    assert numbers(one for one in made if one in kept) == [
        n for n in range(1, len(used) + 1) if n not in gone
    ]
    assert kept.certain == {one for one in made if one in kept}
    assert len(kept) == len(used) - len(gone)


def test_use_renews() -> None:
    """The one that is used again goes last."""
    kept, (one, two, three) = server(1.0, 2.0, 3.0)
    kept.use(one, 4.0)
    assert list(kept.evict(3, 9.0)) == [two]
    kept.use(two, 5.0)
    assert list(kept.evict(1, 9.0)) == [three, one, two]


def test_what_nobody_has_a_name_for_goes_first() -> None:
    """Even if it has been used in this transaction, or is not the oldest; but that is not looked for each time."""
    kept, (one, two, three, four) = server(1.0, 2.0, 3.0, 4.0)
    kept.passing.add(three)
    one.users = three.users = 0
    assert list(kept.evict(2, 0.5)) == [one, three]
    assert (kept.certain, kept.passing) == ({two, four}, set())
    four.users = 0
    assert list(kept.evict(2, 0.5)) == []
    more = [statement(number) for number in range(5, 8)]
    for number, other in enumerate(more):
        kept.use(other, 5.0)
        assert list(kept.evict(2, 0.5)) == ([] if number < 2 else [four, *more])
    assert list(kept.evict(1, 9.0)) == [two]


def test_doubt() -> None:
    """What is uncertain may be there: it counts, is closed before it is prepared again, and goes first if unused."""
    kept, (one, two, three) = server(1.0, 2.0, 3.0)
    kept.doubt(two)
    assert (kept.certain, two in kept, len(kept)) == ({one, three}, True, 3)
    assert list(kept.evict(3, 9.0)) == [one]
    kept.doubt(one)  # the server has dropped the request to close it
    assert (one in kept, len(kept)) == (True, 3)
    assert list(kept.evict(3, 0.5)) == [one]
    kept.doubt_all()
    assert (kept.certain, len(kept)) == (set(), 2)


def test_what_was_prepared_over_passing_tables_is_doubted_when_they_have_gone() -> None:
    """The rest stays certain."""
    kept, (one, two, three) = server(1.0, 2.0, 3.0)
    kept.passing |= {two, three}
    kept.doubt(three)
    kept.doubt_passing()
    assert (kept.certain, kept.passing, two in kept) == ({one}, set(), True)
    kept.certain.add(two)
    kept.doubt_passing()
    assert kept.certain == {one, two}


def test_clear() -> None:
    """Nothing is there."""
    kept, (one, *_) = server(1.0, 2.0)
    kept.passing.add(one)
    kept.clear()
    assert (len(kept), one in kept, kept.certain, list(kept.evict(1, 9.0))) == (0, False, set(), [])
    assert kept.passing == set()
