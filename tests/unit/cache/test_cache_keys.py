"""Keys, and who a session is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyperpool.cache.keys import current_user, pack, pack_settings
from hyperpool.cache.session import Session


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_no_two_lists_of_fields_make_the_same_key(one: list[bytes], other: list[bytes]) -> None:
    """Whatever is in the fields."""
    assert (pack(*one) == pack(*other)) == (one == other)


def test_settings_are_packed_in_any_order() -> None:
    """And a value cannot look like a name."""
    assert pack_settings([("b", "2"), ("a", "1")]) == pack_settings([("a", "1"), ("b", "2")])
    assert pack_settings([("a", "b"), ("c", "d")]) != pack_settings([("a", "bc"), ("", "d")])


def test_who_runs_the_queries() -> None:
    """The role, or else whoever the session is."""
    assert current_user({}, "ann") == "ann"
    assert current_user({"session_authorization": "bob"}, "ann") == "bob"
    assert current_user({"session_authorization": "bob", "role": "carl"}, "ann") == "carl"
    assert current_user({"role": "none"}, "ann") == "ann"


def test_a_session_s_key_has_what_shapes_answers() -> None:
    """Not the client's name for itself, nor timeouts; but the path that it begins with, if it has set none."""
    plain = Session({"TimeZone": "UTC"}, "ann", '"$user", public')
    assert plain.path == ("ann", "public")
    same = Session(
        {"TimeZone": "UTC", "application_name": "x", "statement_timeout": "1s"}, "ann", '"$user", public'
    )
    assert same.key == plain.key
    for settings, path in (
        ({"TimeZone": "CET"}, '"$user", public'),
        ({"TimeZone": "UTC", "role": "bob"}, '"$user", public'),
        ({"TimeZone": "UTC", "search_path": "other"}, '"$user", public'),
        ({"TimeZone": "UTC"}, "public"),
        ({"TimeZone": "UTC", "app.tenant": "7"}, '"$user", public'),
    ):
        assert Session(settings, "ann", path).key != plain.key
    assert Session({}, "ann", None).path is None


def test_a_session_may_turn_the_cache_off() -> None:
    """By any word for false that PostgreSQL takes."""
    for word in ("off", "OFF", "false", "no", "0"):
        assert Session({"hyperpool.cache": word}, "ann", "").off
    for word in ("on", "true", "1", ""):
        assert not Session({"hyperpool.cache": word}, "ann", "").off
