"""Session state that comes about in other ways than by SQL texts of its own, and clients that leave all of a sudden."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from tests.support import rawclient as raw
from tests.support.sharing import STATE, Sharing, answers, differences

pytestmark = pytest.mark.hyperpool_only

_SET_CONFIG: Final = 2078  # its OID (pg_proc.dat)


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


def test_set_again_by_a_prepared_statement(sharing: Sharing) -> None:
    """A prepared SET that is executed again, by its name alone, is noticed again."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    client.send(raw.parse("SET work_mem = '7MB'", "s"), raw.SYNC)
    client.receive_until()
    client.send(raw.parse("SET work_mem TO DEFAULT", "d"), raw.SYNC)
    client.receive_until()
    for _ in range(3):
        _execute(client, "s")
        assert sharing.everywhere(client, "SHOW work_mem") == "7MB"
        _compare(sharing.everywhere(other), plain)
        _execute(client, "d")
        _compare(sharing.everywhere(client), plain)


def _execute(client: raw.RawClient, name: str, *values: bytes) -> None:
    client.send(raw.bind(*values, name=name), raw.execute(), raw.SYNC)
    assert b"E" not in raw.kinds(client.receive_until())


def test_names_and_values_are_parameters(sharing: Sharing) -> None:
    """`set_config($1, $2, false)` says nothing of what it sets; it is found out all the same."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    client.send(raw.parse("SELECT set_config($1, $2, false)", "s"), raw.SYNC)
    client.receive_until()
    for name, value in [
        ("work_mem", "7MB"),
        ("my.setting", "it's"),
        ("TimeZone", "Asia/Tokyo"),
        ("role", "hat"),
    ]:
        _execute(client, "s", name.encode(), value.encode())
        assert sharing.everywhere(client, f"SELECT current_setting('{name}')") == value
        _compare(sharing.everywhere(other), plain)


def test_a_function_call_message(sharing: Sharing) -> None:
    """The FunctionCall message can call `set_config`, too."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    arguments = (b"work_mem", b"7MB", b"f")
    body = struct.pack("!ihh", _SET_CONFIG, 0, len(arguments))
    body += b"".join(struct.pack("!i", len(value)) + value for value in arguments) + struct.pack("!h", 0)
    client.send(raw.frame(b"F", body))
    assert raw.kinds(client.receive_until()) == b"VZ"
    assert sharing.everywhere(client, "SHOW work_mem") == "7MB"
    _compare(sharing.everywhere(other), plain)


def test_copy_into_a_table_with_a_trigger(sharing: Sharing) -> None:
    """A trigger that COPY calls is noticed like any other."""
    client, other = sharing.client(), sharing.client()
    plain = sharing.everywhere(other)
    client.send(raw.query("COPY state.audited FROM STDIN"))
    client.receive_until(b"G")
    client.send(raw.copy_data(b"1\n"), raw.COPY_DONE)
    client.receive_until()
    assert sharing.everywhere(client, "SHOW work_mem") == "7MB"
    _compare(sharing.everywhere(other), plain)


def test_seen_at_once(sharing: Sharing) -> None:
    """Requests that are sent ahead find what those before them have set."""
    client, values = sharing.client(), range(1, 20)

    def shown() -> list[bytes | None]:
        rows = [got for _ in range(2 * len(values)) for got in client.receive_until() if got.kind == b"D"]
        return [row.columns[0] for row in rows]

    expected = [b"%dMB" % n for n in values]
    client.send(*(raw.query(f"SET work_mem = '{n}MB'") + raw.query("SHOW work_mem") for n in values))
    assert shown() == expected
    client.send(
        *(
            raw.extended(f"SET work_mem = '{n}MB'") + raw.SYNC + raw.extended("SHOW work_mem") + raw.SYNC
            for n in values
        )
    )
    assert shown() == expected


def test_many_clients_with_settings_of_their_own(sharing: Sharing) -> None:
    """Clients that take turns on two servers each find what they have set last."""
    sql = "SELECT concat_ws(' ', current_setting('work_mem'), current_setting('my.setting', true), current_user)"
    clients = [sharing.client() for _ in range(6)]
    for turn in range(3):
        for number, client in enumerate(clients):
            role = "hat" if number % 2 else "trudy"
            answers(
                client,
                "simple",
                [
                    f"SET work_mem = '{turn + number + 1}MB'",
                    f"SET my.setting = '{number}'",
                    f"SET ROLE {role}",
                ],
            )
        for number, client in enumerate(clients):
            role = "hat" if number % 2 else "trudy"
            assert sharing.everywhere(client, sql) == f"{turn + number + 1}MB {number} {role}"


LEFT: Final = [
    "SET work_mem = '7MB'",
    "BEGIN; SET work_mem = '7MB'",
    "SET ROLE hat",
    "DO $$ BEGIN SET my.setting = 'x'; END $$",
    "LISTEN left_over",
    "CREATE TEMP TABLE left_over (n int)",
    "SELECT pg_advisory_lock(4711), set_config('work_mem', '7MB', false)",
    "PREPARE left_over AS SELECT 1",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
]


@pytest.mark.parametrize("text", LEFT)
def test_who_leaves_before_the_answer(sharing: Sharing, text: str) -> None:
    """A client that is gone when its answer comes leaves nothing to others."""
    other = sharing.client()
    plain = sharing.everywhere(other)
    for sent in (raw.query(text), raw.query(text) + raw.query("SELECT 1"), raw.query(text) + raw.TERMINATE):
        for _ in range(3):
            client = sharing.client()
            client.send(sent)
            client.abort()
            assert other.value(STATE) == plain
        sharing.settle()
        _compare(sharing.everywhere(other), plain)
