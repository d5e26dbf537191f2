"""When a server that could not be had is asked again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.errors import ConnectFailed, LoginFailed, UpstreamError
from hyperpool.pool.backoff import Backoff

_DOWN = ConnectFailed("nothing there")
_REFUSED = LoginFailed("no such password", "28P01")


def _delay(backoff: Backoff, error: UpstreamError, now: float = 50.0) -> float:
    """How long a failure at `now` holds the pool back, to a tenth of a millisecond."""
    backoff.failed(error, now)
    low, high = 0.0, 10_000.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if backoff.holds(now + middle) else (low, middle)
    return high


def _backoff(limit: float = 15.0, random: float = 1.0) -> Backoff:
    """A backoff whose jitter is fixed; with 1.0 it waits as long as it may."""
    return Backoff(limit, lambda: random)


def test_at_first_nothing_holds() -> None:
    """A new pool may open connections at once, and has no error to show."""
    backoff = _backoff()
    assert not backoff.holds(0.0)
    assert backoff.error is None


def test_delays_double_up_to_a_second() -> None:
    """A server that is down is probed every second, however long the limit is."""
    backoff = _backoff()
    delays = [_delay(backoff, _DOWN) for _ in range(7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], abs=1e-3)


def test_a_limit_below_a_second_is_kept() -> None:
    """``server_login_retry`` bounds the delay, but not below the first one: never a busy loop."""
    assert [_delay(_backoff(0.15), _DOWN), _delay(_backoff(0.0), _DOWN)] == pytest.approx(
        [0.1, 0.1], abs=1e-3
    )
    backoff = _backoff(0.15)
    assert [_delay(backoff, _DOWN) for _ in range(3)] == pytest.approx([0.1, 0.15, 0.15], abs=1e-3)


def test_refused_credentials_wait_for_the_whole_limit() -> None:
    """A wrong password repeated every second locks accounts; the first failure waits already."""
    backoff = _backoff()
    assert _delay(backoff, _REFUSED) == pytest.approx(15.0, abs=1e-3)
    assert _delay(backoff, _DOWN) == pytest.approx(0.2, abs=1e-3)
    assert _delay(_backoff(0.0), _REFUSED) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(
    "sqlstate",
    ["53300", "57P01", "57P03"],
)
def test_refusals_that_pass_are_probed_like_a_server_that_is_down(sqlstate: str) -> None:
    """Too many connections, shutting down, starting up: waiting for the whole limit would prolong an outage."""
    assert _delay(_backoff(), LoginFailed("later", sqlstate)) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("sqlstate", ["28000", "3D000", "42501", "08004"])
def test_other_refusals_wait_for_the_whole_limit(sqlstate: str) -> None:
    """Unknown database or role, no permission: asking again at once changes nothing."""
    assert _delay(_backoff(), LoginFailed("no", sqlstate)) == pytest.approx(15.0, abs=1e-3)


def test_success_forgets_all_failures() -> None:
    """The next failure starts from the first delay."""
    backoff = _backoff()
    for _ in range(5):
        backoff.failed(_DOWN, 50.0)
    backoff.succeeded(56.0)
    assert not backoff.holds(50.0)
    assert backoff.error is None
    assert _delay(backoff, _DOWN) == pytest.approx(0.1, abs=1e-3)


def test_the_newest_error_is_kept() -> None:
    """It is what clients are told."""
    backoff = _backoff()
    backoff.failed(_DOWN, 1.0)
    backoff.failed(_REFUSED, 2.0)
    assert backoff.error is _REFUSED


@given(
    random=st.floats(0.0, 1.0, exclude_max=True),
    limit=st.floats(0.0, 3600.0),
    errors=st.lists(st.sampled_from((_DOWN, _REFUSED)), min_size=1, max_size=40),
)
def test_jitter_shortens_a_delay_by_a_quarter_at_most(
    random: float, limit: float, errors: list[UpstreamError]
) -> None:
    """Pools that failed together do not come back together, and no delay leaves its bounds."""
    least, most = _backoff(limit, 0.0), _backoff(limit, 1.0)
    backoff = _backoff(limit, random)
    for error, now in zip(errors, itertools.count(10.0, 5000.0), strict=False):
        shortest, delay, longest = (_delay(one, error, now) for one in (least, backoff, most))
        assert shortest - 1e-3 <= delay <= longest + 1e-3
        assert shortest >= 0.75 * longest - 1e-3
        assert longest <= max(limit, 0.1) + 1e-3


def test_a_success_soon_after_a_failure_proves_little() -> None:
    """A server that logs us in and hangs up, over and over, is dialed less and less often."""
    backoff = _backoff()
    delays = []
    now = 50.0
    for _ in range(5):
        backoff.succeeded(now)
        backoff.lost(now)
        assert backoff.error is None
        delays.append(next(step / 1000 for step in range(20_000) if not backoff.holds(now + step / 1000)))
        now += delays[-1]
    assert delays == sorted(delays)
    assert delays[-1] > 5 * delays[0]
