"""`AgentActor` as a class of Ray. Workers of the cluster import this module."""

from __future__ import annotations

from typing import Any

import ray

from anywire_launcher_ray.actor import AgentActor
from anywire_launcher_ray.messages import Start


class RayAgent(AgentActor):
    # Asked while the actor has no worker, it waits for the next one.
    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    async def hello(self) -> bytes:
        return await super().hello()

    def where(self) -> tuple[str, str]:
        node: str = ray.get_runtime_context().get_node_id()
        address: str = ray.util.get_node_ip_address()
        return node, address


def make(start: Start) -> Any:
    """Ask Ray for an actor, which lives on through all losses of workers and nodes until it is killed or its driver
    ends. It has no configuration yet: what its constructor gets, Ray keeps."""
    place = start.place
    options: dict[str, Any] = {
        "max_restarts": -1,
        "max_task_retries": 0,
        "num_cpus": place.num_cpus,
        "num_gpus": place.num_gpus,
        "resources": place.resources,
        "scheduling_strategy": "SPREAD" if place.spread else "DEFAULT",
    }
    if place.memory:
        options["memory"] = place.memory
    return ray.remote(RayAgent).options(**options).remote(start.name, start.role, start.lease)
