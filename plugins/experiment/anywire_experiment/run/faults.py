"""What is done to a system while it is measured, and undone."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable

from anywire_experiment.network import Hosts
from anywire_experiment.record.cells import Event, What
from anywire_experiment.run.system import System
from anywire_experiment.workload import Fault


async def inflict(
    fault: Fault,
    workload: str,
    began_ns: int,
    system: System,
    link: Hosts | None,
    seed: str,
    note: Callable[[Event], None],
) -> None:
    """Do it at its time and undo it when it has lasted; which agent it meets is drawn from ``seed``."""
    name = random.Random(seed).choice(sorted(system.agents))
    agent = system.agents[name]

    def happened(what: What) -> None:
        note(Event(time.monotonic_ns(), what, "" if fault.kind == "partition" else name, workload=workload))

    await _until(began_ns, fault.at)
    match fault.kind:
        case "kill":
            agent.measure()
            agent.expected_end = True
            happened("kill")
            agent.signal(signal.SIGKILL)
        case "pause":
            happened("pause")
            agent.signal(signal.SIGSTOP)
        case "partition":
            assert link is not None
            happened("partition")
            await link.cut()
    await _until(began_ns, fault.at + fault.lasts)
    match fault.kind:
        case "kill":
            await agent.kill()
            happened("start")
            await system.start_agent(name)
        case "pause":
            happened("continue")
            agent.signal(signal.SIGCONT)
        case "partition":
            assert link is not None
            happened("restore")
            await link.restore()


async def _until(began_ns: int, seconds: float) -> None:
    await asyncio.sleep(seconds - (time.monotonic_ns() - began_ns) / 1e9)
