"""The settings of the launcher ``ray``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import pydantic

from anywire.launcher import LauncherConfig
from anywire_launcher_ray.messages import Place

OWN = ""
"""The address that stands for a cluster of this machine alone."""

Amount = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class Needs(LauncherConfig):
    """What agents need of a node."""

    num_cpus: Amount = pydantic.Field(
        0.01,
        description="Processors that Ray keeps for each agent. The default keeps agents off nodes that were given "
        "none, as heads often are; with 0 they may run there, and `spread` has no effect.",
    )
    num_gpus: Amount = pydantic.Field(
        0, description="GPUs that Ray keeps for each agent, and which it sees; 0.5 lets two agents share one."
    )
    memory: int = pydantic.Field(0, ge=0, description="Bytes of memory that Ray keeps for each agent; 0 keeps none.")
    resources: dict[str, Amount] = pydantic.Field(
        {}, description="Further resources that an agent needs, by the names that the cluster's nodes give them."
    )
    spread: bool = pydantic.Field(
        True, description="Place the agents on as many nodes as possible; false lets Ray fill one node after the other."
    )
    nodes: list[str] = pydantic.Field(
        [],
        description="IP addresses of the nodes that may have agents, which are placed on them in turn. An agent whose "
        "node is away waits for it. Default: all nodes.",
    )

    @pydantic.field_validator("num_gpus")
    @classmethod
    def _is_possible(cls, amount: float) -> float:
        if amount > 1 and amount != int(amount):
            raise ValueError("a part of a GPU, or whole ones, can be kept")
        return amount

    @pydantic.field_validator("resources")
    @classmethod
    def _are_custom(cls, resources: dict[str, float]) -> dict[str, float]:
        own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        for name, amount in resources.items():
            if name in own:
                raise ValueError(f"{name} has a setting of its own, {own[name]}")
            if amount > 1 and amount != int(amount):
                raise ValueError(f"a part of one {name}, or whole ones, can be kept")
        return resources


class RayConfig(Needs):
    address: str = pydantic.Field(
        OWN,
        description="Ray cluster: HOST:PORT of its head, or `auto` for the one of this machine's node. A node of it "
        "must run on this machine. Default: a cluster of this machine alone, which starts and ends with the launcher.",
    )
    reach: str = pydantic.Field(
        "",
        description="Address at which the nodes reach the orchestrator. Default: that of this machine's node, or "
        "loopback for a cluster of this machine alone.",
    )
    agents: dict[str, Needs] = pydantic.Field(
        {},
        description="What some agents need instead, by patterns of their ids such as `big-*`; the first one that fits "
        "counts. What it leaves out is as for all agents.",
    )

    @pydantic.field_validator("address")
    @classmethod
    def _is_no_client(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "Ray Client (ray://) is not used: start a node here with `ray start --address=HOST:6379 --num-cpus=0`, "
                "and give that address"
            )
        if address in (OWN, "auto"):
            return address
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError("expected HOST:PORT of the cluster's head, such as 10.0.0.1:6379, or auto")
        return address

    def place(self, name: str, number: int) -> Place:
        """Where the agent ``name``, the ``number``th one to be started from 0, may run."""
        own = next((each for pattern, each in self.agents.items() if fnmatchcase(name, pattern)), None)
        changed = {field: getattr(own, field) for field in own.model_fields_set} if own is not None else {}
        needs = self.model_copy(update=changed)
        resources = dict(needs.resources)
        if needs.nodes:
            # Ray's own resource that each node has 1 of. Unlike its node affinity, it outlives a node that comes back.
            resources[f"node:{needs.nodes[number % len(needs.nodes)]}"] = 0.001
        return Place(needs.num_cpus, needs.num_gpus, needs.memory, resources, needs.spread)
