"""Listening sockets: opening them, and dividing them among processes."""

from __future__ import annotations

import errno
import grp
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from hyperpool.errors import StartupError
from hyperpool.transport.passed import CLIENTS, PassedSockets, socket_name
from hyperpool.transport.sockets import TcpOptions, address_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hyperpool.config import PoolerSettings

_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@attrs.define(eq=False)
class Listener:
    """A listening socket.

    Attributes:
        sock: non-blocking.
        name: its address, for people.
        path: the file of a Unix socket, removed on close; None for TCP and abstract names, for a file that somebody
            else looks after, and afterwards.
        fixed: it was passed to this process in the place of what the settings say.
        shared: another process listens on it, too, and looks after the file.
    """

    sock: socket.socket
    name: str
    path: Path | None = None
    fixed: bool = False
    shared: bool = False
    _identity: tuple[int, int] = attrs.field(init=False)

    @_identity.default
    def _identify(self) -> tuple[int, int]:
        return _identity(self.path) if self.path is not None else (0, 0)

    def configure(self, options: TcpOptions) -> None:
        """Set TCP options for the connections to come, unless it has stopped listening."""
        if self.sock.family != socket.AF_UNIX and self.sock.fileno() >= 0:
            options.apply_to_listener(self.sock)

    def close(self) -> None:
        """Stop listening, and remove a Unix socket's file; once, since it may be another process's afterwards."""
        self.sock.close()
        if self.path is not None:
            # Another process may have taken its place (-R).
            if not self.shared and _identity(self.path) == self._identity:
                self.path.unlink(missing_ok=True)
            self.path = None


def open_listeners(
    settings: PoolerSettings, passed: PassedSockets | None = None, *, take_over: bool = False
) -> list[Listener]:
    """Listen on every configured address; or on the sockets that stand in their place, if there are any.

    Args:
        settings: the addresses, and options.
        passed: sockets that are open already; those that are of use here are taken.
        take_over: put the Unix socket in the place of another process's.

    Raises:
        StartupError: an address cannot be had; nothing is left open then, but what has not been taken.
    """
    passed = passed or PassedSockets()
    listeners = [Listener(sock, socket_name(sock), fixed=True) for sock in passed.fixed(CLIENTS)]
    try:
        if listeners:
            _prepare_fixed(listeners, settings)
            return listeners
        for host in settings.listen_addr:
            _listen_tcp(host, settings, passed, listeners)
        if settings.unix_socket_dir:
            listeners.append(_listen_unix(settings, passed, take_over=take_over))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _prepare_fixed(listeners: list[Listener], settings: PoolerSettings) -> None:
    """Listen on sockets that stand in the place of what the settings say.

    Raises:
        StartupError: they are no sockets to listen on.
    """
    for listener in listeners:
        try:
            _with_options(listener.sock, settings)
        except OSError as error:
            raise StartupError(
                f"cannot listen on {listener.name}, which was passed to this process: {error.strerror}; "
                "ListenStream= is what makes such sockets in a systemd unit"
            ) from error


def _listen_tcp(
    host: str, settings: PoolerSettings, passed: PassedSockets, listeners: list[Listener]
) -> None:
    """Add the listeners for one configured address, those left out that are there already.

    For ``*``, a family of addresses that the machine does not have is left out, too.
    """
    port = settings.listen_port
    try:
        resolved = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a valid host name"
        raise StartupError(f"cannot listen on {host}:{port}: {reason}; see listen_addr") from error
    absent: StartupError | None = None
    for family, kind, proto, _, address in resolved:
        name = address_name(family, address)
        if name in {listener.name for listener in listeners}:
            continue
        try:
            for sock, is_passed in _sockets_of(family, kind, proto, address, settings, passed):
                listeners.append(Listener(_with_options(sock, settings), name, shared=is_passed))
        except OSError as error:
            failure = StartupError(
                f"cannot listen on {name}: {error.strerror}; see listen_addr and listen_port"
            )
            if host != "*" or error.errno not in _ABSENT:
                raise failure from error
            absent = failure
    if absent is not None and not listeners:
        raise absent


def _sockets_of(
    family: int, kind: int, proto: int, address: object, settings: PoolerSettings, passed: PassedSockets
) -> Iterator[tuple[socket.socket, bool]]:
    """The sockets of an address, and whether they were passed: several, if they were those of several processes.

    Args:
        family: as ``getaddrinfo`` tells it.
        kind: the same.
        proto: the same.
        address: the same.
        settings: options.
        passed: sockets that are open already.

    Raises:
        OSError: there is none, and the address cannot be had.
    """
    sock = passed.bound(CLIENTS, address)
    if sock is None:
        yield _bind(family, kind, proto, address, settings), False
    while sock is not None:
        yield sock, True
        sock = passed.bound(CLIENTS, address)


def listen_for_each(
    listeners: Sequence[Listener], settings: PoolerSettings, processes: int
) -> list[list[Listener]]:
    """Divide listening sockets among several processes.

    Each gets TCP sockets of its own, so that the kernel spreads clients over processes; where there are fewer of an
    address than processes, more are opened. Where there are more, since there have been more processes before, some
    get several: clients may wait in the queue of each. Unix sockets, and those that were passed in the place of what
    the settings say, are shared by all.

    Args:
        listeners: of `open_listeners`, with ``so_reuseport``.
        settings: options.
        processes: how many.

    Returns:
        Those of each process. If it fails, those that it has opened are closed.

    Raises:
        StartupError: an address cannot be had once more.
    """
    shared: list[Listener] = []
    own: dict[str, list[Listener]] = {}
    for listener in listeners:
        if listener.fixed or listener.sock.family == socket.AF_UNIX:
            shared.append(listener)
        else:
            own.setdefault(listener.name, []).append(listener)
    opened: list[Listener] = []
    try:
        for found in own.values():
            # It may have been opened for one process alone.
            found[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(found) < processes:
                opened.append(_another(found[0], settings))
                found.append(opened[-1])
    except OSError as error:
        for listener in opened:
            listener.close()
        raise StartupError(
            f"cannot listen on {found[0].name} once for each worker: {error.strerror}; see listen_addr"
        ) from error
    return [
        [*(one for found in own.values() for one in found[process::processes]), *shared]
        for process in range(processes)
    ]


def _another(listener: Listener, settings: PoolerSettings) -> Listener:
    """Listen on the address of a listener once more."""
    sock = listener.sock
    another = _bind(sock.family, sock.type, sock.proto, sock.getsockname(), settings)
    return Listener(_with_options(another, settings), listener.name)


def check_addresses(settings: PoolerSettings) -> None:
    """Look whether the TCP addresses are free, without listening on them: nobody can connect meanwhile.

    Raises:
        StartupError: one cannot be had.
    """
    port = settings.listen_port
    for host in settings.listen_addr:
        try:
            resolved = socket.getaddrinfo(
                None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError):
            # Whoever opens it tells what is wrong.
            continue
        for family, kind, proto, _, address in resolved:
            try:
                _bind(family, kind, proto, address, settings).close()
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise StartupError(
                        f"cannot listen on {address_name(family, address)}: {error.strerror}; "
                        "see listen_addr and listen_port"
                    ) from error


def _bind(family: int, kind: int, proto: int, address: object, settings: PoolerSettings) -> socket.socket:
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.so_reuseport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]  # what getaddrinfo returned for this family
    except OSError:
        sock.close()
        raise
    return sock


def _with_options(sock: socket.socket, settings: PoolerSettings) -> socket.socket:
    """Listen on a socket that is bound, with the settings' options; it may have been listened on before.

    Raises:
        OSError: the kernel refuses; the socket is closed.
    """
    try:
        if sock.family != socket.AF_UNIX:
            TcpOptions.of(settings).apply_to_listener(sock)
        sock.listen(settings.listen_backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _listen_unix(settings: PoolerSettings, passed: PassedSockets, *, take_over: bool) -> Listener:
    name = f"{settings.unix_socket_dir}/.s.PGSQL.{settings.listen_port}"
    path = None if name.startswith("@") else Path(name)
    address = f"\0{name[1:]}".encode() if path is None else name
    found = passed.bound(CLIENTS, address)
    if found is not None and path is not None and not path.is_socket():
        # Its name is gone, and cannot be had back.
        found.close()
        found = None
    sock = found or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if found is None:
            if path is not None and path.is_socket() and (take_over or is_abandoned(path)):
                path.unlink(missing_ok=True)
            sock.bind(address)
        if path is not None:
            if settings.unix_socket_group:
                os.chown(path, -1, _group(settings.unix_socket_group))
            path.chmod(settings.unix_socket_mode)
        _with_options(sock, settings)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise StartupError(
            f"cannot listen on {name}: {reason}; see unix_socket_dir and listen_port"
        ) from error
    return Listener(sock, name, path, shared=found is not None)


def _group(name: str) -> int:
    """The id of a group that is named, or is its id already.

    Raises:
        OSError: there is no such group.
    """
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {name!r} (unix_socket_group)") from None


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one that has its name later."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def is_abandoned(path: Path, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether nobody listens on a Unix socket: its file was left by a crash.

    A process whose queue of connections is full does listen, and is not waited for.

    Args:
        path: the file.
        kind: the type of the socket.
    """
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED
