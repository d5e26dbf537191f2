"""A client's login as a conversation of bytes: startup, encryption requests, authentication. Sans-IO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperpool.errors import ProtocolError
from hyperpool.wire.frames import FrameReader
from hyperpool.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    negotiate,
    parse_startup,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpool.auth.server_side import ClientAuthentication


class Login:
    """Feed what the client sends to `receive` and send it what that returns, until `done` or `cancel` is set.

    Args:
        admit: called with the StartupMessage; returns how the client must prove who it is, or raises the error that
            refuses it.
        tls: whether a client that asks for TLS gets it.

    Attributes:
        message: the StartupMessage, once it has come.
        cancel: the CancelRequest, if the client sent one instead.
        done: the client is authenticated.
        pending: what must be sent in front of AuthenticationOk, once done, or in front of the error, after one.
        starts_tls: the client has been told to begin with TLS: what comes next is the handshake, and behind it, after
            `encrypted`, the login.
    """

    __slots__ = (
        "_admit",
        "_asked",
        "_authentication",
        "_reader",
        "_tls",
        "cancel",
        "done",
        "message",
        "pending",
        "starts_tls",
    )

    def __init__(self, admit: Callable[[StartupMessage], ClientAuthentication], *, tls: bool = False) -> None:
        self._admit = admit
        self._tls = tls
        self.starts_tls = False
        self._reader = FrameReader()
        self._asked: set[type] = set()
        self._authentication: ClientAuthentication | None = None
        self.message: StartupMessage | None = None
        self.cancel: CancelRequest | None = None
        self.done = False
        self.pending = b""

    def receive(self, data: bytes) -> bytes:
        """Take in what the client sent.

        Returns:
            What to send to it.

        Raises:
            ProtocolError: the client broke the protocol.
            AuthenticationError: it could not prove who it is.
            ClientRefused: whatever `admit` raises.
        """
        self._reader.feed(data)
        while not (self.done or self.cancel or self.starts_tls):
            step = self._start() if self._authentication is None else self._authenticate(self._authentication)
            if step is None:
                break
            self.pending += step
        if self.done:
            return b""
        answer, self.pending = self.pending, b""
        return answer

    def encrypted(self) -> None:
        """TLS has begun: nothing of the kind may be asked for again."""
        self.starts_tls = False
        self._asked |= {SSLRequest, GSSENCRequest}

    def leftover(self) -> bytes:
        """What the client has sent behind its login."""
        return self._reader.leftover()

    def _start(self) -> bytes | None:
        packet = self._reader.next_startup_packet()
        if packet is None:
            return None
        message = parse_startup(packet)
        if isinstance(message, StartupMessage):
            self.message = message
            self._authentication = self._admit(message)
            first = negotiate(message) + self._authentication.start()
            self.done = self._authentication.done
            return first
        if isinstance(message, CancelRequest):
            self.cancel = message
            return b""
        if type(message) in self._asked:
            raise ProtocolError("repeated request for encryption")
        self._asked.add(type(message))
        if isinstance(message, GSSENCRequest) or not self._tls:
            return b"N"
        if self._reader.leftover():
            # Somebody in the middle would have its words taken for the client's (CVE-2021-23214).
            raise ProtocolError("received unencrypted data after SSL request")
        self.starts_tls = True
        return b"S"

    def _authenticate(self, authentication: ClientAuthentication) -> bytes | None:
        frame = self._reader.next_frame()
        if frame is None:
            return None
        step = authentication.receive(*frame)
        self.done = authentication.done
        return step
