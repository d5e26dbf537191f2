"""Random scripts of several clients."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from tests.support.pgscripts import CUT, LATER, SLEEP, Script, Step

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Fragment = tuple[str, ...]
"""Messages that belong together."""

_NAMES: Final = ("a", "b")
_ANY_NAME: Final = (*_NAMES, "")

_TWO: Final = (
    "select $1::int, $2::text",
    "select $1::int, $2::text",
    "insert into @ values ($1, $2) returning n, t",
    "insert into @ values ($1, $2) returning n, t",
    "update @ set t = $2 where n = $1",
    "delete from @ where n = $1 or t = $2 returning *",
    "select n, t from @ where n >= $1 and t <> $2 order by n",
    "select g, $2::text as t from generate_series(1, $1::int) g",
    "select g, fail($2) from generate_series(1, $1::int) g",
    "select note($2), $1::int",
    "select $1::int, repeat($2, 5000)",
)
"""Statements with an int and a text as parameters."""

_BLOCKS: Final = (
    "begin",
    "begin",
    "begin",
    "commit",
    "rollback",
    "savepoint s",
    "rollback to s",
    "release s",
)
_FAILING: Final = ("selec 1", "select * from missing", "select 1/0", "select fail('x')")
_NONE: Final = (
    "select 1",
    "select n, t from @ order by n",
    "insert into @ values (7, 'seven')",
    "select 'x' where false",
    "show TimeZone",
    "set TimeZone = 'Europe/Paris'",
    "set application_name = 'app @'",
    "",
    *_BLOCKS,
    *_FAILING,
)
"""Statements without parameters."""

_STATEFUL: Final = (
    "deallocate a",
    "deallocate b",
    "deallocate all",
    "discard all",
    "set work_mem = '7MB'",
    "select set_config('work_mem', '9MB', false)",
    "show work_mem",
    "reset all",
)
"""Statements about what a session keeps, beside the parameters that every pooler follows."""
_QUERIES: Final = (
    *_NONE,
    "select note('1'), note('2')",
    "select g, repeat('x', 2000) from generate_series(1, 20) g",
    "set DateStyle = 'SQL'; select date '2000-02-01'",
    "set local TimeZone = 'Asia/Tokyo'",
    "set TimeZone = 'nowhere'",
    "reset TimeZone",
    "declare k cursor for select n from @ order by n; fetch 2 k",
    "fetch 1 k",
    "copy @ to stdout",
)

_FITTING: Final = ("1,x", "2,y", "#3,z", "4,~", "~,u", "9,")
_VALUES: Final = (*(f"={values}" for values in _FITTING), *(f"={values}!" for values in _FITTING))
_ODD_VALUES: Final = ("", "=1", "=1,x,y", "=one,x", "=99999999999,x", "=#1,#2")
_PORTALS: Final = ("", "", "", ">p", ">q")
_LIMITS: Final = ("", "", "", "/1", "/2")
_PAUSES: Final[tuple[Fragment, ...]] = ((), (), (), ("S",), ("S",), ("H",), ("S", "S"), ("H", "S"))
_LAST: Final[tuple[Fragment, ...]] = (("S",), ("S",), ("S",), ("S",), ("S",), ("S",), ("H",), ())

_SLEEPS: Final[tuple[Fragment, ...]] = (
    ("Q " + SLEEP,),
    ("Q begin; " + SLEEP + "; select 1",),
    ("P: " + SLEEP, "B", "E", "P: select 1", "S"),
    ("Q select 1", "Pa: " + SLEEP, "S", "Ba", "E", "S", "Q select 2"),
)
_COPIES: Final[tuple[Fragment, ...]] = (
    ("Q copy @ from stdin", "d11,x", "d12,y", "c"),
    ("Q copy @ from stdin", "d11,x", "d11,x", "c"),
    ("Q copy @ from stdin", "fno more"),
    ("Q copy @ from stdin; select 1; copy @ from stdin", "d11,x", "c", "d12,y", "c"),
    ("P: copy @ from stdin", "B", "E", "d11,x", "c", "S"),
    ("P: copy @ from stdin", "B", "E", "S", "d11,x", "c", "S"),
    ("P: copy @ from stdin", "B", "E", "d11,wrong,x", "c", "P: select 1", "S"),
    ("P: copy @ to stdout", "B", "E", "S"),
)
_STAYING_COPIES: Final[tuple[Fragment, ...]] = (
    ("Q copy @ from stdin",),
    ("P: copy @ from stdin", "B", "E", "H"),
)
_ENDS: Final[tuple[Fragment, ...]] = (
    ("X",),
    ("!close",),
    ("!reset",),
    ("Q insert into @ values (8, 'never')", CUT),
    ("P: insert into @ values (8, 'never')", "B", "E", "!reset"),
    ("P: insert into @ values (8, 'never')", "B", "E", "H", "!close"),
    ("P: insert into @ values (8, 'never')", "B", "E", "S", CUT),
    ("Q select repeat('x', 100000)", "!reset"),
    ("Q begin; insert into @ values (8, 'never')", "!close"),
    ("Q select pg_terminate_backend(pg_backend_pid())",),
    ("Q copy @ from stdin", "Q select 1"),
)


@st.composite
def scripts(draw: st.DrawFn, clients: int, *, stateful: bool) -> Script:
    """Scripts of so many clients.

    Args:
        draw: given by hypothesis.
        clients: their number.
        stateful: they rely on what a session keeps: prepared statements and all settings. Without it, what is prepared
            is used before the Sync.
    """
    step = st.tuples(st.integers(0, clients - 1), _turns(stateful=stateful))
    # A list of lists, because that has more in it on average, and is still shrunk to nothing.
    steps = draw(st.lists(st.lists(step, min_size=1, max_size=12), min_size=1, max_size=11))
    chunks = draw(st.integers(0, 1 << 16))
    return Script(tuple(Step(client, messages) for client, messages in chain.from_iterable(steps)), chunks)


def _turns(*, stateful: bool) -> SearchStrategy[Fragment]:
    """The messages of one step."""
    blocks = st.sampled_from([(f"Q {sql}",) for sql in _BLOCKS])
    others = st.sampled_from(_COPIES + _ENDS + (_STAYING_COPIES if stateful else ()))
    sleeps = st.sampled_from(_SLEEPS if stateful else _SLEEPS[:3]).map(lambda sleep: (*sleep, LATER))
    queries = _queries(stateful=stateful)
    pipelines = _pipelines(stateful=stateful)
    usual = [pipelines, pipelines, queries, blocks]
    if stateful:
        usual += [_prepared(), _used(), _used(), _pipelines(stateful=True)]
    later = st.one_of(*usual).map(lambda messages: (*messages, LATER))
    return st.one_of(*usual, *usual, later, later, others, sleeps)


@st.composite
def _queries(draw: st.DrawFn, *, stateful: bool) -> Fragment:
    """One or two Queries of a few statements each."""
    texts = _QUERIES + (_STATEFUL if stateful else ())
    queries = draw(st.lists(st.lists(st.sampled_from(texts), min_size=1, max_size=3), min_size=1, max_size=2))
    padding = draw(st.sampled_from(("", "", "", "#700", "#9000")))
    return tuple(f"Q {'; '.join(statements)}{padding}" for statements in queries)


@st.composite
def _prepared(draw: st.DrawFn) -> Fragment:
    """A statement is prepared."""
    name = draw(st.sampled_from(_ANY_NAME))
    close = draw(st.sampled_from(((), (), (f"CS{name}",))))
    describe = draw(st.sampled_from(((), (f"DS{name}",))))
    return (*close, f"P{name}: {draw(st.sampled_from(_TWO))}", *describe, "S")


@st.composite
def _used(draw: st.DrawFn) -> Fragment:
    """A statement is used that may have been prepared before."""
    name = draw(st.sampled_from(_ANY_NAME))
    return (*_execution(draw, name, draw(st.sampled_from(_VALUES))), "S")


@st.composite
def _pipelines(draw: st.DrawFn, *, stateful: bool) -> Fragment:
    """Several fragments, with a Sync, a Flush or nothing between them."""
    fragment = st.one_of(
        _whole(stateful=stateful), _whole(stateful=stateful), *([_part()] if stateful else [])
    )
    pauses = st.sampled_from(_PAUSES)
    parts = draw(st.lists(st.tuples(fragment, pauses), min_size=1, max_size=4))
    last = draw(st.sampled_from(_LAST)) if stateful else ("S",)
    return (*chain.from_iterable(chain.from_iterable(parts[:-1])), *parts[-1][0], *last)


@st.composite
def _whole(draw: st.DrawFn, *, stateful: bool) -> Fragment:
    """A statement is prepared and used."""
    name = draw(st.sampled_from(("", "", *_NAMES))) if stateful else ""
    if draw(st.booleans()):
        sql, values = draw(st.sampled_from(_TWO)), draw(st.sampled_from(_VALUES))
    else:
        sql, values = draw(st.sampled_from(_NONE + (_STATEFUL if stateful else ()))), ""
    close = (f"CS{name}",) if name and draw(st.booleans()) else ()
    return (*close, f"P{name}: {sql}", *_execution(draw, name, values))


def _execution(draw: st.DrawFn, name: str, values: str) -> Fragment:
    portal = draw(st.sampled_from(_PORTALS))
    limit = draw(st.sampled_from(_LIMITS))
    own = portal.removeprefix(">")
    describe = draw(st.sampled_from(((), (), (f"DP{own}",), (f"DS{name}", f"DP{own}"))))
    again = (f"E{own}/1", f"E{own}") if limit else ()
    return (f"B{name}{portal}{values}", *describe, f"E{own}{limit}", *again)


@st.composite
def _part(draw: st.DrawFn) -> Fragment:
    """A message by itself."""
    name = draw(st.sampled_from(_ANY_NAME))
    portal = draw(st.sampled_from(("", "p", "q")))
    return draw(
        st.sampled_from(
            (
                (f"P{name}: {draw(st.sampled_from(_TWO + _NONE))}",),
                (f"B{name}>{portal}{draw(st.sampled_from(_VALUES + _ODD_VALUES))}",),
                (f"DS{name}",),
                (f"DP{portal}",),
                (f"E{portal}",),
                (f"E{portal}/1",),
                (f"CS{name}",),
                (f"CP{portal}",),
                (f"Q {draw(st.sampled_from(_QUERIES + _STATEFUL))}",),
                ("F40",),
            )
        )
    )
