"""Secrets stay secret."""

from __future__ import annotations

from hyperpool.config import DatabaseSettings, Secret, Settings, UserSettings


def test_a_secret_is_revealed_only_on_purpose() -> None:
    """Neither repr, str nor format show it; reveal does."""
    secret = Secret("hunter2")
    assert repr(secret) == str(secret) == f"{secret}" == "Secret('***')"
    assert secret.reveal() == "hunter2"


def test_settings_do_not_show_their_secrets() -> None:
    """The repr of settings that hold secrets masks each of them."""
    secret = Secret("hunter2")
    settings = Settings(
        databases={"app": DatabaseSettings(user="ann", password=secret)},
        users={"ann": UserSettings(password=secret)},
        userlist={"bob": secret},
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(settings.pool_for("app", "ann"))


def test_an_empty_secret_is_false() -> None:
    """So `password or other` skips it."""
    assert not Secret("")
    assert Secret(" ")


def test_secrets_with_the_same_text_are_equal() -> None:
    """Equality is that of the texts, also with bytes that are not UTF-8, and never with a plain text."""
    assert Secret("a\udcff") == Secret("a\udcff")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
