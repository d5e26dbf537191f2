"""How a client that wants TLS before it says who it is comes by it, without waiting (SSLRequest, or TLS at once)."""

from __future__ import annotations

import socket
import ssl
from abc import abstractmethod
from typing import TYPE_CHECKING

from hyperpool.config.tls import ALPN
from hyperpool.errors import ProtocolError
from hyperpool.frontdoor.tls import HANDSHAKE
from hyperpool.relay.transient import TransientConnection
from hyperpool.transport.endpoint import TlsSocket, wrap

if TYPE_CHECKING:
    from hyperpool.errors import HyperpoolError
    from hyperpool.frontdoor.tls import TlsOffer
    from hyperpool.relay.loop import Relay


class EncryptingConnection(TransientConnection):
    """A client's connection that becomes one with TLS when the client wants that.

    Args:
        relay: drives it.
        sock: of the client; does not block.
        address: where it comes from, for logs.
        deadline: monotonic seconds.
        offer: TLS for this client; None if there is none to be had.

    Attributes:
        address: where it comes from, for logs.
        offer: TLS for this client.
        encrypted: it has TLS.
        endpoint: the hash of the certificate that it was shown, for channel binding; empty for none.
        fresh: it has sent nothing, and may begin with a TLS handshake.
        shaking: its socket, while a handshake is under way.
    """

    __slots__ = ("_direct", "address", "encrypted", "endpoint", "fresh", "offer", "shaking")

    def __init__(
        self, relay: Relay, sock: socket.socket, address: str, deadline: float, offer: TlsOffer | None
    ) -> None:
        self._arrive(relay, sock, address, deadline, offer)

    def _arrive(
        self, relay: Relay, sock: socket.socket, address: str, deadline: float, offer: TlsOffer | None
    ) -> None:
        """What `__init__` does; see `Connection._set_up`."""
        self._set_up(relay, sock)
        self.deadline = deadline
        self.address = address
        self.offer = offer
        self.encrypted = False
        self.endpoint = b""
        self.fresh = offer is not None
        self.shaking: TlsSocket | None = None
        self._direct = False

    def begins_with_tls(self) -> bool:
        """Whether the first byte is one of TLS, and not of a startup packet: then the handshake has begun."""
        try:
            first = self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            # Reading tells what it is.
            return False
        self.fresh = False
        if first != HANDSHAKE:
            return False
        self._direct = True
        self.start_tls()
        return True

    def start_tls(self) -> None:
        """Begin the handshake: the client's part of it comes next."""
        if self.offer is None:
            raise AssertionError("TLS was offered")
        try:
            # The descriptor stays the same, and with it what the relay waits for.
            self.shaking = wrap(self.sock, self.offer.context)
        except OSError as error:
            self.lost(f"client connection broke during login: {error.strerror}")
            return
        self.speak(self.shaking)
        self.shake_hands()

    def shake_hands(self) -> None:
        """Go on with the handshake, if one is under way, as far as it goes without waiting."""
        sock = self.shaking
        if sock is None:
            return
        try:
            sock.shake_hands()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self.relay.watch_writable(self)
            return
        except OSError as error:
            self.failed_to_encrypt(error.strerror)
            return
        self.shaking = None
        self.encrypted = True
        self.endpoint = self.offer.endpoint if self.offer is not None else b""
        self.secured()
        if self._direct and sock.selected_alpn_protocol() != ALPN:
            self.refuse(
                ProtocolError("received direct TLS connection request without ALPN protocol negotiation")
            )
        else:
            # What the kernel has announced already may lie behind the handshake.
            self.relay.resume(self)

    def flushed(self) -> None:
        """The client has taken what it was sent."""
        self.shake_hands()

    @abstractmethod
    def secured(self) -> None:
        """The handshake is over, and what comes next is encrypted."""

    @abstractmethod
    def failed_to_encrypt(self, reason: str | None) -> None:
        """The handshake has failed: close the connection."""

    @abstractmethod
    def refuse(self, error: HyperpoolError) -> None:
        """Tell the client why it is not let in, and close."""
