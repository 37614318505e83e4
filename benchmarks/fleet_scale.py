"""Many agents and several hubs in one DDS domain on this host: finding each other, what they cost, who gets what.

First all processes but one are started, and open at once, as after a power cut; then the last one comes to the fleet
that is already there. When it has settled, every hub asks every agent, and every agent counts what reached it: what
its DDS reader took, and what its engine ran. It ends with 1 when a request reached another agent, or none, or twice.

    python benchmarks/fleet_scale.py [--agents 100] [--hubs 3] [--processes 10] [--multicast on|off]
                                     [--tasks 10] [--lease 1]

With a process for each agent two cores are busy for half a minute when all open at once; a lease that is shorter than
that stall makes them lose and find each other without end: give it --lease 10 there.

The UDP counters are those of the whole network namespace: for figures of this fleet alone run it in its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from fleet_member import AgentCount, Request
from fleet_processes import IN_FLIGHT, Discovery, Fleet, Member, cpu_seconds, fleet
from reserved import dds_domain

IDLE = 5.0
"""Seconds over which an idle fleet is watched."""

MIB = 1 << 20


def datagrams() -> tuple[int, int]:
    """UDP datagrams received and dropped at full buffers in this network namespace since its start."""
    names, values = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Udp:"]
    found = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return found["InDatagrams"], found["RcvbufErrors"]


class Sort(NamedTuple):
    """Requests by where they arrived: once at their own agent, there again, and at another."""

    once: int
    again: int
    elsewhere: int


def sort(counts: Iterable[AgentCount], of: Callable[[AgentCount], list[Request]]) -> Sort:
    once = again = elsewhere = 0
    for count in counts:
        own = [request for request in of(count) if request.model == count.agent_id]
        once += len(set(own))
        again += len(own) - len(set(own))
        elsewhere += len(of(count)) - len(own)
    return Sort(once, again, elsewhere)


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _print_processes(made: Fleet, idle: dict[Member, float]) -> None:
    rows: dict[str, Callable[[Member], float]] = {
        "resident memory, MiB": lambda member: member.usage.memory_info().rss / MIB,
        "its share of it (PSS), MiB": lambda member: member.usage.memory_full_info().pss / MIB,
        "CPU when idle, % of a core": lambda member: idle[member] / IDLE * 100,
        "threads": lambda member: member.usage.num_threads(),
        "UDP sockets": lambda member: len(member.usage.net_connections("udp")),
    }
    print(f"{'per process, mean (worst)':28} {len(made.agents):>8} of agents {len(made.hubs):>10} hubs {'in all':>12}")
    for title, of in rows.items():
        groups = [[of(member) for member in members] for members in (made.agents, made.hubs)]
        cells = [f"{statistics.mean(each):.1f} ({max(each):.1f})" for each in groups]
        print(f"  {title:26} {cells[0]:>18} {cells[1]:>15} {sum(map(sum, groups)):12,.1f}")


def _print_discovery(what: str, found: Discovery) -> None:
    print(
        f"  {what:28} {found.links:4} links {found.since_opening:6.2f} s after opening, "
        f"{found.since_start:6.2f} s after start; {found.cpu:.2f} s of CPU"
    )


async def measure(args: argparse.Namespace, domain: int) -> bool:
    """Whether every request reached its agent alone, once, and was answered."""
    options = {"domain": domain, "multicast": args.multicast}
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
          f"cyclonedds {version('cyclonedds')}; load average {load()} before")  # fmt: skip
    print(f"{args.agents} agents in {args.processes} processes, {args.hubs} hubs, domain {options['domain']}, "
          f"multicast {args.multicast}, lease {args.lease:g} s")  # fmt: skip
    async with fleet(args.agents, args.hubs, args.processes, options, lease=args.lease) as made:
        received, dropped = datagrams()
        print("discovery")
        _print_discovery(f"{args.processes - 1} + {args.hubs} processes at once", await made.open_at_once())
        _print_discovery("and one more", await made.open_last())
        now = datagrams()
        print(f"  UDP datagrams {now[0] - received:,}, dropped {now[1] - dropped:,}; "
              f"agents lost meanwhile {await made.lost()}; load average {load()}")  # fmt: skip

        await asyncio.sleep(IDLE)  # what follows discovery is over
        received, dropped = datagrams()
        before = {member: cpu_seconds([member]) for member in made.members}
        await asyncio.sleep(IDLE)
        idle = {member: cpu_seconds([member]) - before[member] for member in made.members}
        now = datagrams()
        _print_processes(made, idle)
        print(f"  UDP datagrams when idle {(now[0] - received) / IDLE:,.0f}/s, dropped {now[1] - dropped}")

        cpu = cpu_seconds(made.members)
        asked = await made.ask(args.tasks)
        cpu = cpu_seconds(made.members) - cpu
        took = max(each.ended for each in asked) - min(each.began for each in asked)
        counts, lost = await made.counts(), await made.lost()

    wanted = args.hubs * args.agents * args.tasks
    answered, wrong = sum(each.answered for each in asked), [line for each in asked for line in each.wrong]
    taken, ran = sort(counts, lambda count: count.taken), sort(counts, lambda count: count.run)
    writers = [count.writers for count in counts]
    print(f"{wanted} requests, {args.tasks} from each hub to each agent: {wanted / took:,.0f}/s with "
          f"{args.hubs} x {IN_FLIGHT} under way, {cpu / wanted * 1e3:.2f} ms of CPU each")  # fmt: skip
    for title, found in (("taken by a DDS reader", taken), ("run by an engine", ran)):
        print(f"  {title:26} at their agent {found.once}, again {found.again}, at another {found.elsewhere}")
    print(f"  {'answered by their agent':26} {answered}")
    print(f"  {'writers matched':26} {min(writers)} to {max(writers)} with the request reader of each agent")
    print(f"  agents lost in all {lost}; load average {load()} after", *wrong[:10], sep="\n  ")
    return taken == ran == Sort(wanted, 0, 0) and answered == wanted and set(writers) == {args.hubs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--hubs", type=int, default=3)
    parser.add_argument("--processes", type=int, help="that the agents are spread over; by default one for each")
    parser.add_argument("--multicast", choices=("on", "off"), default="on")
    parser.add_argument("--tasks", type=int, default=10, help="from each hub to each agent")
    parser.add_argument("--lease", type=float, default=1.0, help="seconds")
    args = parser.parse_args()
    args.processes = args.processes or args.agents
    if not 1 <= args.processes <= args.agents or min(args.hubs, args.tasks) < 1:
        parser.error("it needs an agent for each process, and at least one hub and one task")
    try:
        with dds_domain() as domain:
            sys.exit(not asyncio.run(measure(args, domain)))
    except RuntimeError as error:
        sys.exit(f"{error}; load average {load()}")


if __name__ == "__main__":
    main()
