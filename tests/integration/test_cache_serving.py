"""The result cache: what is answered from memory, in every form of the protocol that drivers use."""

from __future__ import annotations

import pytest

from tests.support import rawclient as raw
from tests.support.cached import Stage, rows

pytestmark = pytest.mark.hyperpool_only

_SQL = "SELECT name FROM cached.item WHERE id = 1"


EXECUTE = raw.execute()
PARSED = raw.parse("SELECT name, price FROM cached.item WHERE id = $1")
NAMED = raw.parse("SELECT name, price FROM cached.item WHERE id = $1", "by id")
DESCRIBED = raw.frame(b"D", b"S\0")
DESCRIBED_NAMED = raw.frame(b"D", raw.cstring("Sby id"))
CLOSE_PORTAL = raw.frame(b"C", b"P\0")
BINARY = raw.frame(b"B", b"\0\0" + bytes.fromhex("0001 0001 0001 00000004 00000001 0001 0001"))

FORMS = {
    "Query": [raw.query("SELECT name, price FROM cached.item WHERE id = 1")],
    "VALUES": [raw.query("VALUES (1, 'a'), (2, 'b')")],
    "TABLE": [raw.query("TABLE cached.item")],
    "no rows": [raw.query("SELECT name FROM cached.item WHERE id = 1000")],
    "no columns": [raw.query("SELECT FROM cached.item")],
    "NULL": [raw.query("SELECT NULL::text, name FROM cached.item WHERE id < 3")],
    "Parse, Bind, Execute": [PARSED + raw.bind(b"1") + EXECUTE + raw.SYNC],
    "Parse, Bind, Describe, Execute": [PARSED + raw.bind(b"1") + raw.describe_portal() + EXECUTE + raw.SYNC],
    "Parse, Bind, Describe, Execute, Close": [
        PARSED + raw.bind(b"1") + raw.describe_portal() + EXECUTE + CLOSE_PORTAL + raw.SYNC
    ],
    "binary": [PARSED + BINARY + raw.describe_portal() + EXECUTE + raw.SYNC],
    "Parse and Describe first": [PARSED + DESCRIBED + raw.SYNC, raw.bind(b"1") + EXECUTE + raw.SYNC],
    "a named statement": [
        NAMED + DESCRIBED_NAMED + raw.SYNC,
        raw.bind(b"1", name="by id") + raw.describe_portal() + EXECUTE + raw.SYNC,
        raw.bind(b"2", name="by id") + EXECUTE + raw.SYNC,
        raw.bind(b"1", name="by id") + EXECUTE + CLOSE_PORTAL + raw.SYNC,
    ],
    "a named statement at once": [NAMED + raw.bind(b"1", name="by id") + EXECUTE + raw.SYNC],
    "fewer rows than there are": [PARSED + raw.bind(b"1") + raw.execute(rows=1) + raw.SYNC],
    "more rows than there are": [
        PARSED + raw.bind(b"1") + raw.describe_portal() + raw.execute(rows=2) + CLOSE_PORTAL + raw.SYNC
    ],
    "a limit and no rows": [PARSED + raw.bind(b"1000") + raw.execute(rows=1) + raw.SYNC],
    "a limit that is none": [PARSED + raw.bind(b"1") + raw.execute(rows=-1) + raw.SYNC],
    "a limit in a named statement": [
        NAMED + DESCRIBED_NAMED + raw.SYNC,
        raw.bind(b"1", name="by id") + raw.execute(rows=1) + raw.SYNC,
        raw.bind(b"1", name="by id") + raw.describe_portal() + raw.execute(rows=3) + raw.SYNC,
    ],
    "a parameter's type": [
        raw.frame(b"P", b"\0select $1\0" + bytes.fromhex("0001 00000017"))
        + raw.bind(b"7")
        + raw.describe_portal()
        + EXECUTE
        + raw.SYNC
    ],
}
"""What drivers send, from one ReadyForQuery to the next."""


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_from_memory_is_the_same_to_the_byte(stage: Stage, form: str) -> None:
    """An answer from memory is the same to the byte."""
    direct = stage.direct()
    expected = [direct.frames(part) for part in FORMS[form]]
    for _ in range(2):
        client = stage.client()
        assert [client.frames(part) for part in FORMS[form]] == expected
    stage.behind("UPDATE cached.item SET name = 'behind'")
    client = stage.client()
    assert [client.frames(part) for part in FORMS[form]] == expected
    # Also the second time on one connection, by the shorter way, for what can be asked twice.
    again = [part for part in FORMS[form] if not part.startswith(NAMED)]
    assert [client.frames(part) for part in again] == expected[len(expected) - len(again) :]


@pytest.mark.parametrize("form", FORMS)
def test_what_was_prepared_without_a_server_is_prepared_when_it_is_needed(stage: Stage, form: str) -> None:
    """What was prepared without a server is prepared when it is needed."""
    for _ in range(2):
        client = stage.client()
        for part in FORMS[form]:
            client.frames(part)
    client = stage.client()
    for part in FORMS[form]:
        client.frames(part)
    if raw.cstring("by id") in FORMS[form][0]:
        found = client.frames(raw.bind(b"7", name="by id"), EXECUTE, raw.SYNC)
        assert rows(found) == [[b"item 7", b"7.00"]]
        twice = client.frames(NAMED + raw.SYNC)
        assert twice[0].fields["C"] == "42P05", "the name is taken"
    elif FORMS[form][-1].startswith(b"P") and raw.bind(b"1") in FORMS[form][0]:
        found = client.frames(raw.bind(b"7"), EXECUTE, raw.SYNC)
        assert len(rows(found)) == 1, "the unnamed statement is there"
    elif FORMS[form][0].startswith(b"Q"):
        gone = client.frames(raw.bind(), EXECUTE, raw.SYNC)
        assert gone[0].fields["C"] == "26000", "a simple query ends the unnamed statement"


def test_a_repeated_query_is_answered_from_memory(stage: Stage) -> None:
    """A repeated query is answered from memory."""
    client = stage.client()
    assert client.fetch(_SQL) == [[b"item 1"]]
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"item 1"]]
    assert stage.client().fetch(_SQL) == [[b"item 1"]]


def test_comments_blanks_and_case_of_keywords_do_not_matter(stage: Stage) -> None:
    """Comments blanks and case of keywords do not matter."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    for sql in (f"/* who asks */ {_SQL} -- why", "select  name\n\tFrom Cached.ITEM Where id=1"):
        assert client.fetch(sql) == [[b"item 1"]]
    assert client.fetch(_SQL.replace("1", "2")) == [[b"item 2"]], "literals do"
    assert client.fetch(_SQL.replace("name", '"name"')) == [[b"new"]], "quotes are taken for another text"


def test_what_is_asked_in_a_pipeline_is_answered_by_a_server(stage: Stage) -> None:
    """What is asked in a pipeline is answered by a server."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    client.send(raw.query(_SQL), raw.query(_SQL))
    assert rows(client.receive_until()) == rows(client.receive_until()) == [[b"new"]]


def test_a_limit_of_rows_makes_another_answer(stage: Stage) -> None:
    """Which tells whether there may be more; what is asked for behind it comes from a server."""
    client, direct = stage.client(), stage.direct()
    sql = raw.parse("SELECT id, name FROM cached.item WHERE id < 4 ORDER BY id") + raw.bind()
    limits = (0, 1, 2, 3, 4, -2)
    expected = {limit: direct.frames(sql, raw.execute(rows=limit), raw.SYNC) for limit in limits}
    assert {raw.kinds(frames)[-2:] for frames in expected.values()} == {b"sZ", b"CZ"}
    for _ in range(2):
        for limit in limits:
            assert client.frames(sql, raw.execute(rows=limit), raw.SYNC) == expected[limit]
        stage.behind("UPDATE cached.item SET name = 'behind'")
    rest = client.frames(sql, raw.execute(rows=2), raw.execute(), raw.SYNC)
    assert raw.kinds(rest) == b"12DDsDCZ"
    assert rows(rest)[0][1] == b"behind"
    gone = client.frames(raw.execute(rows=1), raw.SYNC)
    assert gone[0].fields["C"] == "34000", "the portal ends with its transaction"


def test_what_a_statement_looks_like_may_be_asked_with_flush(stage: Stage) -> None:
    """As asyncpg does, before it goes on with Bind; errors come as they should."""
    sql = "SELECT name, price FROM cached.item WHERE id = $1"
    direct = stage.direct()
    expected: list[raw.Frame] = []
    for client in (direct, *(stage.client() for _ in range(4))):
        client.send(raw.parse(sql, "s"), raw.frame(b"D", raw.cstring("Ss")), raw.FLUSH)
        found = [client.receive() for _ in range(3)]
        found += client.frames(raw.bind(b"1", name="s"), raw.execute(rows=1), raw.SYNC)
        found += client.frames(raw.bind(b"x", name="s"), raw.execute(), raw.SYNC)
        found += client.frames(raw.SYNC)
        expected = expected or found
        assert found == expected
    stage.behind("ALTER TABLE cached.item ADD COLUMN more int; ALTER TABLE cached.item DROP COLUMN more")
    unknown = stage.client()
    unknown.send(raw.parse("SELECT nothing"), raw.frame(b"D", b"S\0"), raw.FLUSH)
    assert unknown.receive().fields["C"] == "42703"
    assert raw.kinds(unknown.frames(raw.bind(), raw.SYNC)) == b"Z"


def test_the_switch_can_be_read_as_postgresql_would_show_a_setting(stage: Stage) -> None:
    """In the simple and in the extended protocol, binary, described or not, with a limit."""
    client, direct = stage.client(), stage.direct()
    direct.fetch("SET hyperpool.cache = off")
    client.fetch("SET hyperpool.cache = off")
    show = raw.parse("SHOW hyperpool.cache")
    binary = raw.frame(b"B", bytes.fromhex("0000 0000 0000 0001 0001"))
    for request in (
        raw.query("SHOW hyperpool.cache"),
        raw.query(" show  hyperpool.cache ; "),
        show + raw.bind() + raw.execute() + raw.SYNC,
        show + raw.bind() + raw.describe_portal() + raw.execute() + raw.SYNC,
        show + binary + raw.describe_portal() + raw.execute() + CLOSE_PORTAL + raw.SYNC,
        show + raw.frame(b"D", b"S\0") + raw.SYNC,
        show + raw.bind() + raw.execute(rows=1) + raw.SYNC,
        show + raw.bind() + raw.execute(rows=2) + raw.SYNC,
        raw.parse("SET hyperpool.cache = off") + raw.frame(b"D", b"S\0") + raw.SYNC,
        raw.parse("SET hyperpool.cache = off") + raw.bind() + raw.execute(rows=1) + raw.SYNC,
    ):
        assert client.frames(request) == direct.frames(request)
    refused = client.frames(show, raw.bind(b"1"), raw.execute(), raw.SYNC)
    assert raw.kinds(refused) == b"EZ"
    client.fetch("RESET hyperpool.cache")
    assert client.fetch("SHOW hyperpool.cache") == [[b"on"]]
    named = raw.parse("SHOW hyperpool.cache", "shows") + raw.frame(b"D", raw.cstring("Sshows"))
    client.send(named, raw.FLUSH)
    assert raw.kinds([client.receive() for _ in range(3)]) == b"1tT"
    assert rows(client.frames(raw.bind(name="shows"), raw.execute(), raw.SYNC)) == [[b"on"]]
    given = stage.client("app", **{"hyperpool.cache": "off"})
    assert given.fetch("SHOW hyperpool.cache") == [[b"off"]]


def test_flush_in_place_of_sync_is_a_server_s_business(stage: Stage) -> None:
    """Flush in place of sync is a server's business, where rows are asked for."""
    client = stage.client()
    for _ in range(2):
        client.send(raw.extended(_SQL), raw.FLUSH)
        assert rows(client.receive_until(b"C")) == [[b"item 1"]]
        client.frames(raw.SYNC)


def test_a_request_in_pieces_is_answered_from_memory(stage: Stage) -> None:
    """A request in pieces is answered from memory."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    message = raw.query(_SQL)
    client.send(message[:9])
    stage.client().fetch(_SQL)
    client.send(message[9:])
    assert rows(client.receive_until()) == [[b"item 1"]]


def test_a_client_that_does_not_read_gets_its_answers_in_order(stage: Stage) -> None:
    """A client that does not read gets its answers in order."""
    client = stage.client()
    big = f"SELECT id, '{'x' * 5000}' FROM cached.item"
    for _ in range(3):
        client.fetch(big)
    for _ in range(100):
        client.send(raw.query(big))
    for _ in range(100):
        assert len(rows(client.receive_until())) == 20


def test_a_cancel_request_against_a_hit_is_ignored(stage: Stage) -> None:
    """A cancel request against a hit is ignored."""
    client = stage.client()
    client.fetch(_SQL)
    stage.rename(1, "new")
    assert client.fetch(_SQL) == [[b"item 1"]]
    with stage.pooler.open_raw() as canceler:
        canceler.send(raw.cancel_packet(client.pid, client.secret))
        assert canceler.receive_all() == []
    assert client.fetch(_SQL) == [[b"item 1"]]


def test_an_error_stays_an_error(stage: Stage) -> None:
    """An error stays an error."""
    client = stage.client()
    for _ in range(3):
        (error,) = [frame for frame in client.frames(raw.query("SELECT 1 / 0")) if frame.kind == b"E"]
        assert error.fields["C"] == "22012"
        frames = client.frames(raw.extended("SELECT nothing FROM cached.item"), raw.SYNC)
        assert [frame.kind for frame in frames] == [b"E", b"Z"]


def test_an_answer_with_an_error_in_its_middle_is_not_kept(stage: Stage) -> None:
    """An answer with an error in its middle is not kept."""
    client = stage.client()
    sql = "SELECT 10 / (id - 5) FROM cached.item WHERE id < 8 ORDER BY id"
    for _ in range(3):
        frames = client.frames(raw.query(sql))
        assert [frame.kind for frame in frames] == [b"T", b"E", b"Z"]


def test_a_large_answer_passes_and_is_not_kept(stage: Stage) -> None:
    """A large answer passes and is not kept."""
    client = stage.client()
    sql = "SELECT a.name, b.words FROM cached.item a, cached.note b, cached.item c, cached.item d WHERE d.id < 11"
    assert len(client.fetch(sql)) == 80000
    stage.rename(1, "new")
    assert [b"new", b"note 1"] in client.fetch(sql)


@pytest.mark.parametrize("behind", [b"\0x\0", b"x"])
def test_a_broken_message_is_an_error_though_what_it_begins_with_is_known(
    stage: Stage, behind: bytes
) -> None:
    """A text ends with its only zero byte."""
    sql = "SELECT name FROM cached.item WHERE id = 1"
    client, direct = stage.client(), stage.direct()
    for _ in range(3):
        client.fetch(sql)
    codes = []
    for one in (client, direct):
        one.send(raw.frame(b"Q", sql.encode() + behind))
        codes.append(one.receive_until(b"E")[-1].fields["C"])
    assert codes == ["08P01", "08P01"]
