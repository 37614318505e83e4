"""Processes that an arm needs beside its orchestrator and agents, such as a broker: as a plan describes them.

    companions:
      broker:
        command: [mosquitto, -c, "{folder}/mosquitto.conf"]
        files: {mosquitto.conf: "listener {port} {host}\\nallow_anonymous true\\n"}
        ready: "mosquitto version .* running"
        arms: {transport: [mqtt]}
    factors:
      transport: [dds, {mqtt: {mqtt: {url: "mqtt://{broker.host}:{broker.port}"}}}]

What stands in braces: `anywire_experiment.plan.programs`. The configuration of the arm has the same host and ports as
``{NAME.host}`` and ``{NAME.port}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from anywire.errors import ConfigError
from anywire_experiment.plan.programs import Program, ReadyAt, is_absolute, ports_named

RESERVED = ("orchestrator", "load", "system")
"""Names of processes that a cell has besides."""


def label(value: object) -> str:
    """A level's value as YAML would write it, which is its label where the plan gives none."""
    told = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    # A plus sign stands between the levels of an arm's name.
    return told.replace("e+", "e") if isinstance(value, float) else told


class Companion(Program):
    """A process of an arm that is not Anywire's. It is started before the system of each cell and ended after it; its
    processor time and memory are told with those of the others, and a cell fails when it ends on its own."""

    arms: dict[str, tuple[Annotated[str, pydantic.BeforeValidator(label)], ...]] = pydantic.Field(
        default_factory=dict, description="factor: the levels that need it; empty: every arm has it"
    )
    shared: bool = pydantic.Field(
        False,
        description="it serves all arms alike, as an engine does: its processor time and memory are told by themselves "
        "and are not in the sum *the system*",
    )

    @pydantic.field_validator("ready")
    @classmethod
    def _has_a_host(cls, ready: str | ReadyAt) -> str | ReadyAt:
        if isinstance(ready, ReadyAt) and not is_absolute(ready.url):
            raise ValueError("ready.url of a companion is a whole URL, such as http://{host}:{port}/health")
        return ready

    def is_of(self, levels: Mapping[str, str]) -> bool:
        """Whether an arm of these levels has it."""
        return all(levels.get(factor) in wanted for factor, wanted in self.arms.items())


def is_reserved(name: str) -> bool:
    return name in RESERVED or name.startswith("agent")


def reserved(name: str) -> str:
    """What is said of a companion whose name `is_reserved`."""
    return f"{name!r} is the name of a process of every cell; choose another"


def check_named(tree: Any, companions: Mapping[str, Companion], where: str) -> None:
    """Raises `ConfigError` for a configuration that names a companion which its arm does not have."""
    for name, what in sorted(ports_named(tree)):
        if name not in companions:
            known = ", ".join(companions) or "none"
            raise ConfigError(
                f"{where}: {{{name}.{what}}} names a companion that this arm does not have; it has: {known}"
            )


def check_order(companions: Mapping[str, Companion], where: str) -> None:
    """Raises `ConfigError` for a companion that names one which is not started before it."""
    before: dict[str, Companion] = {}
    for name, each in companions.items():
        check_named(tuple(each.texts()), before, f"{where}: companion {name} (those above it count)")
        before[name] = each
