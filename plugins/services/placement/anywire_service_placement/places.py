"""What the planner knows of a fleet: agents as places for models, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

State = Literal["stopped", "starting", "running", "stopping", "crashed"]
"""Of a model at an agent; see the states of `models.list`."""

Pair = tuple[str, str]
"""An agent's id and a model."""


class Wanted(msgspec.Struct, frozen=True):
    """So many ``replicas`` of a model, at these ``agents`` alone where any are named."""

    replicas: int = 1
    agents: frozenset[str] = frozenset()

    def allows(self, agent_id: str) -> bool:
        return not self.agents or agent_id in self.agents


class Replica(msgspec.Struct, frozen=True):
    """A model at one agent. ``memory_bytes`` is what it is counted with against the agent's budget while it has a
    process. ``busy``: it serves, or requests wait for it. Models of different groups are not loaded together, those
    without one (``""``) with all."""

    state: State = "stopped"
    memory_bytes: int = 0
    busy: bool = False
    pinned: bool = False
    group: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is loaded, or will be without anybody's doing."""
        return self.state in ("starting", "running")

    @property
    def has_memory(self) -> bool:
        return self.state in ("starting", "running", "stopping")


class Place(msgspec.Struct, frozen=True):
    """An agent.

    ``budget_bytes`` is the memory that its models may take together, 0 without a bound; ``other_bytes`` of it are taken
    by what is not among ``models``. ``counts``: what it has loaded serves (it is not drained, isolated or
    quarantined). ``open``: it can be told to load and unload. ``moving``: it was told so and has not answered yet,
    ``late``: for long.
    ``load`` is the share of its slots in use.
    """

    agent_id: str
    host: str = ""
    models: Mapping[str, Replica] = {}
    budget_bytes: int = 0
    other_bytes: int = 0
    counts: bool = True
    open: bool = True
    moving: bool = False
    late: bool = False
    load: float = 0.0


class Step(msgspec.Struct, frozen=True):
    """Something to be done at an agent. ``reason`` is for a person."""

    action: Literal["load", "unload"]
    agent_id: str
    model: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """``steps`` are to be done now, at most one at each agent; further ones follow from what the fleet is like then.
    ``unmet`` says of a model why fewer replicas are loaded than wanted and nothing can be done. ``surplus`` are idle
    replicas beyond those wanted."""

    steps: tuple[Step, ...] = ()
    unmet: Mapping[str, str] = {}
    surplus: tuple[Pair, ...] = ()
