"""What a chat request says of tools of MCP servers, and what the model is asked in each round."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from anywire.errors import InvalidRequest
from anywire.messages import TaskRequest
from anywire_engine_mcp.server_config import LABEL
from anywire_engine_mcp.tool_loop.functions import Place, definitions, named
from anywire_engine_mcp.tools import McpTool

MAX_LABELS = 16
"""Servers that one request may name."""
MAX_FUNCTIONS = 128
"""Functions that a model is told of; OpenAI's own limit."""
_OTHERS = {
    "server_url": "servers are those that the agent has: leave server_url out",
    "headers": "headers are set where the server is configured",
    "authorization": "keys are set where the server is configured",
    "connector_id": "there are no connectors here",
}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)


class ChatWithTools:
    """A chat request that names MCP servers. ``servers`` are their labels, each with the tools that the client allows
    (None: all). ``client_functions`` are the names of the functions that the client calls itself."""

    def __init__(
        self, members: dict[str, msgspec.Raw], servers: Mapping[str, Collection[str] | None], own: Sequence[Any]
    ) -> None:
        self.servers = servers
        self._members, self._own = members, own
        self._messages = _list(members["messages"])
        self.client_functions = {name for each in own if (name := _function_name(each))}
        self.functions: dict[str, Place] = {}
        """By the name under which the model knows it."""

    def offer(self, listed: Mapping[str, Sequence[McpTool]]) -> None:
        """Name the functions for the tools of the servers. Raises `InvalidRequest` for a tool that the client allows
        and a server has not, and when there are too many."""
        found: list[Place] = []
        for label, allowed in self.servers.items():
            tools = {each.name: each for each in listed[label]}
            for name in allowed if allowed is not None else ():
                if name not in tools:
                    known = ", ".join(list(tools)[:20]) or "none"
                    raise InvalidRequest(
                        f"the MCP server {label!r} has no tool {name!r}; it has: {known}",
                        param="tools",
                        status=400,
                    )
            found += [Place(label, each) for name, each in tools.items() if allowed is None or name in allowed]
        if len(found) + len(self._own) > MAX_FUNCTIONS:
            raise InvalidRequest(
                f"the request offers {len(found) + len(self._own)} tools, the limit is {MAX_FUNCTIONS}: name those "
                "that it needs in allowed_tools",
                param="tools",
                status=400,
            )
        self.functions = named(found, self.client_functions)

    def body(self, further: Sequence[Any], *, first: bool, last: bool) -> str:
        """What the model is asked: the client's request with its messages and ``further`` ones, and functions in place
        of MCP servers. A choice of tools that forces one counts in the first round alone; in the ``last`` one the model
        may call none."""
        members = dict(self._members)
        members["messages"] = msgspec.Raw(_encode([*self._messages, *further]))
        members["tools"] = msgspec.Raw(_encode([*self._own, *definitions(self.functions)]))
        if not self._own and not self.functions:
            del members["tools"]
            members.pop("tool_choice", None)
            members.pop("parallel_tool_calls", None)
        elif last:
            members["tool_choice"] = msgspec.Raw(b'"none"')
        elif "tool_choice" in members:
            choice = self._choice(members["tool_choice"], first)
            del members["tool_choice"]
            if choice is not None:
                members["tool_choice"] = choice
        return _encode(members).decode()

    def _choice(self, raw: msgspec.Raw, first: bool) -> msgspec.Raw | None:
        choice = _decode(raw, "tool_choice")
        if choice in (None, "auto", "none"):
            return raw
        if not first:
            return None
        if not isinstance(choice, dict) or choice.get("type") != "mcp":
            return raw
        label, tool = choice.get("server_label"), choice.get("name")
        if tool is None:
            return msgspec.Raw(b'"required"')
        for name, place in self.functions.items():
            if (place.label, place.tool.name) == (label, tool):
                return msgspec.Raw(_encode({"type": "function", "function": {"name": name}}))
        raise InvalidRequest(f"tool_choice names {label}/{tool}, which is not offered", param="tool_choice", status=400)


def read_chat(task: TaskRequest) -> ChatWithTools | None:
    """The request of a chat that names MCP servers; None for any other one. Raises `InvalidRequest` for one that names
    them wrongly."""
    if task.kind != "chat" or '"mcp"' not in task.body:
        return None
    try:
        members = _members(task.body)
        tools = [msgspec.json.decode(each) for each in _list(members["tools"])]
        _list(members["messages"])
    except (KeyError, *_MALFORMED):
        return None  # the engine says what is wrong with it
    wanted = [each for each in tools if isinstance(each, dict) and each.get("type") == "mcp"]
    if not wanted:
        return None
    if bytes(members.get("n", b"1")) not in (b"1", b"null"):
        raise InvalidRequest("a chat with MCP servers has one answer: leave n out", param="n", status=400)
    servers: dict[str, Collection[str] | None] = {}
    for number, each in enumerate(wanted):
        label, allowed = _server(each, f"tools[{number}]")
        before = servers.get(label, ())
        servers[label] = None if allowed is None or before is None else (*before, *allowed)
    if len(servers) > MAX_LABELS:
        raise InvalidRequest(
            f"the request names {len(servers)} MCP servers, the limit is {MAX_LABELS}", param="tools", status=400
        )
    return ChatWithTools(members, servers, [each for each in tools if each not in wanted])


def _server(given: Mapping[str, Any], where: str) -> tuple[str, Collection[str] | None]:
    """Label and allowed tools of a tool of type ``mcp``."""
    label = given.get("server_label")
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise InvalidRequest(f"{where}: server_label must name an MCP server of the agents", param="tools", status=400)
    for name, remedy in _OTHERS.items():
        if given.get(name) not in (None, {}, ""):
            raise InvalidRequest(f"{where}: {remedy}", param="tools", status=400)
    if given.get("require_approval") not in (None, "never"):
        raise InvalidRequest(
            f"{where}: calls are made without asking anybody: set require_approval to never, and name in allowed_tools "
            "what may be called",
            param="tools",
            status=400,
        )
    allowed = given.get("allowed_tools")
    if isinstance(allowed, dict) and set(allowed) <= {"tool_names"}:
        allowed = allowed.get("tool_names")
    if allowed is not None and not (isinstance(allowed, list) and all(isinstance(each, str) for each in allowed)):
        raise InvalidRequest(f"{where}: allowed_tools must be a list of names", param="tools", status=400)
    return label, allowed


def _function_name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _decode(raw: msgspec.Raw, param: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except _MALFORMED as error:
        raise InvalidRequest(f"{param} is no JSON: {error}", param=param, status=400) from error
