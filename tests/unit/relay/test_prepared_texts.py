"""What names of statements stand for, where nobody gives them other ones."""

from __future__ import annotations

from hyperpool.relay.prepared import PreparedTexts


def test_a_name_stands_for_what_was_prepared_by_it() -> None:
    """Until it is closed; a name that nobody has seen may stand for anything."""
    texts = PreparedTexts(complete=True)
    texts.prepare(b"a", b"select 1", certain=True)
    assert texts.meant(b"a") == (b"select 1",)
    assert texts.meant(b"b") == (None,)
    texts.close(b"a")
    assert texts.meant(b"a") == (None,)
    texts.prepare(b"a", b"select 2", certain=True)
    assert texts.meant(b"a") == (b"select 2",)


def test_a_name_that_is_taken_may_keep_its_meaning() -> None:
    """The server refuses the second one, but the client may go on all the same."""
    texts = PreparedTexts(complete=True)
    texts.prepare(b"a", b"delete from t", certain=True)
    texts.prepare(b"a", b"select 1", certain=True)
    assert texts.meant(b"a") == (b"delete from t", b"select 1")


def test_the_unnamed_statement_is_replaced() -> None:
    """Unless the server may discard what comes."""
    texts = PreparedTexts(complete=True)
    texts.prepare(b"", b"delete from t", certain=True)
    texts.prepare(b"", b"select 1", certain=False)
    assert texts.meant(b"") == (b"delete from t", b"select 1")
    texts.prepare(b"", b"select 2", certain=True)
    assert texts.meant(b"") == (b"select 2",)
    texts.lose_track()
    texts.prepare(b"", b"select 1", certain=False)
    assert texts.meant(b"") == (None,)


def test_what_was_there_before_is_unknown() -> None:
    """A name that somebody uses for the first time may be taken."""
    texts = PreparedTexts(complete=False)
    texts.prepare(b"a", b"select 1", certain=True)
    assert texts.meant(b"a") == (None,)
    texts.prepare(b"", b"select 1", certain=True)
    assert texts.meant(b"") == (b"select 1",)


def test_what_is_remembered_is_bounded() -> None:
    """Long texts, many names, and many texts for one name may be anything."""
    texts = PreparedTexts(complete=True)
    texts.prepare(b"long", b"x" * 20000, certain=True)
    assert texts.meant(b"long") == (None,)
    for number in range(6):
        texts.prepare(b"often", b"select %d" % number, certain=True)
    assert texts.meant(b"often") == (None,)
    for number in range(3000):
        texts.prepare(b"%d" % number, b"select 1", certain=True)
    assert texts.meant(b"0") == texts.meant(b"2999") == (None,)
