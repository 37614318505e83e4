"""The emulated link: its law by property, and what it really does between two hosts, measured."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anywire_experiment.network import link, unavailable, validated
from anywire_experiment.network.shaping import QUEUE_NS, Direction
from anywire_experiment.plan.network import Network

WHY = unavailable()
needs_hosts = pytest.mark.skipif(bool(WHY), reason=f"missing: what emulates a network: {WHY}")

Frames = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(60, 1514)), min_size=1, max_size=200)


@given(
    frames=Frames,
    delay=st.floats(0, 50),
    jitter=st.floats(0, 20),
    bandwidth=st.none() | st.floats(0.5, 1000),
    seed=st.integers(0, 2**32),
)
def test_frames_keep_their_order_and_leave_no_earlier_than_the_link_allows(
    frames: list[tuple[int, int]], delay: float, jitter: float, bandwidth: float | None, seed: int
) -> None:
    direction = Direction(Network(delay_ms=delay, jitter_ms=jitter, bandwidth_mbit=bandwidth), seed)
    now = last = 0
    busy_until = 0.0
    for gap, size in frames:
        now += gap
        waits = max(0.0, busy_until - now)
        leaves = direction.leaves(now, size)
        if leaves is None:
            assert bandwidth is not None
            assert waits > QUEUE_NS - 1000
            continue
        if bandwidth is not None:
            busy_until = max(now, busy_until) + size * 8e3 / bandwidth
        entered = busy_until if bandwidth is not None else now
        assert leaves >= last
        assert leaves >= entered + max(0.0, delay - jitter) * 1e6 - 1
        assert leaves <= max(last, entered + (delay + jitter) * 1e6 + 1)
        last = leaves


@given(loss=st.floats(0.01, 0.5), seed=st.integers(0, 2**32))
def test_the_share_lost_is_the_share_asked_for(loss: float, seed: int) -> None:
    direction = Direction(Network(loss=loss), seed)
    lost = sum(direction.leaves(now, 100) is None for now in range(4000))
    assert abs(lost / 4000 - loss) < 6 * (loss * (1 - loss) / 4000) ** 0.5


def test_a_narrow_link_carries_its_bandwidth_and_no_more() -> None:
    direction = Direction(Network(bandwidth_mbit=8.0), 1)  # a byte in a µs
    left = [at for number in range(1000) if (at := direction.leaves(number * 100_000, 1000)) is not None]
    assert 100 < len(left) < 1000
    assert (left[-1] - left[0]) / (len(left) - 1) == pytest.approx(1_000_000, rel=0.001)


@needs_hosts
async def test_the_link_does_what_it_was_asked_for() -> None:
    """Against another processes' load only what the link holds by its construction is judged: at least the delay, the
    share lost, no more than the bandwidth."""
    async with link(Network(delay_ms=5, loss=0.1, bandwidth_mbit=4), seed=3) as hosts:
        measured = await validated(hosts)
    assert measured.delay_ms >= 5
    assert 0.06 < measured.loss < 0.14
    assert measured.bandwidth_mbit is not None
    assert 0 < measured.bandwidth_mbit < 4.4


@needs_hosts
async def test_a_link_that_is_not_as_asked_is_told() -> None:
    async with link(Network(delay_ms=8), seed=3) as hosts:
        hosts.network = Network(delay_ms=2, loss=0.5)
        measured = await validated(hosts)
    assert len(measured.faults) == 2
    assert "and not 2" in measured.faults[0]
    assert "were lost, and 500 should be" in measured.faults[1]


@needs_hosts
async def test_a_cut_link_carries_nothing_until_it_is_restored() -> None:
    listen = "import socket,sys; s=socket.create_server((sys.argv[1], 7008)); print('up', flush=True)\n" + (
        "c,_=s.accept()\nwhile d:=c.recv(9): c.send(d)"
    )
    talk = (
        "import socket,sys\nc=socket.create_connection((sys.argv[1], 7008))\n"
        "for line in sys.stdin:\n c.send(b'x'); c.settimeout(float(line))\n"
        " try: print(c.recv(9).decode(), flush=True)\n except TimeoutError: print('nothing', flush=True)"
    )
    async with link(Network(), seed=1) as hosts:
        pipe = asyncio.subprocess.PIPE
        server = await asyncio.create_subprocess_exec(
            *hosts.agents.command(sys.executable, "-c", listen, hosts.agents.address), stdout=pipe
        )
        assert server.stdout is not None
        assert await server.stdout.readline() == b"up\n"
        client = await asyncio.create_subprocess_exec(
            *hosts.orchestrator.command(sys.executable, "-c", talk, hosts.agents.address), stdin=pipe, stdout=pipe
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"30\n")
        assert await client.stdout.readline() == b"x\n"
        assert await hosts.lost() == 0
        await hosts.cut()
        client.stdin.write(b"0.3\n")
        assert await client.stdout.readline() == b"nothing\n"
        assert await hosts.lost() > 0
        await hosts.restore()
        client.stdin.write(b"30\n")  # TCP sends again what the cut had swallowed
        assert (await client.stdout.readline()).strip(b"\n").strip(b"x") == b""
        client.stdin.close()
        await client.wait()
        await server.wait()


@needs_hosts
async def test_a_link_loses_what_it_is_told_to_lose_until_it_is_restored() -> None:
    async with link(Network(), seed=3) as hosts:
        await hosts.lose(0.2)
        assert 0.12 < (await validated(hosts)).loss < 0.28
        await hosts.restore()
        assert (await validated(hosts)).loss == 0


@needs_hosts
async def test_nothing_is_left_behind() -> None:
    async with link(Network(delay_ms=1)) as hosts:
        name, device = hosts.agents.name, hosts.agents.interface
        assert name in _output("ip", "netns", "list")
    assert name not in _output("ip", "netns", "list")
    assert device not in _output("ip", "link")
    assert device not in [name for _, name in socket.if_nameindex()]


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
