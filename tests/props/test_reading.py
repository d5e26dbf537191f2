"""Texts for the result cache: what does not matter changes nothing, what matters always does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgast import parse
from postgast import pg_query_pb2 as pb

from hyperpool.sql import survey as survey_module
from hyperpool.sql.reader import QueryReader
from hyperpool.sql.reading import ANYTHING
from hyperpool.sql.reasons import Reason
from hyperpool.sql.survey import Survey

if TYPE_CHECKING:
    from hyperpool.sql.reading import Text

_GRAMMAR: Final = 18
"""PostgreSQL's version whose grammar has been looked at."""

# -- what does not matter --------------------------------------------------------------------------------------------

_STRINGS: Final = (
    "'a'",
    "'A'",
    "''",
    "'it''s'",
    "'--'",
    "'/* x */'",
    "'a  b'",
    "E'\\n'",
    "$$a$$",
    "$q$ ' $q$",
    "N'a'",
    "B'01'",
    "U&'d'",
)
_NUMBERS: Final = (
    "0",
    "7",
    "42",
    "2147483647",
    "2147483648",
    "99999999999",
    "1.5",
    "1e3",
    "99999999999999999999",
)
_NAMES: Final = ("t", "T", "t1", "t2", '"t"', '"T"', '"a b"', '"it\'s 5"', "n", "name", "S1.t", "é")

_values: Final = st.sampled_from(
    (*_STRINGS, *_NUMBERS, *_NAMES, "$1", "NULL", "true", "f ( 1 )", "n 'a'", "- 1")
)
_operators: Final = st.sampled_from(("+", "-", "<", "=", "||", "AND", "->>", "IS DISTINCT FROM", "LIKE"))


@st.composite
def _queries(draw: st.DrawFn) -> list[str]:
    """The tokens of a query, more or less."""
    tokens = ["SELECT", draw(_values)]
    for _ in range(draw(st.integers(0, 3))):
        tokens += [draw(_operators), draw(_values)]
    tokens += ["FROM", draw(st.sampled_from(_NAMES)), "WHERE", draw(_values), "=", draw(_values)]
    tokens += draw(st.sampled_from((["LIMIT", "5"], ["ORDER BY", "1"], ["GROUP BY", "1", ",", "2"], [])))
    return tokens


_blanks: Final = st.sampled_from(
    (" ", "  ", "\n", "\t", " /* c */ ", " /* a /* b's */ 5 */ ", " -- it's 1\n", "\r\n")
)


def _facts(text: Text) -> dict[str, object]:
    facts = attrs.asdict(text.reading, recurse=False)
    return facts | {"template": None, "canonical": text.canonical}


@given(st.data(), _queries())
def test_blanks_comments_and_case_change_nothing(data: st.DataObject, tokens: list[str]) -> None:
    """Neither the canonical form nor anything that is found, the text for people apart."""
    reader = QueryReader()
    plain = reader.read(" ".join(tokens).encode())
    blanks = [data.draw(_blanks) for _ in tokens]
    keep = ("'", '"', "$")
    other = [
        one
        if any(sign in one for sign in keep)
        else data.draw(st.sampled_from((one, one.upper(), one.lower())))
        for one in tokens
    ]
    text = "".join(part for pair in zip(blanks, other, strict=True) for part in pair)
    changed = reader.read((text + data.draw(st.sampled_from(("", ";", " ; ", "/* end */")))).encode())
    if "é" in tokens:
        assert changed.reading.reason in {plain.reading.reason, Reason.ENCODING}
    elif plain.reading.reason is not Reason.PARSE_ERROR:
        assert _facts(changed) == _facts(plain)


@given(_queries(), _queries())
def test_other_tokens_make_another_canonical_form(one: list[str], other: list[str]) -> None:
    """Unless they are the same names in another case."""
    forms = [QueryReader().read(" ".join(tokens).encode()).canonical for tokens in (one, other)]
    if all(forms):
        assert (forms[0] == forms[1]) == (_folded(one) == _folded(other))


def _folded(tokens: list[str]) -> list[str]:
    words = " ".join(tokens).split(" ")
    return [
        word if any(sign in word for sign in "'\"$") else word.lower().replace(".", " . ") for word in words
    ]


# -- what is remembered ----------------------------------------------------------------------------------------------

_CONTEXTS: Final = (
    "select {} from t{} where a = {}",
    "select E{} || {}, U&{}, n{}, x{}",
    "select $a{}$ {} $a{}$, {}",
    "select '{} {}', {}",
    'select "a{}", "b {}" from t where c = {}',
    'select "a\'b", {} from "c\'d{}"',
    "select {} /* it's {} */, {} -- {}\n, {}",
    "select a from t order by {}, b limit {}",
    "select a from t group by rollup ({}), {}",
    "select 1.{}, {}.5, {}e{}, 0x{}, ${}, $1, {}",
    "select a::float({}), b::numeric({}), c[{}:{}], {}::t{}",
    'select U&"d!0061t{}" uescape {}, {}',
    "select {}\n{}, {} from t{}",
    "insert into t{} values ({}, {})",
    "select f({}, {}), date {}, interval {} day",
    "select {}{}, {}",
)
_LITERALS: Final = (
    "1", "2", "12", "2147483648", "99999999999999999999", "'1'", "'a'", "''", "'it''s'", "'now'", "'x today'", "'!'",
    "'a\\'", "'\\156ow'", "'a'\n'b'", "$1",
)  # fmt: skip
_literal: Final = st.sampled_from(_LITERALS)


@given(
    st.sampled_from(_CONTEXTS), st.lists(st.lists(_literal, min_size=7, max_size=7), min_size=2, max_size=3)
)
def test_what_has_been_learned_from_one_text_is_right_for_others(
    context: str, fillings: list[list[str]]
) -> None:
    """Whatever the literals are, and wherever they stand."""
    learned = QueryReader()
    for filling in fillings:
        text = context.format(*filling).encode()
        assert _facts(learned.read(text)) == _facts(QueryReader().read(text))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_what_is_forgotten_is_read_again(numbers: list[int]) -> None:
    """With little room, the answers are the same."""
    reader = QueryReader(capacity=20_000)
    for number in numbers:
        text = f"select {number} from t{number % 7}".encode()
        assert _facts(reader.read(text)) == _facts(QueryReader().read(text))


# -- what is not known -----------------------------------------------------------------------------------------------

_KINDS: Final = tuple(field.name for field in pb.Node.DESCRIPTOR.fields)


def _node(kind: str) -> pb.Node:
    node = pb.Node()
    getattr(node, kind).SetInParent()
    return node


def test_the_grammar_is_the_one_that_has_been_looked_at() -> None:
    """A later one may have given new fields, and so other meanings, to nodes that are known to be harmless."""
    assert parse("select 1").version // 10000 == _GRAMMAR


def _is_known(kind: str) -> bool:
    return getattr(pb.Node(), kind).__class__ in survey_module._NODES


def test_a_node_that_is_not_known_refuses_and_may_write() -> None:
    """Wherever it stands: those that only a server makes, for one."""
    unknown = [kind for kind in _KINDS if not _is_known(kind)]
    assert {
        "query",
        "var",
        "func_expr",
        "op_expr",
        "sub_plan",
        "next_value_expr",
        "table_like_clause",
    } <= set(unknown)
    for kind in unknown:
        statements = parse("select 1").stmts
        statements[0].stmt.select_stmt.target_list[0].res_target.val.CopyFrom(_node(kind))
        survey = Survey()
        survey.read(statements)
        assert survey.reason is Reason.UNSUPPORTED_SYNTAX, kind
        assert survey.writes == ANYTHING, kind


_KNOWN_STATEMENTS: Final = frozenset(
    {
        *(
            "variable_set_stmt",
            "variable_show_stmt",
            "discard_stmt",
            "deallocate_stmt",
            "constraints_set_stmt",
        ),
        *("listen_stmt", "unlisten_stmt", "notify_stmt", "lock_stmt", "check_point_stmt", "comment_stmt"),
        *("vacuum_stmt", "cluster_stmt", "reindex_stmt", "fetch_stmt", "close_portal_stmt", "prepare_stmt"),
        *(
            "select_stmt",
            "insert_stmt",
            "update_stmt",
            "delete_stmt",
            "merge_stmt",
            "truncate_stmt",
            "copy_stmt",
        ),
        *("refresh_mat_view_stmt", "explain_stmt", "declare_cursor_stmt", "create_stmt", "view_stmt"),
        *("create_table_as_stmt", "transaction_stmt", "call_stmt"),
    }
)


@pytest.mark.parametrize("kind", sorted(kind for kind in _KINDS if kind.endswith("_stmt")))
def test_every_kind_of_statement_is_known_or_may_write_anything(kind: str) -> None:
    """DDL, DO, EXECUTE, and whatever comes later."""
    survey = Survey()
    statement = _node(kind)
    if kind == "drop_stmt":
        statement.drop_stmt.objects.add().list.items.add().string.sval = "t"
    elif kind == "call_stmt":
        statement.call_stmt.funccall.funcname.add().string.sval = "p"
    survey.read([pb.RawStmt(stmt=statement)])
    if kind == "select_stmt":
        assert survey.reason is None
    else:
        assert survey.reason is Reason.NOT_A_QUERY
    if kind not in _KNOWN_STATEMENTS:
        assert survey.writes == ANYTHING
