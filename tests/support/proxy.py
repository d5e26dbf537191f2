"""A TCP proxy that breaks byte streams on purpose.

It stands between a client and the pooler or between the pooler and PostgreSQL. Two threads per connection
copy bytes; a `Fault` per direction says what goes wrong. Changing a `Fault` takes effect on open connections
too; putting a new one in its place takes effect on connections to come.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

import attrs

if TYPE_CHECKING:
    from types import TracebackType


@attrs.define
class Fault:
    """What goes wrong in one direction.

    Attributes:
        fragment: write at most so many bytes at a time; 0 passes what was read in one write.
        delay: wait so many seconds before each write.
        cut_after: end both sides once so many bytes have passed; None never does.
        stalled: swallow nothing and pass nothing while this is set (the peer's window fills up).
        passed: how many bytes have passed, over all connections with this fault.
    """

    fragment: int = 0
    delay: float = 0.0
    cut_after: int | None = None
    stalled: bool = False
    passed: int = 0


class FaultProxy:
    """Listens on a loopback port and forwards to a target.

    Args:
        target_port: the port on 127.0.0.1 to forward to.

    Attributes:
        port: the port that it listens on.
        to_target: the fault on the way from those who connect to the target.
        from_target: the fault on the way back.
        accepted: how many connections were ever accepted.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.to_target = Fault()
        self.from_target = Fault()
        self.accepted = 0
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn(self, target: object, *args: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port), timeout=10)
            except OSError:
                near.close()
                continue
            for sock in (near, far):
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(sock)
            self._spawn(self._copy, near, far, self.to_target)
            self._spawn(self._copy, far, near, self.from_target)

    def _copy(self, source: socket.socket, sink: socket.socket, fault: Fault) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._wait_unless_stalled(fault)
                with self._changed:
                    if fault.cut_after is not None:
                        data = data[: max(fault.cut_after - fault.passed, 0)]
                    fault.passed += len(data)
                    cut = fault.cut_after is not None and fault.passed >= fault.cut_after
                self._write(sink, data, fault)
                if cut:
                    _shut(source)
                    break
        _shut(sink)

    def _write(self, sink: socket.socket, data: bytes, fault: Fault) -> None:
        step = fault.fragment or len(data) or 1
        for at in range(0, len(data), step):
            if fault.delay:
                self._closing.wait(fault.delay)
            sink.sendall(data[at : at + step])

    def _wait_unless_stalled(self, fault: Fault) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not fault.stalled or self._closing.is_set())

    def stall(self, *faults: Fault) -> None:
        """Stop passing bytes in these directions, without closing anything."""
        with self._changed:
            for fault in faults:
                fault.stalled = True

    def resume(self, *faults: Fault) -> None:
        """Pass bytes again."""
        with self._changed:
            for fault in faults:
                fault.stalled = False
            self._changed.notify_all()

    def cut_all(self) -> None:
        """Shut down every open connection on both sides."""
        for sock in self._open:
            _shut(sock)

    def close(self) -> None:
        """Close the listener and every connection and wait for the threads."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        _shut(self._listener)
        self._listener.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread of the fault proxy hangs"
        for sock in self._open:
            sock.close()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
