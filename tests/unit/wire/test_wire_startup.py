"""The first packet of a connection."""

from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyperpool.errors import AuthenticationError, ProtocolError
from hyperpool.wire import messages
from hyperpool.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    negotiate,
    parse_startup,
)
from hyperpool.wire.text import decode, encode

V3_0 = b"\x00\x03\x00\x00"

texts = st.binary(max_size=60).filter(lambda raw: 0 not in raw).map(decode)
names = texts.filter(bool).filter(lambda name: not name.startswith("_pq_."))


def parsed_startup(packet: bytes) -> StartupMessage:
    """Parse a packet that is known to be a StartupMessage."""
    message = parse_startup(packet)
    assert isinstance(message, StartupMessage)
    return message


def test_encryption_requests_are_four_bytes() -> None:
    """SSLRequest and GSSENCRequest are recognized by their codes."""
    assert parse_startup(bytes.fromhex("04d2162f")) == SSLRequest()
    assert parse_startup(bytes.fromhex("04d21630")) == GSSENCRequest()


@pytest.mark.parametrize("code", ["04d2162f", "04d21630"])
def test_nothing_hides_behind_an_encryption_request(code: str) -> None:
    """Bytes in the packet of an encryption request are refused, so that nobody smuggles them past TLS."""
    with pytest.raises(ProtocolError, match="invalid length of encryption request"):
        parse_startup(bytes.fromhex(code) + b"\x00")


@given(st.integers(0, 0xFFFFFFFF), st.binary(min_size=4, max_size=256))
def test_cancel_request_is_read_back(pid: int, secret: bytes) -> None:
    """A CancelRequest carries the key of protocol 3.0, four bytes, or of 3.2, up to 256."""
    assert parse_startup(messages.cancel_request(pid, secret)[4:]) == CancelRequest(pid, secret)


@pytest.mark.parametrize("length", [0, 4, 7, 4 + 257])
def test_cancel_request_of_a_wrong_length_is_refused(length: int) -> None:
    """A key that is too short or too long is refused."""
    with pytest.raises(ProtocolError, match="invalid length of cancel request packet"):
        parse_startup(bytes.fromhex("04d2162e") + bytes(length))


def test_a_cancel_key_does_not_show_in_logs() -> None:
    """The secret is left out of the representation."""
    assert "s3cr" not in repr(CancelRequest(1, b"s3cr"))


def test_startup_message_of_psql() -> None:
    """The packet that psql sends gives its parameters, its user and its database."""
    packet = V3_0 + (
        b"user\x00alice\x00database\x00shop\x00application_name\x00psql\x00client_encoding\x00UTF8\x00\x00"
    )

    message = parsed_startup(packet)

    assert attrs.astuple(message) == (
        (3, 0),
        {"user": "alice", "database": "shop", "application_name": "psql", "client_encoding": "UTF8"},
        {},
    )
    assert (message.user, message.database) == ("alice", "shop")


@pytest.mark.parametrize("rest", [b"", b"database\x00\x00"], ids=["missing", "empty"])
def test_the_database_is_named_as_the_user_unless_given(rest: bytes) -> None:
    """As in PostgreSQL, a missing or empty database name stands for the user's."""
    assert parsed_startup(V3_0 + b"user\x00alice\x00" + rest + b"\x00").database == "alice"


@given(st.dictionaries(names, texts, max_size=8), texts.filter(bool))
def test_startup_message_is_read_back(parameters: dict[str, str], user: str) -> None:
    """Names and values in any encoding come back as they were sent."""
    parameters = {**parameters, "user": user}

    assert parsed_startup(messages.startup_message(parameters)[4:]).parameters == parameters


def test_of_a_name_sent_twice_the_last_value_counts() -> None:
    """PostgreSQL lets the later of two equal names win."""
    packet = V3_0 + b"user\x00eve\x00database\x00a\x00user\x00alice\x00database\x00b\x00\x00"

    message = parsed_startup(packet)

    assert (message.user, message.database) == ("alice", "b")


def test_names_that_are_not_utf8_keep_their_bytes() -> None:
    """A user name in Latin-1 is neither refused nor changed."""
    message = parsed_startup(V3_0 + b"user\x00J\xe9r\xf4me\x00\x00")

    assert encode(message.user) == b"J\xe9r\xf4me"


@pytest.mark.parametrize(
    "rest",
    [
        b"\x00",
        b"database\x00postgres\x00\x00",
        b"user\x00\x00\x00",
        b"USER\x00alice\x00\x00",
        b"user\x00a\x00user\x00\x00\x00",
    ],
    ids=["nothing", "missing", "empty", "capitals", "emptied"],
)
def test_a_user_must_be_named(rest: bytes) -> None:
    """A startup packet without a user name fails with PostgreSQL's words and SQLSTATE."""
    with pytest.raises(AuthenticationError) as failure:
        parse_startup(V3_0 + rest)

    assert str(failure.value) == "no PostgreSQL user name specified in startup packet"
    assert failure.value.sqlstate == "28000"


@pytest.mark.parametrize(
    "rest",
    [
        b"user\x00alice\x00\x00more\x00",
        b"user\x00alice\x00",
        b"",
        b"user\x00alice\x00\x00\x00",
    ],
    ids=["something behind", "no terminator", "empty", "two terminators"],
)
def test_the_terminator_must_be_the_last_byte(rest: bytes) -> None:
    """A packet that ends before its terminator, or goes on after it, is refused with PostgreSQL's words."""
    with pytest.raises(ProtocolError, match="expected terminator as last byte"):
        parse_startup(V3_0 + rest)


@pytest.mark.parametrize("rest", [b"user", b"user\x00", b"user\x00alice", b"user\x00alice\x00x"])
def test_a_truncated_packet_is_refused(rest: bytes) -> None:
    """A name or value that runs to the end of the packet is malformed."""
    with pytest.raises(ProtocolError):
        parse_startup(V3_0 + rest)


@pytest.mark.parametrize("packet", [b"", b"\x00", b"\x00\x03\x00", V3_0 + bytes(9_997)])
def test_a_packet_of_an_impossible_length_is_refused(packet: bytes) -> None:
    """The bounds hold even if the packet did not come through a FrameReader."""
    with pytest.raises(ProtocolError, match="invalid length of startup packet"):
        parse_startup(packet)


@pytest.mark.parametrize("version", [(2, 0), (4, 0), (0, 0), (1234, 5681), (0xFFFF, 0xFFFF)])
def test_another_major_version_is_refused(version: tuple[int, int]) -> None:
    """A frontend of another generation is told which versions there are."""
    with pytest.raises(ProtocolError) as failure:
        parse_startup(struct.pack("!HH", *version) + b"user\x00alice\x00\x00")

    expected = f"unsupported frontend protocol {version[0]}.{version[1]}: server supports 3.0 to 3.2"
    assert str(failure.value) == expected


@pytest.mark.parametrize("minor", [0, 2])
def test_a_version_that_we_speak_needs_no_negotiation(minor: int) -> None:
    """A frontend that gets what it asks for gets no NegotiateProtocolVersion."""
    message = parsed_startup(struct.pack("!HH", 3, minor) + b"user\x00alice\x00\x00")

    assert (message.minor, negotiate(message)) == (minor, b"")


@pytest.mark.parametrize(("minor", "spoken"), [(1, 0), (3, 2), (9999, 2), (0xFFFF, 2)])
def test_any_other_minor_version_is_negotiated_down(minor: int, spoken: int) -> None:
    """A frontend of the future, or one that sends libpq's grease, is offered 3.2; there is no 3.1 to speak."""
    message = parsed_startup(struct.pack("!HH", 3, minor) + b"user\x00alice\x00\x00")

    assert (message.version, message.minor) == ((3, minor), spoken)
    assert negotiate(message) == messages.negotiate_protocol_version(spoken, [])


@pytest.mark.parametrize(("minor", "length"), [(0, 4), (1, 4), (2, 32), (3, 32), (9999, 32)])
def test_the_secret_is_as_long_as_the_version_allows(minor: int, length: int) -> None:
    """Four bytes in 3.0; since 3.2, as many as PostgreSQL 18 gives."""
    assert StartupMessage((3, minor), {"user": "alice"}).secret_length == length


def test_libpq_grease_is_answered() -> None:
    """Version 3.9999 with an option that nobody knows: both are declined by name, and the login goes on."""
    packet = (
        b"\x00\x03\x27\x0fuser\x00alice\x00_pq_.test_protocol_negotiation\x00\x00database\x00shop\x00\x00"
    )

    message = parsed_startup(packet)

    assert message.parameters == {"user": "alice", "database": "shop"}
    assert negotiate(message) == (
        b"v\x00\x00\x00\x2b\x00\x03\x00\x02\x00\x00\x00\x01_pq_.test_protocol_negotiation\x00"
    )


@pytest.mark.parametrize("minor", [0, 2])
def test_protocol_options_are_declined_in_every_version(minor: int) -> None:
    """An unknown ``_pq_.`` option never becomes a setting of the session; libpq takes no version above its own."""
    message = parsed_startup(
        struct.pack("!HH", 3, minor) + b"_pq_.command_tag_format\x00x\x00user\x00alice\x00_pq_.b\x00\x00\x00"
    )

    assert message.parameters == {"user": "alice"}
    assert message.protocol_options == {"_pq_.command_tag_format": "x", "_pq_.b": ""}
    declined = ["_pq_.command_tag_format", "_pq_.b"]
    assert negotiate(message) == messages.negotiate_protocol_version(minor, declined)


@given(
    st.binary(max_size=200)
    | st.lists(st.binary(max_size=10), max_size=9).map(lambda parts: V3_0 + b"\x00".join(parts))
    | st.tuples(st.sampled_from([V3_0, bytes.fromhex("04d2162e"), b"\x00\x03\x27\x0f"]), st.binary()).map(
        b"".join
    )
)
@example(V3_0 + b"user\x00\xff\x00_pq_.\xff\x00\x00\x00")
def test_no_packet_breaks_the_parser(packet: bytes) -> None:
    """Arbitrary bytes give a packet that can be answered, or a refusal with its SQLSTATE, nothing else."""
    try:
        message = parse_startup(packet)
    except (ProtocolError, AuthenticationError) as exc:
        assert exc.sqlstate in {"08P01", "28000"}  # noqa: PT017 - the point is that no other type gets here
    else:
        if isinstance(message, StartupMessage):
            assert message.user
            assert negotiate(message)[:1] in {b"", b"v"}
