"""The relay's own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from hyperpool.config import Settings


@attrs.frozen
class RelayOptions:
    """The relay's own settings.

    Attributes:
        buffer: bytes read at once.
        linger: seconds to wait for more events before going back to Trio.
        slice: seconds of work after which Trio gets a checkpoint.
        max_packet_size: the longest message accepted from a client, in bytes.
        cancel_wait_timeout: seconds that a server is held back for a cancel request under way; 0 for no limit.
        max_prepared_memory: bytes that the texts of clients' prepared statements may take.
        peer_id: put into the cancel keys of clients; 0 for none.
        extended_only: refuse the simple query protocol.
        log_connections: log each client that comes.
        log_disconnections: log each client that goes, with the reason.
        log_errors: log the errors that clients are told.
        log_query_texts: log slow queries with their literals.
    """

    buffer: int = 262144
    linger: float = 0.001
    slice: float = 0.002
    max_packet_size: int = 2147483647
    cancel_wait_timeout: float = 10.0
    max_prepared_memory: int = 256 * 1024**2
    peer_id: int = 0
    extended_only: bool = False
    log_connections: bool = True
    log_disconnections: bool = True
    log_errors: bool = True
    log_query_texts: bool = False

    @classmethod
    def of(cls, whole: Settings) -> RelayOptions:
        """The options that the settings ask for."""
        settings = whole.pooler
        return cls(
            buffer=settings.relay_buffer,
            linger=settings.relay_linger,
            slice=settings.relay_slice,
            max_packet_size=settings.max_packet_size,
            cancel_wait_timeout=settings.cancel_wait_timeout,
            max_prepared_memory=whole.portion.at_least_one(settings.max_prepared_memory),
            peer_id=settings.peer_id,
            extended_only=settings.disable_pqexec,
            log_connections=settings.log_connections,
            log_disconnections=settings.log_disconnections,
            log_errors=settings.log_pooler_errors,
            log_query_texts=settings.log_slow_query_texts,
        )
