"""How a byte stream has ended, in words, for streams that know more than that nothing comes any more.

A stream that does has an attribute ``ending``: a text for people, empty before the end. Not every end is an error: a
WebSocket's carrier may cut it without a Close frame, and what was in it is complete all the same.
"""

from __future__ import annotations

import trio


def ending_of(stream: trio.abc.Stream) -> str:
    """What a stream, or what its TLS stands on, says about its end; empty if it says nothing."""
    below: object = stream
    while isinstance(below, trio.SSLStream):
        below = below.transport_stream
    return str(getattr(below, "ending", ""))


def ended(what: str, stream: trio.abc.Stream) -> str:
    """A message about the end of a stream, with what that says about it."""
    told = ending_of(stream)
    return f"{what}: {told}" if told else what
