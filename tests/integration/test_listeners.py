"""Where the pooler listens, and how it reaches its servers."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.network import has_ipv6
from tests.support.poolers import Pooler, config_for
from tests.support.rawclient import RawClient
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PoolerFactory
    from tests.support.postgres import PostgresCluster

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory with a short path, since that of a Unix socket is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="hpt-") as path:
        Path(path).chmod(0o777)
        yield Path(path)


def _answers(pooler: Pooler, host: str) -> bool:
    with pooler.connect(host=host) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def test_unix_socket(make_pooler: PoolerFactory, socket_dir: Path) -> None:
    """With `unix_socket_dir` the pooler also listens on `.s.PGSQL.PORT` there, open to all by default."""
    pooler = make_pooler(unix_socket_dir=str(socket_dir))
    assert _answers(pooler, str(socket_dir))
    assert _answers(pooler, "127.0.0.1")
    mode = (socket_dir / f".s.PGSQL.{pooler.port}").stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o777)


def test_unix_socket_alone(make_pooler: PoolerFactory, socket_dir: Path) -> None:
    """Without `listen_addr` there is only the Unix socket; it has the configured mode and is removed at the end."""
    pooler = make_pooler(listen_addr="", unix_socket_dir=str(socket_dir), unix_socket_mode="0700")
    assert _answers(pooler, str(socket_dir))
    path = socket_dir / f".s.PGSQL.{pooler.port}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(ConnectionRefusedError):
        RawClient(("127.0.0.1", pooler.port))
    pooler.stop()
    assert not path.exists()


@pytest.mark.hyperpool_only  # pgbouncer refuses to start while its old socket is there and someone listens
def test_the_socket_of_a_killed_pooler_is_replaced(make_pooler: PoolerFactory, socket_dir: Path) -> None:
    """A socket file that a killed pooler left behind does not keep the next one from starting."""
    old = make_pooler(unix_socket_dir=str(socket_dir))
    old.process.kill()
    old.process.wait(10)
    assert (socket_dir / f".s.PGSQL.{old.port}").exists()
    new = Pooler(old.config)
    try:
        new.wait_listening()
        assert _answers(new, str(socket_dir))
        new.stop()
    finally:
        new.destroy()
        old.forget()


@needs_ipv6
def test_ipv6(make_pooler: PoolerFactory) -> None:
    """An IPv6 address in `listen_addr` is listened on."""
    pooler = make_pooler(listen_addr="127.0.0.1, ::1")
    assert _answers(pooler, "::1")
    assert _answers(pooler, "127.0.0.1")


@needs_ipv6
def test_several_addresses(make_pooler: PoolerFactory) -> None:
    """`listen_addr` as a list of addresses."""
    pooler = make_pooler(listen_addr=["127.0.0.1", "127.0.0.2", "::1"])
    assert all(_answers(pooler, host) for host in ("127.0.0.1", "127.0.0.2", "::1"))


@needs_ipv6
def test_all_addresses(make_pooler: PoolerFactory) -> None:
    """`*` listens on every IPv4 and IPv6 address."""
    pooler = make_pooler(listen_addr="*")
    assert all(_answers(pooler, host) for host in ("127.0.0.1", "127.0.0.3", "::1"))


@pytest.mark.parametrize("kind", ["socket directory", "localhost", "::1"])
def test_ways_to_the_server(make_pooler: PoolerFactory, pg: PostgresCluster, kind: str) -> None:
    """A server is reached by Unix socket, by name and by IPv6 address."""
    if kind == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    config = config_for(pg)
    config["databases"]["app"]["host"] = str(pg.socket_dir) if kind == "socket directory" else kind
    pooler = make_pooler(config)
    with pooler.connect() as connection:
        ((address,),) = connection.execute("SELECT inet_server_addr() IS NULL").fetchall()
        assert address == (kind == "socket directory")


def test_fallback_database(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """`*` serves every database that is not listed, under the name that the client asks for."""
    config = config_for(pg, pool_mode="transaction")
    config["databases"] = {
        "alias": {"host": pg.host, "port": pg.port, "dbname": "app"},
        "*": {"host": pg.host, "port": pg.port},
    }
    pooler = make_pooler(config)
    for asked, found in (("other", "other"), ("shared", "shared"), ("alias", "app")):
        with pooler.connect(asked) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (found,)


def test_fallback_database_with_a_fixed_name(make_pooler: PoolerFactory, pg: PostgresCluster) -> None:
    """A `dbname` under `*` sends every unlisted name there."""
    config = config_for(pg)
    config["databases"] = {"*": {"host": pg.host, "port": pg.port, "dbname": "app"}}
    pooler = make_pooler(config)
    with pooler.connect("anything at all") as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("app",)


def test_nothing_left_open(make_pooler: PoolerFactory) -> None:
    """Clients that came and went leave no file descriptor behind."""
    pooler = make_pooler(pool_mode="transaction", default_pool_size=1)
    assert _answers(pooler, "127.0.0.1")
    before = pooler.open_files()
    for _ in range(20):
        assert _answers(pooler, "127.0.0.1")
        pooler.open_raw().abort()
    eventually(lambda: pooler.open_files() <= before, what="all descriptors of the clients are closed")
