"""Whether a link does what it was asked for, measured with datagrams from one host to the other."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import sys
import time
from typing import Any

import msgspec

from anywire.errors import ConfigError
from anywire_experiment.network.hosts import Hosts

PORT = 7007
PINGS, DATAGRAMS, EVERY = 100, 1000, 0.0005
PATIENCE = 2.0
FLOOD_SECONDS, DATAGRAM = 0.5, 1400
HEADERS = 14 + 20 + 8
"""Bytes of Ethernet, IP and UDP around a datagram, which take their share of the bandwidth."""

DELAY_TOLERANCE_MS, TOLERANCE = 0.5, 0.1
"""How far the delay may be off (the way through two processes takes some of that), and, as a share, anything."""


QUARTILES = 4 * (1 - 0.5**0.5)
"""Between the quartiles of a round trip's time, in units of the jitter: both ways are uniform within plus and minus the
jitter, so their sum is triangular. The quartiles, because a busy machine shows in the tails first."""


class LinkMeasured(msgspec.Struct, frozen=True):
    """What was found: half of the round trip's median, the jitter that gives the spread of the round trips, the
    share of datagrams lost one way, and, of a link with a limit, what it carried. ``faults`` says in sentences what is
    off; empty when all is as asked."""

    delay_ms: float
    jitter_ms: float
    loss: float
    bandwidth_mbit: float | None
    faults: list[str]


async def validated(hosts: Hosts) -> LinkMeasured:
    """Measure the link; takes about two seconds. Raises `ConfigError` when nothing arrives at all."""
    echo = await _process(hosts.agents.command(sys.executable, "-m", __name__, "echo", hosts.agents.address))
    try:
        assert echo.stdout is not None
        await echo.stdout.readline()
        limited = "1" if hosts.network.bandwidth_mbit else "0"
        probe = await _process(
            hosts.orchestrator.command(sys.executable, "-m", __name__, "probe", hosts.agents.address, limited)
        )
        said, errors = await probe.communicate()
        if probe.returncode:
            raise ConfigError(f"the link between the hosts carries nothing: {errors.decode().splitlines()[-1]}")
    finally:
        echo.kill()
        await echo.communicate()
    return _judged(hosts, json.loads(said))


def _judged(hosts: Hosts, found: dict[str, Any]) -> LinkMeasured:
    from scipy import stats  # slow to import, and the processes that measure do not need it

    asked, trips, faults = hosts.network, found["trips_ms"], []
    delay = statistics.median(trips) / 2
    if abs(delay - asked.delay_ms) > DELAY_TOLERANCE_MS + TOLERANCE * asked.delay_ms:
        faults.append(f"the delay is {delay:.2f} ms and not {asked.delay_ms:g}")
    low, _, high = statistics.quantiles(trips, n=4)
    jitter = (high - low) / QUARTILES
    if asked.jitter_ms and abs(jitter - asked.jitter_ms) > DELAY_TOLERANCE_MS + 2 * TOLERANCE * asked.jitter_ms:
        faults.append(f"the jitter is {jitter:.2f} ms and not {asked.jitter_ms:g}")
    sent, arrived = found["sent"], found["arrived"]
    if stats.binomtest(sent - arrived, sent, asked.loss).pvalue < 0.001 if asked.loss else sent != arrived:
        faults.append(f"{sent - arrived} of {sent} datagrams were lost, and {asked.loss * sent:.0f} should be")
    bandwidth = found["mbit"]
    if asked.bandwidth_mbit and abs(bandwidth / (1 - asked.loss) / asked.bandwidth_mbit - 1) > TOLERANCE:
        faults.append(f"the link carries {bandwidth:.2f} Mbit/s and not {asked.bandwidth_mbit:g}")
    return LinkMeasured(delay, jitter, 1 - arrived / sent, bandwidth, faults)


async def _process(command: list[str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


def _echo(address: str) -> None:
    """Answers pings; counts what else comes and tells the count, and when the first and the last came, on request."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        end.bind((address, PORT))
        print("ready", flush=True)
        count = first = last = 0
        while True:
            data, peer = end.recvfrom(2048)
            match data[:1]:
                case b"p":
                    end.sendto(data, peer)
                case b"?":
                    end.sendto(json.dumps([count, first, last]).encode(), peer)
                case b"0":
                    count = first = last = 0
                    end.sendto(b"0", peer)
                case _:
                    count, last = count + 1, time.monotonic_ns()
                    first = first or last


def _probe(address: str, limited: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.connect((address, PORT))
        trips: list[float] = []
        _ask(end, b"p")  # the first also waits for the neighbour's address to be found
        for number in range(PINGS):
            began = time.monotonic_ns()
            end.send(b"p%d" % number)
            # Long enough for any that is not lost, and no longer: those that are lost are waited for too.
            within = 3 * max(trips) / 1e3 + 0.05 if trips else PATIENCE
            if _answer(end, b"p%d" % number, within) is not None:
                trips.append((time.monotonic_ns() - began) / 1e6)
        _ask(end, b"0")
        for _ in range(DATAGRAMS):
            end.send(b"x")
            time.sleep(EVERY)
        time.sleep(0.2)
        arrived = json.loads(_ask(end, b"?"))[0]
        mbit = None
        if limited:
            _ask(end, b"0")
            until = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < until:
                end.send(b"x" * DATAGRAM)
            time.sleep(0.5)
            count, first, last = json.loads(_ask(end, b"?"))
            mbit = (count - 1) * (DATAGRAM + HEADERS) * 8e3 / (last - first) if count > 1 else 0.0
    if not trips:
        raise SystemExit("no ping was answered")
    print(json.dumps({"trips_ms": trips, "sent": DATAGRAMS, "arrived": arrived, "mbit": mbit}))


def _ask(end: socket.socket, what: bytes) -> bytes:
    """Ask until it is answered: both ways may lose it."""
    for _ in range(50):
        end.send(what)
        answer = _answer(end, b"[" if what == b"?" else what, PATIENCE / 2)
        if answer is not None:
            return answer
    raise SystemExit("the other host does not answer")


def _answer(end: socket.socket, start: bytes, within: float) -> bytes | None:
    """The next datagram that begins so; late answers to earlier questions are passed over."""
    until = time.monotonic() + within
    while (left := until - time.monotonic()) > 0:
        end.settimeout(left)
        try:
            data = end.recv(2048)
        except TimeoutError:
            return None
        if data.startswith(start):
            return data
    return None


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        _echo(sys.argv[2])
    else:
        _probe(sys.argv[2], sys.argv[3] == "1")
