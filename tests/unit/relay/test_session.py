"""What a client may have left on a server connection: suspicions, the questions that settle them, and the answers."""

from __future__ import annotations

import pytest

from hyperpool.relay.session import ASKABLE, LASTING, Pinned, Suspicion, Truth, names_of
from hyperpool.sql.effects import EVERYTHING, EffectReader, Effects, Pin

REPORTED = frozenset({"timezone", "application_name"})
KNOWN = {"work_mem": "4MB", "statement_timeout": "0", "search_path": "public"}

TIMEOUT = (
    "SELECT 'statement_timeout', pg_catalog.current_setting('statement_timeout'), NULL;"
    "SET LOCAL statement_timeout = 0"
)
BEGIN = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED NOT DEFERRABLE;"
PINS = (
    "SELECT EXISTS(SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=)"
    " 'pg_catalog.pg_namespace'::pg_catalog.regclass"
    " AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())"
    " OR pg_catalog.strpos(pg_catalog.current_setting('search_path'), 'pg_temp') OPERATOR(pg_catalog.>) 0,"
    "EXISTS(SELECT FROM pg_catalog.pg_listening_channels()),"
    "EXISTS(SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'"
    " AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND granted),"
    "EXISTS(SELECT FROM pg_catalog.pg_cursors WHERE is_holdable),"
    "EXISTS(SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"
)
KEPT = (
    "'DateStyle','IntervalStyle','TimeZone','application_name','client_encoding','default_table_access_method',"
    "'default_tablespace','default_text_search_config','local_preload_libraries','seed','session_preload_libraries',"
    "'standard_conforming_strings','temp_buffers','temp_tablespaces','transaction_deferrable','transaction_isolation',"
    "'transaction_read_only'"
)
ROW = (
    "SELECT pg_catalog.lower(name), pg_catalog.current_setting(name),"
    " CASE WHEN setting OPERATOR(pg_catalog.=) reset_val THEN pg_catalog.current_setting(name)"
    " WHEN context OPERATOR(pg_catalog.=) 'user' AND pg_catalog.strpos(name, '.') OPERATOR(pg_catalog.=) 0"
    f" AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[{KEPT}])"
    " THEN pg_catalog.set_config(name, reset_val, true) END FROM pg_catalog.pg_settings WHERE "
)
EVERY = (
    ROW + "source OPERATOR(pg_catalog.=) 'session'"
    " UNION ALL SELECT 'role', pg_catalog.current_setting('role'), NULL"
    " UNION ALL SELECT 'session_authorization', pg_catalog.current_setting('session_authorization'), NULL"
)


def defaults(*names: str) -> str:
    """The question for the defaults of parameters."""
    array = ",".join(f"'{name}'" for name in names)
    return ROW + f"pg_catalog.lower(name) OPERATOR(pg_catalog.=) ANY (ARRAY[{array}]::pg_catalog.text[])"


def values(*names: str) -> str:
    """The question for the values of parameters."""
    array = ",".join(f"'{name}'" for name in names)
    return (
        "SELECT n, pg_catalog.current_setting(n, true), NULL"
        f" FROM pg_catalog.unnest(ARRAY[{array}]::pg_catalog.text[]) n"
    )


def suspect(*texts: str, pinned: Pinned = Pinned(0)) -> Suspicion:  # noqa: B008 - a constant
    """What texts make one suspect."""
    reader = EffectReader()
    suspicion = Suspicion()
    for text in texts:
        effects = reader.read(text.encode())
        assert effects is not None
        suspicion.add(effects, text.encode(), pinned, REPORTED)
    return suspicion


# -- what raises which suspicion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "settings", "everything", "pins", "asks"),
    [
        (["set timezone = 'UTC'"], set(), False, Pinned(0), False),
        (["set work_mem = '7MB'"], {"work_mem"}, False, Pinned(0), True),
        (["set work_mem = '7MB'; set X.y = 1"], {"work_mem", "x.y"}, False, Pinned(0), True),
        (["set work_mem = '7MB'", "set x.y = 1"], {"work_mem", "x.y"}, False, Pinned(0), True),
        (
            ["set session characteristics as transaction read only"],
            {"default_transaction_read_only"},
            False,
            Pinned(0),
            True,
        ),
        (["set role r"], {"role"}, False, Pinned(0), True),
        (["set session authorization a"], {"role", "session_authorization"}, False, Pinned(0), True),
        (["reset all"], set(), True, Pinned(0), True),
        (["listen x"], set(), False, Pinned.LISTEN, True),
        (["create temp table t ()"], set(), False, Pinned.TEMPORARY, True),
        (["select pg_advisory_lock(1)"], set(), False, Pinned.LOCK, True),
        (["declare c cursor with hold for select 1"], set(), False, Pinned.HOLD, True),
        (["prepare p as select 1"], set(), False, Pinned.PREPARE, True),
        (["load 'x'"], set(), False, Pinned.LOAD, False),
        (["select dblink_connect('x')"], set(), False, Pinned(0), False),
        (["create table t ()"], set(), False, Pinned(0), False),
        (["unlisten *"], set(), False, Pinned(0), False),
    ],
)
def test_suspicions(texts: list[str], settings: set[str], everything: bool, pins: Pinned, asks: bool) -> None:
    """What servers report need not be asked for, nor what only the end of the connection undoes."""
    reader = EffectReader()
    suspicion = Suspicion()
    for text in texts:
        suspicion.add(reader.read(text.encode()) or Effects(), text.encode(), Pinned(0), REPORTED)
    assert (suspicion.settings, suspicion.everything, suspicion.pins) == (settings, everything, pins)
    assert suspicion.asks is asks


def test_a_pinning_function_raises_no_question() -> None:
    """Nobody can tell whether it has left something."""
    suspicion = Suspicion()
    suspicion.add(Effects(pins=Pin.FUNCTION), b"select dblink_connect('x')", Pinned(0), REPORTED)
    assert (suspicion.pins, suspicion.asks) == (Pinned.FUNCTION, False)


@pytest.mark.parametrize(
    ("pinned", "pins"),
    [
        (Pinned(0), Pinned(0)),
        (Pinned.LISTEN, Pinned.LISTEN),
        (Pinned.LISTEN | Pinned.TEMPORARY | Pinned.LOAD, Pinned.LISTEN | Pinned.TEMPORARY),
        (Pinned.STATEMENT | Pinned.FUNCTION, Pinned(0)),
    ],
)
def test_what_may_have_ended_is_asked_again(pinned: Pinned, pins: Pinned) -> None:
    """A text that ends state of any kind, at a client that is pinned for something."""
    suspicion = suspect("unlisten *", pinned=pinned)
    assert suspicion.pins == pins
    assert suspicion.asks is bool(pins)


def test_everything() -> None:
    """A text that cannot be read: all that can be asked is asked, and the server is cleaned for the next client."""
    suspicion = Suspicion()
    suspicion.add(EVERYTHING, b"", Pinned(0), REPORTED)
    assert (suspicion.everything, suspicion.pins, suspicion.taints) == (True, ASKABLE, True)
    assert not ASKABLE & LASTING
    assert not ASKABLE & Pinned.STATEMENT


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("select set_config(x.name, x.value, false) from T.Config x", {"x.name", "x.value", "t.config"}),
        ("select set_config('My.' || 'setting', '1', false)", set()),
        ("select set_config('A.b.c', '1', false), 1.5, a .b", {"a.b.c"}),
        ("-- é.x\nselect set_config($1, 'x.y', false)", {"x.y"}),
    ],
)
def test_words_that_may_be_parameters(text: str, settings: set[str]) -> None:
    """A parameter of nobody's has a dot in its name, and the server lists no such: a text that sets it may name it."""
    suspicion = Suspicion()
    suspicion.add(EVERYTHING, text.encode(), Pinned(0), REPORTED)
    assert suspicion.settings == settings


def test_words_are_looked_for_in_part_of_a_long_text() -> None:
    """A hundred of them, and not behind 64 KiB."""
    many = " ".join(f"x.n{number}" for number in range(200))
    suspicion = Suspicion()
    suspicion.add(EVERYTHING, many.encode(), Pinned(0), REPORTED)
    assert suspicion.settings == {f"x.n{number}" for number in range(100)}
    suspicion = Suspicion()
    suspicion.add(EVERYTHING, b" " * 65536 + b"x.y", Pinned(0), REPORTED)
    assert suspicion.settings == set()


BEGUN = {"timezone": "Asia/Tokyo", "work_mem": "7MB", "x.y": "1", "role": "r"}


def restored(*texts: str) -> dict[str, str]:
    """What has to be set again behind texts that are on their way, at a client that began with `BEGUN`."""
    reader = EffectReader()
    suspicion = Suspicion()
    for text in texts:
        effects = reader.read(text.encode())
        assert effects is not None
        suspicion.resets(effects, BEGUN, 1)
    return suspicion.restores


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["set work_mem = '9MB'"], ""),
        (["reset work_mem"], "work_mem"),
        (['RESET "Work_Mem"'], "work_mem"),
        (["set work_mem to default"], "work_mem"),
        (["reset time zone"], "timezone"),
        (["set time zone local"], "timezone"),
        (["reset role"], "role"),
        (["reset session authorization"], "role"),
        (["set session authorization s; reset role"], "role"),
        # what the client's session did not begin with
        (["reset lock_timeout"], ""),
        (["reset lock_timeout; reset x.y"], "x.y"),
        (["select set_config('lock_timeout', '1', false)"], ""),
        # all of it, but for who the session is
        (["reset all"], "timezone work_mem x.y"),
        (["discard all"], "timezone work_mem x.y"),
        # what is set behind it
        (["reset work_mem; set work_mem = '9MB'"], ""),
        (["reset work_mem", "set work_mem = '9MB'"], ""),
        (["reset work_mem", "select set_config('work_mem', '9MB', false)"], ""),
        (["reset all; set work_mem = '9MB'"], "timezone x.y"),
        (["reset all", "set work_mem = '9MB'"], "timezone x.y"),
        (["discard all; set time zone 'UTC'; reset work_mem"], "work_mem x.y"),
        # what was set in front of it
        (["set work_mem = '9MB'; reset work_mem"], "work_mem"),
        (["set work_mem = '9MB'", "reset work_mem"], "work_mem"),
        (["set work_mem = '9MB'; reset all"], "timezone work_mem x.y"),
        # one after the other
        (["reset work_mem", "reset x.y"], "work_mem x.y"),
        (["reset work_mem", "reset all", "set x.y = 2", "listen z"], "timezone work_mem"),
        (["set local work_mem to default"], ""),
        (["reset work_mem", "set local work_mem = '9MB'"], "work_mem"),
    ],
)
def test_what_is_set_again(texts: list[str], names: str) -> None:
    """A server's session began with other values than its client's, and that is what a reset leads back to."""
    assert restored(*texts) == {name: BEGUN[name] for name in names.split()}


def test_merge() -> None:
    """What has been suspected while a question was under way is not lost."""
    one = suspect("set work_mem = '7MB'", "reset x.y")
    two = suspect("listen x", "alter table t add u int", "reset all")
    one.merge(two)
    assert (one.settings, one.pins, one.everything) == ({"work_mem", "x.y"}, Pinned.LISTEN, True)
    assert one.schema
    one.merge(None)
    assert one.asks


def test_merged_resets_are_the_newer_ones() -> None:
    """The question is about what has happened: those before it have been set again already."""
    one, two = Suspicion(), Suspicion()
    one.resets(Effects(settings=frozenset({"x.y"}), resets=frozenset({"x.y"})), BEGUN, 1)
    two.resets(Effects(resets_all=True, sets=frozenset({"x.y"})), BEGUN, 1)
    one.merge(two)
    assert one.restores == {"timezone": "Asia/Tokyo", "work_mem": "7MB"}


def test_distrust() -> None:
    """A question that failed is asked again without the names that a text has given, as long as there were any."""
    suspicion = suspect("set work_mem = '7MB'", "set x.y = 1")
    assert suspicion.distrust()
    assert (suspicion.settings, suspicion.everything) == ({"x.y"}, True)
    assert not suspicion.distrust()


# -- questions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("set work_mem = '7MB'", values("work_mem")),
        ("set x.y = 1", defaults("x.y") + ";" + values("x.y")),
        (
            "set lock_timeout = 1; set work_mem = '7MB'",
            defaults("lock_timeout") + ";" + values("lock_timeout", "work_mem"),
        ),
        ('set x.y = 1; set "x.it\'s" = 1', defaults("x.it''s", "x.y") + ";" + values("x.it''s", "x.y")),
        ("set statement_timeout = 1", TIMEOUT),
        ("set statement_timeout = 1; set work_mem = '7MB'", TIMEOUT + ";" + values("work_mem")),
        (
            "set default_transaction_isolation = serializable",
            BEGIN + defaults("default_transaction_isolation") + ";" + values("default_transaction_isolation"),
        ),
        ("listen x", PINS),
        ("listen x; create temp table t ()", PINS),
        ("listen x; set work_mem = '7MB'", PINS + ";" + values("work_mem")),
        ("reset all", BEGIN + TIMEOUT + ";" + EVERY),
        ("discard all; listen x", BEGIN + TIMEOUT + ";" + PINS + ";" + EVERY),
    ],
)
def test_questions(text: str, question: str) -> None:
    """Only what is suspected is asked for, with every name qualified; a default is asked for once."""
    assert suspect(text).question((), KNOWN, ()) == question


@pytest.mark.parametrize(
    ("encoding", "source"), [(None, "UTF8"), ("UTF8", "UTF8"), ("LATIN1", "LATIN1"), ("o'", "o''")]
)
def test_questions_are_ascii(encoding: str | None, source: str) -> None:
    """A name that is not is told in the client's encoding, byte by byte."""
    suspicion = Suspicion()
    suspicion.add(Effects(settings=frozenset({"x.\udce9"})), b"", Pinned(0), REPORTED)
    name = f"pg_catalog.convert_from(pg_catalog.decode('782ee9','hex'),'{source}')"
    question = suspicion.question((), {**KNOWN, "x.\udce9": None}, (), encoding)
    assert question == values("?").replace("'?'", name)


def test_strange_parameters() -> None:
    """Those whose defaults are asked for are remembered: no answer means that there is none."""
    suspicion = suspect("set x.y = 1; set work_mem = '7MB'")
    suspicion.question((), KNOWN, ())
    assert suspicion.strange == {"x.y"}


@pytest.mark.parametrize(
    ("held", "custom", "question"),
    [
        ((), (), BEGIN + TIMEOUT + ";" + EVERY),
        (("work_mem",), (), BEGIN + TIMEOUT + ";" + EVERY),
        (("x.y", "work_mem"), (), ";".join((BEGIN + TIMEOUT, defaults("x.y"), values("x.y"), EVERY))),
        ((), ("f.a",), ";".join((BEGIN + TIMEOUT, defaults("f.a"), values("f.a"), EVERY))),
        (
            ("x.y",),
            ("f.a", "x.y"),
            ";".join((BEGIN + TIMEOUT, defaults("f.a", "x.y"), values("f.a", "x.y"), EVERY)),
        ),
    ],
)
def test_if_everything_is_open(held: tuple[str, ...], custom: tuple[str, ...], question: str) -> None:
    """Parameters of nobody's that the session has, or that functions of the database set, are asked for by name."""
    assert suspect("reset all").question(held, KNOWN, custom) == question


def test_a_timeout_that_is_held_does_not_end_the_question() -> None:
    """It holds for the pooler's own query, too."""
    assert suspect("listen x").question(("statement_timeout",), KNOWN, ()) == TIMEOUT + ";" + PINS


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "pins"),
    [
        (["f", "f", "f", "f", "f"], Pinned(0)),
        (["t", "f", "f", "f", "f"], Pinned.TEMPORARY),
        (["f", "t", "f", "f", "f"], Pinned.LISTEN),
        (["f", "f", "t", "f", "f"], Pinned.LOCK),
        (["f", "f", "f", "t", "f"], Pinned.HOLD),
        (["f", "f", "f", "f", "t"], Pinned.PREPARE),
        (["t", "t", "t", "t", "t"], ASKABLE),
        ([None, "t", None, "f", "f"], Pinned.LISTEN),
    ],
)
def test_pins(row: list[str | None], pins: Pinned) -> None:
    """In the order of the question."""
    truth = Truth([row], {})
    assert (truth.pins, truth.settings) == (pins, {})


@pytest.mark.parametrize(
    ("rows", "known", "settings", "learned"),
    [
        ([], {}, {}, {}),
        ([["work_mem", "7MB", None]], {"work_mem": "4MB"}, {"work_mem": "7MB"}, {"work_mem": "4MB"}),
        ([["work_mem", "4MB", None]], {"work_mem": "4MB"}, {"work_mem": None}, {"work_mem": "4MB"}),
        ([["work_mem", "7MB", "4MB"]], {}, {"work_mem": "7MB"}, {"work_mem": "4MB"}),
        ([["work_mem", "4MB", "4MB"]], {}, {"work_mem": None}, {"work_mem": "4MB"}),
        # a default that has changed: the newest counts
        ([["work_mem", "7MB", "7MB"]], {"work_mem": "4MB"}, {"work_mem": None}, {"work_mem": "7MB"}),
        # parameters of nobody's: unset, or set to nothing, is the same as what every session begins with
        ([["x.y", None, None]], {}, {"x.y": None}, {}),
        ([["x.y", "", None]], {}, {"x.y": None}, {}),
        ([["x.y", "1", None]], {}, {"x.y": "1"}, {}),
        ([["x.y", "", None]], {"x.y": "1"}, {"x.y": ""}, {"x.y": "1"}),
        ([["search_path", "", "public"]], {}, {"search_path": ""}, {"search_path": "public"}),
        ([["role", "none", None]], {"role": "none"}, {"role": None}, {"role": "none"}),
        ([["role", "r", None]], {"role": "none"}, {"role": "r"}, {"role": "none"}),
        # the first row counts: the timeout was asked for before it was lifted
        (
            [["statement_timeout", "5s", None], ["statement_timeout", "0", "0"]],
            {"statement_timeout": "0"},
            {"statement_timeout": "5s"},
            {"statement_timeout": "0"},
        ),
        # and the default is learned all the same
        (
            [["statement_timeout", "5s", None], ["statement_timeout", "0", "0"]],
            {},
            {"statement_timeout": "5s"},
            {"statement_timeout": "0"},
        ),
        (
            [["statement_timeout", "0", None], ["statement_timeout", "0", "0"]],
            {},
            {"statement_timeout": None},
            {"statement_timeout": "0"},
        ),
        # what means the transaction
        (
            [["transaction_read_only", "on", "off"], ["transaction_isolation", "serializable", None]],
            {},
            {},
            {},
        ),
        ([["transaction_deferrable", "on", None], ["seed", "unavailable", None]], {}, {}, {}),
        (
            [["f", "t", "f", "f", "f"], ["x.y", "1", None], ["x.z", "2", None]],
            {},
            {"x.y": "1", "x.z": "2"},
            {},
        ),
        ([[None, "1", None]], {}, {}, {}),
    ],
)
def test_settings(
    rows: list[list[str | None]],
    known: dict[str, str | None],
    settings: dict[str, str | None],
    learned: dict[str, str | None],
) -> None:
    """Values that differ from what every session begins with; defaults are learned on the way."""
    assert Truth(rows, known).settings == settings
    assert known == learned


def test_the_default_of_what_was_asked_for_before() -> None:
    """The row of the defaults comes first, and has the value, too."""
    known: dict[str, str | None] = {}
    rows: list[list[str | None]] = [["lock_timeout", "1s", "0"], ["lock_timeout", "1s", None]]
    assert Truth(rows, known).settings == {"lock_timeout": "1s"}
    assert known == {"lock_timeout": "0"}


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (Pinned(0), ""),
        (Pinned.TEMPORARY, "temporary objects"),
        (Pinned.LISTEN, "LISTEN"),
        (Pinned.LOCK, "session advisory locks"),
        (Pinned.HOLD, "WITH HOLD cursors"),
        (Pinned.PREPARE, "SQL-level PREPARE"),
        (Pinned.LOAD, "LOAD"),
        (Pinned.FUNCTION, "a function in pin_functions"),
        (Pinned.STATEMENT, "a prepared statement that the pooler does not keep"),
        (Pinned.LOAD | Pinned.TEMPORARY | Pinned.LISTEN, "temporary objects, LISTEN, LOAD"),
    ],
)
def test_names(pins: Pinned, words: str) -> None:
    """What stands in logs, errors and statistics."""
    assert names_of(pins) == words


@pytest.mark.parametrize("pin", Pin)
def test_each_pin_of_a_text_has_a_reason(pin: Pin) -> None:
    """They are the same flags."""
    assert names_of(Pinned(pin.value))
