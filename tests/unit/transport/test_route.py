"""Routes: whose turn it is, what happens when a host does not answer, and the way back to the same server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import pytest
import trio

from hyperpool.config import DatabaseSettings, Settings
from hyperpool.config.transports import AgentStep, ProxyStep, TcpStep, TlsStep, UnixStep, WebSocketStep
from hyperpool.errors import ConnectFailed, LoginFailed
from hyperpool.transport.kinds import KINDS, DialContext, Kind, Trace, open_steps
from hyperpool.transport.plain import PlainStream
from hyperpool.transport.route import Route, Target
from hyperpool.transport.sockets import TcpOptions
from tests.support.checkpoints import cancel_everywhere
from tests.support.memorynet import dial_context
from tests.support.streams import Opaque, socket_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


pytestmark = pytest.mark.usefixtures("nothing_left_open")

CONTEXT = dial_context(TcpOptions())


class Hosts:
    """Stands in for the step ``tcp``: hosts that answer, and hosts that do not.

    Attributes:
        dead: hosts that refuse.
        deaf: hosts that never answer.
        dialed: who was dialed, in order.
        peers: the other ends of what was opened.
    """

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.deaf: set[str] = set()
        self.dialed: list[str] = []
        self.peers: list[trio.abc.Stream] = []

    async def open(
        self, step: TcpStep, below: trio.abc.Stream | None, context: DialContext
    ) -> trio.abc.Stream:
        """Connect."""
        self.dialed.append(step.host)
        await trio.lowlevel.checkpoint()
        if step.host in self.deaf:
            await trio.sleep_forever()
        if step.host in self.dead:
            raise ConnectFailed(f"cannot connect to {step.host}:{step.port}: Connection refused")
        near, far = await socket_pair()
        self.peers.append(far)
        return Opaque(near)


@pytest.fixture
async def hosts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where ``tcp`` leads to."""
    found = Hosts()
    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "tcp", Kind(TcpStep, found.open))
    yield found
    for peer in found.peers:
        await peer.aclose()


@pytest.fixture
def clock() -> SimpleNamespace:
    """Monotonic time, as its `now` says."""
    return SimpleNamespace(now=1000.0)


def route_to(clock: SimpleNamespace, host: str = "a,b,c", **changes: Any) -> Route:
    """A route with these database settings."""
    database = DatabaseSettings(host=host, **changes)
    settings = Settings(databases={"app": database}).pool_for("app", "ann")
    assert settings is not None
    return Route(settings, CONTEXT, lambda: clock.now)


async def visit(route: Route) -> str:
    """Open and close a stream; returns the host's name."""
    opened = await route.open()
    await opened.stream.aclose()
    return opened.target.host


# -- names -------------------------------------------------------------------------------------------------------------

GATEWAY = (TcpStep(host="gw", port=443), TlsStep(server_name="gw"), WebSocketStep(host="gw", path="/db/?k=x"))


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        (GATEWAY, "PostgreSQL behind gw/db"),
        ((*GATEWAY, TlsStep(server_name="db")), "PostgreSQL behind gw/db"),
        ((AgentStep(name="site"),), "PostgreSQL behind agent site"),
        ((AgentStep(name="site", target="app"),), "PostgreSQL behind agent site (app)"),
        ((TcpStep(host="fd00::1", port=5433),), "[fd00::1]:5433"),
        ((TcpStep(host="db", port=5433), TlsStep(server_name="db")), "db:5433"),
        ((ProxyStep(url="http://proxy", host="db", port=5433),), "db:5433"),
        ((UnixStep(path="@pg"),), "@pg"),
        ((SimpleNamespace(KIND="command"),), "PostgreSQL behind the transport"),
    ],
)
def test_a_server_that_only_a_way_leads_to(steps: Any, name: str) -> None:
    """It has no address that the pooler knows, and none is made up; the way's end is what it is called by."""
    target = Target("127.0.0.1", 5432, steps)
    assert (target.known, target.name) == (False, name)
    told = attrs.evolve(target, host="db.internal")
    assert (told.known, told.name) == (True, "db.internal:5432")


def test_a_server_on_this_machine(clock: SimpleNamespace) -> None:
    """Without a transport, the default host is where it is."""
    (target,) = route_to(clock, DatabaseSettings().host).targets
    assert (target.known, target.name) == (True, "127.0.0.1:5432")


# -- turns -------------------------------------------------------------------------------------------------------------


async def test_round_robin(hosts: Hosts, clock: SimpleNamespace) -> None:
    """Each new connection goes to the next host."""
    route = route_to(clock)
    assert [await visit(route) for _ in range(5)] == ["a", "b", "c", "a", "b"]


async def test_one_host_until_it_fails(hosts: Hosts, clock: SimpleNamespace) -> None:
    """``load_balance_hosts`` disable: then the next one, which is kept as well."""
    route = route_to(clock, load_balance_hosts="disable")
    assert [await visit(route) for _ in range(2)] == ["a", "a"]
    hosts.dead = {"a"}
    assert [await visit(route) for _ in range(2)] == ["b", "b"]
    hosts.dead = {"b"}
    clock.now += 100
    assert [await visit(route) for _ in range(2)] == ["c", "c"]
    hosts.dead = {"c"}
    assert await visit(route) == "a"


async def test_a_host_that_failed_is_tried_last(hosts: Hosts, clock: SimpleNamespace) -> None:
    """For the time of ``server_login_retry``; nobody waits for it again and again."""
    route = route_to(clock)
    hosts.dead = {"a"}
    assert await visit(route) == "b"
    assert hosts.dialed == ["a", "b"]
    hosts.dialed.clear()
    assert [await visit(route) for _ in range(4)] == ["b", "c", "b", "b"]
    assert "a" not in hosts.dialed
    hosts.dead = set()
    clock.now += 15.0
    assert "a" in [await visit(route) for _ in range(3)]


async def test_all_reasons_are_told(hosts: Hosts, clock: SimpleNamespace) -> None:
    """When no host can be reached; each stream has its own."""
    hosts.dead = {"a", "b"}
    with pytest.raises(ConnectFailed) as caught:
        await route_to(clock, host="a,b", port=(1, 2)).open()
    assert str(caught.value) == (
        "none of 2 hosts can be reached: cannot connect to a:1: Connection refused; "
        "cannot connect to b:2: Connection refused"
    )
    with pytest.raises(ConnectFailed, match=r"^cannot connect to a:5432: Connection refused$"):
        await route_to(clock, host="a").open()


async def test_a_host_that_does_not_answer(
    hosts: Hosts, clock: SimpleNamespace, autojump_clock: MockClock
) -> None:
    """The next one has its turn after ``host_connect_timeout``; the last one may take as long as there is."""
    route = route_to(clock)
    hosts.deaf = {"a"}
    hosts.dead = {"b"}
    assert await visit(route) == "c"
    assert trio.current_time() == pytest.approx(5.0)
    hosts.deaf = {"a", "b", "c"}
    with trio.move_on_after(100) as scope:
        await route.open()
    assert scope.cancelled_caught
    assert len(hosts.dialed) == 6


async def test_a_server_that_cannot_take_anybody_now(hosts: Hosts, clock: SimpleNamespace) -> None:
    """It counts as a host that does not answer, as in libpq; a wrong password does not."""
    tried: list[str] = []

    def refusing(sqlstate: str) -> Any:
        async def attempt(target: Target) -> str:
            await trio.lowlevel.checkpoint()
            tried.append(target.host)
            if target.host != "b":
                raise LoginFailed("no", sqlstate)
            return target.host

        return attempt

    failures: list[str] = []
    assert await route_to(clock).first(refusing("57P03"), failures) == "b"
    assert (tried, failures) == (["a", "b"], ["a:5432: no"])
    tried.clear()
    with pytest.raises(LoginFailed):
        await route_to(clock).first(refusing("28P01"))
    assert tried == ["a"]


# -- the way -----------------------------------------------------------------------------------------------------------


def test_the_steps_to_a_host(clock: SimpleNamespace) -> None:
    """A directory and an abstract name are Unix sockets; a transport replaces host and port."""
    route = route_to(clock, host="/run,@pg,::1,db", port=(1, 2, 3, 4))
    assert [(target.steps, target.name) for target in route.targets] == [
        ((UnixStep(path="/run/.s.PGSQL.1"),), "/run/.s.PGSQL.1"),
        ((UnixStep(path="@pg/.s.PGSQL.2"),), "@pg/.s.PGSQL.2"),
        ((TcpStep(host="::1", port=3),), "[::1]:3"),
        ((TcpStep(host="db", port=4),), "db:4"),
    ]
    steps = (TcpStep(host="gw", port=443), TlsStep(server_name="gw"))
    (target,) = route_to(clock, host="db", transport=steps).targets
    assert (target.steps, target.name) == (steps, "db:5432")


async def test_the_way_back_leads_to_the_same_address(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    """A name may mean another server the next time; what stands above it is the same."""
    opened_with: list[Any] = []

    async def open_above(step: TlsStep, below: trio.abc.Stream, context: DialContext) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        opened_with.append(step)
        return below

    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "tls", Kind(TlsStep, open_above))
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    tls = TlsStep(server_name="gw")
    route = route_to(clock, host="db", transport=(TcpStep(host="localhost", port=port), tls))
    trace = Trace()
    opened = await route.open(trace)
    assert isinstance(opened.stream, PlainStream)
    assert opened.target.steps == (TcpStep(host="127.0.0.1", port=port), tls)
    assert [hop.name for hop in trace.hops] == ["resolve localhost", f"tcp localhost:{port}"]
    again = await route.reopen(opened.target)
    assert opened_with == [tls, tls]
    assert len(trace.hops) == 2
    for stream in (opened.stream, again, listener):
        await stream.aclose()


# -- steps on steps ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Layer(Opaque):
    """A stream on top of another one."""

    below: trio.abc.Stream
    name: str


async def test_steps_are_put_on_each_other_and_closed_together(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bottom up; whichever step fails, nothing is left; cancelled at any point, neither."""
    broken: set[str] = set()

    async def open_layer(step: TlsStep, below: trio.abc.Stream, context: DialContext) -> trio.abc.Stream:
        try:
            await trio.lowlevel.checkpoint()
            await below.send_all(b"hello")
        except BaseException:
            await trio.aclose_forcefully(below)
            raise
        if step.server_name in broken:
            await trio.aclose_forcefully(below)
            raise ConnectFailed(f"{step.server_name} is broken")
        return Layer(below, step.server_name)

    monkeypatch.setitem(cast("dict[str, Kind]", KINDS), "tls", Kind(TlsStep, open_layer))
    steps = (TcpStep(host="a", port=1), TlsStep(server_name="one"), TlsStep(server_name="two"))
    stream = await open_steps(steps, CONTEXT)
    assert isinstance(stream, Layer)
    assert isinstance(stream.below, Layer)
    assert (stream.name, stream.below.name) == ("two", "one")
    await stream.aclose()

    async def received() -> bytes:
        data = b""
        while piece := await hosts.peers[-1].receive_some():
            data += piece
        return data

    assert await received() == b"hellohello"
    for name, sent in (("one", b"hello"), ("two", b"hellohello")):
        broken = {name}
        with pytest.raises(ConnectFailed, match=f"{name} is broken"):
            await open_steps(steps, CONTEXT)
        assert await received() == sent
    broken = set()

    async def open_and_close() -> None:
        await (await open_steps(steps, CONTEXT)).aclose()

    assert await cancel_everywhere(open_and_close) >= 5
    for peer in hosts.peers:
        with trio.fail_after(1):
            while await peer.receive_some():
                pass


async def test_every_kind_has_settings_and_a_function() -> None:
    """The registry and the settings speak of the same kinds."""
    from hyperpool.config.transports import STEPS

    assert {name: kind.settings for name, kind in KINDS.items()}.items() <= STEPS.items()
