"""Two fresh servers beside each other that take turns: what one of them does more is told as a ratio."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psutil

from cost import median_ratio
from cost_probe import cpu_seconds
from http_load import load
from transport_stack import options_of, server

REQUESTS, TURNS = 320, 12
"""Of one turn, and turns of four in a block."""


class Server:
    """A running server and its processes; its clients send ``key``."""

    def __init__(self, url: str, processes: list[int], key: str) -> None:
        self.url, self._processes, self._key = url, processes, key

    def asked_with(self, key: str) -> Server:
        """The same server, asked with another key."""
        return Server(self.url, self._processes, key)

    async def measure(self, clients: int, requests: int) -> tuple[float, float]:
        """Seconds of processor time and of wall time for one request."""
        before = sum(map(cpu_seconds, self._processes))
        result = await load(self.url, clients=clients, requests=requests, key=self._key)
        return (sum(map(cpu_seconds, self._processes)) - before) / requests, result.seconds / requests


@asynccontextmanager
async def serving(transport: str, *more: str, key: str = "") -> AsyncIterator[Server]:
    """``anywire up`` with the further options ``more``."""
    known = set(_children())
    with options_of(transport) as options:
        async with server(transport, options, *more) as url:
            yield Server(url, [pid for pid in _children() if pid not in known], key)


async def measure_block(without: Server, with_it: Server, clients: int) -> list[list[float]]:
    """Medians of processor and wall time of the one and of the other server, from turns that alternate."""
    found: tuple[list[tuple[float, float]], ...] = ([], [])
    servers = (without, with_it)
    for each in servers:
        await each.measure(clients, 2 * REQUESTS)
    for _ in range(TURNS):
        for which in (0, 1, 1, 0):
            found[which].append(await servers[which].measure(clients, REQUESTS))
    return [[statistics.median(each[kind] for each in side) for kind in (0, 1)] for side in found]


def print_head(what: str, blocks: int) -> None:
    print(f"{what:10} {'':4} {'without':>10} {'with':>10} {'ratio':>7}  95 % interval ({blocks} blocks)")


def print_ratios(name: str, costs: Sequence[Sequence[Sequence[float]]]) -> float:
    """Print the median ratios of all blocks; the one of processor time."""
    medians = []
    for which, kind in enumerate(("cpu", "wall")):
        without, with_it = ([block[side][which] for block in costs] for side in (0, 1))
        median, low, high = median_ratio(without, with_it)
        medians.append(median)
        print(
            f"{name:10} {kind:4} {statistics.median(without) * 1e6:7.1f} us "
            f"{statistics.median(with_it) * 1e6:7.1f} us {median:7.3f}  {low:.3f} .. {high:.3f}",
            flush=True,
        )
    return medians[0]


def _children() -> list[int]:
    return [each.pid for each in psutil.Process().children(recursive=True)]
