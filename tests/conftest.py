"""Fixtures and rules of the whole test suite.

- `HYPERPOOL_FORBID_SKIP=1` turns every skip into a failure (for machines that have all tools).
- `HYPOTHESIS_PROFILE` selects how hard hypothesis tries: `ci` (the default; the same examples every time),
  `dev` (new examples every time) or `thorough`.
- `HYPERPOOL_TEST_PG_BIN` names the directory of the PostgreSQL to test with, see `tests.support.postgres`.
- `HYPERPOOL_TEST_TARGET=pgbouncer` runs the black-box tests against pgbouncer, see `tests.support.targets`.
- `--numprocesses` shares the tests among so many processes, see `tests.support.distribution`; each has PostgreSQL
  servers, ports and directories of its own.
- A black-box test that runs longer than its bound (60 s, or `@pytest.mark.bound(seconds)`) fails with a
  stack.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.support import targets
from tests.support.poolers import MODES, Pooler, config_for
from tests.support.postgres import PostgresCluster, find_binaries, find_client_program
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.support.distribution import Modules
    from tests.support.targets import Config

_FORBID_SKIP = os.environ.get("HYPERPOOL_FORBID_SKIP") == "1"
_BLACK_BOX = ("integration", "faults", "drivers")
_BOUND = 60.0  # seconds
_LOG_TAIL = 6000  # characters
_SLOW = [hypothesis.HealthCheck.too_slow]

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=_SLOW,
)
_EXAMPLES = DirectoryBasedExampleDatabase(f".hypothesis/{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
hypothesis.settings.register_profile("dev", deadline=None, database=_EXAMPLES, suppress_health_check=_SLOW)
hypothesis.settings.register_profile(
    "thorough", deadline=None, database=_EXAMPLES, max_examples=3000, suppress_health_check=_SLOW
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_logs: pytest.StashKey[list[tuple[str, Callable[[], str]]]] = pytest.StashKey()


class PoolerFactory(Protocol):
    """Starts poolers that end with the test."""

    def __call__(
        self,
        config: Config | None = None,
        /,
        *,
        open_files: tuple[int, int] | None = None,
        **pooler: object,
    ) -> Pooler:
        """Start a pooler with these settings, or with the standard ones and these `pooler:` keys."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers of this suite."""
    config.addinivalue_line("markers", "bound(seconds): the time limit of a black-box test")
    config.addinivalue_line("markers", "hyperpool_only: not about behaviour that pgbouncer shares")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Modules:
    """Say how the tests are shared among processes."""
    from tests.support.distribution import Modules

    return Modules(config, log)


def pytest_report_header() -> list[str]:
    """Say what is tested with what."""
    skips = "fail" if _FORBID_SKIP else "allowed"
    return [f"pooler: {targets.TARGET}, PostgreSQL: {find_binaries()}, skips: {skips}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, while pgbouncer stands in for hyperpool, what only hyperpool does."""
    if targets.TARGET != "hyperpool" and item.get_closest_marker("hyperpool_only"):
        pytest.skip("hyperpool's own behaviour")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the logs of a failed test's processes; turn skips into failures where skips are forbidden."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        report.sections += [(title, read()[-_LOG_TAIL:]) for title, read in item.stash.get(_logs, [])]
    if report.skipped and _FORBID_SKIP and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden (HYPERPOOL_FORBID_SKIP=1): {report.longrepr}"
    return report  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Turn a skipped module into a failure where skips are forbidden."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    if report.skipped and _FORBID_SKIP:
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden (HYPERPOOL_FORBID_SKIP=1): {report.longrepr}"
    return report  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """End a black-box test at its bound: a hang is a failure with a stack, not a stuck suite."""
    if not any(part in _BLACK_BOX for part in item.path.parts):
        return (yield)
    marker = item.get_closest_marker("bound")
    bound = float(marker.args[0]) if marker else _BOUND

    def give_up(number: int, where: FrameType | None) -> None:
        raise TimeoutError(f"the test ran longer than {bound} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, bound)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _attach(request: pytest.FixtureRequest, title: str, read: Callable[[], str]) -> None:
    request.node.stash.setdefault(_logs, []).append((title, read))


@contextlib.contextmanager
def _cluster() -> Iterator[PostgresCluster]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine and the extra `embedded` is not installed")
    cluster = PostgresCluster(binaries)
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture(scope="session")
def _pg() -> Iterator[PostgresCluster]:
    with _cluster() as cluster:
        yield cluster


@pytest.fixture
def pg(_pg: PostgresCluster, request: pytest.FixtureRequest) -> PostgresCluster:
    """The session's PostgreSQL, databases `shared`, `app`, `other`; its log is shown when a test fails."""
    mark = _pg.log_size()
    _attach(request, "PostgreSQL's log", lambda: _pg.log_text(mark))
    return _pg


@pytest.fixture(scope="session")
def _mortal_pg() -> Iterator[PostgresCluster]:
    with _cluster() as cluster:
        yield cluster


@pytest.fixture
def mortal_pg(_mortal_pg: PostgresCluster, request: pytest.FixtureRequest) -> PostgresCluster:
    """A second PostgreSQL that a test may stop and kill; it runs when the test begins."""
    mark = _mortal_pg.log_size()
    _attach(request, "PostgreSQL's log", lambda: _mortal_pg.log_text(mark))
    if not _mortal_pg.running:
        _mortal_pg.start()
    return _mortal_pg


@pytest.fixture(scope="session")
def _shared_pooler(_pg: PostgresCluster) -> Iterator[Pooler]:
    config = config_for(_pg, default_pool_size=5)
    config["databases"] = {
        mode: {"dbname": "shared", "host": _pg.host, "port": _pg.port, "pool_mode": mode} for mode in MODES
    }
    pooler = Pooler(config)
    try:
        pooler.wait_listening()
        yield pooler
        pooler.stop()
    finally:
        pooler.destroy()


@pytest.fixture
def pooler(
    _shared_pooler: Pooler,
    pg: PostgresCluster,
    watch: Callable[[Pooler], Pooler],
) -> Iterator[Pooler]:
    """The session's pooler: databases `session`, `transaction` and `statement`, named by their pool mode.

    After the test no transaction may be left open on the server and no traceback in the log.
    """
    yield watch(_shared_pooler)
    eventually(
        lambda: all(state == "idle" for state in pg.states("shared")),
        what="every server connection is idle and in no transaction",
    )


@pytest.fixture
def make_pooler(pg: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[PoolerFactory]:
    """A factory of poolers with settings of the test's own; each must end cleanly when the test is over."""
    with _factory(pg, "app", request) as factory:
        yield factory
    eventually(lambda: not pg.backends(), what="the pooler left no server connection behind")


@pytest.fixture(scope="module")
def make_module_pooler(_pg: PostgresCluster) -> Iterator[PoolerFactory]:
    """A factory of poolers that end with the tests of a module.

    Their database `app` is `other` on the server, so that the connections of `make_pooler` can be told apart.
    Tests take such a pooler through `watch`.
    """
    with _factory(_pg, "other") as factory:
        yield factory


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Iterator[Callable[[Pooler], Pooler]]:
    """Show the log of a longer-lived pooler when the test fails, and fail the test for a traceback in it."""
    with contextlib.ExitStack() as stack:

        def attach(pooler: Pooler) -> Pooler:
            mark = pooler.log_size()
            _attach(request, "the pooler's log", lambda: pooler.log_text(mark))
            stack.callback(pooler.check_log, mark)
            return pooler

        yield attach


@pytest.fixture
def make_mortal_pooler(mortal_pg: PostgresCluster, request: pytest.FixtureRequest) -> Iterator[PoolerFactory]:
    """The same, in front of the test's own PostgreSQL."""
    with _factory(mortal_pg, "app", request) as factory:
        yield factory


@contextlib.contextmanager
def _factory(
    pg: PostgresCluster,
    dbname: str,
    request: pytest.FixtureRequest | None = None,
) -> Iterator[PoolerFactory]:
    started: list[Pooler] = []

    def start(
        config: Config | None = None,
        /,
        *,
        open_files: tuple[int, int] | None = None,
        **pooler: object,
    ) -> Pooler:
        config = config or config_for(pg, **pooler)
        config["databases"].get("app", {}).setdefault("dbname", dbname)
        new = Pooler(config, open_files)
        started.append(new)
        if request is not None:
            _attach(request, "the pooler's log", new.log_text)
        new.wait_listening()
        return new

    try:
        yield start
        for one in started:
            one.stop()
    finally:
        for one in started:
            one.destroy()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """A factory of fault proxies in front of a port; they close with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(FaultProxy(port))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each pool mode in turn; also the name of a database of the fixture `pooler`."""
    return str(request.param)


@pytest.fixture(params=["session", "transaction"])
def block_mode(request: pytest.FixtureRequest) -> str:
    """Each pool mode that allows transaction blocks."""
    return str(request.param)


def _client_program(name: str) -> str:
    program = find_client_program(name)
    if program is None:
        pytest.skip(f"no {name} on this machine")
    return program


@pytest.fixture(scope="session")
def psql() -> str:
    """The path of psql."""
    return _client_program("psql")


@pytest.fixture(scope="session")
def pgbench() -> str:
    """The path of pgbench."""
    return _client_program("pgbench")
