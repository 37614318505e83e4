"""``anywire mcp`` with agents that answer nonsense: it is shown, or said to be none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from anywire.errors import InvalidRequest
from anywire.not_understood import NotUnderstood
from anywire_engine_mcp import asked_agents, shown


class Fleet:
    """One agent, which answers every command with ``told``."""

    def __init__(self, told: Any) -> None:
        self._told = told

    async def list(self, what: str) -> list[dict[str, Any]]:
        return [{"id": "a", "engine": "mcp"}]

    async def command(
        self, agent_id: str, name: str, arguments: Mapping[str, Any], *, deadline: float = 0.0
    ) -> AsyncGenerator[Any, None]:
        yield self._told


@pytest.mark.parametrize("value", [None, 5, "x", [1], {"a": 1}, [{"server": "s", "tools": 5}]])
async def test_nonsense_of_an_agent_is_said_to_be_none(value: Any) -> None:
    tool = {"name": value, "description": value, "schema": {"properties": {"a": 1}, "required": value}}
    for told in (value, {"servers": value}, {"servers": [{"server": "s", "tools": [tool], "state": value}]}):
        shown.print_servers(await asked_agents.listed(Fleet(told), None), False)
        with suppress(NotUnderstood, InvalidRequest):
            shown.print_tools(await asked_agents.status(Fleet(told), "s", "a"), False)
        with suppress(NotUnderstood):
            shown.print_ordered("s", await asked_agents.ordered(Fleet(told), "stop", "s", "a"), False)
        with suppress(NotUnderstood):
            shown.print_result(await asked_agents.call(Fleet(told), "s", "t", {}, "a"), False)
