"""A TLS socket that behaves as the relay wants a socket to behave, over edge-triggered events."""

from __future__ import annotations

import fcntl
import select
import shutil
import socket
import ssl
import subprocess
import sys
import termios
from contextlib import closing, contextmanager, suppress
from select import EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from typing import TYPE_CHECKING

import pytest

from hyperpool.transport.endpoint import TlsSocket, wrap
from tests.support.certificates import OTHER_CA, client_side, issue, server_side
from tests.support.network import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = server_side()
CLIENT = client_side()
FAMILIES = ["tcp", "unix"]


def connected(family: str = "tcp") -> tuple[socket.socket, socket.socket]:
    """Two ends of a non-blocking connection."""
    if family == "unix":
        ends = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            ends = near, listener.accept()[0]
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        end.setblocking(False)
    return ends


def shake_hands(*sockets: TlsSocket) -> None:
    """Do the handshake of both ends, in turns."""
    for _ in range(20):
        waiting = 0
        for sock in sockets:
            try:
                sock.shake_hands()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                waiting += 1
        if not waiting:
            return
    raise AssertionError("the handshake does not end")


@contextmanager
def pair(
    family: str = "tcp", server: ssl.SSLContext = SERVER, client: ssl.SSLContext = CLIENT
) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    """The client's and the server's end of a TLS connection, after the handshake."""
    near, far = connected(family)
    with closing(wrap(near, client, "localhost")) as ours, closing(wrap(far, server)) as theirs:
        shake_hands(ours, theirs)
        # Take the session tickets that Python's servers send.
        with pytest.raises(BlockingIOError):
            ours.recv_into(memoryview(bytearray(10)))
        yield ours, theirs


def read(sock: TlsSocket, size: int = 1 << 20) -> bytes:
    """Read once."""
    buffer = bytearray(size)
    return bytes(buffer[: sock.recv_into(memoryview(buffer))])


def read_within(sock: TlsSocket, size: int = 1 << 20) -> bytes:
    """Read once, as soon as there is something to read."""
    with epoll() as events:
        events.register(sock, EPOLLIN)
        assert events.poll(5)
    return read(sock, size)


# -- Reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_go_both_ways(family: str) -> None:
    """What one end sends, the other one reads."""
    with pair(family) as (ours, theirs):
        assert ours.send(b"question") == 8
        assert read_within(theirs) == b"question"
        assert theirs.send(memoryview(b"answer"), socket.MSG_MORE) == 6
        assert read_within(ours) == b"answer"


def test_nothing_to_read() -> None:
    """An error that says so, and can be repeated."""
    with pair() as (ours, _):
        for _attempt in range(2):
            with pytest.raises(BlockingIOError):
                read(ours)
            with pytest.raises(BlockingIOError):
                ours.recv(1)


def test_a_read_takes_all_records_that_there_are() -> None:
    """A read that is not full leaves nothing behind, in the kernel or in OpenSSL: no other event would come."""
    with pair() as (ours, theirs):
        for number in range(50):
            # On a busy machine, the kernel may want to hear from the other end first.
            assert select.select([], [theirs], [], 10)[1]
            theirs.send(bytes([number]) * 1000)

        assert len(read_within(ours)) == 50_000
        with pytest.raises(BlockingIOError):
            read(ours)


@pytest.mark.parametrize("size", [1, 999, 1000, 16_384])
def test_a_full_read_leaves_the_rest_for_the_next(size: int) -> None:
    """However the view's size relates to that of records."""
    sent = bytes(range(250)) * 130
    with pair() as (ours, theirs):
        assert theirs.send(sent) == len(sent)
        got = read_within(ours, size)
        while len(got) < len(sent):
            more = read(ours, size)
            assert len(more) == min(size, len(sent) - len(got))
            got += more

    assert got == sent


def test_a_record_that_comes_in_pieces() -> None:
    """Half a record is nothing, and no error."""
    (near, middle), (middle2, far) = connected(), connected()
    ours, theirs = wrap(near, CLIENT, "localhost"), wrap(far, SERVER)
    with closing(ours), closing(theirs), closing(middle), closing(middle2):

        def carry() -> None:
            for source, sink in ((middle, middle2), (middle2, middle)):
                with suppress(BlockingIOError):
                    sink.send(source.recv(65536))

        for _ in range(6):
            for sock in (ours, theirs):
                with suppress(ssl.SSLWantReadError):
                    sock.shake_hands()
            carry()
        with pytest.raises(BlockingIOError):
            read(ours)
        theirs.send(b"whole")
        record = middle2.recv(65536)
        for at in range(len(record) - 1):
            middle.send(record[at : at + 1])
            with pytest.raises(BlockingIOError):
                read(ours)
        middle.send(record[-1:])

        assert read(ours) == b"whole"


# -- The end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("farewell", [True, False], ids=["farewell", "none"])
def test_an_end_is_an_end(family: str, farewell: bool) -> None:
    """With the farewell of TLS and without it, again and again."""
    with pair(family) as (ours, theirs):
        if farewell:
            theirs.close()
        else:
            raw = socket.socket(fileno=theirs.detach())
            raw.close()
        assert [read_within(ours) for _ in range(3)] == [b"", b"", b""]
        assert ours.recv(10) == b""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["farewell", "nonsense"])
def test_the_kernel_tells_of_an_end_behind_bytes(family: str, end: str) -> None:
    """A read gives the bytes; a new event leads to another read, and that tells of the end."""
    with pair(family) as (ours, theirs), epoll() as events:
        theirs.send(b"last words")
        if end == "farewell":
            # Half of a close: the connection itself stays open, so that the kernel has no news of it.
            theirs._say_farewell()
        else:
            socket.socket.send(theirs, b"\x17\x03\x03\x00\x20" + bytes(32))
        events.register(ours, EPOLLIN | EPOLLRDHUP | EPOLLET)
        assert events.poll(5)
        assert read(ours) == b"last words"

        ((_, mask),) = events.poll(5)

        assert mask & EPOLLIN
        if end == "farewell":
            assert read(ours) == b""
        else:
            for _ in range(2):
                with pytest.raises(OSError, match="TLS: "):
                    read(ours)


def test_a_shutdown_waits_for_the_end_of_the_peer() -> None:
    """It says farewell behind the last message; what the peer sends meanwhile is taken, for what it is worth."""
    with pair() as (ours, theirs):
        ours.send(b"unread")
        theirs.send(b"last message")
        theirs.shutdown(socket.SHUT_WR)
        assert read_within(ours) == b"last message"
        assert read(ours) == b""
        with pytest.raises(BlockingIOError):
            read(theirs)
        ours.send(b"not for you")
        assert len(read_within(theirs)) > 11
        ours.close()
        while read_within(theirs):
            pass


def test_a_close_does_not_wait() -> None:
    """Nor does it fail, with a peer that takes nothing, or is gone."""
    with pair() as (ours, theirs):
        fill(ours)
        ours.close()
        ours.close()
        assert ours.fileno() == -1
    with pair() as (ours, theirs):
        theirs.close()
        ours.close()
        assert read(ours) == b""
        with pytest.raises(OSError, match=r"\(closed|not connected"):
            ours.send(b"x")


def test_a_close_within_the_handshake() -> None:
    """Nothing is said that is not TLS."""
    near, far = connected()
    with closing(far):
        ours = wrap(near, CLIENT, "localhost")
        ours.close()
        assert far.recv(10) == b""


# -- Sending -----------------------------------------------------------------------------------------------------


def fill(sock: TlsSocket) -> int:
    """Send until nothing is taken any more; returns how much was."""
    total = 0
    while True:
        try:
            total += sock.send(bytes(100_000))
        except BlockingIOError:
            return total


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_taken_is_sent_again(family: str) -> None:
    """As the relay's outbox does it: the same bytes in front, more behind, whenever the kernel says so."""
    source = b"".join(number.to_bytes(4) for number in range(500_000))
    with pair(family) as (ours, theirs), epoll() as events:
        rest, got = memoryview(source), bytearray()
        events.register(ours, EPOLLOUT | EPOLLET)
        blocked = 0
        while rest or len(got) < len(source):
            while rest:
                try:
                    rest = rest[ours.send(rest) :]
                except BlockingIOError:
                    blocked += 1
                    break
            before = len(got)
            try:
                got += read(theirs, 30_000)
            except BlockingIOError:
                assert len(got) == before
            if rest and blocked > 2 and len(rest) < len(source) // 2:
                # Another buffer with the same bytes will do.
                rest = memoryview(bytes(rest))

    assert blocked > 0
    assert bytes(got) == source


def test_a_small_message_that_is_begun_is_finished_behind_others() -> None:
    """A record that the kernel has taken half of is finished by a longer send that begins with the same bytes."""
    with pair() as (ours, theirs):
        count = 0
        while True:
            try:
                ours.send(b"small")
                count += 1
            except BlockingIOError:
                break
        rest = memoryview(b"small" + b"and more" * 10_000)
        wanted = b"small" * count + rest
        got = bytearray()
        while len(got) < len(wanted):
            with suppress(BlockingIOError):
                got += read(theirs)
            with suppress(BlockingIOError):
                rest = rest[ours.send(rest) :] if rest else rest

        assert bytes(got) == wanted


def test_other_bytes_in_front_are_an_error() -> None:
    """What is begun must be finished; that is not silently mixed up."""
    with pair() as (ours, _):
        fill(ours)
        with pytest.raises(OSError, match="TLS: bad length"):
            ours.send(b"something else")


def test_the_kernel_tells_when_it_takes_more() -> None:
    """An event comes that lets the send go on."""
    with pair() as (ours, theirs), epoll() as events:
        fill(ours)
        events.register(ours, EPOLLOUT | EPOLLET)
        assert events.poll(0) == []
        while True:
            try:
                read(theirs)
            except BlockingIOError:
                break

        ((_, mask),) = events.poll(5)

        assert mask & EPOLLOUT
        assert ours.send(bytes(100_000)) > 0


# -- New keys ----------------------------------------------------------------------------------------------------


@contextmanager
def openssl_server(directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """OpenSSL's own server, which does what its standard input says; and its port."""
    files = issue(directory, "localhost")
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", files.cert, "-key", files.key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with server:
        assert server.stdout is not None
        try:
            while b"ACCEPT" not in server.stdout.readline():
                pass
            yield server, port
        finally:
            server.kill()


def tell(server: subprocess.Popen[bytes], line: bytes) -> None:
    """Write a line, and wait until it has been read: OpenSSL takes what it reads at once for one command."""
    assert server.stdin is not None
    server.stdin.write(line)
    server.stdin.flush()
    fd = server.stdin.fileno()

    def is_read() -> bool:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder) == 0

    eventually(is_read, within=5, what="OpenSSL reads its input")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl program")
def test_new_keys(tmp_path: Path) -> None:
    """TLS 1.3: the peer changes its keys, and asks us for new ones; nothing is lost, and no wakeup either."""
    with openssl_server(tmp_path) as (server, port):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        with closing(wrap(sock, CLIENT, "localhost")) as ours, epoll() as events:
            events.register(ours, EPOLLIN | EPOLLET)
            while True:
                try:
                    ours.shake_hands()
                    break
                except ssl.SSLWantReadError:
                    assert events.poll(5)
            for number in range(3):
                tell(server, b"K\n")
                tell(server, b"line %d\n" % number)
                got = b""
                while b"line %d\n" % number not in got:
                    assert events.poll(5)
                    with suppress(BlockingIOError):
                        while True:
                            got += read(ours)
                assert got == b"line %d\n" % number
                assert ours.send(b"echo %d\n" % number) == 7
                assert server.stdout is not None
                while b"echo %d\n" % number not in server.stdout.readline():
                    pass


# -- The handshake -----------------------------------------------------------------------------------------------


def failed_handshake(context: ssl.SSLContext, name: str, server: ssl.SSLContext = SERVER) -> str:
    """What is said of a handshake that fails."""
    near, far = connected()
    ours, theirs = wrap(near, context, name), wrap(far, server)
    with closing(ours), closing(theirs), pytest.raises(OSError, match=r"\w") as caught:
        shake_hands(ours, theirs)
    return str(caught.value.strerror)


def test_errors_are_for_people() -> None:
    """They say what is wrong, not in which line of OpenSSL."""
    assert failed_handshake(client_side(OTHER_CA), "localhost").startswith(
        "the certificate is not accepted: "
    )
    assert "db.example.com" in failed_handshake(CLIENT, "db.example.com")


def test_no_tls_at_all() -> None:
    """A peer that says something else."""
    near, far = connected()
    with closing(far), closing(wrap(near, CLIENT, "localhost")) as ours:
        far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(OSError, match="TLS: wrong version number"):
            shake_hands(ours)


def test_a_peer_that_hangs_up() -> None:
    """Before a handshake, and within it."""
    near, far = connected()
    far.close()
    with closing(wrap(near, CLIENT, "localhost")) as ours, pytest.raises(OSError, match="other side ended"):
        shake_hands(ours)


def test_a_socket_that_is_not_connected() -> None:
    """It is closed, and there is an error."""
    sock = socket.socket()
    sock.setblocking(False)
    with closing(wrap(sock, CLIENT, "localhost")) as ours, pytest.raises(OSError, match="not connected"):
        shake_hands(ours)
