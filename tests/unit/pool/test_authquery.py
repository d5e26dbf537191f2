"""Asking a server that plays along for secrets, and one that does not."""

from __future__ import annotations

import contextlib
import time
from struct import pack
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from hyperpool.config import AuthSource, DatabaseSettings, PoolerSettings, Secret, Settings, SslMode
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.pool.authquery import AuthQueries
from hyperpool.transport.kinds import DialContext
from hyperpool.transport.resolve import Resolver
from hyperpool.transport.sockets import TcpOptions
from hyperpool.wire import messages
from tests.support.checkpoints import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

READY = messages.ready_for_query()
GREETING = messages.authentication_ok() + READY
QUERY = "SELECT $1"


def row(*values: bytes | None) -> bytes:
    """A DataRow."""
    body = pack("!H", len(values))
    for value in values:
        body += pack("!i", -1) if value is None else pack("!i", len(value)) + value
    return messages.frame(ord("D"), body)


class Server:
    """A server that is asked, over the loopback interface.

    Attributes:
        answer: makes the answer to a question, without ReadyForQuery.
        asked: the names that it has been asked for, connection by connection.
        greeting: what it says to those who come.
    """

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes] = lambda name: row(name, b"secret of " + name)
        self.asked: list[list[bytes]] = []
        self.greeting = GREETING
        self.startup = b""
        self.gate = trio.Event()
        self.gate.set()
        self.port = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Play along with one connection."""
        names: list[bytes] = []
        self.asked.append(names)
        self.startup = bytes(await stream.receive_some())
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(self.greeting)
            data = b""
            while chunk := await stream.receive_some():
                data += chunk
                while b"S\0\0\0\4" in data:
                    question, data = data.split(b"S\0\0\0\4", 1)
                    await self.gate.wait()
                    if b"B" in question:
                        begin = question.index(b"\0\1", question.index(QUERY.encode()) + 12)
                        length = int.from_bytes(question[begin + 2 : begin + 6])
                        name = question[begin + 6 : begin + 6 + length]
                        names.append(name)
                        await stream.send_all(self.answer(name) + READY)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server."""
    made = Server()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, made.serve, listeners)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
async def queries() -> AsyncIterator[AuthQueries]:
    """What asks."""
    made = AuthQueries(
        lambda: DialContext(options=TcpOptions(), resolver=Resolver(15.0, 15.0)), attention, lambda: 0.0
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def attention() -> Iterator[None]:
    """Nobody cares."""
    yield


def source(server: Server, **pooler: object) -> AuthSource:
    """Where to ask."""
    known = {"auth_user": "asker", "auth_query": QUERY, **pooler}
    known |= {"server_connect_timeout": 5.0, "server_tls_sslmode": SslMode.DISABLE}
    settings = Settings(
        pooler=PoolerSettings(**known),  # type: ignore[arg-type]
        databases={
            "app": DatabaseSettings(host="127.0.0.1", port=server.port, timezone="Mars", connect_query="x")
        },
    )
    found = settings.auth_source("app")
    assert found is not None
    return found


async def test_secrets(server: Server, queries: AuthQueries) -> None:
    """One connection is used again and again; nothing but user and database is said at its beginning."""
    where = source(server)
    assert await queries.secret(where, "ann") == Secret("secret of ann")
    server.answer = lambda name: row(name, None)
    assert await queries.secret(where, "bob") == Secret("")
    server.answer = lambda name: b""
    assert await queries.secret(where, "eve") is None
    assert server.asked == [[b"ann", b"bob", b"eve"]]
    assert server.startup[8:].split(b"\0") == [b"database", b"app", b"user", b"asker", b"", b""]


async def test_questions_are_sent_together(server: Server, queries: AuthQueries) -> None:
    """Those that come while one is being answered; the same one is asked once, but not with one that is on its way."""
    where = source(server)
    await queries.secret(where, "first")
    server.gate = trio.Event()
    answers: list[tuple[str, Secret | None]] = []

    async def ask(name: str) -> None:
        answers.append((name, await queries.secret(where, name)))

    async with trio.open_nursery() as nursery:
        for name in ("ann", "ann", "bob", "ann", "bob", "eve"):
            nursery.start_soon(ask, name)
            await trio.testing.wait_all_tasks_blocked()
        server.gate.set()
    assert sorted(answers, key=lambda answer: answer[0]) == [
        (name, Secret(f"secret of {name}")) for name in ("ann", "ann", "ann", "bob", "bob", "eve")
    ]
    (asked,) = server.asked
    assert (asked[:2], sorted(asked[2:])) == ([b"first", b"ann"], [b"ann", b"bob", b"eve"])


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (row(b"ann"), "auth_query returned 1 columns, expected two: a name and a secret"),
        (row(b"ann", b"x") * 2, "auth_query returned more than one row"),
        (messages.error_response("no way", "42501"), "the server refused auth_query: no way"),
        (
            messages.frame(ord("D"), b"\0\2\0\0\0\x09x"),
            "the protocol during auth_query: malformed DataRow",
        ),
        (messages.frame(ord("D"), b"\0"), "the protocol during auth_query: malformed DataRow"),
        (messages.frame(ord("D"), b"\0\1\xff\xff\xff\xf0"), "server broke the protocol during auth_query"),
        (messages.frame(ord("D"), b"\0\3\xff\xff\xff\xff"), "server broke the protocol during auth_query"),
    ],
)
async def test_answers_that_are_none(
    server: Server, queries: AuthQueries, answer: bytes, failure: str
) -> None:
    """They let nobody in, and the next question is answered."""
    where = source(server)
    server.answer = lambda name: answer
    with pytest.raises(LoginFailed, match=failure):
        await queries.secret(where, "ann")
    server.answer = lambda name: row(name, b"x")
    assert await queries.secret(where, "ann") == Secret("x")


@pytest.mark.parametrize(
    "answer",
    [row(b"bob", b"secret of bob"), row(None, b"x"), messages.error_response("bad bytes", "22021")],
    ids=["another", "no name", "no such name"],
)
async def test_answers_about_nobody(server: Server, queries: AuthQueries, answer: bytes) -> None:
    """The user is not known."""
    server.answer = lambda name: answer
    assert await queries.secret(source(server), "ann") is None


async def test_a_connection_that_breaks(server: Server, queries: AuthQueries) -> None:
    """One that was good before is replaced at once; a new one that breaks is a failure."""
    where = source(server)
    assert await queries.secret(where, "ann") is not None
    count = 0

    def hang_up_once(name: bytes) -> bytes:
        nonlocal count
        count += 1
        if count == 1:
            raise trio.BrokenResourceError
        return row(name, b"again")

    server.answer = hang_up_once
    assert await queries.secret(where, "ann") == Secret("again")
    assert len(server.asked) == 2


async def test_a_server_that_does_not_let_us_in(server: Server, queries: AuthQueries) -> None:
    """It is not asked again before its time."""
    where = source(server)
    server.greeting = messages.error_response("not you", "28P01")
    for _ in range(3):
        with pytest.raises(LoginFailed, match="not you"):
            await queries.secret(where, "ann")
    assert len(server.asked) == 1


async def test_a_server_that_does_not_answer(
    server: Server, queries: AuthQueries, autojump_clock: trio.testing.MockClock
) -> None:
    """It has as long as a connection may take."""
    server.gate = trio.Event()
    with pytest.raises(ConnectFailed, match=r"auth_query took longer than 5 s \(server_connect_timeout\)"):
        await queries.secret(source(server), "ann")


async def test_other_settings(server: Server, queries: AuthQueries) -> None:
    """They get a connection of their own."""
    await queries.secret(source(server), "ann")
    await queries.secret(source(server, server_idle_timeout=1.0), "ann")
    await queries.secret(source(server, server_idle_timeout=1.0), "bob")
    assert server.asked == [[b"ann"], [b"ann", b"bob"]]


async def test_what_nobody_needs_is_closed(server: Server, queries: AuthQueries) -> None:
    """And forgotten."""
    began = time.monotonic()
    await queries.secret(source(server, server_idle_timeout=100.0), "ann")
    (directory,) = queries._directories.values()
    assert not directory.unneeded(began + 99)
    assert directory.unneeded(time.monotonic() + 101)


# -- Cancelled ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left_open")
async def test_a_question_is_given_up(server: Server, queries: AuthQueries) -> None:
    """Wherever that happens, the next one is answered, and no connection is held twice."""
    where = source(server)

    async def ask() -> None:
        assert await queries.secret(where, "ann") == Secret("secret of ann")

    async def give_up() -> None:
        try:
            await ask()
        finally:
            with trio.CancelScope(shield=True):
                assert await queries.secret(where, "bob") == Secret("secret of bob")

    assert await cancel_everywhere(give_up) >= 3


@pytest.mark.usefixtures("nothing_left_open")
async def test_the_end_of_everything(server: Server) -> None:
    """While questions wait, are sent and are answered: all connections are closed, and nothing else comes of it."""
    where = source(server)

    async def ask_and_end() -> None:
        queries = AuthQueries(
            lambda: DialContext(options=TcpOptions(), resolver=Resolver(15.0, 15.0)), attention, lambda: 0.0
        )
        async with trio.open_nursery() as running:
            running.start_soon(queries.run)
            async with trio.open_nursery() as asking:
                for name in ("ann", "bob", "ann"):
                    asking.start_soon(queries.secret, where, name)
            running.cancel_scope.cancel()

    assert await cancel_everywhere(ask_and_end) >= 10
