"""The service ``mcp`` beside an orchestrator: its routes, its events, and tasks that name servers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.mcp_tools.scripted_model import ScriptedModel, calls, says
from tests.mcp_tools.servers import plain

from anywire import events
from anywire.builtin.memory import MemoryConfig, MemoryTransport
from anywire.caller import Caller
from anywire.engine import Engine
from anywire.errors import AnywireError, EngineFailed, InvalidRequest
from anywire.identity import agent_info, hub_info
from anywire.pipeline.orchestrator import Orchestrator
from anywire.pipeline_settings import PipelineConfig
from anywire.plugins import Plugins
from anywire.roles.agent import Agent
from anywire.route import Request, Response
from anywire.submission import Submission
from anywire.testing.doubles import fifo, least_loaded
from anywire.testing.patience import expect, polled
from anywire.testing.service_bench import ServiceBench, service_bench
from anywire.testing.service_kit import ServiceConformance
from anywire_engine_mcp import agent_servers
from anywire_engine_mcp.config import McpConfig
from anywire_engine_mcp.engine import McpEngine
from anywire_engine_mcp.service import McpService, McpServiceConfig

USER = Caller("someone", "lab", "use")


class TestMcpService(ServiceConformance):
    service = "mcp"

    def make(self) -> McpService:
        return McpService(McpServiceConfig())


def engine(model: Engine, **servers: Any) -> McpEngine:
    made = McpEngine(McpConfig(inner={"name": "scripted_model"}, servers=servers))
    made.assemble(lambda name, options, where: model)
    return made


def body(*labels: str) -> str:
    tools = [{"type": "mcp", "server_label": label} for label in labels]
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], "tools": tools})


async def asked(bench: ServiceBench, method: Any, path: str, caller: Caller | None = None, **names: str) -> Any:
    """Status and content of an answer; ``agent`` goes into the query."""
    query = {"agent": names.pop("agent")} if "agent" in names else {}
    route = next(each for each in bench.routes.all() if (each.method, each.path) == (method, path))
    request = Request(method, f"/v1{path.format(**names)}", names, query, {}, b"", caller or Caller("o", "", "operate"))
    answer = await expect(route.handler(request), "an answer")
    assert isinstance(answer, Response)
    return answer.status, msgspec.json.decode(answer.body)


async def test_servers_and_tools_of_agents_are_listed_and_steered(tmp_path: Path) -> None:
    files = plain(autostart=False)
    made = engine(ScriptedModel(), files=files)
    async with service_bench(McpService(McpServiceConfig()), state=tmp_path, engine=made) as bench:
        _, listed = await asked(bench, "GET", "/mcp")
        (found,) = listed["data"]
        assert (found["id"], found["agents_running"], found["agents_total"], found["tools"]) == ("files", 0, 1, [])
        status, done = await asked(bench, "POST", "/mcp/{server}/start", server="files")
        assert (status, done["agents"]["agent"]["state"]) == (200, "running")
        _, shown = await asked(bench, "GET", "/mcp/{server}", server="files")
        assert "add" in [each["name"] for each in shown["tools"]]
        assert shown["agents"]["agent"]["state"] == "running"
        _, for_user = await asked(bench, "GET", "/mcp/{server}", USER, server="files")
        assert "agents" not in for_user
        assert for_user["tools"] == shown["tools"]
        status, done = await asked(bench, "POST", "/mcp/{server}/restart", server="files", agent="agent")
        assert (status, done["order"]) == (200, "restart")
        status, done = await asked(bench, "POST", "/mcp/{server}/stop", server="files")
        assert done["agents"]["agent"]["state"] == "stopped"
        wrong: tuple[dict[str, Any], ...] = ({"server": "other"}, {"server": "files", "agent": "other"})
        for names in wrong:
            with pytest.raises(InvalidRequest) as caught:
                await asked(bench, "POST", "/mcp/{server}/start", **names)
            assert caught.value.status == 404


async def test_what_an_agent_cannot_start_is_an_answer(tmp_path: Path) -> None:
    made = engine(ScriptedModel(), dead=plain("--exit", "3", autostart=False, restart="never"))
    async with service_bench(McpService(McpServiceConfig()), state=tmp_path, engine=made) as bench:
        status, done = await asked(bench, "POST", "/mcp/{server}/start", server="dead")
        assert status == 502
        assert "exited with status 3" in done["agents"]["agent"]["error"]["message"]


async def test_a_task_that_names_a_server_is_answered_and_each_call_is_an_event(tmp_path: Path) -> None:
    model = ScriptedModel([calls(("add", {"a": 1, "b": 2})), says("3"), calls(("add", {"a": 1, "b": 2})), says("3")])
    made = engine(model, maths=plain(autostart=False))
    async with service_bench(McpService(McpServiceConfig()), state=tmp_path, engine=made) as bench:
        told: list[Any] = []
        bench.orchestrator.events.subscribe("test", told.append, events.PluginEvent, events.AttemptProgress)
        for stream in (True, False):
            assert await bench.ask(body("maths"), model="m", stream=stream) == "3"
        await polled(
            lambda: sum(isinstance(each, events.PluginEvent) and each.name == "mcp.call" for each in told) == 2,
            "both calls are told",
        )
        call = next(each for each in told if isinstance(each, events.PluginEvent) and each.name == "mcp.call")
        assert (call.data["server"], call.data["tool"], call.data["agent_id"]) == ("maths", "add", "agent")
        assert {each.data["state"] for each in told if getattr(each, "name", "") == "mcp.server"} >= {
            "starting",
            "running",
        }
        progress = [(each.state, each.detail) for each in told if isinstance(each, events.AttemptProgress)]
        assert progress.count(("tool", "maths/add")) == 2


async def test_the_log_names_no_device_for_a_server_of_tools(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = engine(ScriptedModel([says("hi")]), files=plain(autostart=False))
    async with service_bench(McpService(McpServiceConfig()), state=tmp_path, engine=made) as bench:
        status, _ = await asked(bench, "POST", "/mcp/{server}/start", server="files")
        assert status == 200
    assert "files is running" in caplog.text
    assert "starts on" not in caplog.text


async def test_a_task_reaches_only_an_agent_that_has_the_server(tmp_path: Path) -> None:
    made = engine(ScriptedModel([says("hi")]), files=plain(autostart=False))
    async with service_bench(state=tmp_path, engine=made) as bench:
        with pytest.raises(
            InvalidRequest, match="no agent with the model 'm' has an MCP server 'other'; there are: files"
        ):
            bench.submit(body("other"), model="m")
        assert await bench.ask(body("files"), model="m") == "hi"


async def test_a_task_whose_tools_were_called_is_not_sent_again(tmp_path: Path) -> None:
    log, failure = tmp_path / "calls", EngineFailed("the model broke down")
    model = ScriptedModel([[failure], calls(("add", {"a": 1, "b": 2})), [failure], says("again")])
    servers = {"maths": plain("--log", str(log), autostart=False)}
    async with agents_with(*[engine(model, **servers) for _ in range(3)]) as orchestrator:
        stream = orchestrator.submit(Submission("chat", "m", body("maths"), True))
        with pytest.raises(AnywireError, match="broke down"):
            await expect(stream.result(), "the task ends")
        assert len(log.read_text().splitlines()) == 1
        assert model.rounds == [says("again")], "the first attempt had called nothing, and was made again elsewhere"


@asynccontextmanager
async def agents_with(*engines: Engine) -> AsyncIterator[Orchestrator]:
    network = MemoryConfig(network=f"mcp-{uuid4()}")
    orchestrator = Orchestrator(
        hub_info(), [MemoryTransport(network)], fifo(), least_loaded(), config=PipelineConfig(), plugins=Plugins()
    )
    agents = [
        Agent(agent_info(f"agent-{number}", engine=each), each, [MemoryTransport(network)])
        for number, each in enumerate(engines)
    ]
    try:
        await orchestrator.start()
        for agent in agents:
            await agent.start()
        await expect(orchestrator.agents_until(lambda seen: len(seen) == len(agents)), "the agents have joined")
        yield orchestrator
    finally:
        await orchestrator.close()
        for agent in agents:
            await agent.close()


@pytest.mark.parametrize(
    ("told", "says"), [([5], "not understood"), ([{"server": "a", "tools": [{}]}], "it goes on after 100 results")]
)
async def test_an_agent_that_answers_nonsense_is_told_as_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any, says: str
) -> None:
    monkeypatch.setattr(agent_servers, "MAX_PIECES", 100)

    class Nonsense(McpEngine):
        def command(self, name: str, arguments: Any) -> Any:
            return self._nonsense()

        async def _nonsense(self) -> Any:
            for _ in range(1000):
                yield {"servers": told}

    made = Nonsense(McpConfig(inner={"name": "scripted_model"}))
    made.assemble(lambda name, options, where: ScriptedModel())
    async with service_bench(McpService(McpServiceConfig(events=False)), state=tmp_path, engine=made) as bench:
        _, listed = await asked(bench, "GET", "/mcp")
        assert listed["data"] == []
        assert says in listed["faults"]["agent"]
        await asyncio.sleep(0)
