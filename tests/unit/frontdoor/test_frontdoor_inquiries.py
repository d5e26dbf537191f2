"""Questions about clients: answered by tasks and threads, to whom still wants to know."""

from __future__ import annotations

import os
import pwd
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from hyperpool.config import AuthSource, DatabaseSettings, PoolerSettings, Secret, Settings
from hyperpool.config.ident import IdentEntry
from hyperpool.errors import AuthenticationError, ClientRefused, ConnectFailed
from hyperpool.frontdoor import external
from hyperpool.frontdoor.inquiries import _PATIENCE, _THREADS, CheckInquiry, Inquiries, SecretInquiry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping

    from hyperpool.errors import HyperpoolError


@attrs.define(eq=False)
class Asker:
    """Somebody who wants to know."""

    closed: bool = False


class Known:
    """Knows secrets, or fails."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    async def secret(self, source: AuthSource, user: str) -> Secret | None:
        """As it was told."""
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        return Secret(f"secret of {user}")


@pytest.fixture
def known() -> Known:
    """Who is asked."""
    return Known()


@pytest.fixture
async def inquiries(known: Known) -> AsyncIterator[Inquiries]:
    """What answers."""
    made = Inquiries(known)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


def source() -> AuthSource:
    """Where to ask."""
    settings = Settings(pooler=PoolerSettings(auth_user="asker"), databases={"app": DatabaseSettings()})
    found = settings.auth_source("app")
    assert found is not None
    return found


async def answer_to(inquiries: Inquiries, make: Callable[[Callable[[Any], None]], Any]) -> Any:
    """Ask, and wait for the answer; it never comes at once."""
    answers: list[Any] = []
    done = trio.Event()

    def take(answer: Any) -> None:
        answers.append(answer)
        done.set()

    inquiries.ask(make(take))
    assert answers == []
    with trio.fail_after(5):
        await done.wait()
    return answers[0]


async def test_secrets(inquiries: Inquiries, known: Known) -> None:
    """They come from who knows; why that one does not know is not for strangers."""

    def ask(take: Callable[[Any], None]) -> SecretInquiry:
        return SecretInquiry(Asker(), source(), "ann", take)

    assert await answer_to(inquiries, ask) == Secret("secret of ann")
    known.failure = ConnectFailed("server db.internal:5432 is down")
    failure = await answer_to(inquiries, ask)
    assert isinstance(failure, ClientRefused)
    assert (failure.sqlstate, "db.internal" in f"{failure} {failure.hint}") == ("08001", False)


async def test_checks(inquiries: Inquiries) -> None:
    """They run in threads, and their errors are answers."""
    threads = []

    def find_out() -> bool:
        threads.append(threading.current_thread())
        return True

    assert await answer_to(inquiries, lambda take: CheckInquiry(Asker(), find_out, take)) is True
    assert threads[0] is not threading.main_thread()

    def refuse() -> bool:
        raise AuthenticationError("no")

    refusal = await answer_to(inquiries, lambda take: CheckInquiry(Asker(), refuse, take))
    assert isinstance(refusal, AuthenticationError)


async def test_who_is_slow_holds_up_nobody_else(
    known: Known, mock_clock: trio.testing.MockClock, log: list[MutableMapping[str, Any]]
) -> None:
    """Those that ask the same one wait for a thread, for a while; others are answered, and the rest later."""
    blocked, release = threading.Semaphore(0), threading.Event()
    answers: list[bool | HyperpoolError] = []

    def block() -> bool:
        blocked.release()
        return release.wait(60)

    made = Inquiries(known)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        for _ in range(_THREADS + 1):
            made.ask(CheckInquiry(Asker(), block, answers.append, "PAM slow"))
        for _ in range(_THREADS):
            await trio.to_thread.run_sync(blocked.acquire)
        assert (
            await answer_to(made, lambda take: CheckInquiry(Asker(), lambda: True, take, "PAM quick")) is True
        )
        assert await answer_to(made, lambda take: CheckInquiry(Asker(), lambda: True, take)) is True
        late = Asker()
        made.ask(CheckInquiry(late, block, answers.append, "PAM slow"))
        late.closed = True
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(_PATIENCE + 1)
        await trio.testing.wait_all_tasks_blocked()
        (refusal,) = answers
        assert isinstance(refusal, ClientRefused)
        assert (refusal.sqlstate, refusal.hint != "") == ("57P03", True)
        assert {entry["whom"] for entry in log} == {"PAM slow"}
        release.set()
        answered = await answer_to(made, lambda take: CheckInquiry(Asker(), lambda: True, take, "PAM slow"))
        assert answered is True
        nursery.cancel_scope.cancel()


async def test_surprises(inquiries: Inquiries, log: list[MutableMapping[str, Any]]) -> None:
    """Whatever a library raises, the client is refused, and others are answered."""

    def fail() -> bool:
        raise RuntimeError("a library's")

    refusal = await answer_to(inquiries, lambda take: CheckInquiry(Asker(), fail, take))
    assert (str(refusal), refusal.sqlstate) == ("internal error", "XX000")
    assert [entry["event"] for entry in log] == ["a login's question cannot be answered"]
    assert await answer_to(inquiries, lambda take: CheckInquiry(Asker(), lambda: False, take)) is False


async def test_nobody_wants_to_know_any_more(inquiries: Inquiries, known: Known) -> None:
    """Then nobody is told, and nothing is begun."""
    told: list[object] = []
    gone = Asker(closed=True)

    def check() -> bool:
        told.append("checked")
        return True

    inquiries.ask(CheckInquiry(gone, check, told.append))
    inquiries.ask(SecretInquiry(gone, source(), "ann", told.append))
    known.failure = RuntimeError("a bug")
    await trio.testing.wait_all_tasks_blocked()
    assert told == []


@pytest.fixture
def log() -> Iterator[list[MutableMapping[str, Any]]]:
    """What has been logged."""
    with capture_logs() as entries:
        yield entries


# -- who is asked ------------------------------------------------------------------------------------------------------


def test_peers() -> None:
    """The system's name must be the user's, or stand in the map."""
    name = pwd.getpwuid(os.getuid()).pw_name
    maps = {"m": (IdentEntry(name, "ann"),)}
    assert external.check_peer(os.getuid(), name, "", maps)
    assert external.check_peer(os.getuid(), "ann", "m", maps)
    assert not external.check_peer(os.getuid(), "ann", "", maps)
    assert not external.check_peer(os.getuid(), name, "m", maps)
    assert not external.check_peer(2**31 - 5, "ann", "", maps)
    assert not external.check_peer(-1, name, "", maps)


@pytest.mark.parametrize("accepted", [True, False])
def test_pam(monkeypatch: pytest.MonkeyPatch, log: list[MutableMapping[str, Any]], *, accepted: bool) -> None:
    """It is asked for the account, too, and changes nothing; of a refusal, the reason is logged and no more."""
    asked: list[tuple[object, ...]] = []

    class Authenticator:
        reason = "Authentication failure"

        def authenticate(self, user: bytes, password: bytes, *, service: str, resetcreds: bool) -> bool:
            asked.append((user, password, service, resetcreds))
            return accepted

    monkeypatch.setitem(sys.modules, "pam", types.SimpleNamespace(PamAuthenticator=Authenticator))
    assert external.check_pam("pgbouncer", "ann\udcff", "hunter2") is accepted
    assert asked == [(b"ann\xff", b"hunter2", "pgbouncer", False)]
    assert len(log) == (not accepted)
    assert "hunter2" not in str(log)
