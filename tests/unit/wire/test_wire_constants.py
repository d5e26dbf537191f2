"""The protocol's type bytes and codes."""

from __future__ import annotations

import pytest

from hyperpool.wire import constants

FRONTEND = {
    "BIND": "B",
    "CLOSE": "C",
    "COPY_DATA": "d",
    "COPY_DONE": "c",
    "COPY_FAIL": "f",
    "DESCRIBE": "D",
    "EXECUTE": "E",
    "FLUSH": "H",
    "FUNCTION_CALL": "F",
    "GSS_RESPONSE": "p",
    "PARSE": "P",
    "PASSWORD_MESSAGE": "p",
    "QUERY": "Q",
    "SASL_INITIAL_RESPONSE": "p",
    "SASL_RESPONSE": "p",
    "SYNC": "S",
    "TERMINATE": "X",
}
BACKEND = {
    "AUTHENTICATION": "R",
    "BACKEND_KEY_DATA": "K",
    "BIND_COMPLETE": "2",
    "CLOSE_COMPLETE": "3",
    "COMMAND_COMPLETE": "C",
    "COPY_BOTH_RESPONSE": "W",
    "COPY_IN_RESPONSE": "G",
    "COPY_OUT_RESPONSE": "H",
    "DATA_ROW": "D",
    "EMPTY_QUERY_RESPONSE": "I",
    "ERROR_RESPONSE": "E",
    "FUNCTION_CALL_RESPONSE": "V",
    "NEGOTIATE_PROTOCOL_VERSION": "v",
    "NO_DATA": "n",
    "NOTICE_RESPONSE": "N",
    "NOTIFICATION_RESPONSE": "A",
    "PARAMETER_DESCRIPTION": "t",
    "PARAMETER_STATUS": "S",
    "PARSE_COMPLETE": "1",
    "PORTAL_SUSPENDED": "s",
    "READY_FOR_QUERY": "Z",
    "ROW_DESCRIPTION": "T",
}
STATUS = {"IDLE": "I", "IN_TRANSACTION": "T", "IN_FAILED_TRANSACTION": "E"}


@pytest.mark.parametrize(("name", "letter"), [*FRONTEND.items(), *BACKEND.items(), *STATUS.items()])
def test_type_bytes_are_the_letters_of_the_documentation(name: str, letter: str) -> None:
    """Each name stands for the letter that the documentation gives its message."""
    assert getattr(constants, name) == ord(letter)


def test_request_codes_are_those_of_the_documentation() -> None:
    """The four codes that stand in place of a type byte have the documentation's decimal values."""
    codes = [
        constants.PROTOCOL_3_0,
        constants.CANCEL_REQUEST,
        constants.SSL_REQUEST,
        constants.GSSENC_REQUEST,
    ]

    assert codes == [196608, 80877102, 80877103, 80877104]
