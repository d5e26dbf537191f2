"""Where the time goes: what perf tells, and what is to be explained."""

from __future__ import annotations

import pytest

from benchmarks.profiles import PARTS, Question, explanations, part_of, questions, shares_of
from benchmarks.results import Cell, Result
from benchmarks.run import closer_looks
from benchmarks.scenarios.catalogue import chosen
from benchmarks.summary import summarise

SCRIPT = """\
        ffffffff8206d99a tcp_sendmsg_locked ([kernel.kallsyms])
        ffffffff81ebd9e1 __sys_sendto ([kernel.kallsyms])
        ffffffff8225b0ca do_syscall_64 ([kernel.kallsyms])
            7f2189192090 send (/lib/x86_64-linux-gnu/libc.so.6)

            7f218916943d __pyx_f_9hyperpool (/srv/hyperpool/relay/connection.cpython-311-x86_64-linux-gnu.so)

            7f218b84d432 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
            7f218b6fb699 main (/usr/bin/python3)

"""

KERNEL = "[kernel.kallsyms]"


def cells(factor: float) -> list[Cell]:
    """Two rounds of one scenario, with hyperpool at some part of pgbouncer's rate, and its CPU time."""
    return [
        Cell("login", "login-scram-16", target, number, Result({"rate": 100.0 * by, "cpu_us": 50.0 / by}))
        for number in (1, 2)
        for target, by in (("pgbouncer", 1.0), ("hyperpool", factor))
    ]


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ([("tcp_ack", KERNEL), ("net_rx_action", KERNEL), ("__sys_sendto", KERNEL)], "kernel: sending"),
        ([("copy_to_user", KERNEL), ("__x64_sys_recvfrom", KERNEL)], "kernel: receiving"),
        ([("schedule", KERNEL), ("do_epoll_wait", KERNEL)], "kernel: waiting for events"),
        ([("ep_insert", KERNEL), ("do_epoll_ctl", KERNEL), ("__x64_sys_epoll_ctl", KERNEL)], "kernel: connections"),
        ([("tcp_close", KERNEL), ("__fput", KERNEL), ("task_work_run", KERNEL)], "kernel: connections"),
        ([("asm_sysvec_apic_timer_interrupt", KERNEL)], "kernel: the rest"),
        ([("nf_hook", "/lib/modules/nf_tables.ko"), ("__sys_sendto", KERNEL)], "kernel: sending"),
        ([("x", "/a/hyperpool/wire/scan.cpython-311-x86_64-linux-gnu.so")], "the pooler's own machine code"),
        ([("x", "/usr/sbin/pgbouncer")], "the pooler's own machine code"),
        ([("x", "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so")], "Python"),
        ([("x", "/usr/bin/python3.11")], "Python"),
        ([("x", "/usr/lib/libcrypto.so.3")], "libraries"),
    ],
)  # fmt: skip
def test_parts(stack: list[tuple[str, str]], part: str) -> None:
    """In the kernel the system call counts, elsewhere whose code it is."""
    assert part_of(stack) == part
    assert part in PARTS


def test_shares() -> None:
    """Of all samples, the part of each; a few samples say nothing."""
    assert shares_of(SCRIPT.splitlines()) == {}
    shares = shares_of((SCRIPT * 50).splitlines())
    third = pytest.approx(1 / 3)
    assert shares == {"kernel: sending": third, "the pooler's own machine code": third, "Python": third}
    assert shares_of((SCRIPT * 50 + "garbage\n").splitlines()) == shares


def test_what_is_asked() -> None:
    """A goal that is missed, once for each scenario; not one that is reached."""
    assert questions(cells(0.5)) == [Question("login-scram-16", "hyperpool", "pgbouncer")]
    assert questions(cells(1.5)) == []


def test_closer_looks() -> None:
    """Both sides are looked at, and the reference once."""
    asked = [Question("hot-simple-16", target, "pgbouncer") for target in ("hyperpool", "hyperpool-cache")]
    steps = closer_looks(chosen(["hot-simple-16"]), asked)
    assert [step.target for step in steps] == ["pgbouncer", "hyperpool", "hyperpool-cache"]
    assert {step.round for step in steps} == {0}


def test_explanations() -> None:
    """Shares are of what the rounds have measured; what was not measured is not explained."""
    profiles = [
        Cell("login", "login-scram-16", "pgbouncer", 0, profile={"kernel: sending": 1.0}),
        Cell("login", "login-scram-16", "hyperpool", 0, profile={"kernel: sending": 0.25, "Python": 0.75}),
        Cell("login", "login-trust-16", "hyperpool", 0, profile={"Python": 1.0}),
        Cell("login", "login-scram-16", "hyperpool-workers", 0, error="it ended"),
    ]
    (one,) = explanations(summarise(cells(0.5)), profiles)
    assert (one.scenario, one.per, one.targets) == ("login-scram-16", "login", ["pgbouncer", "hyperpool"])
    assert one.lines == [("kernel: sending", [50.0, 25.0]), ("Python", [None, 75.0])]
    assert one.totals == [50.0, 100.0]
