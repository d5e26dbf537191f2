"""The dashboard over HTTP, without a browser: what it serves, to whom, and what it costs."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from hyperpool.admin.tables import columns
from hyperpool.admin.views import View
from hyperpool.config import PoolMode, Secret, SessionState
from hyperpool.config.http import HttpSettings
from hyperpool.dashboard.routes import add_dashboard
from hyperpool.dashboard.snapshots import Snapshots
from hyperpool.http.site import Site
from hyperpool.overview.panels import PANELS
from tests.support.asgi import Answer, ask
from tests.support.desk import Desk
from tests.support.fronthouse import QUERY, begin_query, open_houses, startup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hyperpool.admin.tables import Row

TOKEN, ADMIN = "t" * 32, "a" * 32
AS_ADMIN = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
BASIC = f"Basic {b64encode(f':{ADMIN}'.encode()).decode()}"
"""What a browser sends by itself, whoever makes it do so."""
PATHS = ("/", "/dashboard/app.js", "/dashboard/formats.js", "/dashboard/style.css", "/dashboard/icon.svg")


class Board:
    """A dashboard of a pooler without Trio."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.settings = HttpSettings(admin_token=Secret(ADMIN))
        site = Site(lambda: self.settings, desk.house.relay.attention)
        add_dashboard(site, desk.consoles)
        self.app = site.app()

    async def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path."""
        return await ask(self.app, path, {name.replace("_", "-"): value for name, value in headers.items()})

    async def order(self, order: Any, headers: dict[str, str] | None = None) -> Answer:
        """Give an order."""
        body = order if isinstance(order, bytes) else json.dumps(order).encode()
        with capture_logs():
            return await ask(
                self.app, "/dashboard/do", AS_ADMIN if headers is None else headers, "POST", body
            )


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A dashboard on this machine: everybody here may look, and who has the admin token may act."""
    with open_houses() as make:
        house = make(admin_users=("ann",), pool_mode=PoolMode.TRANSACTION, session_state=SessionState.KEEP)
        yield Board(Desk(house, tmp_path / "pooler.yaml"))


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_nothing_runs_but_the_page_s_own_files(board: Board) -> None:
    """The policy allows no inline script, no other host, no frame around it, and no markup made of texts."""
    for path in PATHS:
        answer = await board.get(path)
        assert answer.status == 200
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_the_page_needs_nothing_from_elsewhere(board: Board) -> None:
    """Neither addresses of other hosts nor ways to make markup of texts are in its files, and each is served."""
    static = files("hyperpool.dashboard").joinpath("static")
    found = {one.name: one.read_text("utf-8") for one in static.iterdir()}
    assert len(found) == len(PATHS)
    for name, text in found.items():
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| style=| on\w+=", text
        )
    linked = set(re.findall(r'(?:href|src)="([^"]+)"|from "([^"]+)"', "".join(found.values())))
    assert {one for pair in linked for one in pair if one} == set(PATHS[1:])


async def test_every_figure_that_has_a_tile_is_there(board: Board) -> None:
    """What app.js names, the panel of figures has."""
    script = (await board.get("/dashboard/app.js")).text
    tiles = re.search(r"const TILES = \[(.*?)\];", script, re.DOTALL)
    assert tiles is not None
    named = set(re.findall(r'"(\w+)"', tiles[1])) | set(re.findall(r"cells\.(\w+)", script))
    assert named > {"queries", "state"}
    missing = named - {field.name for field in PANELS[0].fields}
    assert not missing, (
        f"dashboard/static/app.js shows figures that panel {PANELS[0].title!r} does not have: {missing}"
    )
    keys = set(re.findall(r'panel\.key === "(\w+)"\) cell\.append', script))
    assert keys == {"databases", "queries"} <= {panel.key for panel in PANELS}


# -- who may look ------------------------------------------------------------------------------------------------------


async def test_pages_of_other_sites_learn_nothing(board: Board) -> None:
    """Neither under their own name for this machine, nor with a script or a frame, nor with a request of theirs."""
    assert (await board.get("/dashboard/overview")).status == 200
    assert (await board.get("/dashboard/overview", sec_fetch_site="same-origin")).status == 200
    assert (await board.get("/dashboard/overview", host="evil.example:6480")).status == 421
    assert (await board.get("/", host="evil.example")).status == 421
    assert (await board.get("/dashboard/overview", sec_fetch_site="cross-site")).status == 403
    assert (await board.get("/dashboard/overview", sec_fetch_site="same-site")).status == 403
    assert (await board.get("/dashboard/overview", origin="http://evil.example")).status == 403
    assert (await board.get("/dashboard/overview", origin="null")).status == 403
    answer = await board.get("/dashboard/overview", origin="http://localhost:6480")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_token_where_there_is_one(board: Board) -> None:
    """For everything: a browser asks for it by itself, as a password."""
    board.settings = HttpSettings(token=Secret(TOKEN), admin_token=Secret(ADMIN))
    for path in (*PATHS, "/dashboard/overview"):
        answer = await board.get(path)
        assert (answer.status, "Basic" in answer.headers["www-authenticate"]) == (401, True)
        assert (await board.get(path, authorization=f"Bearer {TOKEN}")).status == 200


# -- what is shown, and what that costs ---------------------------------------------------------------------


async def test_what_is_shown(board: Board) -> None:
    """Every panel, and a hostile text as it is, as JSON and nothing else."""
    hostile = "</script><img src=x onerror=alert(1)>"
    begin_query(board.desk.house)
    board.desk.house.connect(startup(application_name=hostile), QUERY)
    answer = await board.get("/dashboard/overview")
    assert answer.headers["content-type"] == "application/json"
    panels = {one["key"]: one for one in json.loads(answer.body)}
    assert list(panels) == [panel.key for panel in PANELS]
    assert any(hostile in row for row in panels["busy"]["rows"])


async def test_nobody_looks_and_nothing_is_made(board: Board) -> None:
    """All that look within a second get the same."""
    desk = board.desk
    made: list[int] = []
    shape = columns("time level event details count:int8")

    def rows(_around: object) -> list[Row]:
        made.append(1)
        return []

    desk.consoles.views.add("errors", View(shape, rows))
    snapshots = Snapshots(desk.consoles.around, desk.consoles.views, lambda: 0.0)
    desk.house.clock.now += 10.0
    assert not made
    first = await snapshots.newest()
    desk.house.clock.now += 0.9
    assert await snapshots.newest() is first
    assert len(made) == 1
    desk.house.clock.now += 0.2
    assert await snapshots.newest() is not first
    assert len(made) == 2


async def test_what_takes_long_is_made_less_often(board: Board) -> None:
    """So that looking never takes more than a hundredth of the time."""
    desk, spent = board.desk, 0.0

    def cpu() -> float:
        nonlocal spent
        spent += 0.05
        return spent

    snapshots = Snapshots(desk.consoles.around, desk.consoles.views, cpu)
    first = await snapshots.newest()
    desk.house.clock.now += 5.0
    assert await snapshots.newest() is first
    desk.house.clock.now += 2.6
    assert await snapshots.newest() is not first


# -- orders ------------------------------------------------------------------------------------------------------------


async def test_orders(board: Board) -> None:
    """The console does them; one that takes time has begun."""
    desk = board.desk
    begin_query(desk.house)
    answer = await board.order({"command": "pause", "database": "app"})
    assert (answer.status, json.loads(answer.body)["text"][:15]) == (200, "PAUSE has begun")
    assert desk.house.pool().paused
    again = await board.order({"command": "resume", "database": "app"})
    assert json.loads(again.body) == {"text": "RESUME"}
    assert not desk.house.pool().paused
    for order, text in (
        ({"command": "reconnect"}, "RECONNECT"),
        ({"command": "reload"}, "RELOAD"),
        ({"command": "purge cache"}, "PURGE 0"),
        ({"command": "purge cache", "fingerprint": "00ff"}, "PURGE 0"),
    ):
        assert json.loads((await board.order(order)).body) == {"text": text}


async def test_what_the_console_refuses(board: Board) -> None:
    """With its words, and what to do."""
    board.desk.process.problems.append("databases: none")
    for order, words in (
        ({"command": "resume", "database": "app"}, "database app is not paused"),
        ({"command": "pause", "database": "nowhere'; DROP"}, "no such database: nowhere'; DROP"),
        ({"command": "reload"}, "databases: none"),
        ({"command": "purge cache", "database": "app"}, "no database app has a cache"),
    ):
        answer = await board.order(order)
        assert answer.status == 409
        assert words in json.loads(answer.body)["text"]


@pytest.mark.parametrize(
    "order",
    [
        *(
            b"",
            b"[]",
            b"{",
            b'{"command": 1}',
            {"command": "shutdown"},
            {"command": "kill", "database": "app"},
        ),
        *({"command": "show", "database": "fds"}, {"command": "reload", "database": "app"}),
        *({"command": "pause", "fingerprint": "00"}, {"command": "pause", "x": "y"}, {"database": "app"}),
        {"command": "purge cache", "database": "app", "fingerprint": "00"},
    ],
    ids=str,
)
async def test_what_is_no_order(board: Board, order: Any) -> None:
    """Nothing else of the console can be reached from here."""
    assert (await board.order(order)).status == 400


async def test_what_a_page_of_another_site_could_send(board: Board) -> None:
    """It cannot know the token, and with it would fail all the same; and no form can send what is expected."""
    order = {"command": "pause"}
    with_token = {"authorization": f"Bearer {ADMIN}"}
    for headers, status in (
        ({}, 401),
        ({"content-type": "application/json"}, 401),
        ({"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}, 401),
        (
            {
                "authorization": "Basic OmFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh",
                "content-type": "application/json",
            },
            401,
        ),
        (with_token, 415),
        ({**with_token, "content-type": "text/plain"}, 415),
        ({**with_token, "content-type": "application/x-www-form-urlencoded"}, 415),
        ({**AS_ADMIN, "origin": "http://evil.example"}, 403),
        ({**AS_ADMIN, "sec-fetch-site": "cross-site"}, 403),
        ({**AS_ADMIN, "host": "evil.example", "origin": "http://localhost:6480"}, 403),
    ):
        answer = await board.order(order, headers)
        assert (answer.status, board.desk.house.pool().paused) == (status, False), headers
    assert (await board.get("/dashboard/do", **AS_ADMIN)).status == 405
    assert (await board.order(b" " * 5000)).status == 413


async def test_without_an_admin_token_nobody_may(board: Board) -> None:
    """The page can only be read."""
    board.settings = HttpSettings()
    assert (await board.order({"command": "pause"})).status == 403
    assert (await board.get("/dashboard/admin", authorization=f"Bearer {ADMIN}")).status == 403
    assert (await board.get("/dashboard/overview")).status == 200


async def test_whether_a_token_is_the_one(board: Board) -> None:
    """The page asks before it shows what it could do."""
    assert (await board.get("/dashboard/admin", authorization=f"Bearer {ADMIN}")).status == 204
    assert (await board.get("/dashboard/admin", authorization="Bearer guessed")).status == 401


async def test_orders_are_in_the_log(board: Board) -> None:
    """With who has given them; the token is not."""
    with capture_logs() as logs:
        await ask(board.app, "/dashboard/do", AS_ADMIN, "POST", b'{"command": "pause", "database": "app"}')
    assert {"order": "pause app", "client": "127.0.0.1", "event": "order", "log_level": "info"} in logs
    assert ADMIN not in str(logs)
