"""A client's login as a conversation of bytes: startup, encryption requests, authentication. Sans-IO.

It may have to wait for somebody else three times: for what is stored about the user (`begin` goes on), for the time
when another password may be tried (`proceed`), and for who knows whether a password is right (`judge`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

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
            refuses it; or returns None, and then `begin` must be called.
        tls: whether a client that asks for TLS gets it.
        may_try: asked when a password has come: whether it may be looked at now.

    Attributes:
        message: the StartupMessage, once it has come.
        packet: that as the client has sent it; empty before.
        cancel: the CancelRequest, if the client sent one instead.
        done: the client is authenticated.
        early: a password has come, and may not be looked at yet.
        authentication: how the client proves who it is, once that is known.
        pending: what must be sent in front of AuthenticationOk, once done, or in front of the error, after one.
        starts_tls: the client has been told to begin with TLS: what comes next is the handshake, and behind it, after
            `encrypted`, the login.
    """

    __slots__ = (
        "_admit",
        "_asked",
        "_frame",
        "_may_try",
        "_reader",
        "_tls",
        "authentication",
        "cancel",
        "done",
        "early",
        "message",
        "packet",
        "pending",
        "starts_tls",
    )

    def __init__(
        self,
        admit: Callable[[StartupMessage], ClientAuthentication | None],
        *,
        tls: bool = False,
        may_try: Callable[[], bool] = lambda: True,
    ) -> None:
        self._admit = admit
        self._may_try = may_try
        self._frame: tuple[int, bytes] | None = None
        self.early = False
        self._tls = tls
        self.starts_tls = False
        self._reader = FrameReader()
        self._asked: set[type] = set()
        self.authentication: ClientAuthentication | None = None
        self.message: StartupMessage | None = None
        self.packet = b""
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
        return self._go_on()

    @property
    def blank(self) -> bool:
        """Nothing has come that a StartupMessage might be a part of."""
        return self.message is None and self._reader.empty

    @property
    def held(self) -> bool:
        """It waits for somebody else than the client: `begin`, `proceed` or `judge` must be called."""
        authentication = self.authentication
        if authentication is None:
            return self.message is not None
        return self.early or authentication.password is not None

    def begin(self, authentication: ClientAuthentication) -> bytes:
        """How the client must prove who it is has been found out; result and errors as of `receive`."""
        self._begin(authentication)
        return self._go_on()

    def resume(self, packet: bytes, message: StartupMessage, authentication: ClientAuthentication) -> bytes:
        """A client has sent this StartupMessage, and what follows from it is known; result and errors as of `receive`.

        Args:
            packet: in place of `receive`; not more than it has come.
            message: the same, parsed.
            authentication: in place of what `admit` would return.
        """
        self.packet, self.message = packet, message
        return self.begin(authentication)

    def proceed(self) -> bytes:
        """Another password may be tried, unless somebody was faster; result and errors as of `receive`."""
        self.early = False
        return self._go_on()

    def judge(self, *, matches: bool) -> bytes:
        """The password of `authentication` has been checked; result and errors as of `receive`."""
        authentication = self.authentication
        if authentication is not None and authentication.password is not None:
            self.pending += authentication.conclude(matches=matches)
            self.done = authentication.done
        return self._go_on()

    def _go_on(self) -> bytes:
        while not (self.done or self.cancel or self.starts_tls or self.held):
            step = self._start() if self.authentication is None else self._authenticate(self.authentication)
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

    def declined(self) -> None:
        """The client has been told that there is no TLS: it must not ask for it again."""
        self._asked.add(SSLRequest)

    def end(self) -> None:
        """It is over, and asks nobody anything any more: nothing is left that refers to itself."""
        self._admit = self._may_try = _over

    def leftover(self) -> bytes:
        """What the client has sent behind its login."""
        return self._reader.leftover()

    def _start(self) -> bytes | None:
        packet = self._reader.next_startup_packet()
        if packet is None:
            return None
        message = parse_startup(packet)
        if isinstance(message, StartupMessage):
            self.message, self.packet = message, (len(packet) + 4).to_bytes(4) + packet
            authentication = self._admit(message)
            if authentication is not None:
                self._begin(authentication)
            return b""
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
        frame = self._frame or self._reader.next_frame()
        if frame is None:
            return None
        if authentication.decisive and not self._may_try():
            self._frame, self.early = frame, True
            return None
        self._frame = None
        step = authentication.receive(*frame)
        self.done = authentication.done
        return step

    def _begin(self, authentication: ClientAuthentication) -> None:
        if self.message is None:
            raise AssertionError("it begins with a StartupMessage")
        self.authentication = authentication
        self.pending += negotiate(self.message) + authentication.start()
        self.done = authentication.done


def _over(*_arguments: object) -> NoReturn:
    raise AssertionError("the login is over")
