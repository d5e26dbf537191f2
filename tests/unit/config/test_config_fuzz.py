"""Whatever stands in the file, it is either settings or a list of problems."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import attrs
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hyperpool.config import DatabaseSettings, PoolerSettings, Settings, UserSettings, load
from hyperpool.errors import ConfigError


def _try(raw: bytes) -> Settings | list[str]:
    """Load; the result is settings, or problems that are not empty and have one line each."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pooler.yaml"
        path.write_bytes(raw)
        try:
            return load(path, {"SET": "value"})
        except ConfigError as error:
            problems = error.problems
    assert problems
    assert all(len(problem.splitlines()) == 1 for problem in problems)
    return problems


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=5)
    | st.text(max_size=10)
    | st.sampled_from(["${SET}", "${UNSET}", "${", "*", "30s", "64KiB", "md5", "/", "~", "scram-sha-256"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_SCALARS, values, max_size=3),
    max_leaves=5,
)


def _section(cls: type[attrs.AttrsInstance]) -> st.SearchStrategy[dict[object, object]]:
    names = st.sampled_from([field.name for field in attrs.fields(cls)]) | st.text(max_size=5)
    return st.dictionaries(names | _SCALARS, _VALUES, max_size=5)


_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "pooler": _section(PoolerSettings) | _VALUES,
        "databases": st.dictionaries(_SCALARS, _section(DatabaseSettings) | _VALUES, max_size=3) | _VALUES,
        "users": st.dictionaries(_SCALARS, _section(UserSettings) | _VALUES, max_size=3) | _VALUES,
        "other": _VALUES,
    },
)


@given(_DOCUMENTS | _VALUES)
def test_any_values_are_settings_or_problems(document: object) -> None:
    """Values of every type in every place never end in another error."""
    _try(yaml.safe_dump(document, allow_unicode=True).encode(errors="surrogatepass"))


@given(st.text(alphabet="ab:-?,[]{}&*!|>'\"%@`#~<=0x1. \n\t", max_size=40))
def test_any_text_is_settings_or_problems(text: str) -> None:
    """Every corner of YAML's syntax."""
    _try(text.encode())


@given(st.binary(max_size=40))
def test_any_bytes_are_settings_or_problems(raw: bytes) -> None:
    """Text files or not."""
    _try(raw)


_NAMES = st.text(string.ascii_letters, min_size=1, max_size=8)


@given(
    st.dictionaries(_NAMES, st.sampled_from(["embedded", "plain", "forced"]), max_size=4),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_settings_without_problems_resolve_for_every_pool(
    databases: dict[str, str], minimum: int, limit: int
) -> None:
    """What `load` lets through has no contradiction left: every pool can be resolved, within its limit."""
    kinds: dict[str, dict[str, object]] = {
        "embedded": {"embedded": True, "user": "ann", "password": "x"},
        "plain": {},
        "forced": {"user": "ann", "pool_size": limit},
    }
    document = {
        "pooler": {"listen_addr": "localhost", "auth_type": "trust", "min_pool_size": minimum},
        "databases": {name: kinds[kind] for name, kind in databases.items()},
        "users": {"ann": {}},
    }
    found = _try(yaml.safe_dump(document).encode())
    contradiction = limit and minimum > limit and "forced" in databases.values()
    if isinstance(found, list):
        assert contradiction or not databases
        return
    assert not contradiction
    for name in databases:
        pool = found.pool_for(name, "ann")
        assert pool is not None
        assert not pool.pool_size or pool.min_pool_size <= pool.pool_size
    warm = [name for name, kind in databases.items() if kind != "plain" and minimum]
    assert sorted(pool.database for pool in found.warm_pools()) == sorted(warm)
