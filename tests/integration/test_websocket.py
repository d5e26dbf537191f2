"""Databases behind real WebSocket gateways: websockify, and nginx with TLS and a check of the token before it."""

from __future__ import annotations

import datetime as dt
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support import rawclient as raw
from tests.support.gateways import OTHER_TOKEN, TOKEN, Nginx, Websockify, find_program
from tests.support.network import free_port, tcp_sockets
from tests.support.poolers import config_for
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PoolerFactory
    from tests.support.poolers import Pooler
    from tests.support.postgres import PostgresCluster
    from tests.support.targets import Config

pytestmark = pytest.mark.hyperpool_only

_SECRETS = (TOKEN.secret, OTHER_TOKEN.secret)


@pytest.fixture(scope="module")
def websockify(_pg: PostgresCluster) -> Iterator[Websockify]:
    """Websockify in front of the session's PostgreSQL."""
    if not find_program("websockify"):
        pytest.skip("no websockify on this machine")
    with Websockify(_pg.port) as running:
        yield running


@pytest.fixture(scope="module")
def nginx(websockify: Websockify) -> Iterator[Nginx]:
    """Nginx in front of websockify."""
    if not find_program("nginx"):
        pytest.skip("no nginx on this machine")
    with Nginx(websockify.port) as running:
        yield running


def behind(pg: PostgresCluster, transport: object, **pooler: object) -> Config:
    """Settings whose database is reached through a transport."""
    config = config_for(pg, server_login_retry="100ms", **pooler)
    config["databases"]["app"]["transport"] = transport
    return config


@pytest.fixture(scope="module", params=["websockify", "nginx"])
def _tunneled(
    request: pytest.FixtureRequest,
    make_module_pooler: PoolerFactory,
    _pg: PostgresCluster,
    websockify: Websockify,
    nginx: Nginx,
) -> Pooler:
    transport = websockify.url if request.param == "websockify" else nginx.steps()
    return make_module_pooler(behind(_pg, transport, default_pool_size=8, pool_mode="transaction"))


@pytest.fixture
def pooler(_tunneled: Pooler, watch: Callable[[Pooler], Pooler]) -> Pooler:
    """A pooler whose database `app` is behind each gateway in turn."""
    return watch(_tunneled)


def _told(pooler: Pooler) -> str:
    """What a client is told that cannot be served; no secret is in it, nor in the log, which has the same."""
    with pytest.raises(psycopg.OperationalError) as caught, pooler.connect() as connection:
        connection.execute("SELECT 1")
    message = str(caught.value).rpartition("FATAL:  ")[2].partition("\n")[0]
    log = pooler.log_text()
    assert message in log.replace("\\'", "'"), "the log has another reason"
    assert not any(secret in log or secret in message for secret in _SECRETS)
    return message


def _served_again(pooler: Pooler) -> None:
    def served() -> bool:
        with pooler.connect() as connection:
            return connection.execute("SELECT 'served'").fetchone() == ("served",)

    eventually(served, what="a client is served", despite=(psycopg.OperationalError,))


class TestWork:
    """What clients do all day."""

    def test_query(self, pooler: Pooler) -> None:
        """A large result comes through whole."""
        with pooler.connect() as connection:
            rows = connection.execute("SELECT n, repeat('x', n) FROM generate_series(1, 3000) n").fetchall()
            assert all(len(text) == number for number, text in rows)
            assert len(rows) == 3000

    @pytest.mark.parametrize("protocol", ["simple", "prepared"])
    def test_pgbench(self, pooler: Pooler, pgbench: str, pg: PostgresCluster, protocol: str) -> None:
        """Many clients over few WebSockets."""
        database = f"postgresql://postgres@/other?host={pg.socket_dir}&port={pg.port}"
        self._run(pgbench, "-i", "-q", database)
        pg.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", dbname="other")
        done = self._run(pgbench, "-n", "-M", protocol, "-c", "20", "-t", "20", pooler.url())
        assert "number of transactions actually processed: 400/400" in done.stdout
        assert "ERROR" not in done.stderr
        assert "FATAL" not in done.stderr

    @staticmethod
    def _run(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def test_copy(self, pooler: Pooler) -> None:
        """100 MB in, and out again."""
        row, rows = b"%08d\t" + b"x" * 1015 + b"\n", 100_000
        with pooler.connect() as connection, connection.transaction():
            connection.execute("CREATE TEMPORARY TABLE carried (n int, filler text) ON COMMIT DROP")
            with connection.cursor().copy("COPY carried FROM STDIN") as into:
                for block in range(0, rows, 1000):
                    into.write(b"".join(row % number for number in range(block, block + 1000)))
            sums = "SELECT count(*), sum(n), sum(length(filler)) FROM carried"
            assert connection.execute(sums).fetchone() == (rows, rows * (rows - 1) // 2, rows * 1015)
            with connection.cursor().copy("COPY carried TO STDOUT") as out:
                assert sum(len(bytes(sent)) for sent in out) >= rows * 1018

    def test_cancel(self, pooler: Pooler, pg: PostgresCluster) -> None:
        """A cancel request goes the same way."""
        statement = "SELECT pg_sleep(30)"
        with pooler.connect() as connection:
            with (
                pg.when_asleep(statement, connection.cancel_safe),
                pytest.raises(psycopg.errors.QueryCanceled),
            ):
                connection.execute(statement)
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_slow_reader(self, pooler: Pooler, websockify: Websockify, nginx: Nginx) -> None:
        """The pooler does not take in what a client does not read, and holds nobody else up.

        Whether the server has to wait then is up to websockify, which may take in all that it sends.
        """
        ports = (websockify.port, nginx.port)

        def held_back() -> bool:
            return any(one.unread for port in ports for one in tcp_sockets(remote_port=port))

        with pooler.raw() as client:
            before = pooler.reset_peak_memory()
            client.send(raw.query("SELECT repeat('x', 1000000) FROM generate_series(1, 200)"))
            eventually(held_back, what="the result waits to be read")
            with pooler.connect() as other:
                assert other.execute("SELECT 1").fetchone() == (1,)
            eventually(held_back, what="it still waits")
            assert pooler.memory("VmHWM") - before < 16 * 2**20


def _steps(nginx: Nginx, kind: str) -> object:
    """Transports that do not lead to the database."""
    wrong = nginx.steps(token=OTHER_TOKEN)
    other: dict[str, object] = {
        "wrong token": wrong,
        "no token": nginx.steps(token=None),
        "forbidden": nginx.steps("/forbidden"),
        "unauthorized": nginx.steps("/unauthorized"),
        "page": nginx.steps("/page"),
        "far end": nginx.steps("/gone"),
        "unknown authority": nginx.url(),
        "wrong name": [
            {"tcp": {"host": "127.0.0.1", "port": nginx.port}},
            {"tls": {"server_name": "gateway.example.com", "ca_file": str(nginx.files.ca)}},
            {"websocket": {}},
        ],
        "TLS is missing": f"ws://localhost:{nginx.port}/",
        "TLS is too much": f"wss://localhost:{nginx.plain_port}/",
        "no such name": "wss://gateway.invalid/",
        "nobody there": f"ws://127.0.0.1:{free_port()}/",
    }
    return other[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "wrong token",
            "refused the service token (302 to an Access login): check token_id and token_secret",
        ),
        ("no token", "wants a service token (302 to an Access login): add token_id and token_secret"),
        ("forbidden", "refused the service token (403 Forbidden)"),
        ("unauthorized", "refused (401 Unauthorized): it wants other credentials"),
        ("page", "answered with a page (200 OK) instead of a WebSocket"),
        ("far end", "refused (502 Bad Gateway): what it forwards to cannot be reached from there"),
        ("unknown authority", "certificate"),
        ("wrong name", "gateway.example.com"),
        ("TLS is missing", "refused (400 Bad Request): if it wants TLS use wss://"),
        ("TLS is too much", "TLS to localhost"),
        ("no such name", "gateway.invalid"),
        ("nobody there", "Connection refused"),
    ],
)
def test_refusals(
    make_pooler: PoolerFactory, pg: PostgresCluster, nginx: Nginx, kind: str, says: str
) -> None:
    """Clients and the log are told what is wrong, and nothing that is secret."""
    assert says in _told(make_pooler(behind(pg, _steps(nginx, kind))))


def test_a_certificate_that_has_expired(
    make_pooler: PoolerFactory, pg: PostgresCluster, nginx: Nginx
) -> None:
    """It is not taken; once it has been replaced, clients are served."""
    pooler = make_pooler(behind(pg, nginx.steps()))
    nginx.certify("localhost", expires=dt.datetime.now(dt.UTC) - dt.timedelta(days=1))
    nginx.reload()
    try:
        assert "expired" in _told(pooler)
    finally:
        nginx.certify("localhost")
        nginx.reload()
    _served_again(pooler)


class TestFaults:
    """What goes wrong on the way: an error for who is concerned, and service again afterwards."""

    def test_token_revoked_while_running(
        self, make_pooler: PoolerFactory, pg: PostgresCluster, nginx: Nginx
    ) -> None:
        """Connections that are open stay; who needs a new one waits until the token counts again."""
        pooler = make_pooler(behind(pg, nginx.steps(), pool_mode="session"))
        waiting = threading.Thread(target=_served_again, args=[pooler])
        with pooler.connect() as connection:
            connection.execute("SELECT 1")
            nginx.token = OTHER_TOKEN
            nginx.reload()
            try:
                waiting.start()
                eventually(lambda: "refused the service token" in pooler.log_text(), what="the log says so")
                assert connection.execute("SELECT 1").fetchone() == (1,)
                assert waiting.is_alive()
            finally:
                nginx.token = TOKEN
                nginx.reload()
            waiting.join(20)
            assert not waiting.is_alive()
        assert not any(secret in pooler.log_text() for secret in _SECRETS)

    def test_gateway_restart(self, make_mortal_pooler: PoolerFactory, mortal_pg: PostgresCluster) -> None:
        """A query that is cut off fails; clients are refused meanwhile; no descriptor is left behind."""
        with Websockify(mortal_pg.port) as gateway:
            pooler = make_mortal_pooler(behind(mortal_pg, gateway.url))
            with pooler.connect() as connection:
                before = pooler.open_files()
                statement = "SELECT pg_sleep(30)"
                with (
                    mortal_pg.when_asleep(statement, gateway.stop),
                    pytest.raises(psycopg.OperationalError),
                ):
                    connection.execute(statement)
            assert "Connection refused" in _told(pooler)
            gateway.start()
            _served_again(pooler)
            eventually(lambda: pooler.open_files() <= before, what="no descriptor is left behind")

    @pytest.mark.parametrize("cut_after", [10, 200, 100_000])
    def test_cut_in_the_middle(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
        websockify: Websockify,
        make_proxy: Callable[[int], Any],
        cut_after: int,
    ) -> None:
        """In the handshake, in the login, and in a result."""
        proxy = make_proxy(websockify.port)
        pooler = make_pooler(behind(pg, f"ws://127.0.0.1:{proxy.port}/"))
        proxy.from_target.cut_after = cut_after
        with pytest.raises(psycopg.OperationalError) as caught, pooler.connect() as connection:
            connection.execute("SELECT repeat('x', 1000000)")
        assert str(caught.value)
        proxy.from_target.cut_after = None
        _served_again(pooler)

    def test_half_open(
        self,
        make_pooler: PoolerFactory,
        pg: PostgresCluster,
        websockify: Websockify,
        make_proxy: Callable[[int], Any],
    ) -> None:
        """A way that carries nothing any more, without an end: pings find it out while a query waits."""
        proxy = make_proxy(websockify.port)
        pooler = make_pooler(
            behind(
                pg,
                [
                    {"tcp": {"host": "127.0.0.1", "port": proxy.port}},
                    {"websocket": {"keepalive": "500ms"}},
                ],
            )
        )
        with pooler.connect() as connection:
            proxy.from_target.stalled = True
            with pytest.raises(psycopg.OperationalError, match=r"did not answer a ping within 0\.5 s"):
                connection.execute("SELECT 1")
            proxy.from_target.stalled = False
        _served_again(pooler)

    def test_keepalive_outlives_the_gateway_s_patience(
        self, make_pooler: PoolerFactory, pg: PostgresCluster, nginx: Nginx
    ) -> None:
        """Nginx cuts connections that are silent for a second; pings keep them."""
        nginx.read_timeout = 1
        nginx.reload()
        try:
            for keepalive, survives in (("300ms", True), (0, False)):
                pooler = make_pooler(behind(pg, nginx.steps(keepalive=keepalive), pool_mode="session"))
                with pooler.connect() as connection:
                    connection.execute("SELECT 1")
                    pg.sql("SELECT pg_sleep(1.6)")
                    if survives:
                        assert connection.execute("SELECT 1").fetchone() == (1,)
                    else:
                        with pytest.raises(psycopg.OperationalError):
                            connection.execute("SELECT 1")
        finally:
            nginx.read_timeout = 60
            nginx.reload()

    @pytest.mark.parametrize("lost", ["page", "name"])
    def test_service_resumes_after_a_refusal(
        self, make_pooler: PoolerFactory, pg: PostgresCluster, nginx: Nginx, lost: str
    ) -> None:
        """New settings are enough."""
        wrong = nginx.steps("/page") if lost == "page" else "wss://gateway.invalid/"
        pooler = make_pooler(behind(pg, wrong))
        _told(pooler)
        config = pooler.config
        config["databases"]["app"]["transport"] = nginx.steps()
        pooler.reload(config)
        _served_again(pooler)
