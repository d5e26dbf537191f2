"""Runs hyperpool with a kind of transport more: ``tcp`` behind a stream that only a bridge can carry.

python -m tests.support.bridged serve CONFIG

For tests and benchmarks of bridges with real servers. As it replaces ``tcp``, every connection goes through a bridge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hyperpool.cli import main
from hyperpool.config.transports import TcpStep
from hyperpool.transport.dial import open_tcp
from hyperpool.transport.kinds import KINDS, Kind
from tests.support.streams import OpaqueByHalves

if TYPE_CHECKING:
    import trio

    from hyperpool.transport.kinds import DialContext


async def open_opaque(step: TcpStep, below: trio.abc.Stream | None, context: DialContext) -> trio.abc.Stream:
    """Open a TCP stream, and hide what it is."""
    return OpaqueByHalves(await open_tcp(step, below, context))


if __name__ == "__main__":
    cast("dict[str, Kind]", KINDS)["tcp"] = Kind(TcpStep, open_opaque)
    main()
