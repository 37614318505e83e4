"""What a fleet of many machines takes, computed from what was measured on one: messages, bytes, processor time.

Nothing here measures. The inputs are the files that `wire_cost.py` and `tree_cost.py` write, and the figures below,
each with the page that tells where it comes from. Times are of one processor core; an orchestrator uses one, since its
event loop is one thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anywire.config import LeaseConfig
from anywire.pipeline_settings import PipelineConfig

FULL = 0.7
"""Share of a core that is planned with: above it what comes waits for what came before."""
WINDOW = PipelineConfig.model_fields["window"].default
LEASE = LeaseConfig().timeout
DELIBERATIONS = {(3, 1): 35_953, (5, 2): 151_943, (10, 2): 626_018}
"""Bytes of prompts and answers by members and rounds: docs/explanation/deliberation.md."""
DELIBERATION_MS = 22.0
"""Processor time of an orchestrator for one of three members and one round: docs/benchmarks.md."""
DISCOVERED = (103, 49.0)
"""DDS participants of one agent or hub each that open at once, and the seconds of processor time until all have found
each other: docs/results.md."""
QUEUED_KIB, PROCESS_MIB = 3.4, 36
"""Of a task that waits, and of an agent's process: docs/benchmarks.md, docs/results.md."""

Figures = Mapping[str, float]


class Costs(NamedTuple):
    """Of one transport, as `wire_cost.py` writes them. ``hops``: connections that a message crosses."""

    name: str
    idle: Figures
    alone: Figures
    task: Figures
    chunk: Figures
    request: Figures
    token: Figures

    @property
    def hops(self) -> int:
        return 2 if "server_us" in self.task else 1


class Level(NamedTuple):
    """Of a tree with so many orchestrators above each other, as `tree_cost.py` writes it: milliseconds of one task
    alone, microseconds of each process for a task and for a chunk."""

    levels: int
    alone_ms: float
    task_us: Figures
    chunk_us: Figures


class Fleet(NamedTuple):
    """What a fleet does. ``busy``: the share of all slots that answer; ``rate``: tokens per second of one stream."""

    agents: int = 10_000
    slots: int = 8
    busy: float = 0.5
    rate: float = 50.0
    answer_tokens: int = 500
    prompt_bytes: int = 2_000

    @property
    def streams(self) -> float:
        return self.agents * self.slots * self.busy

    @property
    def tokens(self) -> float:
        """Per second, of all."""
        return self.streams * self.rate

    @property
    def tasks(self) -> float:
        """Per second, of all."""
        return self.tokens / self.answer_tokens


def costs_of(path: Path) -> list[Costs]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    parts = (
        "idle link second",
        "task alone",
        "task of 64",
        "chunk of a stream",
        "request of 64",
        "token over HTTP",
    )
    return [Costs(name, *(each[part] for part in parts)) for name, each in found.items() if name != "machine"]


def levels_of(path: Path) -> list[Level]:
    return [Level(**each) for each in json.loads(path.read_text(encoding="utf-8"))["levels"]]


# Messages and bytes


class Messages(NamedTuple):
    """Of one task over one link, by kind."""

    requests: int
    chunks: int
    credits: int

    @property
    def all(self) -> int:
        return sum(self)


def messages_of(tokens: int, *, stream: bool, window: int = WINDOW) -> Messages:
    """Where nothing fails and the reader keeps up. A stream has a chunk for each token, the last of which ends it, and
    the reader tells in halves of the window what it has read. An answer that comes whole is one chunk."""
    if not stream:
        return Messages(1, 1, 0)
    return Messages(1, tokens, max(0, tokens - 1) // max(1, window // 2))


def task_bytes(costs: Costs, payload: float) -> float:
    """On the wire, of a task with so many bytes of prompt and answer that comes whole."""
    beside = costs.alone["bytes"] - costs.hops * costs.alone["payload_bytes"]
    return beside + costs.hops * payload


def stream_bytes(costs: Costs, prompt: int, tokens: int) -> float:
    """On the wire, of a streamed task."""
    return task_bytes(costs, prompt) + tokens * costs.chunk["bytes"]


def deliberation_tasks(members: int, rounds: int) -> int:
    return (rounds + 1) * members**2


def deliberation_bytes(costs: Costs, members: int, rounds: int) -> float:
    tasks = deliberation_tasks(members, rounds)
    return tasks * task_bytes(costs, 0) + costs.hops * DELIBERATIONS[members, rounds]


# Where it is full


def per_core(microseconds: float) -> float:
    """How many per second one core does when it is `FULL`."""
    return FULL * 1e6 / microseconds


def idle_us(costs: Costs, lease: float, process: str = "hub") -> float:
    """Microseconds per second that one idle agent takes, where its reports and leases are as many times as long."""
    return costs.idle[f"{process}_us"] * LEASE / lease


def orchestrators(fleet: Fleet, costs: Costs, lease: float) -> int:
    """How many side by side serve the fleet, each with its part of the agents and of the clients over HTTP."""
    work = fleet.tasks * costs.request["hub_us"] + fleet.tokens * costs.token["hub_us"]
    return math.ceil((work + fleet.agents * idle_us(costs, lease)) / (FULL * 1e6))


def server_cores(fleet: Fleet, costs: Costs, lease: float) -> float:
    """Of a broker's processor, for the whole fleet."""
    work = fleet.tasks * costs.task["server_us"] + fleet.tokens * costs.chunk["server_us"]
    return (work + fleet.agents * idle_us(costs, lease, "server")) / 1e6


def discovery_seconds(participants: int) -> float:
    """Processor time of all together until all have found each other: each finds each."""
    measured, seconds = DISCOVERED
    return seconds * (participants / measured) ** 2


# Trees


def tree_of(agents: int, fan_out: int) -> list[int]:
    """Orchestrators of each level, the lowest first, with so many agents or orchestrators below each."""
    found = [math.ceil(agents / fan_out)]
    while found[-1] > 1:
        found.append(math.ceil(found[-1] / fan_out))
    return found


class Added(NamedTuple):
    """What one more level adds: milliseconds of one task alone, microseconds of processor for a task and a chunk."""

    alone_ms: float
    task_us: float
    chunk_us: float


def added_by_level(levels: list[Level]) -> Added:
    """From the trees with the fewest and the most levels."""
    first, last = levels[0], levels[-1]
    more = last.levels - first.levels
    return Added(
        (last.alone_ms - first.alone_ms) / more,
        (sum(last.task_us.values()) - sum(first.task_us.values())) / more,
        (sum(last.chunk_us.values()) - sum(first.chunk_us.values())) / more,
    )
