"""The ledger against the model of PostgreSQL: random pipelines, with requests of the pooler's own and faked answers.

Messages are sent, handled by the server and answered in every order that a network allows. The oracle is a second
model that is asked what the client asks and nothing else.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from hyperpool.relay.ledger import FAKE, FORWARD, SKIP, Ledger
from tests.support import pgpipelines as pp
from tests.support.pglanguage import frame, split_frames
from tests.support.pgmodel import Backend

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOOT: Final = b"dcfHX"
_ASYNCHRONOUS: Final = b"NSA"
_UNANSWERED: Final = b"dHX"


class Walk:
    """A client's requests on their way through a ledger to a server, and the answers on their way back.

    Attributes:
        received: what the client has got.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.server = Backend()
        self.oracle = Backend()
        self.received = bytearray()
        self.status = "I"
        self._on_the_way: deque[bytes] = deque()
        self._actions: deque[int] = deque()
        self._answers: deque[tuple[bytes, int]] = deque()
        self._action = FORWARD

    def send(self, message: bytes, action: int) -> None:
        """A message leaves for the server; with FAKE, it is kept from it."""
        if message[0] not in _UNANSWERED:
            self.ledger.request(message[0], action)
        if action == FAKE:
            stand_in = pp.close(b"S", "none") if message[:1] == b"P" else message
            self._ask_oracle(stand_in, message[:1])
        else:
            self._on_the_way.append(message)
            self._actions.append(action)
            if action == FORWARD:
                self._ask_oracle(message)
        self._make_fakes()

    def handle(self) -> bool:
        """The server handles one message. Returns whether there was one."""
        if not self._on_the_way:
            return False
        action = self._actions.popleft()
        if not self.server.copying:
            self._action = action
        self.server.output.clear()
        self.server.receive(self._on_the_way.popleft())
        while self.server.sleeping:
            self.server.wake()
        self._answers += [(answer, self._action) for answer in split_frames(bytes(self.server.output))[0]]
        self.server.output.clear()
        return True

    def answer(self) -> bool:
        """One answer comes. Returns whether there was one."""
        if not self._answers:
            return False
        answer, action = self._answers.popleft()
        kind = answer[:1]
        if kind in _ASYNCHRONOUS:
            verdict = action
        elif kind == b"Z":
            verdict = self.ledger.ready()
            self.status = chr(answer[5])
        else:
            verdict = self.ledger.response(answer[0])
        assert verdict == action, (answer, self.ledger)
        if verdict == FORWARD:
            self.received += answer
        self._make_fakes()
        return True

    def check(self) -> None:
        """A server that the ledger calls clean owes nothing to anybody."""
        if self.ledger.clean and self.status == "I" and not self.server.ended:
            assert all(message[0] in _MOOT for message in self._on_the_way), self.ledger
            assert all(answer[:1] in _ASYNCHRONOUS for answer, _ in self._answers), self.ledger
            assert self.server.neutral, self.ledger

    def finish(self, *, doubtful: bool) -> None:
        """Everything arrives: the client has exactly its own answers, and the ledger has come to the same end."""
        while self.handle() or self.answer():
            self.check()
        assert bytes(self.received) == bytes(self.oracle.output)
        assert doubtful or not self.ledger.doubt
        server = self.server
        if not (self.ledger.doubt or server.ended or server.copying or server.skipping or server.implicit):
            assert self.ledger.clean

    def _ask_oracle(self, message: bytes, kind: bytes = b"") -> None:
        known = len(self.oracle.output)
        self.oracle.receive(message)
        while self.oracle.sleeping:
            self.oracle.wake()
        if kind == b"P" and len(self.oracle.output) > known:
            self.oracle.output[known:] = frame(b"1")

    def _make_fakes(self) -> None:
        # The caller has to ask whenever the head of the ledger may have changed.
        self.received += self.ledger.fakes()


_EXTRAS: Final = (
    ("Pown:commit", "CSown"),
    ("CSmissing",),
)


@st.composite
def _requests(draw: st.DrawFn) -> list[tuple[bytes, int]]:
    """A pipeline; one without COPY FROM STDIN and the end of the session has SKIP and FAKE messages between the others.

    After a COPY that fails in doubt nobody could tell which answer is which, and after the end there is none.
    """
    tags = map("t{}".format, itertools.count())
    requests: list[tuple[bytes, int]] = []
    pipeline = draw(pp.pipelines(*pp.ENDINGS, max_size=5))
    pure = any(
        message.startswith(("X", "Qfatal")) or "copyin" in message for unit in pipeline for message in unit
    )
    for unit in pipeline:
        for message in split_frames(pp.render([unit], lambda: next(tags)))[0]:
            extra = "none" if pure else draw(st.sampled_from(("none", "none", "skip", "close", "parse")))
            if extra == "skip":
                own = pp.render([draw(st.sampled_from(_EXTRAS))], str)
                requests += [(one, SKIP) for one in split_frames(own)[0]]
            elif extra == "close":
                requests.append((pp.close(b"S", "none"), FAKE))
            elif extra == "parse":
                requests.append((pp.parse("commit", "none"), FAKE))
            requests.append((message, FORWARD))
        if draw(st.booleans()) and unit[-1] == "S" and not pure:
            requests.append((pp.query("show application_name"), SKIP))
    return [*requests, (pp.SYNC, FORWARD)]


def _copies(requests: list[tuple[bytes, int]]) -> bool:
    return any(b"copyin" in message for message, _ in requests)


@settings(max_examples=4 * settings().max_examples)
@given(requests=_requests(), order=st.lists(st.sampled_from("sssha"), max_size=60))
def test_a_client_gets_its_own_answers_and_clean_means_clean(
    requests: list[tuple[bytes, int]], order: list[str]
) -> None:
    """Whatever is asked, and however requests and answers overlap.

    A doubt may only arise from a COPY; then, too, everything reaches the client.
    """
    walk = Walk()
    left: Iterator[tuple[bytes, int]] = iter(requests)
    for step in order:
        if step == "s":
            request = next(left, None)
            if request is not None:
                walk.send(*request)
        elif step == "h":
            walk.handle()
        else:
            walk.answer()
        walk.check()
    for request in left:
        walk.send(*request)
    walk.finish(doubtful=_copies(requests))
