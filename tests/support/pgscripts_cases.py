"""Situations of prepared statements, as scripts in the language of `tests.support.pgscripts`.

Where a client needs another server than the one it has used, somebody else is in a transaction on that, which would be
used again otherwise.
"""

from __future__ import annotations

from typing import Final

USED: Final = {
    "on another server": """
        0: Pa: select $1::int, $2::text | DSa | S
        1: Q begin
        0: Ba=1,x | DP | E | S
        0: DSa | S
        1: Q commit
        0: Ba>p=2,y! | Ep/1 | Ep | S
    """,
    "one name, several texts": """
        0: Pa: select $1::int, 'zero' | S
        1: Pa: select 'one', $1::int, $2::text | S
        2: Pa: insert into @ values ($1, $2) returning n | S
        0: Ba=1 | DP | E | S
        1: Ba=1,x | DP | E | S
        2: Ba=5,x | DP | E | S
        0: Q begin
        1: Ba=2,y | E | DSa | S
        2: Ba=6,y | E | DSa | S
        0: Ba=2 | E | CSa | S
        0: Q commit
        1: Ba=3,z | E | S
        0: Ba=3 | E | S
    """,
    "one text, several names": """
        0: Pa: select $1::int, $2::text | S
        1: Pb: select $1::int, $2::text | S
        2: Pa: select $1::int, $2::text | S
        3: Pa: select $1::int, $2::text | Pb: select $1::int, $2::text | S
        0: Q begin
        1: Bb=1,x | E | S
        2: Ba=1 | E | S
        3: Ba=2,y | E | Bb=3,z | E | CSa | Ba=4,a | E | S
        3: Bb | S
        0: CSa | Pa: select $1::int | Ba=1 | E | S
        2: Ba=5,b | E | S
    """,
    "that control transactions": """
        0: Pb: begin | Pc: commit | Pr: rollback | S
        0: Bb | E | S
        1: Q select 1
        0: Bb | E | S
        0: Q select 1/0
        0: Bc | E | S
        1: Pb: begin | Bb | E | S
        0: Bb | E | S
        0: Pa: select 1/0 | S
        0: Ba | E | S
        0: Pd: select 1 | S
        0: Pd: commit | Ba | S
        0: Br | E | S
        0: Bd | E | S
        1: Q rollback
        0: Ba | E | S
    """,
    "that copy": """
        0: Pa: copy @ to stdout | Pb: copy @ from stdin | S
        1: Q begin
        0: Ba | E | Bb | E | d5,five | d6,six | c | S
        0: Bb | E | S | d5,five | c | S
        0: Bb | E | H
        0: d7,seven
        0: fenough | S
        0: Ba | E | F40 | Ba | E | S
    """,
    "that are cancelled": """
        0: Pa: select pg_sleep(30) /* asleep: @ */ | Pb: select $1::int | S
        1: Q begin
        0: Bb=1 | E | Ba | E | Bb=2 | E | S | Bb=3 | E | S | ...
        1: Q select 1
        0: Bb=4 | E | Ba | E | S | ...
        0: Bb=5 | E | S
    """,
    "in pipelines with Flush, Query and several Syncs": """
        0: Pa: select $1::int | Ba=1 | E | H
        0: Ba=2 | DP | H
        0: E | Pb: select $1::text
        0: S
        1: Q begin
        0: Bb=1 | E | Ba=1 | E | S | Bb=2 | E | S | S | Q select 1 | Ba=2 | E | S
        0: Pc: select 1 | Q select 2 | Bc | E | S
    """,
    "of clients that leave in a pipeline": """
        0: Pa: select $1::int, $2::text | H
        0: !close
        0: Ba=1,x | S
        0: Pa: select 'next' | Ba | E | S
        0: Pb: insert into @ values ($1, $2) | Bb=5,x | E | H
        0: !reset
        0: Pb: insert into @ values ($1, $2) | Bb=6,y | E | S | !cut
        0: Q begin | Pb: insert into @ values ($1, $2) | Bb=7,z | E | S
        0: Pc: select 1 | !cut
        0: Bb=1,x | S
        0: Ba | S
        0: Bc | S
        1: Pa: select 1 | Pb: select 2 | Pc: select 3 | S
        1: Ba | E | Bb | E | Bc | E | S
    """,
}
"""A client uses what it has prepared."""

ERRORS: Final = {
    "a name that nobody has given": """
        0: Ba | S
        0: DSa | S
        0: CSa | S
        0: B | S
        1: Pa: select 1 | S
        0: Ba | S
    """,
    "a name that is given twice": """
        0: Pa: select 1 | S
        0: Pa: select 1 | S
        0: Pa: select 2 | Ba | E | S
        1: Q begin
        0: Pa: select 3 | S
        0: Pa: selec 4 | S
        0: Ba | E | S
        0: CSa | Pa: select 4 | Pa: select 5 | S
        0: Ba | E | S
    """,
    "a text with an error": """
        0: Pa: selec 1 | S
        0: Pa: select * from missing | S
        0: Ba | E | S
        0: Pa: select 1; select 2 | S
        0: Pa: select 1 | Ba | E | S
    """,
    "wrong parameters": """
        0: Pa: select $1::int, $2::text | S
        1: Q begin
        0: Ba=1 | E | S
        0: Ba | E | S
        0: Ba=1,x,y | E | S
        0: Ba=one,x | E | S
        0: Ba=#1,#2 | E | S
        0: Ba=99999999999,x | E | S
        0: Ba=1,x | E | S
    """,
    "requests behind an error, which the server drops": """
        0: P: selec 1 | Pa: select 1 | S
        0: Ba | S
        0: Pa: select 1 | Ba | E | P: selec 1 | CSa | Pb: select 2 | S
        1: Q begin
        0: Ba | E | S
        0: Bb | E | S
        0: P: select 1/0 | B | E | CSa | S | Ba | E | S
        0: Ba | Bmissing | Pa: select 3 | CSa | S | CSa | Pa: select 4 | S
        0: Ba | E | S
    """,
    "a failed transaction": """
        0: Pa: select 1 | Pr: rollback | S
        0: Q begin; select 1/0
        0: Pb: select 1 | S
        0: Ba | E | S
        0: DSa | S
        0: DSr | S
        0: CSa | S
        0: Pd: rollback | Bd | E | S
        1: Q begin
        0: Ba | E | S
        0: Bb | E | S
        0: Bd | E | S
    """,
    "a transaction that is undone, unlike what is prepared": """
        0: Q begin
        0: Pa: select 1 | S
        0: Q savepoint s
        0: Pb: select 2 | S
        0: Q select 1/0
        0: Q rollback to s
        0: Bb | E | CSa | S
        0: Q rollback
        1: Q begin
        0: Ba | E | S
        0: Bb | E | S
    """,
    "statements that fail": """
        0: Pa: select fail($1) | S
        1: Q begin
        0: Ba=one | E | S | Ba=two | E | Ba=three | E | S
        0: Pb: insert into @ values ($1, $2) returning n | Bb=1,x | E | S
        0: Bb=5,x | E | S
    """,
}
"""Something fails."""

DEALLOCATE: Final = {
    "one": """
        0: Pa: select 1 | Pb: select 2 | S
        1: Pa: select 3 | S
        0: Q deallocate a
        0: Ba | E | S
        0: Bb | E | S
        1: Ba | E | S
        0: Q deallocate a
        0: Q deallocate prepare "b"
        0: Bb | E | S
        0: Pa: select 4 | Ba | E | S
    """,
    "all": """
        0: Pa: select 1 | Pb: select 2 | S
        1: Pa: select 3 | S
        0: Q deallocate all
        0: Ba | E | S
        0: Bb | E | S
        1: Ba | E | S
        0: Pa: select 4 | Ba | E | S
        1: Q begin
        0: Ba | E | S
    """,
    "by a prepared statement that could not be bound before": """
        0: Pa: deallocate b | Pb: select 1 | S
        0: Ba=1 | E | S | Ba | E | S
        0: Bb | E | S
    """,
    "what is prepared behind it fails": """
        0: Pa: select 1 | Pb: select 2 | S
        0: P: deallocate a | B | E | Ep | Pa: select 3 | S
        0: Pa: select 4 | Ba | E | S
        0: P: deallocate all | B | E | Ep | Pb: select 3 | S
        0: Pb: select 5 | Bb | E | S
    """,
    "by a prepared statement that is bound twice": """
        0: Pa: deallocate b | Pb: select 1 | S
        0: Ba | Ba | E | S
        0: Bb | E | S
        0: Pb: select 2 | Ba | E | Ba | E | S
        0: Bb | E | S
    """,
    "DISCARD ALL": """
        0: Pa: select 1 | Pb: select 2 | S
        1: Pa: select 3 | S
        0: Q discard all
        0: Ba | E | S
        0: Bb | E | S
        1: Ba | E | S
        0: Pa: select 4 | Ba | E | S
        0: P: discard all | B | E | S
        0: Ba | E | S
        0: Q begin; discard all
        0: Q rollback
    """,
    "in the extended protocol": """
        0: Pa: select 1 | Pb: select 2 | Pc: deallocate a | Pd: deallocate all | S
        1: Q begin
        0: Bc | E | S
        0: Ba | E | S
        0: Bc | E | S
        0: Pa: select 3 | Bc | E | Ba | E | S
        0: Pa: select 4 | S
        0: Ba | E | Bd | E | S
        0: Ba | E | S
        0: Bd | E | S
    """,
    "where it comes to it, and where not": """
        0: Pa: select 1 | Pb: select 2 | Pc: select 3 | S
        0: Q select 1/0; deallocate a
        0: Ba | E | S
        0: Q deallocate a; select 1/0; deallocate b
        0: Ba | E | S
        0: Bb | E | S
        0: Q begin; deallocate b; rollback
        0: Bb | E | S
        0: P: select 1/0 | B | E | P: deallocate c | B | E | S
        0: Bc | E | S
        0: Q begin; select 1/0
        0: Q deallocate c
        0: Q rollback
        0: Bc | E | S
    """,
    "while a portal is open": """
        0: Pa: select $1::int from generate_series(1, 3) | S
        0: Q begin
        0: Ba>p=1 | Ep/1 | S
        0: Q deallocate a
        0: Ep/1 | S
        0: Pa: select 'other' | Ba | E | CSa | Ep | S
        0: Q commit
    """,
    "names in other spellings": """
        0: Pa: select 1 | Pb: select 1 | PA: select 2 | Pé: select 3 | S
        0: Q deallocate A
        0: Ba | S
        0: BA | E | S
        0: Q deallocate "A"
        0: BA | E | S
        0: Q DEALLOCATE/* a comment */"b" -- and another
        0: Bb | E | S
        0: Q deallocate é
        0: Bé | E | S
    """,
}
"""Statements are deallocated by SQL."""

UNNAMED: Final = {
    "over several Syncs": """
        0: P: select $1::int | S
        1: P: select 'other' | B | E | S
        0: B=1 | E | S
        1: Q begin
        0: DS | B=2 | E | S
        1: B | E | S
        0: B=3 | E | S
    """,
    "gone with a Query": """
        0: P: select $1::int | S
        0: Q select 1
        0: B=1 | E | S
        0: P: select $1::int | S
        1: Q begin
        0: F40
        0: B=1 | E | S
        0: Q
        0: B=1 | E | S
    """,
    "replaced, closed, not replaced": """
        0: P: select $1::int | S
        0: P: selec | S
        0: B=1 | E | S
        0: P: select $1::int | S
        0: CS | S
        1: Q begin
        0: B=1 | E | S
        0: P: select $1::int | Bmissing | P: select 'never' | S
        0: B=2 | E | S
        0: P: select $1::int | S
        0: Q begin; select 1/0
        0: P: select 'x' | S
        0: Q rollback
        0: B=1 | E | S
    """,
    "and DEALLOCATE ALL, which spares it": """
        0: P: select $1::int | S
        0: Q deallocate all
        0: B=1 | E | S
        0: P: select $1::int | S
        0: P: discard all | B | E | S
        0: B | E | S
        0: P: select $1::int | Pa: deallocate all | Ba | E | S
        0: B=1 | E | S
    """,
}
"""The unnamed statement."""

PORTALS: Final = {
    "in portions": """
        0: Pa: select g, $1::text from generate_series(1, 5) g | S
        1: Q begin
        0: Q begin
        0: Ba>p=x | Ba>q=y! | DPp | Ep/2 | S
        0: Eq/1 | Ep/2 | CSa | S
        0: Ep | Ep | S
        0: Q rollback
        0: Ep | S
    """,
    "that are gone": """
        0: Pa: select g from generate_series(1, 3) g | S
        0: Ba>p | Ep/1 | S
        0: Ep | S
        0: Q begin
        0: Ba>p | Ba>p | S
        0: Q rollback
        0: Q begin
        0: Ba>p | CPp | CPp | DPp | S
        0: Q commit
        0: Ba | E/1 | E/1 | Ba | E | CP | E | S
    """,
}
"""Portals, which only live as long as their transaction."""

_TEN: Final = " | ".join(f"P{n}: select {n}, $1::int" for n in range(10))
_TEN_TIMES: Final = " | ".join(f"B{n}={n} | E" for n in (*range(10), *range(9, -1, -1)))
_TEN_PORTALS: Final = " | ".join((*(f"B{n}>{n}=1" for n in range(10)), *(f"E{n}" for n in range(10))))

MANY: Final = {
    "in one pipeline": f"0: {_TEN} | {_TEN_TIMES} | S",
    "in one transaction": f"""
        0: Q begin
        0: {_TEN} | S
        0: {_TEN_TIMES} | S
        0: {_TEN_PORTALS} | S
        0: Q commit
        0: {_TEN_TIMES} | S
    """,
    "one by one": "\n".join(
        [
            f"0: {_TEN} | S",
            *(f"1: P{n}: select {n}, 'other' | S" for n in range(5)),
            *(f"0: B{n}=1 | DP | E | S" for n in (0, 1, 2, 0, 3, 0, 4, 5, 6, 0)),
            "1: Q begin",
            *(f"0: DS{n} | S" for n in (0, 9, 1, 8)),
            *(f"1: B{n} | E | S" for n in (4, 3, 2, 1, 0)),
            "1: Q commit",
            *(f"0: B{n}=1 | E | S" for n in (9, 1, 8)),
        ]
    ),
    "with errors": f"""
        0: {_TEN} | S
        0: B1=1 | E | Bmissing | B2=1 | E | B3=1 | E | B4=1 | E | S
        1: Q begin
        0: B5=1 | E | B6=1 | E | B6 | E | B7=1 | E | S | B8=1 | E | S
        0: {_TEN_TIMES} | CS1 | CS2 | S
        0: Q deallocate "3"; deallocate "4"
        0: Q deallocate "9"; deallocate "1"
        0: B3=1 | E | S
        0: B1=1 | E | S
        0: B9=1 | E | S
        0: B0=1 | E | S
    """,
}
"""More statements than a server keeps, if that is three."""
