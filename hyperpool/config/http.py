"""Settings of the section ``http``: metrics, health and what else the pooler shows over HTTP.

Each field's metadata explains it; see `hyperpool.config.fields`.
"""

# ruff: noqa: RUF009 - what is called to make a default is `setting`, and it makes a field
from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.config import kinds
from hyperpool.config.fields import setting
from hyperpool.config.secret import Secret  # noqa: TC001 - as elsewhere in the settings

if TYPE_CHECKING:
    from hyperpool.config.report import Report

_SHORTEST_TOKEN: Final = 16


@attrs.frozen(kw_only=True)
class HttpSettings:
    """The section ``http`` of the pooler."""

    listen_addr: tuple[str, ...] = setting(
        ("127.0.0.1",), kinds.addresses, "addresses to listen on; * is all of them", reload=False
    )
    listen_port: int = setting(6480, kinds.port, "port", reload=False)
    token: Secret | None = setting(
        None,
        kinds.secret,
        "who shows it may read everything: `Authorization: Bearer ...`; must be set when others than this machine can "
        "connect",
        secret=True,
    )
    token_file: str = setting("", kinds.secret_file, "file that holds the token")
    admin_token: Secret | None = setting(
        None, kinds.secret, "who shows it may also change things; without one, nobody may", secret=True
    )
    admin_token_file: str = setting("", kinds.secret_file, "file that holds the admin token")
    dashboard: bool = setting(default=True, parse=kinds.flag, about="show the dashboard at `/`", reload=False)
    max_pools: int = setting(
        50,
        kinds.whole(0, 100000),
        "pools (database and user) with metrics of their own; those of all others are added up as `other`",
    )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return all(_is_loopback(address) for address in self.listen_addr)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def check_http(settings: HttpSettings, report: Report) -> None:
    """Look for contradictions in the section.

    Args:
        settings: the section.
        report: gets the problems.
    """
    if not settings.listen_addr:
        report.add(("http", "listen_addr"), "found nothing to listen on, expected an address")
    if settings.token is None and not settings.is_local:
        report.add(
            ("http", "token"),
            "found none, but others than this machine can connect; add token_file, or listen on 127.0.0.1 alone",
        )
    for name, token in (("token", settings.token), ("admin_token", settings.admin_token)):
        if token is not None and len(token.reveal()) < _SHORTEST_TOKEN:
            report.add(
                ("http", name),
                f"found a token that can be guessed, expected {_SHORTEST_TOKEN} characters or more; "
                "make one with: openssl rand -hex 32",
            )
    if settings.token is not None and settings.token == settings.admin_token:
        report.add(("http", "admin_token"), "found the same as token, expected another one; make it differ")
