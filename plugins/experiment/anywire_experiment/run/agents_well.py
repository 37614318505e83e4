"""Whether every agent of a cell takes tasks, as its orchestrator tells, and what is done until each does.

A breaker closes with the first answer of its agent, and while another agent is well nobody asks the one whose breaker
is half open. So that one is asked here. Over a link that is half open and not the one in use nothing can be asked, and
that keeps its agent from nothing: it takes tasks as soon as it is needed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from anywire.agent_health import AgentHealth
from anywire.errors import AnywireError
from anywire.events import HealthChanged
from anywire.roles.orchestrator_role import Served
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.task_stream import TaskStream

PROBE_TIMEOUT = 60.0
"""Seconds that an answer may take: real models begin together and share the processors."""
_AGAIN = 1.0
"""Seconds until an agent is asked again that had no room for the request, of which nothing is told."""


async def all_well(served: Served, names: Collection[str], missing: Callable[[str], None]) -> None:
    """Return once the agents of these ``names`` are registered and ready, and none of their breakers keeps tasks away.
    ``missing`` is told who is not and why, whenever that changes."""
    orchestrator, changed = served.orchestrator, asyncio.Event()
    stop_listening = orchestrator.listen(changed.set)
    unsubscribe = orchestrator.events.subscribe("agents of the cell", lambda event: changed.set(), HealthChanged)
    told = ""
    try:
        while why := "; ".join(_unwell(served, names)):
            if why != told:
                missing(why)
                told = why
            changed.clear()
            for agent in _to_be_asked(served, names):
                with suppress(AnywireError):
                    await answered(served, *agent)
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN):
                    await changed.wait()
    finally:
        stop_listening()
        unsubscribe()


async def answered(served: Served, model: str = "", agent: str = "") -> TaskStream:
    """The stream of a small request that was answered, by ``agent`` where one is named and has room. ``model`` is the
    first one there is unless one is named. Raises `AnywireError`."""
    orchestrator = served.orchestrator
    model = model or next(iter(orchestrator.models()), "")
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Ready?"}], "max_tokens": 1})
    preferred = (agent,) if agent else ()
    stream = orchestrator.submit(Submission("chat", model, body, deadline_s=PROBE_TIMEOUT, prefer=preferred))
    while await stream.take():
        pass
    return stream


def why_unwell(view: AgentView | None, health: AgentHealth) -> str:
    """Why an agent does not take tasks as it should; empty when it does."""
    if view is None:
        return "is not registered"
    if view.status.state != "ready":
        return f"is {view.status.state}"
    if health.order:
        return f"is {health.order}"
    if health.state == "quarantined":
        return f"is quarantined: {health.reason}"
    of_links = [
        (state, f" over {transport}")
        for transport, state in health.links.items()
        if state != "half_open" or transport == view.transport
    ]
    of_models = [(state, f" for {model}") for model, state in health.models.items()]
    breakers = [(health.state, ""), *of_links, *of_models]
    if states := [f"{state.replace('_', ' ')}{where}" for state, where in breakers if state != "closed"]:
        why = f" ({health.reason})" if health.reason else ""
        return f"has a breaker that is {' and '.join(states)}{why}"
    if view.unavailable:
        return f"is {' and '.join(sorted(view.unavailable))}"
    if health.slow_start:
        return f"begins slowly, with {health.slow_start} of its {view.status.slots} slots"
    return ""


def _unwell(served: Served, names: Collection[str]) -> Iterator[str]:
    orchestrator = served.orchestrator
    views = {each.agent_id: each for each in orchestrator.agents()}
    for name in sorted(names):
        if why := why_unwell(views.get(name), orchestrator.agent_health(name)):
            yield f"{name} {why}"


def _to_be_asked(served: Served, names: Collection[str]) -> list[tuple[str, str]]:
    """Models, empty for any, and agents whose breaker waits for an answer."""
    orchestrator = served.orchestrator
    asked = []
    for view in orchestrator.agents():
        if view.agent_id not in names or view.status.state != "ready":
            continue
        health = orchestrator.agent_health(view.agent_id)
        models = [model for model, state in health.models.items() if state == "half_open"]
        if not models and "half_open" in (health.state, health.links.get(view.transport)):
            models = [next(iter(view.offers), "")]
        asked += [(model, view.agent_id) for model in models]
    return asked
