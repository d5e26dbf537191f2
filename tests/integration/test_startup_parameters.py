"""Any startup parameter is honoured or refused as PostgreSQL itself does it, whichever server the client gets."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.support import rawclient as raw
from tests.support.postgres import TRUDY
from tests.support.sharing import STATE, Sharing, config_for, differences, direct, pid_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

_DATABASE: Final = "other"  # where a pooler may stay longer than a test

HONOURED: Final[dict[str, dict[str, str]]] = {
    "nothing": {},
    "statement_timeout": {"statement_timeout": "90s"},
    "a number without unit": {"lock_timeout": "90000"},
    "work_mem in capitals": {"WORK_MEM": "7MB"},
    "extra_float_digits": {"extra_float_digits": "3"},
    "search_path": {"search_path": '"$user", public, "odd name"'},
    "an empty search_path": {"search_path": '""'},
    "an own parameter": {"my.setting": 'it\'s \\ "x"'},
    "default_transaction_isolation": {"default_transaction_isolation": "serializable"},
    "read only": {"default_transaction_read_only": "on"},
    "several": {"geqo": "off", "TimeZone": "Asia/Tokyo", "work_mem": "7MB", "application_name": "mine"},
    "options": {"options": "-c work_mem=7MB -cgeqo=off --lock-timeout=90s"},
    "options with blanks": {"options": r"-c search_path=public,\ \"odd\ name\" -c my.setting=a\\b"},
    "options and parameters": {"options": "-c work_mem=7MB -c TimeZone=Asia/Tokyo", "DateStyle": "German"},
    "client_encoding in small letters": {"client_encoding": "utf-8"},
    "client_encoding by another name": {"client_encoding": "latin1"},
    "DateStyle in part": {"DateStyle": "dmy"},
    "DateStyle by another name": {"datestyle": "german"},
    "TimeZone in small letters": {"timezone": "asia/tokyo"},
    "TimeZone as a number": {"TimeZone": "-7"},
    "a boolean by another name": {"standard_conforming_strings": "0"},
    "IntervalStyle": {"intervalstyle": "ISO_8601"},
    "application_name with other characters": {"application_name": "naïve \t '\" \\"},
    "a long application_name": {"application_name": "x" * 100},
}
"""What clients ask for."""

REFUSED: Final[dict[str, dict[str, str]]] = {
    "an unknown parameter": {"nonsense": "1"},
    "an unknown parameter in options": {"options": "-c nonsense=1"},
    "a name that is none": {"no-such name": "1"},
    "work_mem": {"work_mem": "a lot"},
    "out of range": {"statement_timeout": "-5"},
    "TimeZone": {"TimeZone": "Mars/Olympus_Mons"},
    "client_encoding": {"client_encoding": "klingon"},
    "DateStyle": {"DateStyle": "stardate"},
    "a boolean": {"standard_conforming_strings": "maybe"},
    "what a superuser may set": {"log_statement": "all"},
    "what the server alone has": {"shared_buffers": "1GB"},
    "what cannot be changed": {"block_size": "4096"},
    "a role": {"role": "postgres"},
    "good and bad": {"work_mem": "7MB", "my.setting": "x", "TimeZone": "Asia/Tokyo", "geqo": "maybe"},
}
"""What PostgreSQL refuses at login."""


@pytest.fixture(scope="module")
def _pooler(_pg: PostgresCluster, make_module_pooler: PoolerFactory) -> Pooler:
    config = config_for(_pg, _DATABASE)
    everything = config["databases"]["*"]
    config["databases"] |= {
        "session": {**everything, "pool_mode": "session"},
        "statement": {**everything, "pool_mode": "statement"},
        "keep": {**everything, "session_state": "keep"},
        "reset": {**everything, "session_state": "reset"},
        "one": {**everything, "pool_size": 1},
        "one session": {**everything, "pool_size": 1, "pool_mode": "session"},
    }
    return make_module_pooler(config)


@pytest.fixture
def pooler(_pooler: Pooler, pg: PostgresCluster, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler whose pools have two servers; `one` and `one session` have one; others have other modes."""
    return watch(_pooler)


@pytest.fixture
def sharing(pooler: Pooler) -> Iterator[Sharing]:
    """Clients that share two servers."""
    with Sharing(pooler) as sharing:
        yield sharing


def _compare(state: str, expected: str) -> None:
    assert state == expected, differences(state, expected)


@pytest.mark.parametrize("asked", HONOURED.values(), ids=HONOURED)
def test_honoured(sharing: Sharing, pg: PostgresCluster, asked: dict[str, str]) -> None:
    """A client is told at login what the server has made of its parameters, and finds that on each server."""
    with direct(pg, _DATABASE, **asked) as alone:
        state, told = alone.value(STATE), alone.parameters
    other = sharing.client()
    untouched = sharing.everywhere(other)
    for _ in range(2):  # the second time, the pooler knows what servers make of them
        client = sharing.client(**asked)
        assert client.parameters == told
        _compare(sharing.everywhere(client), state)
        _compare(sharing.everywhere(other), untouched)


@pytest.mark.parametrize("mode", ["session", "statement"])
@pytest.mark.parametrize("asked", HONOURED.values(), ids=HONOURED)
def test_honoured_in_other_modes(
    pooler: Pooler, pg: PostgresCluster, asked: dict[str, str], mode: str
) -> None:
    """The same in session and in statement pooling; the next client finds nothing of it."""
    with direct(pg, _DATABASE, **asked) as alone, direct(pg, _DATABASE) as untouched:
        state, told, plain = alone.value(STATE), alone.parameters, untouched.value(STATE)
    with pooler.raw(mode, TRUDY, **asked) as client:
        assert client.parameters == told
        for _ in range(2):
            _compare(client.value(STATE), state)
        client.close()
    with pooler.raw(mode, TRUDY) as one, pooler.raw(mode, TRUDY) as two:
        for client in (one, two):
            _compare(client.value(STATE), plain)


@pytest.mark.parametrize("mode", ["one", "one session"])
@pytest.mark.parametrize("asked", REFUSED.values(), ids=REFUSED)
def test_refused(pooler: Pooler, pg: PostgresCluster, asked: dict[str, str], mode: str) -> None:
    """A login that PostgreSQL would refuse is refused in its words; the server connection stays, and is clean."""
    with raw.RawClient((pg.host, pg.port)) as alone:
        expected = alone.login(_DATABASE, TRUDY.name, **asked)[-1].fields
        assert expected["S"] == "FATAL"
    with pooler.raw(mode, TRUDY) as before:
        pid, state = pid_of(before), before.value(STATE)
        before.close()
    for _ in range(2):
        fields = pooler.refused(mode, TRUDY, **asked).fields
        assert {key: fields.get(key) for key in "SCM"} == {key: expected.get(key) for key in "SCM"}
    with pooler.raw(mode, TRUDY) as after:
        assert pid_of(after) == pid
        _compare(after.value(STATE), state)


def test_refused_while_others_work(sharing: Sharing) -> None:
    """Refused logins do not disturb a client that is in a transaction, nor one with settings of its own."""
    client, other = sharing.client(work_mem="7MB"), sharing.client()
    other.ask("BEGIN; SET LOCAL work_mem = '9MB'")
    for asked in REFUSED.values():
        assert sharing.pooler.refused("app", TRUDY, **asked).fields["S"] == "FATAL"
        assert client.value("SHOW work_mem") == "7MB"
        assert other.value("SHOW work_mem") == "9MB"


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_what_is_not_reported_is_not_followed(pooler: Pooler, state: str) -> None:
    """Without `follow` a parameter that servers do not report is refused; the hint tells what to do."""
    for asked in ({"work_mem": "7MB"}, {"options": "-c work_mem=7MB"}, {"my.setting": "x"}):
        fields = pooler.refused(state, TRUDY, **asked).fields
        assert (fields["S"], fields["C"]) == ("FATAL", "08P01")
        (name,) = [name for name in ("work_mem", "my.setting") if name in fields["M"]]
        assert name in fields["H"]
        assert "session_state" in fields["H"]
        assert "follow" in fields["H"]
        assert "ignore_startup_parameters" in fields["H"]
    with pooler.raw(state, TRUDY, TimeZone="asia/tokyo", client_encoding="latin1") as client:
        assert client.parameters["TimeZone"] == "Asia/Tokyo"
        assert client.value("SHOW TimeZone") == "Asia/Tokyo"
        assert client.value("SHOW client_encoding") == "LATIN1"
    expected = 'unrecognized time zone name: "Mars"', 'invalid value for parameter "TimeZone": "Mars"'
    assert pooler.refused(state, TRUDY, TimeZone="Mars").fields["M"] in expected


@pytest.mark.parametrize(
    "options", ["-x", "-c", "-c work_mem", "--work_mem", "work_mem=7MB", "-B 5", "-c =1"]
)
def test_options_that_are_not_understood(pooler: Pooler, options: str) -> None:
    """Anything in `options` but settings is refused, and the remedy is told."""
    fields = pooler.refused("app", TRUDY, options=options).fields
    assert (fields["S"], fields["C"]) == ("FATAL", "08P01")
    assert "ignore_startup_parameters" in fields["H"]


def test_ignored(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """What stands in `ignore_startup_parameters` is dropped, whatever it is, also out of `options`."""
    pooler = make_pooler(
        config_for(pg, "app", ignore_startup_parameters=["Nonsense", "work_mem", "timezone"])
    )
    asked = {"NONSENSE": "1", "options": "-c work_mem=rubbish -c geqo=off -c nonsense=2", "TimeZone": "Mars"}
    with pooler.raw("app", TRUDY, **asked) as client:
        assert client.value("SHOW work_mem") == "4MB"
        assert client.value("SHOW TimeZone") == "UTC"
        assert client.value("SHOW geqo") == "off"
    config = {
        **pooler.config,
        "pooler": {**pooler.config["pooler"], "ignore_startup_parameters": ["options"]},
    }
    pooler.reload(config)
    eventually(lambda: " reloaded " in pooler.log_text(), what="the settings are read")
    with pooler.raw("app", TRUDY, options="-x nonsense", work_mem="7MB") as client:
        assert client.value("SHOW work_mem") == "7MB"


def test_a_value_that_was_taken_before_is_known(pooler: Pooler) -> None:
    """The first login with a value waits for a server; the next one does not, though all servers are busy."""
    asked = {"work_mem": "17MB", "TimeZone": "europe/berlin"}
    with pooler.raw("one", TRUDY) as busy, pooler.open_raw() as first:
        busy.ask("BEGIN")
        first.send(raw.startup_packet({"user": TRUDY.name, "database": "one", **asked}))
        first.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            first.receive()
        first.sock.settimeout(10)
        busy.ask("COMMIT")
        frames = first.finish_login(TRUDY.name, "")
        assert frames[-1].kind == b"Z"
        assert first.parameters["TimeZone"] == "Europe/Berlin"
        busy.ask("BEGIN")
        with pooler.raw("one", TRUDY, **asked) as second:
            assert second.parameters == first.parameters
            busy.ask("COMMIT")
            assert second.value("SHOW work_mem") == first.value("SHOW work_mem") == "17MB"
            assert busy.value("SHOW work_mem") == "4MB"


def test_who_leaves_while_his_login_waits(pooler: Pooler) -> None:
    """A client that gives up while its parameters wait for a server leaves nothing behind."""
    with pooler.raw("one", TRUDY) as busy:
        pid, state = pid_of(busy), busy.value(STATE)
        busy.ask("BEGIN")
        for n in range(10):
            with pooler.open_raw() as client:
                asked = {"user": TRUDY.name, "database": "one", "work_mem": f"{20 + n}MB"}
                client.send(raw.startup_packet(asked))
                client.sock.settimeout(0.02)
                with pytest.raises(TimeoutError):
                    client.receive()
                if n % 2:
                    client.abort()
        busy.ask("COMMIT")
        for _ in range(10):
            assert pid_of(busy) == pid
            _compare(busy.value(STATE), state)


def test_a_request_right_behind_the_login(pooler: Pooler) -> None:
    """A client that sends its first query together with the startup packet has its parameters for that."""
    with pooler.raw("one", TRUDY) as busy, pooler.open_raw() as client:
        busy.ask("BEGIN")
        asked = {"user": TRUDY.name, "database": "one", "work_mem": "19MB"}
        client.send(raw.startup_packet(asked), raw.query("SHOW work_mem"), raw.query("SHOW TimeZone"))
        busy.ask("COMMIT")
        assert client.finish_login(TRUDY.name, "")[-1].kind == b"Z"
        got = [frame.columns for _ in "ab" for frame in client.receive_until() if frame.kind == b"D"]
        assert got == [[b"19MB"], [b"UTC"]]


def test_pgoptions(pooler: Pooler, psql: str) -> None:
    """`PGOPTIONS` of libpq's programs works, whatever it sets; what is wrong is told as by PostgreSQL."""

    def run(options: str, sql: str) -> tuple[str, str]:
        done = subprocess.run(
            [psql, pooler.url("app", TRUDY), "-X", "-A", "-t", "-q", "-c", sql],
            env={**os.environ, "PGOPTIONS": options, "PSQLRC": os.devnull, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout.strip(), done.stderr

    options = r"-c statement_timeout=90s -c search_path=public,\ \"odd\ name\" -c extra_float_digits=-10"
    assert run(options, "SHOW statement_timeout") == ("90s", "")
    assert run(options, "SHOW search_path") == ('public, "odd name"', "")
    assert run(options, "SELECT 1.0::float8 / 3") == ("0.33333", "")
    output, errors = run("-c nonsense=1", "SELECT 1")
    assert output == ""
    assert 'FATAL:  unrecognized configuration parameter "nonsense"' in errors
