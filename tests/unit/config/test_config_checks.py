"""Settings that are fine one by one and make no sense together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.unit.config.conftest import Loader, Problems

_MD5 = "md5" + "0123456789abcdef" * 2
_SCRAM = "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"
_EMBEDDED = {"embedded": True, "user": "ann", "password": "x"}


def test_a_pooler_without_a_listener_is_a_problem(problems_with: Problems, load_with: Loader) -> None:
    """A TCP address or a Unix socket is enough."""
    assert problems_with(pooler={"listen_addr": []}) == [
        (
            "pooler.listen_addr: found nothing to listen on, expected an address such as 127.0.0.1 here, or a "
            "directory as pooler.unix_socket_dir"
        )
    ]
    assert load_with(pooler={"listen_addr": "", "unix_socket_dir": "/run"}).pooler.listen_addr == ()


def test_a_pooler_without_databases_is_a_problem(problems_with: Problems) -> None:
    """There would be nothing to ask for."""
    assert problems_with(databases={}) == [
        "databases: found none, expected one or more; add an entry, '*' stands for every name"
    ]


@pytest.mark.parametrize("name", ["pgbouncer", "hyperpool"])
def test_the_admin_consoles_names_are_reserved(problems_with: Problems, name: str) -> None:
    """As pgbouncer refuses its own name."""
    assert problems_with(databases={name: {}}) == [
        f"databases.{name}: found a name that is kept for the admin console; choose another one"
    ]


@pytest.mark.parametrize(
    ("auth_type", "users", "missing"),
    [
        ("trust", {}, "user is known"),
        ("plain", {"ann": {}}, "user has a password"),
        ("md5", {}, "user has a password"),
        ("scram-sha-256", {"ann": {}}, "user has a password or SCRAM verifier"),
        ("scram-sha-256", {"ann": {"password": _MD5}}, "user has a password or SCRAM verifier"),
    ],
)
def test_an_auth_type_that_lets_nobody_in_is_a_problem(
    problems_with: Problems, auth_type: str, users: dict[str, Any], missing: str
) -> None:
    """Secrets must exist, and be of a kind that the auth_type can work with."""
    assert problems_with(pooler={"auth_type": auth_type}, users=users) == [
        (
            f"pooler.auth_type: found {auth_type}, but no {missing}, so nobody can log in; add entries to users or an "
            "auth_file"
        )
    ]


@pytest.mark.parametrize(
    ("auth_type", "user"),
    [
        ("trust", {}),
        ("plain", {"password": _MD5}),
        ("md5", {"password": _SCRAM}),
        ("scram-sha-256", {"password": _SCRAM}),
        ("scram-sha-256", {"password": "x"}),
    ],
)
def test_one_user_who_can_log_in_is_enough(load_with: Loader, auth_type: str, user: dict[str, Any]) -> None:
    """Each auth_type has secrets that it works with, as in pgbouncer."""
    assert load_with(pooler={"auth_type": auth_type}, users={"ann": user}).credentials.keys() == {"ann"}


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"pooler": {"min_pool_size": 21}},
            "pooler.min_pool_size: found 21, expected no more than the 20 of pooler.default_pool_size",
        ),
        (
            {"databases": {"app": {"min_pool_size": 21}}},
            "databases.app.min_pool_size: found 21, expected no more than the 20 of pooler.default_pool_size",
        ),
        (
            {"databases": {"app": {"min_pool_size": 3, "pool_size": 2}}},
            "databases.app.min_pool_size: found 3, expected no more than the 2 of databases.app.pool_size",
        ),
        (
            {"pooler": {"min_pool_size": 3}, "databases": {"app": {"pool_size": 2}}},
            "pooler.min_pool_size: found 3, expected no more than the 2 of databases.app.pool_size",
        ),
        (
            {"databases": {"app": {"min_pool_size": 3, "user": "ann"}}, "users": {"ann": {"pool_size": 2}}},
            "databases.app.min_pool_size: found 3, expected no more than the 2 of users.ann.pool_size",
        ),
    ],
)
def test_a_minimum_above_the_limit_is_a_problem(
    problems_with: Problems, sections: dict[str, Any], problem: str
) -> None:
    """Both settings are named, whichever sections they stand in."""
    assert problems_with(**sections) == [f"{problem}; change one of them"]


@pytest.mark.parametrize(
    "sections",
    [
        {"pooler": {"min_pool_size": 50, "default_pool_size": 0}},
        {"pooler": {"min_pool_size": 20}},
        {"databases": {"app": {"min_pool_size": 50, "pool_size": 0}}},
        {"databases": {"app": {"min_pool_size": 30, "pool_size": 30}}},
        {"databases": {"app": {"min_pool_size": 5}}, "users": {"ann": {"pool_size": 2}}},
        {
            "databases": {"app": {"min_pool_size": 25, "user": "ann"}},
            "users": {"ann": {"pool_size": 30}},
        },
    ],
)
def test_a_minimum_within_the_limit_is_fine(load_with: Loader, sections: dict[str, Any]) -> None:
    """0 is no limit, and a user's limit counts for the pools of that user alone."""
    assert load_with(**sections).databases


@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        (
            {**_EMBEDDED, "host": "127.0.0.1"},
            ["host: found together with embedded: true, which decides it; remove one of the two"],
        ),
        (
            {**_EMBEDDED, "port": 5432},
            ["port: found together with embedded: true, which decides it; remove one of the two"],
        ),
        (
            {"embedded": True},
            [
                "user: found nothing, expected the user that owns the embedded database",
                "password: found nothing, expected a password for the embedded database's user",
            ],
        ),
        (
            {**_EMBEDDED, "password": _MD5},
            ["password: found a hash, expected the embedded database's password itself"],
        ),
        (
            {**_EMBEDDED, "password": _SCRAM},
            ["password: found a hash, expected the embedded database's password itself"],
        ),
        (
            {"embedded": True, "user": "", "password": 5},
            [
                "user: found the text '', expected a text that is not empty; leave the key out for the default",
                "password: found a number, expected a text; put it in quotes",
            ],
        ),
    ],
)
def test_an_embedded_database_needs_a_user_and_nothing_about_a_server(
    problems_with: Problems, entry: dict[str, Any], problems: list[str]
) -> None:
    """The server is run by hyperpool, which makes the user with that password."""
    assert problems_with(databases={"app": entry}) == [f"databases.app.{problem}" for problem in problems]


def test_the_fallback_cannot_be_embedded(problems_with: Problems) -> None:
    """It stands for any number of databases."""
    assert problems_with(databases={"*": _EMBEDDED}) == [
        "databases.*.embedded: found true for '*', expected it below a database's own name; move it"
    ]


def test_an_embedded_databases_password_may_stand_in_a_file(problems_with: Problems) -> None:
    """A file that cannot be read is the only problem then."""
    (problem,) = problems_with(databases={"app": {"embedded": True, "user": "ann", "password_file": "none"}})
    assert problem.startswith("databases.app.password_file: cannot read")


@pytest.mark.parametrize("password", [{"password": "x"}, {"password_file": "secret"}])
def test_a_password_without_a_user_is_a_problem(
    problems_with: Problems, tmp_path: Any, password: dict[str, str]
) -> None:
    """Without a forced user, each client's own password counts."""
    (tmp_path / "secret").write_text("x")
    assert problems_with(databases={"app": password}) == [
        "databases.app.password: found without a user, expected both or none; add user, or remove the password"
    ]


def test_a_verifier_cannot_log_in_to_a_server(problems_with: Problems, load_with: Loader) -> None:
    """A SCRAM verifier proves others, not us. An MD5 digest is enough for MD5 authentication."""
    assert problems_with(databases={"app": {"user": "ann", "password": _SCRAM}}) == [
        "databases.app.password: found a SCRAM verifier, expected the password itself; a verifier cannot log in"
    ]
    assert load_with(databases={"app": {"user": "ann", "password": _MD5}}).databases["app"].password
