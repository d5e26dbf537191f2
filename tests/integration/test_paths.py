"""Work over each tunnel to a database that nothing but its far end can reach."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import launch, scenes
from tests.support.paths import SECRETS, TUNNELS, WAYS, missing_program
from tests.support.scenes import Scene, started
from tests.support.targets import write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.paths import PrivatePostgres

pytestmark = [pytest.mark.hyperpool_only]

private_pg = scenes.private_pg

_ROW, _ROWS = b"%08d\t" + b"x" * 1015 + b"\n", 100_000


@pytest.fixture(scope="module", params=TUNNELS)
def scene(request: pytest.FixtureRequest, private_pg: PrivatePostgres) -> Iterator[Scene]:
    """A pooler in front of the private server."""
    if (program := missing_program(request.param)) is not None:
        pytest.skip(f"no {program} on this machine")
    with WAYS[request.param](private_pg) as path, started(path.config()) as pooler:
        scene = Scene(path, pooler)
        scene.wait_served()
        yield scene
        scene.no_secrets()


def test_it_is_private(scene: Scene) -> None:
    """The server listens on no address, and the pooler has no way to its socket."""
    assert scene.pg.sql("SHOW listen_addresses") == [("",)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((scene.pg.host, scene.pg.port), 1)
    assert scene.pg.socket_dir.stat().st_mode & 0o077 == 0
    if os.geteuid() == 0:
        # Read as the pooler's own user: root may go everywhere.
        uid = Path(f"/proc/{scene.pooler.pid}").stat().st_uid
        assert uid != 0
        tried = subprocess.run(["test", "-e", scene.pg.socket_path], user=uid, check=False)
        assert tried.returncode == 1


@pytest.mark.parametrize("command", ["check", "doctor", "doctor --json"])
def test_nothing_secret_is_shown(scene: Scene, tmp_path: Path, command: str) -> None:
    """What the other commands print of the same settings holds no token and no password."""
    config = write_config(tmp_path, scene.path.config())
    name, *options = command.split()
    done = launch.run(name, str(config), *options)
    printed = done.stdout + done.stderr
    assert "app" in printed
    assert "Traceback" not in printed
    assert not [secret for secret in SECRETS if secret in printed]


@pytest.mark.parametrize("protocol", ["simple", "prepared"])
def test_pgbench(scene: Scene, pgbench: str, protocol: str) -> None:
    """Many clients over few streams."""
    database = f"postgresql://postgres@/app?host={scene.pg.socket_dir}&port={scene.pg.port}"
    subprocess.run([pgbench, "-i", "-q", database], check=True, capture_output=True, timeout=60)
    scene.pg.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", dbname="app")
    command = [pgbench, "-n", "-M", protocol, "-c", "20", "-t", "20", scene.pooler.url()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "number of transactions actually processed: 400/400" in done.stdout
    assert "ERROR" not in done.stderr


def test_copy(scene: Scene) -> None:
    """100 MB in, and out again."""
    with scene.pooler.connect() as connection, connection.transaction():
        connection.execute("CREATE TEMPORARY TABLE carried (n int, filler text) ON COMMIT DROP")
        with connection.cursor().copy("COPY carried FROM STDIN") as into:
            for block in range(0, _ROWS, 1000):
                into.write(b"".join(_ROW % number for number in range(block, block + 1000)))
        sums = "SELECT count(*), sum(n), sum(length(filler)) FROM carried"
        assert connection.execute(sums).fetchone() == (_ROWS, _ROWS * (_ROWS - 1) // 2, _ROWS * 1015)
        with connection.cursor().copy("COPY carried TO STDOUT") as out:
            assert sum(len(bytes(sent)) for sent in out) >= _ROWS * 1018


def test_cancel(scene: Scene) -> None:
    """A cancel request goes the same way."""
    statement = "SELECT pg_sleep(60) /* to be canceled */"
    with scene.pooler.connect() as connection:
        with (
            scene.pg.when_asleep(statement, connection.cancel_safe),
            pytest.raises(psycopg.errors.QueryCanceled),
        ):
            connection.execute(statement)
        assert connection.execute("SELECT 1").fetchone() == (1,)
