"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1ms", 0.001),
        ("250us", 0.00025),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("1.5m", 90.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    """Each unit counts as what its name says, exactly."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1 S", "1h30m", "1e3s", "1.s", ".5s", "1:30", "٣s", "1s\n"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    """Nothing is guessed: no missing unit, no sign, no sum of units."""
    with pytest.raises(ValueError, match="known unit"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("17B", 17),
        ("64kB", 64_000),
        ("64KiB", 65_536),
        ("1MB", 1_000_000),
        ("1 MiB", 1_048_576),
        ("0.5KiB", 512),
        ("1GB", 10**9),
        ("1GiB", 2**30),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, size: int) -> None:
    """Units with an i are powers of 1024, the others powers of 1000."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64", "64K", "64kb", "64 kib", "0.3B", "1.0001kB", "-1B"])
def test_other_texts_are_no_sizes(text: str) -> None:
    """Units that mean different things to different people, and parts of bytes, are refused."""
    with pytest.raises(ValueError, match=r"unit|whole number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.5, "500ms"), (90.0, "90s"), (120.0, "2m"), (3600.0, "1h"), (1e-7, "0.0000001s")],
)
def test_a_duration_is_shown_in_the_largest_unit_without_a_fraction(seconds: float, text: str) -> None:
    """People get `2m`, not `120.0`."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (1, "1B"), (64_000, "64kB"), (65_536, "64KiB"), (2**31 - 1, "2147483647B")]
)
def test_a_size_is_shown_in_the_largest_unit_without_a_fraction(size: int, text: str) -> None:
    """People get `64KiB`, not `65536`."""
    assert format_size(size) == text


@given(st.floats(min_value=1e-9, max_value=3e9) | st.integers(0, 10**6).map(float))
def test_a_duration_survives_being_written_and_read(seconds: float) -> None:
    """What `format_duration` writes is read as the very same number."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**40))
def test_a_size_survives_being_written_and_read(size: int) -> None:
    """What `format_size` writes is read as the very same number."""
    assert parse_size(format_size(size)) == size
