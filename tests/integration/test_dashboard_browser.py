"""The dashboard in a real browser, of a real pooler."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from playwright.sync_api import Error, sync_playwright

from hyperpool.overview.formats import spell
from hyperpool.overview.model import Kind
from tests.support.network import free_port
from tests.support.poolers import config_for
from tests.support.postgres import Role
from tests.support.waiting import eventually
from tests.unit.overview.test_overview_formats import VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster

pytestmark = pytest.mark.hyperpool_only

ADMIN: Final = "0123456789abcdef" * 2
TOKEN: Final = "fedcba9876543210" * 2
_PATIENCE: Final = 20_000
"""Milliseconds, for a browser on a busy machine."""
_CONTAINS: Final = "([selector, text]) => document.querySelector(selector).textContent.includes(text)"
HOSTILE: Final = '</td><img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
"""What runs if it becomes markup."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, without a screen."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        # The tests may run as root, where Chromium's own sandbox does not work.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Site:
    """A pooler with a dashboard, and what a browser did there.

    Args:
        pooler: the pooler.
        port: of its dashboard.
    """

    def __init__(self, pooler: Pooler, port: int) -> None:
        self.pooler = pooler
        self.url = f"http://127.0.0.1:{port}/"
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, context: BrowserContext) -> Page:
        """Open the page, and wait until it shows something."""
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.url)
        page.wait_for_selector("#panel-databases td")
        return page


def _site(make_pooler: PoolerFactory, pg: PostgresCluster, **section: Any) -> Site:
    config: Any = config_for(pg, pool_mode="transaction")
    port = free_port()
    config["databases"]["app"]["cache"] = {"max_age": "30s"}
    config["http"] = {"listen_port": port, "admin_token": ADMIN, **section}
    return Site(make_pooler(config), port)


@pytest.fixture
def site(make_pooler: PoolerFactory, pg: PostgresCluster) -> Site:
    """A pooler with a dashboard for this machine."""
    return _site(make_pooler, pg)


@pytest.fixture
def desk(browser: Browser) -> Iterator[BrowserContext]:
    """A large screen in light colours."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, color_scheme="light")
    yield context
    context.close()


def _text(page: Page, selector: str) -> str:
    return page.text_content(selector) or ""


def test_hostile_texts_stay_texts(site: Site, desk: BrowserContext) -> None:
    """Of a query, an application and a user that cannot log in; and the page asks nobody else for anything."""
    name = HOSTILE.replace('"', '""')
    with site.pooler.connect() as client:
        for _ in range(3):  # the first one of a pool is not looked at by the cache
            client.execute(f'SELECT 1 AS "{name}"'.encode())
    with site.pooler.connect(autocommit=False, application_name=HOSTILE) as client:
        client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            site.pooler.connect(role=Role(HOSTILE, "x", "scram-sha-256"))
        page = site.open(desk)
        for panel in ("queries", "busy", "errors"):
            page.wait_for_function(_CONTAINS, arg=[f"#panel-{panel}", HOSTILE[:20]])
    assert page.title() == "hyperpool: active"
    assert page.query_selector("main img, main script") is None
    assert {request.removeprefix(site.url).partition("/")[0] for request in site.requests} == {
        "",
        "dashboard",
    }
    assert site.complaints == []


def test_what_could_make_markup_of_texts_is_taken_away(site: Site, desk: BrowserContext) -> None:
    """Even a mistake in the page's script could not run what comes from outside."""
    page = site.open(desk)
    for script in (
        "document.body.innerHTML = '<img src=x onerror=alert(1)>'",
        "const one = document.createElement('script'); one.text = 'document.title = 1'; document.body.append(one)",
        "setTimeout('document.title = 1')",
    ):
        failed = page.evaluate(
            f"() => {{ try {{ {script}; return '' }} catch (error) {{ return error.name }} }}"
        )
        assert failed in {"TypeError", "EvalError"}, script
    refused = page.evaluate("fetch('https://example.com/').then(() => 'sent', (error) => error.name)")
    assert refused == "TypeError"
    assert page.title() == "hyperpool: active"


def test_values_look_as_in_a_terminal(site: Site, desk: BrowserContext) -> None:
    """The page and `hyperpool top` spell them alike."""
    page = site.open(desk)
    script = """async (values) => {
        const { spell } = await import("/dashboard/formats.js");
        return values.map(([kind, value]) => spell(kind, value));
    }"""
    values = [(kind, value) for kind, value, _ in VALUES]
    values += [
        (kind, value) for kind in Kind if kind is not Kind.SHARE for value in (0, 2.5, 99.95, 123456.5)
    ]
    values += [(Kind.SHARE, value) for value in (0, 0.5, 1 / 3, 0.99999, 1)]
    spelled = page.evaluate(script, [(kind.value, value) for kind, value in values])
    assert spelled == [spell(kind, value) for kind, value in values]


def test_an_administrator_acts(site: Site, desk: BrowserContext) -> None:
    """Not with a wrong token, not without a confirmation, and then what was asked for and nothing else."""
    page = site.open(desk)

    def says(words: str) -> None:
        eventually(lambda: words in _text(page, "#dialog"), what=f"the page says {words!r}")

    def unlock(token: str) -> None:
        page.click("#unlock")
        page.fill("#dialog-token", token)
        page.click("#dialog-yes")

    assert page.query_selector("#panel-databases button") is None
    unlock("f" * 32)
    says("Not unlocked")
    page.click("#dialog-yes")
    unlock(ADMIN)
    pause = page.locator("#panel-databases tr", has_text="app").locator("button", has_text="Pause")
    pause.click()
    says("Pause: database app?")
    page.click("#dialog-no")
    pause.click()
    page.click("#dialog-yes")
    says("PAUSE")
    page.click("#dialog-yes")
    eventually(lambda: _text(page, "#state") == "active; paused: app", what="it is paused")
    assert site.pooler.log_text().count("order='pause app'") == 1
    assert ADMIN not in json.dumps(page.evaluate("[{...localStorage}, {...sessionStorage}, document.cookie]"))
    page.locator("#panel-databases tr", has_text="app").locator("button", has_text="Resume").click()
    page.click("#dialog-yes")
    says("RESUME")
    page.click("#dialog-yes")
    eventually(lambda: _text(page, "#state") == "active", what="it goes on")
    assert site.pooler.log_text().count("order=") == 2
    assert ADMIN not in site.pooler.log_text()


def test_a_token_is_a_password_for_the_browser(
    make_pooler: PoolerFactory, pg: PostgresCluster, browser: Browser
) -> None:
    """It asks for one, everything comes with it, and the admin token goes beside it."""
    site = _site(make_pooler, pg, token=TOKEN)
    stranger = browser.new_context()
    # Without a screen nobody can be asked; a challenge that Chromium does not know would show its page.
    with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
        stranger.new_page().goto(site.url)
    stranger.close()
    context = browser.new_context(http_credentials={"username": "any", "password": TOKEN})
    page = site.open(context)
    page.click("#unlock")
    page.fill("#dialog-token", ADMIN)
    page.click("#dialog-yes")
    page.wait_for_selector("#panel-databases button")
    assert site.complaints == []
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(site: Site, browser: Browser, scheme: Any) -> None:
    """Nothing is wider than the screen, every cell has its label, and colours follow the system's."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page = site.open(context)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cells = "[...document.querySelectorAll('#panel-databases td')]"
    labels = page.evaluate(f"{cells}.map((cell) => getComputedStyle(cell, '::before').content)")
    assert '"clients"' in labels
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(ground.removeprefix("rgb(").split(",")[0])
    assert red > 200 if scheme == "light" else red < 60
    context.close()


def test_when_the_pooler_goes_away(site: Site, desk: BrowserContext) -> None:
    """The last picture stays, and the page says so."""
    page = site.open(desk)
    site.pooler.stop()
    eventually(lambda: "no news" in _text(page, "#connection"), what="the page says so")
    assert page.query_selector("#panel-databases td") is not None
