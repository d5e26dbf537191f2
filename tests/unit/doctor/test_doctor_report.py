"""What the doctor makes of what it has found, and its words for it."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner
from rich.console import Console

from hyperpool.cli import main
from hyperpool.doctor.examine import Examination, Wishes
from hyperpool.doctor.findings import KINDS, DatabaseFinding, Status, as_json, is_well
from hyperpool.doctor.report import Progress, printable, show
from tests.support.examined import a_hop, found, settings


def shown(*findings: DatabaseFinding, width: int = 80, **console: Any) -> str:
    """What people see."""
    file = io.StringIO()
    show(list(findings), Console(file=file, width=width, **console))
    return file.getvalue()


def test_statuses() -> None:
    """The worst hop decides; what was overcome is a warning, and nothing at all is nothing known."""
    failed = a_hop(error="gone")
    overcome = a_hop(error="gone", overcome=True)
    warned = a_hop(warnings=["soon"])

    assert [found(one).status for one in (a_hop(), warned, overcome, failed)] == [
        Status.OK, Status.WARNING, Status.WARNING, Status.FAILED,
    ]  # fmt: skip
    assert found(a_hop(), warnings=["slow"]).status is Status.WARNING
    assert found(overcome, a_hop()).servers[0].failure is None
    assert found(overcome, failed).servers[0].failure is failed
    skipped = DatabaseFinding("b", "", "b")
    assert skipped.status is Status.SKIPPED
    assert is_well([skipped, found(a_hop()), found(warned)])
    assert not is_well([skipped])
    assert not is_well([found(a_hop()), found(failed)])


def test_the_json_document() -> None:
    """Its keys are promised; times are in ISO 8601."""
    facts = {"not_after": "Jun  1 12:00:00 2030 GMT"}
    document = as_json([found(a_hop("tls", facts=facts, error="expired", remedy="renew"))])
    assert json.loads(json.dumps(document)) == {
        "format": 1,
        "ok": False,
        "databases": [
            {
                "name": "app",
                "status": "failed",
                "user": "ann",
                "dbname": "app",
                "note": None,
                "servers": [
                    {
                        "name": "db:5432",
                        "status": "failed",
                        "via": None,
                        "ms": 2.0,
                        "warnings": [],
                        "failure": {"hop": "tls", "cause": "expired", "remedy": "renew"},
                        "hops": [
                            {
                                "kind": "tls",
                                "target": "db:5432",
                                "status": "failed",
                                "ms": 1.0,
                                "facts": {"not_after": "2030-06-01T12:00:00+00:00"},
                                "warnings": [],
                                "error": "expired",
                                "remedy": "renew",
                            }
                        ],
                    }
                ],
            }
        ],
    }


# -- Words ------------------------------------------------------------------------------------------------------------


def test_nothing_that_a_server_says_moves_the_cursor() -> None:
    """Its words are shown as they are, and what cannot be printed is escaped."""
    hop = a_hop(
        "login", error="no\x1b[2J [red]way[/red]\r\n", facts={"server_version": "1\x07", "protocol": "3.0"}
    )
    text = shown(found(hop))
    assert "no\\x1b[2J [red]way[/red]\\r\\n" in text
    assert "PostgreSQL 1\\x07" in text
    assert printable("größe\u202e") == "größe\\u202e"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_width_is_kept(width: int) -> None:
    """Long words are broken."""
    hop = a_hop("websocket", target="gw.example.com/" + "x" * 200, error="refused " * 30, remedy="ask " * 30)
    lines = shown(found(hop, warnings=["slow " * 30]), width=width).splitlines()
    assert max(map(len, lines)) <= width


def test_facts_are_told_in_words() -> None:
    """Only what matters: a standby, but not that it is none."""
    facts = {
        "method": "SCRAM-SHA-256",
        "channel_binding": "no",
        "protocol": "3.2",
        "server_version": "18.1",
        "in_hot_standby": "on",
        "default_transaction_read_only": "off",
    }
    text = shown(found(a_hop("login", facts=facts)), width=200)
    assert "SCRAM-SHA-256, no channel binding, protocol 3.2, PostgreSQL 18.1, in hot standby\n" in text


def test_a_title_that_is_too_long() -> None:
    """How a server is reached stands on a line of its own then, and no word of it is torn off."""
    finding = found(a_hop())
    (server,) = finding.servers
    server.via = "tcp > tls > websocket"
    assert "  db:5432  via tcp > tls > websocket  2.0 ms\n" in shown(finding)
    server.name = f"PostgreSQL behind {'gw' * 20}"
    assert f"  {server.name}\n  via tcp > tls > websocket  2.0 ms\n" in shown(finding)


def test_what_came_after_a_failure() -> None:
    """Not that it went better: that is told by what follows."""
    text = shown(found(*(a_hop(kind, error="gone", overcome=True) for kind in ("postgresql tls", "login"))))
    assert "then it was tried without TLS\n" in text
    assert "then it was tried in another way\n" in text


def test_addresses_that_say_nothing_new() -> None:
    """The address of an address is not repeated."""
    text = shown(
        found(
            a_hop("resolve", target="db", facts={"addresses": "10.0.0.1, 10.0.0.2"}),
            a_hop("tcp", target="10.0.0.1:5432", facts={"address": "10.0.0.1"}),
        )
    )
    assert "db → 10.0.0.1, 10.0.0.2\n" in text
    assert "10.0.0.1:5432\n" in text


def test_colours_are_no_more_than_colours() -> None:
    """Without them, the same text is there."""
    finding = found(
        a_hop(), a_hop("login", error="no", remedy="do"), a_hop("query", error="x", overcome=True)
    )
    plain = shown(finding, no_color=True, force_terminal=False)
    coloured = shown(finding, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert all(mark in plain for mark in ("✓ tcp", "✗ login", "! query", "→ do"))


def test_the_summary() -> None:
    """How many of each."""
    failed, skipped = found(a_hop(error="gone")), DatabaseFinding("b", "", "b", note="why not")
    text = shown(found(a_hop()), failed, skipped)
    assert text.splitlines()[-1] == "3 databases: 1 well, 1 not examined, 1 failed"
    assert "why not" in text


async def test_what_is_under_way(tmp_path: Path) -> None:
    """A line for each server, with the hop that is waited for, and never more than the screen has room for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        entry = {"port": silent.getsockname()[1], "sslmode": "disable"}
        loaded = settings(tmp_path, databases={f"app{number}": entry for number in range(9)})
        examination = Examination(loaded, Wishes(timeout=30))
        file = io.StringIO()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(examination.run)
            walks = [plan.walks[0] for plan in examination.plans]
            while not all(walk.trace.hops and walk.trace.hops[-1].name == "login ann" for walk in walks):
                await trio.lowlevel.checkpoint()
            Console(file=file, width=60, height=8).print(Progress(examination))
            nursery.cancel_scope.cancel()

    *lines, last = file.getvalue().splitlines()
    assert len(lines) == 6
    assert all("login ann" in line and len(line) <= 60 for line in lines)
    assert last == "0 of 9 servers examined"


# -- Help -------------------------------------------------------------------------------------------------------------


def test_the_help_teaches() -> None:
    """Hops, examples, exit codes."""
    text = CliRunner().invoke(main, ["doctor", "--help"], env={"COLUMNS": "100"}).stdout
    for lesson in ("hop by hop", "hyperpool doctor my.yaml app", "--timeout", "--json", "jq", "Exit codes:"):
        assert lesson in text


def test_the_page_tells_of_everything() -> None:
    """Every kind of hop and every key of the JSON document is explained in docs/doctor.md."""
    page = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text("utf-8")
    document = as_json([found(a_hop("tls", error="expired"))])
    (database,) = document["databases"]
    (server,) = database["servers"]
    (hop,) = server["hops"]
    named = {*KINDS, *document, *database, *server, *hop, *server["failure"], *(one.value for one in Status)}
    assert not [name for name in named if f"`{name}`" not in page]
