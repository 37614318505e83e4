"""Every hook is called when it says, with what it says, and one that raises breaks nothing."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anywire import errors, hookspecs
from anywire.builtin.least_loaded import LeastLoaded
from anywire.event_bus import EventBus
from anywire.events import AgentJoined, AgentLost, Event, TaskEnded
from anywire.hookspecs import hookimpl
from anywire.identity import hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.plugins import Plugins
from anywire.scheduler import QueuedTask
from anywire.selector import AgentView
from anywire.submission import Submission
from anywire.testing.clock import SimulatedClock
from anywire.testing.doubles import MODEL, fifo, least_loaded
from anywire.testing.puppet import PuppetTransport
from anywire.testing.rig import read

HOOKS = {name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("anywire_")}


async def started(wire: PuppetTransport, *hooks: Any) -> Orchestrator:
    plugins = Plugins()
    for each in hooks:
        plugins.manager.register(each)
    pipeline = Orchestrator(hub_info(), [wire], fifo(), least_loaded(), plugins=plugins, clock=SimulatedClock())
    await pipeline.start()
    return pipeline


class Observer:
    """Implements every hook there is."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []

    @hookimpl
    def anywire_register(self, kind: str) -> dict[str, type] | None:
        return {"registered": LeastLoaded} if kind == "selectors" else None

    @hookimpl
    def anywire_filter_candidates(self, task: QueuedTask, candidates: Sequence[AgentView]) -> Sequence[AgentView]:
        self.called.append(("filter", task.attempt, [agent.agent_id for agent in candidates]))
        return [agent for agent in candidates if agent.agent_id != "shunned"]

    @hookimpl
    def anywire_subscribe(self, events: EventBus) -> None:
        def told(event: Event) -> None:
            self.called.append((type(event).__struct_config__.tag, getattr(event, "agent_id", "")))

        events.subscribe("observer", told, TaskEnded, AgentJoined, AgentLost)


def test_every_hook_is_implemented_here_and_described() -> None:
    assert {name for name in vars(Observer) if name.startswith("anywire_")} == HOOKS
    assert all(len(inspect.getdoc(getattr(hookspecs, name)) or "") > 40 for name in HOOKS)


async def test_hooks_see_a_task_s_whole_life(wire: PuppetTransport) -> None:
    observer = Observer()
    pipeline = await started(wire, observer)
    wire.join("shunned")
    stream = pipeline.submit(Submission("chat", MODEL, "{}", True))
    assert not wire.requests, "filtered out: it waits"
    wire.join("a")
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"
    wire.lose("a", reason="gone")
    assert [call for call in observer.called if call[0] != "filter"] == [
        ("agent.joined", "shunned"),
        ("agent.joined", "a"),
        ("task.ended", "a"),
        ("agent.lost", "a"),
    ]
    await pipeline.close()


async def test_a_hook_that_raises_is_logged_and_ignored(wire: PuppetTransport, caplog: Any) -> None:
    class Broken:
        pass

    def broken(**arguments: Any) -> None:
        raise RuntimeError("broken hook")

    for name in HOOKS - {"anywire_register"}:
        parameters = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        implementation = eval(f"lambda self, {parameters}: broken()", {"broken": broken})
        implementation.__name__ = name
        setattr(Broken, name, hookimpl(implementation))
    pipeline = await started(wire, Broken())
    wire.join("a")
    stream = pipeline.submit(Submission("chat", MODEL, "{}", True))
    wire.answer(wire.requests[0][1])
    assert await read(stream) == "answer"
    wire.lose("a")
    logged = caplog.text
    assert all(name in logged for name in HOOKS - {"anywire_register"})
    await pipeline.close()


def test_a_plugin_from_a_file_is_known_by_name(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        "from anywire.hookspecs import hookimpl\n"
        "from anywire.testing.doubles import LeastLoaded\n"
        "@hookimpl\n"
        "def anywire_register(kind):\n"
        "    return {'mine': LeastLoaded} if kind == 'selectors' else None\n"
    )
    plugins = Plugins()
    plugins.add(str(source))
    assert "mine" in plugins.names("selectors")
    assert plugins.load("selectors", "mine").__name__ == "LeastLoaded"
    with pytest.raises(errors.PluginError, match=r"known: .*mine"):
        plugins.load("selectors", "mien")


@pytest.mark.parametrize("source", ["no/such/file.py", "no_such_module"])
def test_a_plugin_that_does_not_load_says_why(source: str) -> None:
    with pytest.raises(errors.PluginError, match="does not load"):
        Plugins().add(source)


def test_listing_imports_nothing() -> None:
    plugins = Plugins()
    broken = SimpleNamespace(name="broken", dist=None, load=lambda: pytest.fail("it was imported"))
    plugins._entry_points["transports"]["broken"] = broken  # type: ignore[assignment]
    assert "broken" in plugins.names("transports")
