"""Which answers may be kept: complete ones, without an error, and nothing else than what was asked for."""

from __future__ import annotations

import pytest

from hyperpool.relay import requests
from hyperpool.relay.filling import Answer, examine
from hyperpool.relay.requests import DESCRIBED, DESCRIPTION, PLAIN, SIMPLE, Request
from hyperpool.sql.reasons import Reason
from tests.support.relaystage import answers

_ROWS = "T|Da|Db|CSELECT 2|Z"


def _request(kind: bytes, *, parsed: bool = False, closes: bool = False) -> Request:
    request = Request(kind, b"select", 10)
    request.name = b"" if parsed else None
    request.closes = closes
    return request


@pytest.mark.parametrize(
    ("request_", "answer", "kept", "rows"),
    [
        (_request(SIMPLE), _ROWS, _ROWS, 2),
        (_request(SIMPLE), "T|CSELECT 0|Z", "T|CSELECT 0|Z", 0),
        (_request(PLAIN), "2|Da|CSELECT 1|Z", "2|Da|CSELECT 1|Z", 1),
        (_request(PLAIN, parsed=True), "1|2|Da|CSELECT 1|Z", "2|Da|CSELECT 1|Z", 1),
        (_request(DESCRIBED, parsed=True), "1|2|T|Da|CSELECT 1|Z", "2|T|Da|CSELECT 1|Z", 1),
        (_request(PLAIN, closes=True), "2|Da|CSELECT 1|3|Z", "2|Da|CSELECT 1|Z", 1),
        (_request(DESCRIPTION), "t|T|Z", "t|T|Z", 1),
        (_request(DESCRIPTION, parsed=True), "1|t|n|Z", "t|n|Z", 1),
    ],
)
def test_an_answer_is_kept_as_all_requests_of_its_kind_have_it(
    request_: Request, answer: str, kept: str, rows: int
) -> None:
    """Without what answers a Parse or a Close."""
    found = examine(request_, answers(answer))
    assert isinstance(found, Answer)
    assert (found.data, found.rows) == (answers(kept), rows)


@pytest.mark.parametrize(
    ("request_", "answer", "reason"),
    [
        (_request(SIMPLE), "E42601 no|Z", Reason.FAILED),
        (_request(SIMPLE), "T|Da|E22012 no|Z", Reason.FAILED),
        (_request(SIMPLE), "T|Da|CSELECT 1|ZT", Reason.FAILED),
        (_request(SIMPLE), "T|Da|CSELECT 1|ZE", Reason.FAILED),
        (_request(SIMPLE), "T|Da|CSELECT 1|T|CSELECT 0|Z", Reason.FAILED),
        (_request(SIMPLE), "T|Da|CSELECT 1|Z|T|CSELECT 0|Z", Reason.FAILED),
        (_request(SIMPLE), "T|Da|CFETCH 1|Z", Reason.FAILED),
        (_request(SIMPLE), "T|Da|Z", Reason.FAILED),
        (_request(SIMPLE), "I|Z", Reason.FAILED),
        (_request(SIMPLE), "CSELECT 1|Z", Reason.FAILED),
        (_request(SIMPLE), "Nhello|T|Da|CSELECT 1|Z", Reason.NOTICE),
        (_request(SIMPLE), "T|Da|Nhello|CSELECT 1|Z", Reason.NOTICE),
        (_request(SIMPLE), "T|Da|CSELECT 1|STimeZone=UTC|Z", Reason.NOTICE),
        (_request(SIMPLE), "T|Da|CSELECT 1|Achannel|Z", Reason.NOTICE),
        (_request(PLAIN), "2|Da|s|Z", Reason.FAILED),
        (_request(PLAIN), "1|2|Da|CSELECT 1|Z", Reason.FAILED),
        (_request(PLAIN, parsed=True), "2|Da|CSELECT 1|Z", Reason.FAILED),
        (_request(DESCRIBED), "2|n|CSELECT 0|Z", Reason.FAILED),
        (_request(DESCRIPTION), "T|Z", Reason.FAILED),
    ],
)
def test_nothing_else_is_kept(request_: Request, answer: str, reason: Reason) -> None:
    """And it is said why."""
    assert examine(request_, answers(answer)) is reason


@pytest.mark.parametrize("cut", [1, 5, 6, 7, 12])
def test_an_answer_that_is_cut_off_is_not_kept(cut: int) -> None:
    """Wherever it ends."""
    assert examine(_request(SIMPLE), answers(_ROWS)[:-cut]) is Reason.FAILED


def test_requests_that_are_whole() -> None:
    """One request with one end, and nothing behind it."""
    query, sync = b"Q\0\0\0\x05\0", b"S\0\0\0\4"
    assert requests.is_whole(query)
    assert requests.is_whole(b"E\0\0\0\x09\0\0\0\0\0" + sync)
    assert not requests.is_whole(query + query)
    assert not requests.is_whole(query[:-1])
    assert not requests.is_whole(b"E\0\0\0\x09\0\0\0\0\0")
