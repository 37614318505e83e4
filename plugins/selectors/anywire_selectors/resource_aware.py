"""A processor or a graphics card, by what is free on the machines."""

from __future__ import annotations

from itertools import islice
from typing import Any, ClassVar, Literal

import pydantic

from anywire.scheduler import QueuedTask
from anywire.selector import AgentView, Candidates, Choice, Selector, SelectorConfig

PROFILES: dict[str, dict[str, float]] = {
    "default": {},
    "dev": {"cpu_percent": 75.0},
    "test": {"cpu_percent": 85.0},
    "prod": {"cpu_percent": 95.0},
}
"""What a profile sets where the configuration does not."""

_CPU_NAMES = ("", "cpu", "none")


class ResourceAwareConfig(SelectorConfig):
    profile: Literal["default", "dev", "test", "prod"] = pydantic.Field(
        default="default",
        description="Where the processor of a machine counts as busy: `default` 80 %, `dev` 75, `test` 85, `prod` 95.",
    )
    cpu_percent: float = pydantic.Field(
        default=80.0, ge=0, le=100, description="Percent of the processor above which an agent on it is busy."
    )
    vram_free_bytes: float = pydantic.Field(
        default=500e6, ge=0, allow_inf_nan=False, description="Bytes of free memory below which a card is short."
    )
    vram_percent: float = pydantic.Field(
        default=90.0, ge=0, le=100, description="Percent of a card's memory in use above which it is short."
    )
    gpu_percent: float = pydantic.Field(
        default=90.0, ge=0, le=100, description="Percent of a card's processor in use above which it is short."
    )
    vram_room_percent: float = pydantic.Field(
        default=70.0,
        ge=0,
        le=100,
        description="Percent of a card's memory in use below which it has room for any task.",
    )
    considered: int = pydantic.Field(
        default=256, ge=1, le=10_000, description="Agents that are looked at, the least loaded ones."
    )
    gpu_task_types: list[str] = pydantic.Field(
        default_factory=lambda: ["math", "quantum", "tensor"],
        description="Values of the hint `task_type` for which a card is better.",
    )

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_profile(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("profile"), str):
            return PROFILES.get(given["profile"], {}) | given
        return given


class ResourceAware(Selector):
    """The least loaded agent of the sort that has what the task needs.

    An agent is a card's when it reports the memory of one (gauges ``vram_…``) or its ``device`` is none of ``cpu`` and
    empty, else a processor's. A card that is short of memory or busy is taken last. A busy processor is taken after a
    card with room, and so is a card between both marks, unless the task asks for a card. Of agents that are as good,
    those come first that the hint ``device`` (``cpu`` or ``gpu``) or ``task_type`` asks for, then the least loaded. A
    gauge that is not reported says nothing. Method: thresholds, as the resource managers in use have them; the gauges
    are as old as the agent's last report.
    """

    name: ClassVar[str] = "resource_aware"
    Config = ResourceAwareConfig
    config: ResourceAwareConfig

    def select(self, task: QueuedTask, candidates: Candidates) -> Choice:
        best: tuple[int, AgentView] | None = None
        for agent in islice(candidates.by_load(), self.config.considered):
            rank = self._rank(task, agent)
            if best is None or rank < best[0]:
                best = rank, agent
            if rank == 0:
                break
        assert best is not None
        sort = "a card" if is_gpu(best[1]) else "a processor"
        return Choice(best[1], reason=f"{sort} {_PRESSURE[best[0] // 2]}")

    def score(self, task: QueuedTask, agent: AgentView) -> float:
        """1.0 for an agent with room of the sort the task asks for, down to 0.0 for a card that is short where the task
        asks for a processor."""
        return 1.0 - self._rank(task, agent) / 5

    def _rank(self, task: QueuedTask, agent: AgentView) -> int:
        wants, gpu = self._wants_card(task), is_gpu(agent)
        return 2 * self._pressure(agent, gpu, wants is True) + (wants is not None and wants is not gpu)

    def _wants_card(self, task: QueuedTask) -> bool | None:
        """Whether the task wants a card, or a processor; None for either."""
        hints = task.hints
        if not hints:
            return None
        device = hints.get("device")
        if device in ("gpu", "cuda"):
            return True
        if device == "cpu":
            return False
        return True if hints.get("task_type") in self.config.gpu_task_types else None

    def _pressure(self, agent: AgentView, gpu: bool, wants_card: bool) -> int:
        """0 with room, 1 for a busy processor or a card with little room, 2 for a card that is short."""
        gauges, config = agent.status.resources, self.config
        if not gpu:
            return int(gauges.get("cpu_percent", 0.0) > config.cpu_percent)
        free, total = gauges.get("vram_free_bytes"), gauges.get("vram_total_bytes", 0.0)
        used = gauges.get("vram_used_percent")
        if used is None:
            used = 100.0 * (1.0 - free / total) if free is not None and total > 0 else 0.0
        if (free is not None and free < config.vram_free_bytes) or used > config.vram_percent:
            return 2
        if gauges.get("gpu_percent", 0.0) > config.gpu_percent:
            return 2
        return int(used >= config.vram_room_percent and not wants_card)


_PRESSURE = ("with room", "with little room", "that is short of memory or busy")


def is_gpu(agent: AgentView) -> bool:
    """Whether the agent has a graphics card."""
    gauges = agent.status.resources
    if "vram_free_bytes" in gauges or "vram_used_percent" in gauges:
        return True
    return agent.info.device.lower() not in _CPU_NAMES
