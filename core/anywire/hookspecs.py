"""All hooks of the framework (pluggy). A hook is for the many: any number of plugins may implement it.

What there is exactly one of by name in the config (transport, scheduler, selector, engine, service …) is a class found
through an entry point or `anywire_register`; hooks add such classes, filter, and subscribe to what happens.
A hook call costs about a microsecond, so hooks are called once per task or more seldom, never per chunk.
pluggy's own rules hold for all of them: an implementation takes the arguments it names, wrappers and ``tryfirst`` work.
What an implementation raises is logged with its plugin's name, counted, and taken for None: no other implementation and
no task notices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pluggy

from anywire.event_bus import EventBus
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView

PROJECT = "anywire"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def anywire_register(kind: str) -> Mapping[str, type] | None:
    """Plugin classes of ``kind`` (``transports``, ``schedulers``, ``selectors``, ``engines``, ``gateways``,
    ``services``, ``launchers``) by name, for plugins loaded from a file or module and not through an entry point.
    Called once per kind at start."""


@hookspec
def anywire_filter_candidates(task: QueuedTask, candidates: Sequence[AgentView]) -> Sequence[AgentView] | None:
    """Narrow the agents that may get ``task``; None leaves them. Called once per attempt. Each implementation gets all
    candidates; those that every one leaves remain, in their order. When none remains the task is held. A decision then
    costs a look at each candidate, which no decision does otherwise."""


@hookspec
def anywire_subscribe(events: EventBus) -> None:
    """Subscribe to what happens (`anywire.events`). Called once, when an orchestrator is made, before anything is
    published."""
