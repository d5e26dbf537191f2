"""The console itself: who may do what, and what a statement does."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from hyperpool.admin import caching, latencies, statistics
from hyperpool.admin.outcomes import ConsoleError, Done, Waits
from hyperpool.admin.statements import Assignment, Command
from hyperpool.admin.tables import columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.admin.outcomes import Outcome
    from hyperpool.admin.statements import Statement
    from hyperpool.admin.surroundings import Surroundings
    from hyperpool.admin.tables import Column
    from hyperpool.admin.views import Register

_FAKED: Final = {
    "client_encoding": "UTF-8",
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "datestyle": "ISO",
    "timezone": "GMT",
    "extra_float_digits": "2",
}
"""What drivers ask for and set unasked, with pgbouncer's answers."""
_OF_SESSION: Final = frozenset(
    {*_FAKED, "application_name", "intervalstyle", "search_path", "statement_timeout"}
)
"""What may be set without any effect."""


class Role(enum.Enum):
    """What a client of the console may do."""

    ADMIN = "admin_users"
    STATS = "stats_users"


class ShutdownMode(enum.Enum):
    """How the pooler ends, in pgbouncer's words."""

    IMMEDIATE = ""
    WAIT_FOR_SERVERS = "WAIT_FOR_SERVERS"
    WAIT_FOR_CLIENTS = "WAIT_FOR_CLIENTS"


class Process(Protocol):
    """What the console wants of the process as a whole."""

    def reload(self) -> list[str]:
        """Read the settings again.

        Returns:
            What is wrong with them; they have changed nothing then.
        """

    def set(self, key: str, value: str) -> None:
        """Change a setting until the next reload.

        Raises:
            ConsoleError: it cannot be changed, or not to this.
        """

    def shut_down(self, mode: ShutdownMode) -> None:
        """End the pooler; at once, or when it has become idle."""


@attrs.frozen(eq=False)
class Console:
    """Executes statements for one client.

    Args:
        around: what there is to see.
        views: what can be shown.
        process: what can be done.
        role: what the client may do.
    """

    around: Surroundings
    views: Register
    process: Process
    role: Role

    def describe(self, statement: Statement) -> tuple[Column, ...] | None:
        """The columns of a statement's result, as `Executor.describe`."""
        if isinstance(statement, Command) and statement.verb == "explain cache":
            return caching.EXPLAINED
        if not isinstance(statement, Command) or statement.verb != "show" or statement.is_parameter:
            return None
        name = statement.argument.lower()
        if name in _FAKED:
            return columns(name)
        view = self.views.find(name)
        return None if view is None else view.shape

    def execute(self, statement: Statement) -> Outcome:
        """Execute a statement, as `Executor.execute`."""
        own = self.around.own
        own.queries += 1
        own.transactions += 1
        if isinstance(statement, Assignment):
            return self._set(statement.key, statement.value)
        assert isinstance(statement, Command)  # noqa: S101 - the others are the conversation's business
        verb, argument = statement.verb, statement.argument
        if verb == "show":
            return self._show(statement)
        if verb == "explain cache":
            return self.perform(verb, argument)
        if verb not in _VERBS or (argument and verb in _WITHOUT_ARGUMENT):
            raise _invalid(statement)
        if verb == "shutdown" and argument.upper() not in {mode.value for mode in ShutdownMode}:
            raise _invalid(statement)
        self._must_be_admin()
        return self.perform(verb, argument)

    def perform(self, verb: str, argument: str) -> Outcome:
        """Do what a statement says, whoever may have it done.

        Args:
            verb: of a command that there is; ``set``; or, for what views of several processes are made of, ``figures``
                (the counters of statistics) and ``timings`` (those of SHOW LATENCIES).
            argument: its argument: for ``show`` the name of a view, for ``set`` a setting and a value with ``=``
                between.

        Raises:
            ConsoleError: it fails.
        """
        if verb == "show":
            view = self.views.find(argument)
            if view is None:
                raise ConsoleError(f"there is no view {argument}")
            return Done("SHOW", view.shape, tuple(view.rows(self.around)))
        if verb == "explain cache":
            return caching.explained(self.around, argument)
        if verb == "figures":
            return Done("SHOW", rows=tuple(map(tuple, statistics.packed(statistics.counts(self.around)))))
        if verb == "timings":
            return Done("SHOW", rows=tuple(latencies.packed(self.around)))
        if verb == "set":
            key, _, value = argument.partition("=")
            self.process.set(key, value)
            return Done(f"SET {argument}")
        return _VERBS[verb](self, argument)

    def _must_be_admin(self) -> None:
        if self.role is not Role.ADMIN:
            raise ConsoleError("admin access needed", hint="users in admin_users have it")

    # -- SHOW and SET --------------------------------------------------------------------------------------------------

    def _show(self, statement: Command) -> Outcome:
        name = statement.argument.lower()
        if name in _FAKED:
            return Done("SHOW", columns(name), ((_FAKED[name],),))
        if name == "help":
            return Done("SHOW", notice="Console usage", detail=self.views.help())
        view = self.views.find(name)
        if view is None:
            raise _invalid(statement)
        if view.privileged:
            self._must_be_admin()
        return self.perform("show", name)

    def _set(self, key: str, value: str) -> Outcome:
        if key.lower() in _OF_SESSION:
            return Done("SET", notice="SET ignored")
        self._must_be_admin()
        return self.perform("set", f"{key}={value}")

    # -- commands ------------------------------------------------------------------------------------------------------

    def _pause(self, database: str) -> Outcome:
        return self._when("PAUSE", self.around.operations.pause(database))

    def _suspend(self, _: str) -> Outcome:
        return self._when("SUSPEND", self.around.operations.suspend())

    def _wait_close(self, database: str) -> Outcome:
        over = self.around.operations.recycled(database)
        return Done("WAIT_CLOSE") if over() else Waits("WAIT_CLOSE", over, _nothing_to_undo)

    def _when(self, tag: str, over: Callable[[], bool]) -> Outcome:
        # A client that cancels what it waits for has all of it resumed, as in pgbouncer.
        return Done(tag) if over() else Waits(tag, over, self.around.operations.resume_if_stopped)

    def _resume(self, database: str) -> Done:
        self.around.operations.resume(database)
        return Done("RESUME")

    def _disable(self, database: str) -> Done:
        self.around.operations.disable(_required(database))
        return Done("DISABLE")

    def _enable(self, database: str) -> Done:
        self.around.operations.enable(_required(database))
        return Done("ENABLE")

    def _reconnect(self, database: str) -> Done:
        self.around.operations.reconnect(database)
        return Done("RECONNECT")

    def _kill(self, database: str) -> Done:
        self.around.operations.kill(database)
        return Done("KILL")

    def _kill_client(self, number: str) -> Done:
        self.around.operations.kill_client(number)
        return Done("KILL_CLIENT")

    def _reload(self, _: str) -> Done:
        problems = self.process.reload()
        if problems:
            raise ConsoleError(
                "RELOAD failed, see logs for additional details",
                "F0000",
                "\n".join(problems),
                "nothing has changed",
            )
        return Done("RELOAD")

    def _purge_cache(self, argument: str) -> Done:
        return caching.purge(self.around, argument)

    def _shutdown(self, word: str) -> Done:
        mode = ShutdownMode(word.upper())
        self.process.shut_down(mode)
        return Done("" if mode is ShutdownMode.IMMEDIATE else "SHUTDOWN")


_VERBS: Final[dict[str, Callable[[Console, str], Outcome]]] = {
    "disable": Console._disable,  # noqa: SLF001 - a table of its own methods
    "enable": Console._enable,  # noqa: SLF001
    "kill": Console._kill,  # noqa: SLF001
    "kill_client": Console._kill_client,  # noqa: SLF001
    "pause": Console._pause,  # noqa: SLF001
    "purge cache": Console._purge_cache,  # noqa: SLF001
    "reconnect": Console._reconnect,  # noqa: SLF001
    "reload": Console._reload,  # noqa: SLF001
    "resume": Console._resume,  # noqa: SLF001
    "shutdown": Console._shutdown,  # noqa: SLF001
    "suspend": Console._suspend,  # noqa: SLF001
    "wait_close": Console._wait_close,  # noqa: SLF001
}
_WITHOUT_ARGUMENT: Final = frozenset({"reload", "suspend"})


def _nothing_to_undo() -> None:
    """It has only waited."""


def _required(database: str) -> str:
    if not database:
        raise ConsoleError("a database is required")
    return database


def _invalid(statement: Command) -> ConsoleError:
    return ConsoleError(f"invalid command '{statement.text}', use SHOW HELP;")


def role_of(user: str, admins: tuple[str, ...], readers: tuple[str, ...]) -> Role | None:
    """What a user may do in the console; None for nothing."""
    if user in admins:
        return Role.ADMIN
    return Role.STATS if user in readers else None
