"""What is written in Python and in C does the same in both."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyperpool.buckets import BUCKETS
from hyperpool.sql.effects import EffectReader
from tests.support.forms import compiled, pure

FRAMES = st.lists(
    st.tuples(st.sampled_from(b"DTCZdN1"), st.one_of(st.integers(0, 40), st.integers(0, 0xFFFFFFFF))),
    max_size=12,
)
WORDS = st.sampled_from(
    [
        *("select ", "SELECT ", "insert ", "begin", "end", "end;", "Commit", "with x ", "set ", "update "),
        *("temp", "TEMP", "into ", "INTO ", "pg_temp", 'u&"', 'U&"', "(", ")", ";", "pg_settings"),
        *(
            "set_config",
            "SET_CONFIG(",
            "advisory_lock",
            "query_to_xml",
            "ts_stat",
            "tuck",
            "TUCK(",
            "é",
            "ß",
            "ab",
        ),
        *("'", "--", "/*", "*/", " ", "\n", "\\", "\x80", "pg_", "te", "t", "int"),
    ]
)
TEXTS = st.lists(WORDS, max_size=12).map("".join)
PINNING = st.sampled_from([(), ("tuck",), ("ab",), ("t",), ("é",), tuple(f"many{i}" for i in range(40))])


@given(FRAMES, st.integers(0, 30), st.booleans(), st.sampled_from([bytes, bytearray, memoryview]))
def test_hopping(frames: list[tuple[int, int]], cut: int, passes: bool, made: type) -> None:
    """Over any frames, cut anywhere, in any kind of buffer."""
    forms = pure("wire/scan"), compiled("wire/scan")
    data = b"".join(
        bytes((kind,)) + length.to_bytes(4, "big") + bytes(max(min(length, 60) - 4, 0))
        for kind, length in frames
    )
    end = max(len(data) - cut, 0)
    passing = bytes(passes or kind in b"DTC" for kind in range(256))
    for at in range(min(end, 8) + 1):
        one, two = (form.hop(made(data), at, end, passing) for form in forms)
        assert one == two
        if at + 5 <= len(data):
            assert len({form.length_at(made(data), at) for form in forms}) == 1
        if at < len(data) and made is not memoryview:
            assert {form.byte_at(made(data), at) for form in forms} == {data[at]}


@given(
    st.binary(max_size=20),
    st.integers(-1, 21),
    st.integers(-1, 21),
    st.integers(-1, 21),
    st.binary(max_size=4),
    st.sampled_from([bytes, bytearray]),
)
@example(b"B\0\0\0\x0a\0ab\0c", 6, 8, 10, b"abc", bytearray)
def test_parts_of_a_buffer(data: bytes, at: int, stop: int, end: int, what: bytes, made: type) -> None:
    """Anywhere, in and outside of the buffer."""
    found: list[list[object]] = []
    for form in (pure("wire/scan"), compiled("wire/scan")):
        buffer = made(data)
        found.append([])
        for ask in (
            partial(form.text_at, buffer, at, end),
            partial(form.part, buffer, at, end),
            partial(form.matches, buffer, at, end, what),
            partial(form.matches, buffer, at, end, data[at:end]),
            partial(form.renamed, buffer, at, stop, end, what),
        ):
            try:
                found[-1].append(ask())
            except IndexError:
                found[-1].append(IndexError)
    assert found[0] == found[1]


TIMES = st.tuples(
    st.lists(st.integers(0, 1 << 56), min_size=BUCKETS, max_size=BUCKETS),
    st.floats(allow_nan=False, min_value=0),
)


@given(st.lists(st.tuples(st.binary(max_size=9), st.lists(TIMES, max_size=3)), max_size=3), st.data())
def test_lines_of_histograms(found: list[tuple[bytes, list[Any]]], data: st.DataObject) -> None:
    """Any numbers, and too many or too few texts."""
    shown = tuple(data.draw(st.lists(st.integers(-1, BUCKETS), max_size=4)))
    count = data.draw(st.sampled_from([0, 0, 0, 1])) + len(shown) + 3
    texts = [(name,) * count for name, _ in found]
    told: list[object] = []
    for form in (pure("http/lines"), compiled("http/lines")):
        try:
            told.append(form.histograms(texts, shown, [parts for _, parts in found]))
        except (ValueError, IndexError) as error:
            told.append(type(error))
    if count == len(shown) + 3 or not found:
        assert told[0] == told[1]
    else:
        assert not any(isinstance(one, bytes) for one in told)


SETTINGS = [object() for _ in range(3)]
STATEMENTS = [None, object(), object()]
PATHS = st.tuples(
    st.sampled_from(SETTINGS), st.sampled_from(STATEMENTS), st.integers(0, 60).map(lambda n: b"%d" % n)
)


@given(st.lists(st.tuples(st.sampled_from(["put", "forget", "drop", "find"]), PATHS), max_size=60))
@example(
    [("put", (SETTINGS[n % 3], STATEMENTS[n % 2], b"%d" % n)) for n in range(200)]
    + [("find", (SETTINGS[0], None, b"6"))]
)
def test_ways_to_entries(steps: list[tuple[str, tuple[object, object, bytes]]]) -> None:
    """Ways to entries are found, refused twice, and forgotten, in any order and however many there are."""
    seen = []
    for form in (pure("cache/fronts"), compiled("cache/fronts")):
        table = form.Fronts()
        made: dict[object, Any] = {}
        log: list[object] = []
        for what, path in steps:
            settings, statement, data = path
            front = made.get(path)
            if what == "put":
                other = form.Front(path, len(log), b"1", True, None)
                log.append((table.put(other), other.size))
                made[path] = front or other
            elif what == "find":
                held = bytearray(b"xx" + data + b"y")
                found = table.find(settings, statement, held, 2, 2 + len(data))
                assert found is front
                log.append(found and (found.entry, found.path))
            elif front is not None:
                front.forget() if what == "forget" else table.drop(front)
                front.forget()
                del made[path]
            log.append((len(table), sorted(one.entry for one in table)))
            with pytest.raises(IndexError):
                table.find(settings, statement, bytearray(data), 0, len(data) + 1)
        seen.append(log)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("made", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", ["pure", "compiled"])
def test_outside_of_the_buffer(name: str, made: type) -> None:
    """Nothing is read there."""
    scan = pure("wire/scan") if name == "pure" else compiled("wire/scan")
    data = made(b"D\0\0\0\4")
    assert scan.length_at(data, 0) == 4
    for at in (-1, 1, 5, 1 << 40):
        with pytest.raises(IndexError):
            scan.length_at(data, at)
    for at in (-1, 5, 1 << 40) if made is not memoryview else ():
        with pytest.raises(IndexError):
            scan.byte_at(data, at)
    for at, end, passing in ((-1, 5, bytes(256)), (0, 6, bytes(256)), (0, 5, bytes(255))):
        with pytest.raises(IndexError):
            scan.hop(data, at, end, passing)


@given(st.one_of(st.floats(0, 1e9), st.floats(0, 1e-3)))
@example(0.0)
@example(1e-6)
@example(1e30)
def test_buckets(seconds: float) -> None:
    """For any time."""
    assert pure("buckets").bucket_of(seconds) == compiled("buckets").bucket_of(seconds)


@given(TEXTS, PINNING, PINNING, st.sampled_from(["utf-8", "latin-1"]), st.sampled_from([bytes, bytearray]))
def test_first_looks(
    text: str, pinning: tuple[str, ...], stateful: tuple[str, ...], encoding: str, made: type
) -> None:
    """At texts that are full of what matters; and one that passes changes nothing for the closer look either."""
    raw = text.encode(encoding, "replace")
    reader = EffectReader(pinning)
    reader.learn(stateful)
    found = []
    for form in (pure("sql/glance"), compiled("sql/glance")):
        learned: list[tuple[tuple[object, ...], dict[str, object]]] = []
        reader.glance = _Listens(learned)  # type: ignore[assignment]
        reader.learn(stateful)
        glance = form.Glance()
        assert not glance.passes(made(raw), 0, len(raw)), "before it has learned anything"
        arguments, names = learned[0]
        glance.learn(*arguments, **names)
        found.append(glance.passes(made(b"(;" + raw + b";temp into"), 2, 2 + len(raw)))
    assert found[0] == found[1]
    if found[0]:
        reader = EffectReader(pinning)
        reader.learn(stateful)
        assert reader._closer(raw) is None


class _Listens:
    """Takes the place of a `Glance`, to hear what it is taught."""

    def __init__(self, learned: list[tuple[tuple[object, ...], dict[str, object]]]) -> None:
        self._learned = learned

    def learn(self, *arguments: object, **names: object) -> None:
        """Keep it."""
        self._learned.append((arguments, names))
