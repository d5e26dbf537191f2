"""Exchanges that stand in scripts of every kind (`tests.support.relaystage` says how scripts are read)."""

from __future__ import annotations


def exchange(asked: str, answered: str, *, client: str = "c1", server: str = "s1", sent: str = "") -> str:
    """A client asks for something, and its server answers.

    Args:
        asked: what the client sends.
        answered: what the server says, and the client reads.
        client: its name.
        server: its name.
        sent: what the server reads, if that is something else than the client has sent.
    """
    return f"""
        {client} > {asked}
        {server} < {sent or asked}
        {server} > {answered}
        {client} < {answered}
    """


BEGINS = exchange("Qbegin", "CBEGIN|ZT")
"""The client c1 opens a transaction block."""

COMMITS = exchange("Qcommit", "CCOMMIT|Z")
"""The client c1 ends it."""

ROLLS_BACK = exchange("Qrollback", "CROLLBACK|Z")
"""The same, as if it had never been."""

PREPARES = exchange("Pa:select 1|S", "1|Z", sent="P~1:select 1|S")
"""The client c1 has a statement ``a``, which the server s1 knows by another name."""

SELECTS = exchange("Qselect 1", "CSELECT 1|Z")
"""The client c1 reads something."""

SELECTS_IN_BLOCK = exchange("Qselect 1", "CSELECT 1|ZT")
"""The same within a transaction block."""
