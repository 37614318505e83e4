"""An engine whose answers a test writes, round by round, and servers of tools that need no process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

import pydantic

from anywire.engine import Delta, Engine, EngineProgress, EngineStatus
from anywire.errors import InvalidRequest, UnknownCommand
from anywire.messages import TaskRequest
from anywire.offers import Offer
from anywire_engine_mcp.host import McpStatus, ToolFault
from anywire_engine_mcp.tools import McpTool, ToolResult

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}


def calls(*wanted: tuple[str, Any], text: str = "", stream: bool = True, ids: bool = True) -> list[Delta]:
    """A round in which the model calls these functions, as OpenAI's servers say it; arguments that are no text are
    JSON."""
    usage = json.dumps(USAGE)
    whole: list[dict[str, Any]] = [
        {
            "index": number,
            "id": f"id-{number}" if ids else None,
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(wanted)
    ]
    if not stream:
        message = {"role": "assistant", "content": text or None, "tool_calls": whole}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return [Delta(text, json.dumps([choice]), "tool_calls", usage)]
    deltas = [Delta(text)] if text else []
    for call in whole:
        begun = call | {"function": call["function"] | {"arguments": ""}}
        deltas.append(_piece(begun))
        middle = len(call["function"]["arguments"]) // 2
        for part in (call["function"]["arguments"][:middle], call["function"]["arguments"][middle:]):
            deltas.append(_piece({"index": call["index"], "function": {"arguments": part}}))
    return [*deltas, Delta("", "", "tool_calls", usage)]


def says(*texts: str) -> list[Delta]:
    return [*map(Delta, texts), Delta("", "", "stop", json.dumps(USAGE))]


def _piece(call: dict[str, Any]) -> Delta:
    return Delta("", json.dumps([{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]))


class NoSettings(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class ScriptedModel(Engine):
    """Answers with ``rounds``, one after the other; ``asked`` are the bodies it got. An exception among the deltas is
    raised."""

    name: ClassVar[str] = "scripted_model"
    Config = NoSettings
    capabilities = ("chat", "completion", "resume")

    def __init__(self, rounds: Sequence[Sequence[Delta | EngineProgress | Exception]] = ()) -> None:
        super().__init__(NoSettings())
        self.rounds = list(rounds)
        self.asked: list[dict[str, Any]] = []
        self.tasks: list[TaskRequest] = []
        self.closed = 0
        self.told: list[str] = []
        self._status = EngineStatus("ready", (Offer("m", features={"tools": True}), Offer("e", kinds=("embedding",))))

    async def start(self, changed: Callable[[], None]) -> None:
        self.told.append("start")

    async def close(self) -> None:
        self.closed += 1

    def status(self) -> EngineStatus:
        return self._status

    async def run(self, task: TaskRequest) -> AsyncGenerator[Delta | EngineProgress, None]:
        self.tasks.append(task)
        self.asked.append(json.loads(task.body))
        for each in self.rounds.pop(0):
            await asyncio.sleep(0)
            if isinstance(each, Exception):
                raise each
            yield each

    def command(self, name: str, arguments: Mapping[str, Any]) -> AsyncIterator[Any]:
        if name != "models.list":
            raise UnknownCommand(f"no command {name}")
        return self._list()

    async def _list(self) -> AsyncGenerator[Any, None]:
        yield {"models": []}


class Tools:
    """Servers of tools whose calls are functions of a test; ``called`` are those that were made."""

    def __init__(self, **servers: dict[str, Callable[..., Any]]) -> None:
        self.servers = servers
        self.called: list[tuple[str, str, dict[str, Any]]] = []
        self.traces: list[str] = []
        self.running = self.most = 0

    def status(self, label: str) -> McpStatus:
        if label not in self.servers:
            raise InvalidRequest(f"there is no MCP server {label!r} here", param="server_label")
        return McpStatus(label, "running")

    async def tools(self, label: str) -> tuple[McpTool, ...]:
        schema = {"type": "object", "properties": {}}
        return tuple(McpTool(name, f"The tool {name}.", schema) for name in self.servers[label])

    async def call(
        self, label: str, tool: str, arguments: Mapping[str, Any], *, timeout: float, trace: str = ""
    ) -> ToolResult:
        self.traces.append(trace)
        self.called.append((label, tool, dict(arguments)))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            result = self.servers[label][tool](**arguments)
            if asyncio.iscoroutine(result) or isinstance(result, asyncio.Future):
                async with asyncio.timeout(timeout):
                    result = await result
        except TimeoutError:
            raise ToolFault(f"the tool {tool} did not answer within {timeout:g} s") from None
        finally:
            self.running -= 1
        return result if isinstance(result, ToolResult) else ToolResult(str(result))


def chat(*labels: str, stream: bool = True, **members: Any) -> TaskRequest:
    """A chat that names these servers."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "tools": [{"type": "mcp", "server_label": label} for label in labels],
    }
    return TaskRequest("hub", "task", 1, "chat", "m", json.dumps(body | members), stream=stream)
