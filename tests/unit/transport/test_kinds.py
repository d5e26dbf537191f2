"""The registry of kinds, what traces tell, and the documentation's example of a new kind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio

from hyperpool.config import transports
from hyperpool.config.transports import STEPS
from hyperpool.errors import ConnectFailed
from hyperpool.transport import kinds
from hyperpool.transport.kinds import KINDS, Kind, Trace, open_steps
from hyperpool.transport.sockets import TcpOptions
from tests.support.checkpoints import cancel_everywhere, no_descriptor_left
from tests.support.memorynet import dial_context

PAGE = Path(__file__).parents[3] / "docs" / "transports.md"
CONTEXT = dial_context(TcpOptions())


def test_every_kind_is_in_the_settings() -> None:
    """And has the same name and class there."""
    assert {name: kind.settings for name, kind in KINDS.items()}.items() <= STEPS.items()


def test_every_kind_is_in_the_documentation() -> None:
    """With all of its settings, but for the files of secrets, which are said of all."""
    page = PAGE.read_text("utf-8")
    for name, kind in STEPS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        fields = {field.name for field in attrs.fields(kind)} - {"token_id_file", "token_secret_file"}
        assert {field for field in fields if f"`{field}`" not in row} == set()


def test_a_trace() -> None:
    """Each hop has its time, and its error if it failed, also when something else goes wrong behind it."""
    trace = Trace()
    with trace.hop("one", "place") as hop:
        hop.facts["a"] = "b"
    with pytest.raises(ConnectFailed), trace.hop("two"):
        raise ConnectFailed("no way")
    with pytest.raises(ZeroDivisionError), trace.hop("three"):
        raise ZeroDivisionError
    assert [(hop.name, hop.facts, hop.error, hop.done) for hop in trace.hops] == [
        ("one place", {"a": "b"}, "", True),
        ("two", {}, "no way", False),
        ("three", {}, "", False),
    ]
    assert all(hop.seconds > 0 for hop in trace.hops)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of the settings of the documentation's example, which is registered as the page says."""
    page = PAGE.read_text("utf-8")
    settings, functions = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (registration,) = re.findall(r"^    (Kind\(.*)$", page, re.MULTILINE)
    names: dict[str, Any] = {
        **vars(transports),
        **vars(kinds),
        "ConnectFailed": ConnectFailed,
        "PIPE": subprocess.PIPE,
        "trio": trio,
    }
    exec("from __future__ import annotations\n" + settings + functions, names)
    (kind,) = eval(f"[{registration}]", names)
    assert isinstance(kind, Kind)
    monkeypatch.setitem(cast("dict[str, Any]", STEPS), "command", kind.settings)
    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "command", kind)
    return kind.settings


async def test_the_example_of_a_new_kind(example: Any) -> None:
    """It opens a stream, fails in its own words, and leaves neither descriptors nor programs when cancelled."""
    with no_descriptor_left():
        stream = await open_steps((example(argv=("cat",)),), CONTEXT)
        await stream.send_all(b"there and back")
        assert await stream.receive_some() == b"there and back"
        await stream.aclose()
        with pytest.raises(ConnectFailed, match="cannot run /nowhere: No such file or directory; install it"):
            await open_steps((example(argv=("/nowhere",)),), CONTEXT)

        async def open_and_close() -> None:
            await (await open_steps((example(argv=("cat",)),), CONTEXT)).aclose()

        assert await cancel_everywhere(open_and_close) >= 1
