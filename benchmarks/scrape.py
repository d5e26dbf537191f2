"""What a scrape of the metrics costs: CPU seconds for each request, with many pools.

``python -m benchmarks.scrape [--pools 200] [--users 10] [--named 50] [--scrapes 20]`` makes that many pools, so many
for each database, serves their metrics as the pooler does, and asks for them over HTTP from a process of its own.
Before each scrape, every pool has been busy, and one in twenty has had a new client and a new server.

CPU time does not depend on what else the machine does. With one scrape a second, a hundredth of a second of it is one
per cent of the pooler's thread, and so of its throughput. The exit code is 1 if a scrape fails.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from hyperpool.cache.results import ResultCache
from hyperpool.config import DatabaseSettings, Settings
from hyperpool.config.http import HttpSettings
from hyperpool.http.metrics import Exporter, add_metrics
from hyperpool.http.server import run
from hyperpool.http.site import Site
from hyperpool.pool.pools import Pools

if TYPE_CHECKING:
    from hyperpool.admin.surroundings import Surroundings

_CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin:
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    print(answer.status, len(answer.read()), flush=True)
"""
"""Scrapes once for each line that it reads, over one connection, as Prometheus does."""

_GOOD: Final = 200


class ScrapeFailed(Exception):
    """There were no metrics: what was measured is something else."""


def _surroundings(count: int, users: int) -> Surroundings:
    databases = {
        f"database_{number}": DatabaseSettings(host="127.0.0.1") for number in range(-(-count // users))
    }
    settings = Settings(databases=databases)
    cache: ResultCache[Any, Any, Any] = ResultCache(1 << 20, lambda: 0.5)
    pools: Pools[Any, Any] = Pools(settings, lambda: 0.5, cache)
    for number in range(count):
        pools.find(f"database_{number // users}", f"application_{number % users}")
    relay = SimpleNamespace(time=time.monotonic, population=0)
    around = SimpleNamespace(
        relay=relay, pools=pools, cache=cache, settings=lambda: settings, agents=None, entries={}
    )
    return cast("Surroundings", around)


def _work(around: Surroundings, random: Random, *, first: bool) -> None:
    """Every pool has been busy."""
    for pool in around.pools:
        stats = pool.stats
        stats.received += 1000
        stats.sent += 10000
        stats.assignments += 100
        for buckets in (stats.query_buckets, stats.transaction_buckets, stats.wait_buckets):
            for _ in range(10):
                buckets[random.randrange(15, 40)] += 10
        stats.query_time += random.random()
        stats.transaction_time += random.random()
        stats.waited += random.random()
        if first or random.random() < 0.05:
            stats.login_times.observe(random.random())
            for hop in ("resolve", "tcp", "login"):
                stats.hop(hop, random.random() / 100)


async def measure(pools: int, users: int, named: int, scrapes: int) -> tuple[list[float], int]:
    """Scrape.

    Args:
        pools: how many there are.
        users: how many of them are for each database.
        named: how many have metrics of their own.
        scrapes: how many.

    Returns:
        The CPU seconds of each scrape, the first one excepted, which makes what the others use again; and its size.

    Raises:
        ScrapeFailed: one was not answered with metrics.
    """
    around = _surroundings(pools, users)
    settings = HttpSettings(max_pools=named)
    site = Site(lambda: settings, nullcontext)
    add_metrics(site, Exporter(around).scrape, lambda: settings)
    random = Random(1)  # noqa: S311 - no secret
    seconds: list[float] = []
    status, size = _GOOD, 0
    with socket.create_server(("127.0.0.1", 0)) as sock:
        command = [sys.executable, "-c", _CLIENT, str(sock.getsockname()[1])]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, site, [sock])
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:  # noqa: ASYNC220
                assert client.stdin is not None  # noqa: S101 - they are pipes
                assert client.stdout is not None  # noqa: S101
                for number in range(scrapes + 1):
                    _work(around, random, first=not number)
                    began = time.process_time()
                    client.stdin.write(b"\n")
                    client.stdin.flush()
                    await trio.lowlevel.wait_readable(client.stdout)
                    seconds.append(time.process_time() - began)
                    # A client that has ended says nothing.
                    status, size = map(int, client.stdout.readline().split() or (0, 0))
                    if status != _GOOD:
                        break
                client.stdin.close()
            nursery.cancel_scope.cancel()
    if status != _GOOD:
        raise ScrapeFailed(
            f"a scrape was answered with HTTP status {status}" if status else "the client has ended"
        )
    return seconds[1:], size


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{Path(__file__).stem}", description=__doc__)
    parser.add_argument("--pools", type=int, default=200)
    parser.add_argument("--users", type=int, default=10, help="of each database")
    parser.add_argument("--named", type=int, default=HttpSettings().max_pools, help="http.max_pools")
    parser.add_argument("--scrapes", type=int, default=20)
    options = parser.parse_args()
    try:
        seconds, size = trio.run(measure, options.pools, options.users, options.named, options.scrapes)
    except ScrapeFailed as error:
        sys.exit(f"{parser.prog}: nothing is measured: {error}")
    middle = statistics.median(seconds)
    own = min(options.named, options.pools)
    print(
        f"{options.pools} pools, {own} with metrics of their own: {size} bytes for each scrape, which takes"
    )
    print(f"{middle * 1e3:.1f} ms of CPU time ({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms):")
    print(f"{middle:.2%} of a thread with one scrape a second")


if __name__ == "__main__":
    main()
