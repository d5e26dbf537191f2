"""Builders and parsers of messages, against bytes written down by hand from the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ProtocolError
from hyperpool.wire import messages
from hyperpool.wire.text import decode

if TYPE_CHECKING:
    from collections.abc import Callable

texts = st.binary().filter(lambda raw: 0 not in raw).map(decode)
names = texts.filter(bool)

GOLDEN = {
    "error_response": (
        messages.error_response("no such thing", "42704"),
        b"E\x00\x00\x00\x29SFATAL\x00VFATAL\x00C42704\x00Mno such thing\x00\x00",
    ),
    "error_response in full": (
        messages.error_response("m", "28P01", severity="ERROR", detail="d", hint="h"),
        b"E\x00\x00\x00\x23SERROR\x00VERROR\x00C28P01\x00Mm\x00Dd\x00Hh\x00\x00",
    ),
    "notice_response": (
        messages.notice_response("m", "01000"),
        b"N\x00\x00\x00\x21SWARNING\x00VWARNING\x00C01000\x00Mm\x00\x00",
    ),
    "notice_response with a hint": (
        messages.notice_response("m", "00000", severity="LOG", hint="h"),
        b"N\x00\x00\x00\x1cSLOG\x00VLOG\x00C00000\x00Mm\x00Hh\x00\x00",
    ),
    "authentication_ok": (messages.authentication_ok(), b"R\x00\x00\x00\x08\x00\x00\x00\x00"),
    "authentication_cleartext_password": (
        messages.authentication_cleartext_password(),
        b"R\x00\x00\x00\x08\x00\x00\x00\x03",
    ),
    "authentication_md5_password": (
        messages.authentication_md5_password(b"\x93\x00\xff1"),
        b"R\x00\x00\x00\x0c\x00\x00\x00\x05\x93\x00\xff1",
    ),
    "authentication_sasl": (
        messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
        b"R\x00\x00\x00\x2a\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00",
    ),
    "authentication_sasl_continue": (
        messages.authentication_sasl_continue(b"r=x"),
        b"R\x00\x00\x00\x0b\x00\x00\x00\x0br=x",
    ),
    "authentication_sasl_final": (
        messages.authentication_sasl_final(b"v=x"),
        b"R\x00\x00\x00\x0b\x00\x00\x00\x0cv=x",
    ),
    "parameter_status": (
        messages.parameter_status("TimeZone", "Europe/Z\u00fcrich"),
        b"S\x00\x00\x00\x1cTimeZone\x00Europe/Z\xc3\xbcrich\x00",
    ),
    "backend_key_data": (
        messages.backend_key_data(0x80000001, b"\x00\x01\x02\x03"),
        b"K\x00\x00\x00\x0c\x80\x00\x00\x01\x00\x01\x02\x03",
    ),
    "ready_for_query": (messages.ready_for_query(), b"Z\x00\x00\x00\x05I"),
    "ready_for_query in a failed transaction": (messages.ready_for_query(b"E"), b"Z\x00\x00\x00\x05E"),
    "negotiate_protocol_version": (
        messages.negotiate_protocol_version(0, ["_pq_.a", "_pq_.b"]),
        b"v\x00\x00\x00\x1a\x00\x03\x00\x00\x00\x00\x00\x02_pq_.a\x00_pq_.b\x00",
    ),
    "startup_message": (
        messages.startup_message({"user": "u", "database": ""}),
        b"\x00\x00\x00\x1a\x00\x03\x00\x00user\x00u\x00database\x00\x00\x00",
    ),
    "startup_message of another version": (
        messages.startup_message({}, (3, 2)),
        b"\x00\x00\x00\x09\x00\x03\x00\x02\x00",
    ),
    "cancel_request": (
        messages.cancel_request(258, b"\xff\x00\x00\x01\x02"),
        b"\x00\x00\x00\x11\x04\xd2\x16\x2e\x00\x00\x01\x02\xff\x00\x00\x01\x02",
    ),
    "password_message": (messages.password_message(b"p\xff"), b"p\x00\x00\x00\x07p\xff\x00"),
    "sasl_initial_response": (
        messages.sasl_initial_response("SCRAM-SHA-256", b"n,,"),
        b"p\x00\x00\x00\x19SCRAM-SHA-256\x00\x00\x00\x00\x03n,,",
    ),
    "sasl_response": (messages.sasl_response(b"c=biws"), b"p\x00\x00\x00\x0ac=biws"),
    "query": (messages.query("select 1"), b"Q\x00\x00\x00\x0dselect 1\x00"),
    "TERMINATE": (messages.TERMINATE, b"X\x00\x00\x00\x04"),
    "SYNC": (messages.SYNC, b"S\x00\x00\x00\x04"),
}


@pytest.mark.parametrize(("actual", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden_bytes(actual: bytes, expected: bytes) -> None:
    """A message is byte for byte what the documentation describes."""
    assert expected == actual


REFUSED = {
    "zero byte in an error": lambda: messages.error_response("a\x00b", "42704"),
    "zero byte in a SQLSTATE": lambda: messages.error_response("a", "4270\x00"),
    "zero byte in a detail": lambda: messages.notice_response("a", "00000", detail="\x00"),
    "zero byte in a hint": lambda: messages.error_response("a", "42704", hint="\x00"),
    "zero byte in a parameter's name": lambda: messages.parameter_status("a\x00", "b"),
    "zero byte in a parameter's value": lambda: messages.parameter_status("a", "b\x00"),
    "zero byte in a query": lambda: messages.query("select 1\x00; drop table t"),
    "zero byte in a password": lambda: messages.password_message(b"pass\x00word"),
    "zero byte in a startup name": lambda: messages.startup_message({"user\x00": "u"}),
    "zero byte in a startup value": lambda: messages.startup_message({"user": "u\x00database\x00postgres"}),
    "zero byte in a mechanism": lambda: messages.authentication_sasl(["a\x00b"]),
    "zero byte in a chosen mechanism": lambda: messages.sasl_initial_response("a\x00b", b""),
    "zero byte in an option": lambda: messages.negotiate_protocol_version(0, ["_pq_.\x00"]),
    "empty startup name": lambda: messages.startup_message({"user": "u", "": "x"}),
    "startup packet too long": lambda: messages.startup_message({"user": "u", "options": "x" * 10_000}),
    "startup version": lambda: messages.startup_message({}, (0x10000, 0)),
    "empty mechanism": lambda: messages.authentication_sasl(["SCRAM-SHA-256", ""]),
    "short MD5 salt": lambda: messages.authentication_md5_password(b"abc"),
    "long MD5 salt": lambda: messages.authentication_md5_password(b"abcde"),
    "short cancel key": lambda: messages.backend_key_data(1, b"abc"),
    "long cancel key": lambda: messages.backend_key_data(1, bytes(257)),
    "short cancel request": lambda: messages.cancel_request(1, b"abc"),
    "negative process ID": lambda: messages.backend_key_data(-1, b"abcd"),
    "process ID of 33 bits": lambda: messages.cancel_request(1 << 32, b"abcd"),
    "unknown transaction status": lambda: messages.ready_for_query(b"X"),
    "two transaction statuses": lambda: messages.ready_for_query(b"IT"),
    "negative minor version": lambda: messages.negotiate_protocol_version(-1, []),
    "minor version of 17 bits": lambda: messages.negotiate_protocol_version(0x10000, []),
}


@pytest.mark.parametrize("build", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_sent_faithfully_is_refused(build: Callable[[], bytes]) -> None:
    """A builder raises instead of sending a message that means something else than was asked for."""
    with pytest.raises(ProtocolError):
        build()


def test_the_longest_startup_packet_that_postgresql_accepts_is_built() -> None:
    """The bound on a startup packet is exact."""
    without_value = len(messages.startup_message({"o": ""})) - 4
    packet = messages.startup_message({"o": "x" * (10_000 - without_value)})

    assert len(packet) == 10_004


def test_a_body_that_overflows_the_length_is_refused() -> None:
    """The length field is a positive 32-bit integer; a longer body is refused before it is copied."""
    with pytest.raises(ProtocolError, match="longer than the protocol allows"):
        messages.frame(0x51, bytes(0x7FFFFFFC))  # untouched memory is never there


@given(texts, texts, texts, texts)
def test_error_fields_are_read_back(message: str, sqlstate: str, detail: str, hint: str) -> None:
    """Whatever the strings hold, an ErrorResponse always carries S, V, C and M, and comes back as it was sent."""
    frame = messages.error_response(message, sqlstate, "ERROR", detail, hint)

    expected = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": message}
    if detail:
        expected["D"] = detail
    if hint:
        expected["H"] = hint
    assert expected == messages.error_fields(frame[5:])


def test_error_fields_makes_nothing_up() -> None:
    """A server may leave out the SQLSTATE, or everything: the parser returns what is there."""
    assert messages.error_fields(b"Mgone\x00\x00") == {"M": "gone"}
    assert messages.error_fields(b"\x00") == {}


def test_the_last_of_two_equal_fields_counts() -> None:
    """A field sent twice is no error."""
    assert messages.error_fields(b"Ma\x00Mb\x00\x00") == {"M": "b"}


@given(texts, texts)
def test_parameter_status_is_read_back(name: str, value: str) -> None:
    """A ParameterStatus comes back as it was sent."""
    assert messages.parameter_status_fields(messages.parameter_status(name, value)[5:]) == (name, value)


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=4, max_size=256))
def test_backend_key_is_read_back(pid: int, secret: bytes) -> None:
    """A BackendKeyData comes back as it was sent, with the long secrets of protocol 3.2, too."""
    assert messages.backend_key_fields(messages.backend_key_data(pid, secret)[5:]) == (pid, secret)


@pytest.mark.parametrize("status", [b"I", b"T", b"E"])
def test_ready_for_query_is_read_back(status: bytes) -> None:
    """Each of the three transaction statuses comes back as it was sent."""
    assert messages.ready_for_query_status(messages.ready_for_query(status)[5:]) == status


@given(st.lists(names))
def test_sasl_mechanisms_are_read_back(mechanisms: list[str]) -> None:
    """The mechanisms come back in their order."""
    code, data = messages.authentication_fields(messages.authentication_sasl(mechanisms)[5:])

    assert (code, messages.sasl_mechanisms(data)) == (10, mechanisms)


@given(st.integers(0, 0xFFFF), st.lists(texts))
def test_negotiate_protocol_version_is_read_back(minor: int, options: list[str]) -> None:
    """A NegotiateProtocolVersion comes back with the whole version number and the options in their order."""
    body = messages.negotiate_protocol_version(minor, options)[5:]

    assert messages.negotiate_protocol_version_fields(body) == (3 << 16 | minor, options)


@given(st.binary().filter(lambda raw: 0 not in raw))
def test_password_is_read_back(password: bytes) -> None:
    """A password comes back as it was sent, in whatever encoding."""
    assert messages.password_fields(messages.password_message(password)[5:]) == password


@given(texts, st.binary())
def test_sasl_initial_response_is_read_back(mechanism: str, data: bytes) -> None:
    """A SASLInitialResponse comes back as it was sent, with an empty message, too."""
    body = messages.sasl_initial_response(mechanism, data)[5:]

    assert messages.sasl_initial_response_fields(body) == (mechanism, data)


def test_sasl_initial_response_may_come_without_a_message() -> None:
    """The length -1 says that there is no message, which is not the same as an empty one."""
    assert messages.sasl_initial_response_fields(b"X\x00\xff\xff\xff\xff") == ("X", None)


MALFORMED = {
    "error: empty": (messages.error_fields, b""),
    "error: no terminator": (messages.error_fields, b"Mgone\x00"),
    "error: open field": (messages.error_fields, b"Mgone"),
    "error: something behind": (messages.error_fields, b"Mgone\x00\x00\x00"),
    "parameter: empty": (messages.parameter_status_fields, b""),
    "parameter: no value": (messages.parameter_status_fields, b"a\x00"),
    "parameter: open value": (messages.parameter_status_fields, b"a\x00b"),
    "parameter: something behind": (messages.parameter_status_fields, b"a\x00b\x00c"),
    "key: empty": (messages.backend_key_fields, b""),
    "key: half a process ID": (messages.backend_key_fields, b"abc"),
    "key: short secret": (messages.backend_key_fields, b"abcdefg"),
    "key: long secret": (messages.backend_key_fields, bytes(4 + 257)),
    "ready: empty": (messages.ready_for_query_status, b""),
    "ready: unknown": (messages.ready_for_query_status, b"i"),
    "ready: two": (messages.ready_for_query_status, b"II"),
    "authentication: empty": (messages.authentication_fields, b""),
    "authentication: short": (messages.authentication_fields, b"\x00\x00\x00"),
    "mechanisms: empty": (messages.sasl_mechanisms, b""),
    "mechanisms: no terminator": (messages.sasl_mechanisms, b"SCRAM-SHA-256\x00"),
    "mechanisms: open name": (messages.sasl_mechanisms, b"SCRAM-SHA-256"),
    "mechanisms: something behind": (messages.sasl_mechanisms, b"X\x00\x00Y\x00\x00"),
    "negotiate: short": (messages.negotiate_protocol_version_fields, b"\x00\x03\x00\x00\x00\x00\x00"),
    "negotiate: huge count": (
        messages.negotiate_protocol_version_fields,
        b"\x00\x03\x00\x00\xff\xff\xff\xff_pq_.a\x00",
    ),
    "negotiate: one missing": (
        messages.negotiate_protocol_version_fields,
        b"\x00\x03\x00\x00\x00\x00\x00\x02a\x00",
    ),
    "negotiate: one too many": (
        messages.negotiate_protocol_version_fields,
        b"\x00\x03\x00\x00\x00\x00\x00\x00a\x00",
    ),
    "password: empty": (messages.password_fields, b""),
    "password: open": (messages.password_fields, b"secret"),
    "password: something behind": (messages.password_fields, b"secret\x00more\x00"),
    "SASL: empty": (messages.sasl_initial_response_fields, b""),
    "SASL: no length": (messages.sasl_initial_response_fields, b"X\x00"),
    "SASL: half a length": (messages.sasl_initial_response_fields, b"X\x00\x00\x00\x00"),
    "SASL: too short": (messages.sasl_initial_response_fields, b"X\x00\x00\x00\x00\x02a"),
    "SASL: too long": (messages.sasl_initial_response_fields, b"X\x00\x00\x00\x00\x02abc"),
    "SASL: huge length": (messages.sasl_initial_response_fields, b"X\x00\x7f\xff\xff\xffabc"),
    "SASL: no message, but bytes": (messages.sasl_initial_response_fields, b"X\x00\xff\xff\xff\xffabc"),
}


@pytest.mark.parametrize(("parse", "body"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused(parse: Callable[[bytes], object], body: bytes) -> None:
    """A body that is short, long or open is refused as a whole."""
    with pytest.raises(ProtocolError):
        parse(body)


PARSERS = sorted({parse for parse, _ in MALFORMED.values()}, key=lambda parse: parse.__name__)


@pytest.mark.parametrize("parse", PARSERS)
@given(
    body=st.binary(max_size=300)
    | st.text("SVCM\x00_pq.\xff", max_size=30).map(lambda text: text.encode("latin-1"))
)
def test_no_body_breaks_a_parser(parse: Callable[[bytes], object], body: bytes) -> None:
    """Arbitrary bytes are either parsed or refused with ProtocolError, nothing else."""
    try:
        parse(body)
    except ProtocolError as exc:
        assert exc.sqlstate == "08P01"  # noqa: PT017 - the point is that no other type gets here
