"""The process: its user, its pid file, how it takes over from another one, and life in the background."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from hyperpool.config import PoolerSettings, Settings
from hyperpool.errors import StartupError
from hyperpool.service import process
from hyperpool.service.process import Manner, become, check_manner, check_ports, pid_file, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def other() -> Iterator[int]:
    """Another process."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture
def zombie() -> Iterator[int]:
    """A process that has ended, and that nobody has waited for; its name looks like a state."""
    with subprocess.Popen(["sh", "-c", "printf ') S 1' >/proc/$$/comm"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


def test_what_the_command_line_says_goes_before_the_file() -> None:
    """The user replaces the file's, and being verbose adds up; nothing said changes nothing."""
    settings = Settings(pooler=PoolerSettings(user="web", verbose=1))
    assert Manner().adjusted(settings) is settings
    pooler = Manner(user="ann", verbose=2).adjusted(settings).pooler
    assert (pooler.user, pooler.verbose) == ("ann", 3)


@pytest.mark.parametrize(
    ("manner", "pooler", "problem"),
    [
        (Manner(daemon=True), {"logfile": "/x"}, "a daemon needs a pidfile"),
        (Manner(daemon=True), {"pidfile": "/x"}, "a daemon needs a log"),
    ],
)
def test_what_a_manner_needs(manner: Manner, pooler: dict[str, Any], problem: str) -> None:
    """As in pgbouncer, which says so, too; without the manner, nothing is needed."""
    settings = Settings(pooler=PoolerSettings(**pooler))
    with pytest.raises(StartupError, match=problem):
        check_manner(settings, manner)
    check_manner(settings, Manner())


def test_taking_over_without_a_control_socket_needs_a_port_for_two(tmp_path: Path, other: int) -> None:
    """Only while there is another process."""
    file = tmp_path / "pid"
    settings = Settings(pooler=PoolerSettings(pidfile=str(file)))
    check_ports(settings)
    file.write_text(f"{other}\n")
    with pytest.raises(
        StartupError, match=f"process {other}, as .*, gives its sockets to nobody: .*so_reuseport = 1"
    ):
        check_ports(settings)
    check_ports(attrs.evolve(settings, pooler=attrs.evolve(settings.pooler, so_reuseport=True)))


def test_a_pid_file_is_there_while_the_process_is(tmp_path: Path) -> None:
    """It holds the number and a newline; one that a crash has left is in nobody's way."""
    file = tmp_path / "pid"
    file.write_text("999999999\n")
    with pid_file(str(file), take_over=False):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()
    file.write_text("not a number")
    with pid_file(str(file), take_over=False):
        assert file.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["-1", "0", "1 2", "+1", "", "9" * 5000, str(2**31), "\u0661"])
def test_what_names_no_single_process(tmp_path: Path, text: str) -> None:
    """It would be sent signals, and -1 stands for all processes."""
    file = tmp_path / "pid"
    file.write_text(f"{text}\n", "utf-8")
    assert running(str(file)) == 0


def test_no_pid_file_is_nothing(tmp_path: Path) -> None:
    """An empty setting."""
    with pid_file("", take_over=False):
        assert not list(tmp_path.iterdir())


def test_two_processes_do_not_share_a_pid_file(tmp_path: Path, other: int) -> None:
    """The second one does not start, unless it is to take over; whoever ends first leaves the other's file alone."""
    file = tmp_path / "pid"
    file.write_text(f"{other}\n")
    assert running(str(file)) == other
    with (
        pytest.raises(StartupError, match=f"process {other} is running already"),
        pid_file(str(file), take_over=False),
    ):
        pass
    assert file.read_text() == f"{other}\n"
    with pid_file(str(file), take_over=True):
        assert file.read_text() == f"{os.getpid()}\n"
        file.write_text(f"{other}\n")
    assert file.read_text() == f"{other}\n"


def test_a_pid_file_goes_back_to_a_process_that_stays(tmp_path: Path, other: int) -> None:
    """One that was to take over has ended, and the one before is still there."""
    file = tmp_path / "pid"
    file.write_text(f"{other}\n")
    with pid_file(str(file), take_over=True):
        assert file.read_text() == f"{os.getpid()}\n"
    assert file.read_text() == f"{other}\n"


def test_a_pid_file_that_names_a_zombie(tmp_path: Path, zombie: int) -> None:
    """It has ended, although its parent has not noticed: it is in nobody's way."""
    os.kill(zombie, 0)
    file = tmp_path / "pid"
    file.write_text(f"{zombie}\n")
    assert running(str(file)) == 0
    with pid_file(str(file), take_over=False):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()


def test_a_pid_file_does_not_go_back_to_a_zombie(tmp_path: Path) -> None:
    """The process that it named has ended meanwhile."""
    file = tmp_path / "pid"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as before:
        file.write_text(f"{before.pid}\n")
        with pid_file(str(file), take_over=True):
            before.kill()
            os.waitid(os.P_PID, before.pid, os.WEXITED | os.WNOWAIT)
        assert not file.exists()


def test_without_proc_a_process_that_takes_signals_is_there(
    tmp_path: Path, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing says whether it has ended."""
    file = tmp_path / "pid"
    file.write_text(f"{other}\n")

    def refuse(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert running(str(file)) == other


def test_a_pid_file_that_cannot_be_written(tmp_path: Path) -> None:
    """The setting is named."""
    with (
        pytest.raises(StartupError, match=r"cannot write .*: No such file or directory; see pidfile"),
        pid_file(str(tmp_path / "nowhere/pid"), take_over=False),
    ):
        pass


def test_becoming_who_one_is() -> None:
    """Nothing is done, by name and by number; so it works without being root."""
    own = pwd.getpwuid(os.getuid())
    become("")
    become(own.pw_name)
    become(str(own.pw_uid))


def test_becoming_nobody_in_particular() -> None:
    """The setting is named."""
    with pytest.raises(StartupError, match="there is no user 'nobody-in-particular'; see the setting user"):
        become("nobody-in-particular")


def test_becoming_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its groups come first, as only root may set them."""
    user = next(one for one in pwd.getpwall() if one.pw_uid != os.getuid())
    done: list[Any] = []
    for name in ("initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *given, name=name: done.append((name, *given)))
    become(user.pw_name)
    assert done == [
        ("initgroups", user.pw_name, user.pw_gid),
        ("setgid", user.pw_gid),
        ("setuid", user.pw_uid),
    ]


def test_who_may_not_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is told; so it is when that user could not even read our program."""
    user = next(one for one in pwd.getpwall() if one.pw_uid != os.getuid()).pw_name

    def refuse(*given: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "initgroups", refuse)
    with pytest.raises(StartupError, match="start as root, or as that user, or remove the setting user"):
        become(user)
    for name in ("initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *given: None)
    monkeypatch.setattr(os, "access", lambda *given: False)
    with pytest.raises(StartupError, match="cannot read"):
        become(user)


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("daemon.report()", 0, ""),
        ("daemon.report('port is taken')", 1, "hyperpool: cannot start: port is taken\n"),
        ("os._exit(3)", 1, "hyperpool: cannot start: the process has ended\n"),
    ],
)
def test_a_daemon_tells_how_it_started(tmp_path: Path, ending: str, code: int, told: str) -> None:
    """Whoever starts it waits for that, and gets its standard streams back although it goes on."""
    # The module alone: with its package comes the whole data plane, which takes its time.
    program = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("process", {process.__file__!r})
sys.modules["process"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
daemon = module.Daemon()
daemon.detach()
open({str(tmp_path / "session")!r}, "w").write(f"{{os.getsid(0)}} {{os.readlink('/proc/self/fd/1')}}")
{ending}
"""
    started = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _, complaint = started.communicate(timeout=30)
    assert (started.returncode, complaint) == (code, told)
    session, output = (tmp_path / "session").read_text().split()
    assert int(session) != os.getsid(0)
    assert output == os.devnull
