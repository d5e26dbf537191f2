"""The documentation: what it says about names, settings and the ledger is what the code does."""

from __future__ import annotations

import ast
import re
import runpy
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from hyperpool.config import load
from hyperpool.config.tunnel import load_tunnel
from hyperpool.relay.ledger import FAKE, FORWARD, SKIP, Ledger
from hyperpool.wire import constants
from tests.support.certificates import server_pem

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text("utf-8")
DRAWINGS = {path.stem: ET.parse(path) for path in sorted(DOCS.glob("*.svg"))}
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md", *DOCS.glob("*.md")]
)
CERTIFICATE = server_pem("example.com")
SVG = "{http://www.w3.org/2000/svg}"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may name, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


class TestSettings:
    """docs/settings.md and the examples."""

    def test_the_tables_are_up_to_date(self) -> None:
        """They are what the generator makes of the settings' metadata."""
        generator = runpy.run_path(str(DOCS / "generate_settings.py"))
        for path in generator["PAGES"]:
            page = path.read_text("utf-8")
            assert page == generator["render"](page), "run python docs/generate_settings.py"

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_the_examples_are_sound(self, page: Path, tmp_path: Path) -> None:
        """Every settings file that a page shows can be loaded."""
        for example in blocks(page, "yaml"):
            for name in re.findall(r"password_file: (\S+)", example):
                (tmp_path / name).write_text("secret\n")
            for name in re.findall(r"_file: (\S+\.(?:pem|key))", example):
                (tmp_path / name).write_bytes(CERTIFICATE)
            file = tmp_path / "example.yaml"
            file.write_text(example, "utf-8")
            environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", example), "secret" * 4)
            if example.startswith("targets:"):
                assert load_tunnel(file, environ).targets
            else:
                assert load(file, environ).databases

    def test_there_are_examples(self) -> None:
        """The pages that should show a settings file do."""
        assert blocks(ROOT / "README.md", "yaml")
        assert blocks(DOCS / "settings.md", "yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings that a page links to exist."""
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'\b(?:src|srcset)="([^"]+)"', text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of hyperpool."""
    files = (ROOT / "hyperpool").rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def exists(name: str) -> bool:
    """Whether `Class` or `Class.member` is in hyperpool; members are methods, fields and attributes of self."""
    kind, _, member = name.partition(".")
    if kind not in classes():
        return False
    node = classes()[kind]
    return not member or member in members(node) or any(exists(f"{base}.{member}") for base in bases(node))


def bases(node: ast.ClassDef) -> list[str]:
    """The names of a class's bases, without type arguments."""
    return [ast.unparse(base).partition("[")[0] for base in node.bases]


def members(node: ast.ClassDef) -> set[str]:
    """What a class defines itself."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(part.name)
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            names.add(part.attr)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            names.add(part.target.id)
    return names


class TestNames:
    """Names of the code that the architecture's page and drawing mention."""

    def test_those_of_the_page(self) -> None:
        """`Class`, `Class.member` and `package/module.py` exist."""
        mentioned = re.findall(r"`([^`\n]+)`", ARCHITECTURE)
        paths = [name for name in mentioned if re.fullmatch(r"[\w/]+\.py", name)]
        assert paths
        assert [path for path in paths if not (ROOT / "hyperpool" / path).exists()] == []
        names = [name for name in mentioned if re.fullmatch(r"[A-Z]\w*[a-z]\w*(\.\w+)?", name)]
        assert len(names) > 30
        assert [name for name in names if not exists(name)] == []

    @pytest.mark.parametrize("drawing", DRAWINGS)
    def test_those_of_the_drawings(self, drawing: str) -> None:
        """What stands there in code type exists."""
        texts = [
            text for text in DRAWINGS[drawing].iter(f"{SVG}text") if "code" in text.get("class", "").split()
        ]
        names = {name for text in texts for name in (text.text or "").split(", ")}
        assert len(names) > 5
        # A function, and a name for a type.
        assert {name for name in names if not exists(name)} <= {"pool.login.connect", "RelayLane"}
        assert "\nRelayLane: TypeAlias" in (ROOT / "hyperpool/relay/handover.py").read_text("utf-8")
        assert "\nasync def connect(" in (ROOT / "hyperpool/pool/login.py").read_text("utf-8")


def ledger_tables() -> list[list[tuple[str, str, str]]]:
    """The worked examples of the ledger: rows of message, what happens to it, and the ledger after it."""
    tables = re.split(r"^\| message \|.*$", ARCHITECTURE, flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| ([→←] [^|]+) \| (\w+) \| ([^|]*)\|$", re.MULTILINE)
    return [
        [(a.strip(), b, c.strip()) for a, b, c in row.findall(table.split("\n\n")[0])] for table in tables
    ]


class TestLedger:
    """The worked examples."""

    def test_they_are_found(self) -> None:
        """So that none is passed over because its form has changed."""
        rows = sum(map(len, ledger_tables()))
        assert rows == len(re.findall(r"^\| [→←]", ARCHITECTURE, re.MULTILINE)) > 40

    @pytest.mark.parametrize(
        "table", ledger_tables(), ids=lambda table: ", ".join(row[0] for row in table[:3])
    )
    def test_they_are_what_happens(self, table: list[tuple[str, str, str]]) -> None:
        """Each row, fed to a ledger, has the effect that it shows."""
        ledger = Ledger()
        for message, effect, after in table:
            direction, name, *action = re.split(r",? ", message)
            kind = getattr(constants, re.sub(r"(?<=.)(?=[A-Z])", "_", name).upper())
            if direction == "→":
                asked = {"FAKE": FAKE, "SKIP": SKIP}[action[0]] if action else FORWARD
                assert effect == ("kept" if asked == FAKE else "sent")
                if kind != constants.COPY_DATA:
                    ledger.request(kind, asked)
            elif effect == "made":
                assert ledger.fakes()[0] == kind
            else:
                verdict = ledger.ready() if kind == constants.READY_FOR_QUERY else ledger.response(kind)
                assert verdict == {"forwarded": FORWARD, "dropped": SKIP}[effect], message
            assert repr(ledger).startswith(f"<Ledger [{after}] "), message
        assert ledger.clean
