"""What the transport contract costs by itself: round trips between a bare hub and a bare agent that echoes.

The bare typed readers and writers of DDS stand beside it in the same groups: what is left when the contract is taken
away.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from raw_round_trip import BODY, RoundTrips, round_trips
from timing import Rounds, opened, per

SINGLE, MANY, LARGE = 200, 2000, 10
MIB = 1 << 20


@pytest.fixture(scope="module")
def trips(loop: asyncio.AbstractEventLoop, transport: str, options: dict[str, Any]) -> Iterator[RoundTrips]:
    with opened(loop, round_trips(transport, options)) as trips:
        yield trips


@pytest.fixture(scope="module")
def wire(loop: asyncio.AbstractEventLoop) -> Iterator[RoundTrips]:
    pytest.importorskip("anywire_dds")
    from dds_round_trip import pair

    with opened(loop, pair("wire")) as trips:
        yield trips


async def one_by_one(trips: RoundTrips, count: int, body: str = BODY) -> None:
    trips.body = body
    for _ in range(count):
        await trips.one()


@pytest.mark.benchmark(group="contract: round trip, one at a time", timer=per(SINGLE))
def test_round_trip(trips: RoundTrips, rounds: Rounds) -> None:
    rounds(lambda: one_by_one(trips, SINGLE))


@pytest.mark.benchmark(group="contract: round trips, 64 in flight", timer=per(MANY))
def test_round_trips_in_flight(trips: RoundTrips, rounds: Rounds) -> None:
    trips.body = BODY
    rounds(lambda: trips.many(MANY))


@pytest.mark.benchmark(group="contract: round trip of 1 MiB, one at a time", timer=per(LARGE))
def test_round_trip_of_1_mib(trips: RoundTrips, rounds: Rounds) -> None:
    rounds(lambda: one_by_one(trips, LARGE, "x" * MIB))


@pytest.mark.benchmark(group="contract: round trip, one at a time", timer=per(SINGLE))
def test_dds_wire(wire: RoundTrips, rounds: Rounds) -> None:
    rounds(lambda: one_by_one(wire, SINGLE))


@pytest.mark.benchmark(group="contract: round trips, 64 in flight", timer=per(MANY))
def test_dds_wire_in_flight(wire: RoundTrips, rounds: Rounds) -> None:
    rounds(lambda: wire.many(MANY))
