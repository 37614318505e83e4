"""What arms use that is no process of their cells: not started afresh, and not in their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anywire.roles import assembly
from anywire_experiment.plan.arms import Arm, config_of
from anywire_experiment.plan.programs import ports_named

_ENDING = "what it costs is not counted, and it is not started afresh: name it in `companions`"


def outside(arms: Sequence[Arm]) -> Iterator[str]:
    """A sentence for each sort of such things: servers of transports, servers of engines, systems that are there."""
    anywire = [each for each in arms if each.foreign is None]
    servers = {arm.name: name for arm in anywire if (name := _broker_of(arm))}
    if servers:
        names = ", ".join(sorted(set(servers.values())))
        yield (
            f"the transport {names} of {', '.join(servers)} needs a server that is no process of its cells: {_ENDING}"
        )
    engines = [each.name for each in anywire if _engine_is_outside(each)]
    if engines:
        yield f"the engine of {', '.join(engines)} asks a server that is no process of its cells: {_ENDING}"
    there = [
        arm.name
        for arm in arms
        if arm.foreign is not None and arm.foreign.program is None and not ports_named(arm.foreign.base_url)
    ]
    if there:
        yield f"the system {', '.join(there)} is no process of its cells: {_ENDING}"


def _broker_of(arm: Arm) -> str:
    """The first of its transports that needs a server, where the plan names none for it; else empty."""
    config = config_of(arm)
    plugins = assembly.load_plugins(config)
    for each in config.transports:
        brokered = plugins.load("transports", each.name).capabilities.discovery == "brokered"
        if brokered and not ports_named(arm.tree["transports"][each.name]):
            return each.name
    return ""


def _engine_is_outside(arm: Arm) -> bool:
    """Whether the plan gives its engine the address of a server that is no companion."""
    engine = arm.tree.get("engine", {})
    return "base_url" in engine and not ports_named(engine["base_url"])
