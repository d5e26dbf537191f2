"""What stands between workers: questions to all of them, what operators have done, and the death of one in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hyperpool.cache.board import ANY, HELD, NOBODY, Board, Note, board_size
from hyperpool.config import load
from hyperpool.errors import ProtocolError
from hyperpool.service.exchange import Exchange
from hyperpool.stats import PoolStats
from hyperpool.workers import messages
from hyperpool.workers.messages import RESUME, Deed, Outcome, PoolKey
from hyperpool.workers.tally import Tally, tally_size
from tests.support.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SETTINGS = """
pooler: {listen_addr: 127.0.0.1, auth_type: trust, workers: 2}
databases: {app: {host: 127.0.0.1}, other: {host: 127.0.0.1}}
users: {ann: {}}
"""
_NOTHING = PoolStats().packed()
_REFUSED = Outcome(error="already suspended/paused", sqlstate="08P01")


class Team:
    """Two workers and their exchange."""

    def __init__(self, path: Path) -> None:
        path.write_text(_SETTINGS)
        settings = load(path)
        self.commands: list[Callable[[Outcome], None]] = []
        self.memory = bytearray(board_size(2) + tally_size(2))
        self.tally = Tally(self.memory, board_size(2), 2)
        self.exchange = Exchange(lambda: settings, 2, self._command, Board(self.memory, 2, 2), self.tally)
        self.workers: dict[int, Inbox] = {}
        self._numbers = 0
        for number in range(2):
            self.start(number)

    def _command(self, deed: Deed, then: Callable[[Outcome], None]) -> bool:
        if deed.verb == "reload":
            self.commands.append(then)
        return deed.verb == "reload"

    def start(self, number: int) -> Inbox:
        """Start a worker, or start it anew."""
        worker = self.workers[number] = Inbox()
        self.exchange.greet(number, worker.link, "", "", 2, quiet=False, http=0)
        return worker

    def ask(self, worker: int, verb: str, argument: str = "") -> int:
        """A worker asks all of them."""
        self._numbers += 1
        self.exchange.handle(worker, messages.Ask(self._numbers, [Deed(verb, argument)]))
        return self._numbers

    def answer(self, worker: int, outcome: Outcome) -> None:
        """A worker answers the newest question that it was sent."""
        numbers = [one.number for one in self.workers[worker].inbox if isinstance(one, messages.Do)]
        self.exchange.handle(worker, messages.Did(numbers[-1], [outcome]))

    def answer_all(self, outcome: Outcome) -> None:
        """All do."""
        for worker in self.workers:
            self.answer(worker, outcome)

    def do(self, verb: str, argument: str = "") -> None:
        """Have all do something, which they do."""
        self.ask(0, verb, argument)
        self.answer_all(Outcome(verb.upper()))

    def holds(self) -> list[Deed]:
        """What a worker that starts now has to do."""
        return self.exchange.journal.statements


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """Two workers."""
    return Team(tmp_path / "pooler.yaml")


class TestDeath:
    """A worker dies while a question is under way."""

    def test_the_question_is_answered_without_it(self, team: Team) -> None:
        """Whether it has answered already or not; what it has counted is in the accounts by then."""
        for early in (False, True):
            number = team.ask(0, "figures")
            if early:
                team.answer(1, Outcome("SHOW", [["app"]]))
            team.exchange.gone(1)
            team.answer(0, Outcome("SHOW", [["other"]]))
            answer = team.workers[0].answers[-1]
            assert answer.number == number
            assert answer.outcomes[0] == [Outcome("SHOW", [["other"]])]
            # Behind it are the accounts of the dead.
            assert len(answer.outcomes) == 2
            team.start(1)

    def test_who_comes_in_its_place_is_not_given_its_answers(self, team: Team) -> None:
        """Both number their questions from 1."""
        number = team.ask(1, "show", "pools")
        team.exchange.gone(1)
        again = team.start(1)
        team.exchange.handle(1, messages.Ask(number, [Deed("show", "clients")]))
        (first, second) = (one.number for one in team.workers[0].inbox if isinstance(one, messages.Do))
        team.exchange.handle(0, messages.Did(first, [Outcome("POOLS")]))
        assert again.answers == []
        team.exchange.handle(0, messages.Did(second, [Outcome("CLIENTS")]))
        team.answer(1, Outcome("CLIENTS"))
        assert again.answers == [messages.Answers(number, [[Outcome("CLIENTS")], [Outcome("CLIENTS")]])]

    def test_nor_those_of_a_reload(self, team: Team) -> None:
        """Which the supervisor does itself."""
        number = team.ask(1, "reload")
        team.exchange.gone(1)
        again = team.start(1)
        team.exchange.handle(1, messages.Ask(number, [Deed("reload")]))
        team.commands[0](Outcome("first"))
        assert again.answers == []
        team.commands[1](Outcome("second"))
        assert [one.outcomes for one in again.answers] == [[[Outcome("second")]]]

    def test_a_pause_that_is_waited_for_holds_for_who_comes_meanwhile(self, team: Team) -> None:
        """And for those that come when all have died."""
        team.ask(0, "pause")
        for worker in (0, 1):
            team.exchange.gone(worker)
            assert team.start(worker).welcome.statements == [Deed("pause")]
        assert team.holds() == [Deed("pause")]


class TestRefused:
    """What workers refuse does not hold for those that come later."""

    @pytest.mark.parametrize(
        ("before", "verb", "argument"),
        [
            (["suspend"], "pause", ""),
            (["pause"], "suspend", ""),
            ([], "pause", "none"),
            ([], "disable", "none"),
            (["pause"], "kill", "app"),
        ],
    )
    def test_it_is_not_journaled(self, team: Team, before: list[str], verb: str, argument: str) -> None:
        """Whoever is refused first."""
        team.exchange.handle(0, messages.ConsoleClients(1))
        for one in before:
            team.do(one)
        held = team.holds()
        team.ask(1, verb, argument)
        team.answer_all(_REFUSED)
        assert team.holds() == held
        assert team.start(0).welcome.statements == held

    def test_what_only_one_has_refused_holds(self, team: Team) -> None:
        """One that has just started may be behind."""
        team.ask(0, "pause")
        team.answer(0, Outcome("PAUSE"))
        team.answer(1, _REFUSED)
        assert team.holds() == [Deed("pause")]


class TestCanceled:
    """Whoever has asked does not want the answer any more."""

    def test_a_question_undoes_nothing(self, team: Team) -> None:
        """A scrape that is cut off does not resume what an operator has paused."""
        team.do("pause")
        for verb in ("metrics", "show", "wait_close", "pause"):
            number = team.ask(1, verb)
            if verb == "pause":
                team.answer(0, _REFUSED)
            before = len(team.workers[0].deeds)
            team.exchange.handle(1, messages.Abandon(number))
            assert len(team.workers[0].deeds) == before, verb
        assert team.holds() == [Deed("pause")]

    def test_a_pause_that_nobody_has_answered_yet_is_not_mistaken(self, team: Team) -> None:
        """The pooler was paused before."""
        team.do("pause")
        team.exchange.handle(1, messages.Abandon(team.ask(1, "pause")))
        assert RESUME.verb not in team.workers[0].deeds
        assert team.holds() == [Deed("pause")]

    def test_what_it_has_stopped_goes_on(self, team: Team) -> None:
        """At all workers, those included that were done already."""
        number = team.ask(1, "pause")
        team.answer(0, Outcome("PAUSE"))
        team.exchange.handle(1, messages.Abandon(number))
        assert [type(one) for one in team.workers[0].inbox].count(messages.Quit) == 0
        assert [type(one) for one in team.workers[1].inbox].count(messages.Quit) == 1
        assert [worker.deeds for worker in team.workers.values()] == [["pause", RESUME.verb]] * 2
        assert team.holds() == []

    def test_an_answer_that_comes_too_late(self, team: Team) -> None:
        """Nobody is told."""
        number = team.ask(1, "show", "pools")
        team.exchange.handle(1, messages.Abandon(number))
        team.answer_all(Outcome("SHOW"))
        assert team.workers[1].answers == []


class TestSuspended:
    """A pooler that nobody can resume goes on."""

    def test_when_the_last_client_of_the_console_leaves(self, team: Team) -> None:
        """Whichever worker it is at, and whether it has its answer or not."""
        for answered in (False, True):
            for worker in (0, 1):
                team.exchange.handle(worker, messages.ConsoleClients(1))
            team.ask(0, "suspend")
            if answered:
                team.answer_all(Outcome("SUSPEND"))
            team.exchange.handle(0, messages.ConsoleClients(0))
            assert team.holds() == [Deed("suspend")]
            team.exchange.handle(1, messages.ConsoleClients(0))
            assert team.holds() == []
            assert team.workers[0].deeds[-1] == team.workers[1].deeds[-1] == RESUME.verb

    def test_when_its_worker_dies(self, team: Team) -> None:
        """Its clients are gone with it."""
        team.exchange.handle(0, messages.ConsoleClients(1))
        team.do("suspend")
        team.exchange.gone(0)
        assert team.workers[1].deeds == ["suspend", RESUME.verb]
        assert team.start(0).welcome.statements == []

    def test_a_pause_stays(self, team: Team) -> None:
        """Operators may come back later."""
        team.exchange.handle(0, messages.ConsoleClients(1))
        team.do("pause")
        team.exchange.handle(0, messages.ConsoleClients(0))
        assert team.holds() == [Deed("pause")]


class TestNonsense:
    """What one worker says wrongly is found out at once: it costs nobody else anything, whenever it is used."""

    def test_an_answer_to_something_else(self, team: Team) -> None:
        """The others are asked the same, and what they have said counts."""
        number = team.ask(0, "pause")
        question = next(one.number for one in team.workers[1].inbox if isinstance(one, messages.Do))
        with pytest.raises(ProtocolError, match="0 outcomes in place of 1"):
            team.exchange.handle(1, messages.Did(question, []))
        team.exchange.gone(1)
        team.answer(0, Outcome("PAUSE"))
        assert team.workers[0].answers == [messages.Answers(number, [[Outcome("PAUSE")]])]

    @pytest.mark.parametrize("row", [["app"], ["app", {}, {}, 1.0], [5, _NOTHING, _NOTHING, 1.0]])
    def test_figures_that_cannot_be_added_up(self, team: Team, row: list[Any]) -> None:
        """Neither each second, nor when the worker has died."""
        with pytest.raises((ProtocolError, KeyError, ValueError)):
            team.exchange.handle(1, messages.Counted([row], 1))
        team.exchange.figures()
        team.exchange.gone(1)
        team.ask(0, "pause")
        assert team.workers[0].deeds == ["pause"]

    def test_figures_that_can(self, team: Team) -> None:
        """They are there as long as the pooler is."""
        team.exchange.handle(1, messages.Counted([["app", PoolStats(queries=3).packed(), _NOTHING, 1.0]], 1))
        team.exchange.gone(1)
        assert team.exchange.figures()[0].totals["app"].queries == 3


def test_nothing_is_answered_from_memory_from_the_very_moment_that_it_is_to_be_held(team: Team) -> None:
    """Workers look at the board before each answer; the message may come later."""
    notes = Board(team.memory, 2, 0)
    team.exchange.hold_cache(held=True)
    assert list(notes.hear()) == [Note(2, NOBODY, ANY, HELD)]
    assert team.workers[0].inbox[-1] == messages.HoldCache(True)
    team.exchange.hold_cache(held=False)
    assert list(notes.hear()) == []
    assert team.workers[0].inbox[-1] == messages.HoldCache(False)


class TestPinned:
    """Clients that keep their server connections."""

    def test_they_are_counted_in_the_same_place_until_no_worker_has_a_connection(self, team: Team) -> None:
        """And who dies counts no more."""
        app, other = PoolKey("app", "ann"), PoolKey("app", "bob")
        for worker, pool in ((0, app), (1, app), (1, other)):
            team.exchange.handle(worker, messages.Wanted(pool, 1, urgent=True, late=False))
        granted = [
            [one for one in inbox.inbox if isinstance(one, messages.Granted)]
            for inbox in team.workers.values()
        ]
        assert granted == [
            [messages.Granted(app, 1, 0)],
            [messages.Granted(app, 1, 0), messages.Granted(other, 1, 1)],
        ]
        for worker, slot in ((0, 0), (1, 0), (1, 1)):
            team.tally.add(worker, slot, 1)
        team.exchange.gone(1)
        assert (team.tally.count(0), team.tally.count(1)) == (1, 0)
        team.exchange.handle(0, messages.Wanted(other, 1, urgent=True, late=False))
        assert team.workers[0].inbox[-1] == messages.Granted(other, 1, 1)
        team.tally.add(0, 0, -1)
        team.exchange.handle(0, messages.Returned(app, 1))
        team.exchange.handle(0, messages.Wanted(PoolKey("app", "eve"), 1, urgent=True, late=False))
        assert team.workers[0].inbox[-1] == messages.Granted(PoolKey("app", "eve"), 1, 0)
